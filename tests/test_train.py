"""A real, tiny QLoRA through TRL: what carries loss, what is kept, what stops it."""

import errno
import gc
import shutil
import weakref
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.modules.module import register_module_forward_hook
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    TrainerControl,
    TrainerState,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from conftest import sample_rows
from hf_finetune.chat import ChatFormat
from hf_finetune.checkpoints import best_of, state_of, steps_of
from hf_finetune.errors import RecipeError
from hf_finetune.files import read_json, read_jsonl, sha256
from hf_finetune.model import adapter_config, find_base_model, load_base_model, load_tokenizer
from hf_finetune.prepare import Encoded
from hf_finetune.progress import Progress, Session
from hf_finetune.run import now
from hf_finetune.settings import Settings
from hf_finetune.train import train
from hf_finetune.train.callbacks import LogFile
from hf_finetune.train.curve import draw_loss_curve
from hf_finetune.train.lost import fault_in
from hf_finetune.train.room import check_room, keeps_at_most, removed_if_refused
from hf_finetune.train.trainer import RecipeTrainer


@dataclass
class Done:
    """What a training left."""

    last: Path
    best: Path

    @property
    def state(self) -> dict[str, Any]:
        return state_of(self.last)

    @property
    def adapter(self) -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = load_file(self.best / "adapter_model.safetensors")
        return tensors


def trained(
    base: Path,
    folder: Path,
    count: int = 8,
    checkpoint: Path | None = None,
    said: list[str] | None = None,
    **values: Any,
) -> Done:
    defaults: dict[str, Any] = {"per_device_train_batch_size": 8, "logging_steps": 1, "lora_r": 4}
    settings = Settings(**({"model_name_or_path": str(base)} | defaults | values))
    found = find_base_model(settings)
    tokenizer = load_tokenizer(found)
    chat = ChatFormat.of(tokenizer)
    rows = [chat.example(row["sentence"], row["label"]) for row in sample_rows(count)]
    encoded = Encoded(rows, rows[:6], list(range(1, len(rows) + 1)), {})
    model = load_base_model(found, settings)
    folder.mkdir(exist_ok=True)
    progress = Progress(Session(now()), folder, print if said is None else said.append)
    train(model, tokenizer, encoded, adapter_config(model, settings), settings, folder, progress, checkpoint)
    last = steps_of(folder / "checkpoints")[-1]
    return Done(last, best_of(last))


def test_the_first_loss_is_the_plain_loss_over_completion_tokens(tiny_base: Path, tmp_path: Path) -> None:
    rows = sample_rows(8)
    trained(tiny_base, tmp_path, per_device_train_batch_size=len(rows), max_steps=1, lora_dropout=0.0)
    settings = Settings(model_name_or_path=str(tiny_base))
    base = find_base_model(settings)
    model, chat = load_base_model(base, settings).eval(), ChatFormat.of(load_tokenizer(base))
    losses: list[float] = []
    for row in rows:
        question, answer = chat.prompt_ids(row["sentence"]), chat.completion_ids(row["label"])
        with torch.inference_mode():
            logits = model(torch.tensor([question + answer])).logits[0].log_softmax(-1)
        losses += [-float(logits[len(question) - 1 + i, token]) for i, token in enumerate(answer)]
    first = next(line for line in read_jsonl(tmp_path / "training_log.jsonl") if "loss" in line)
    assert first["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)  # float32, other order of sums


PLAIN: dict[str, Any] = {
    "padding_free": False, "supervised_only": False, "fused_lora": False, "dequantize_once": False,
}  # fmt: skip
SHORT: dict[str, Any] = {"max_steps": 6, "lora_dropout": 0.0, "learning_rate": 1e-2}
ONE_GAIN: dict[str, dict[str, Any]] = {
    "none": {},
    "padding_free": {"padding_free": True, "shared_prefix": False},
    "shared_prefix": {"padding_free": True},
    "supervised_only": {"supervised_only": True},
    "fused_lora": {"fused_lora": True},
    "dequantize_once": {"dequantize_once": True},
    "all": {"padding_free": True, "supervised_only": True, "fused_lora": True, "dequantize_once": True},
    "all, in batches added up": {
        "padding_free": True, "supervised_only": True, "fused_lora": True, "dequantize_once": True,
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4,
    },
    "all, computed again": {"gradient_checkpointing": True} | dict.fromkeys(PLAIN, True),
    "all, with DoRA": {"use_dora": True} | dict.fromkeys(PLAIN, True),
}  # fmt: skip


@pytest.fixture(scope="module")
def plain_runs(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, tuple[list[float], Done]]:
    """Losses and adapter of TRL's own computation, without and with DoRA."""
    runs = {}
    for use_dora in (False, True):
        folder = tmp_path_factory.mktemp("plain")
        done = trained(tiny_base, folder, use_dora=use_dora, **PLAIN, **SHORT)
        runs[use_dora] = losses_of(folder), done
    return runs


def losses_of(folder: Path) -> list[float]:
    return [line["loss"] for line in read_jsonl(folder / "training_log.jsonl") if "loss" in line]


@pytest.mark.parametrize("gain", ONE_GAIN)
def test_each_gain_trains_what_the_plain_computation_trains(
    tiny_base: Path, tmp_path: Path, plain_runs: dict[bool, tuple[list[float], Done]], gain: str
) -> None:
    losses, plain = plain_runs["DoRA" in gain]
    said: list[str] = []
    done = trained(tiny_base, tmp_path, said=said, **PLAIN | SHORT | ONE_GAIN[gain])
    assert not any("is off" in line for line in said)
    # float32 sums in another order, which AdamW's division by the second moment makes larger in the first steps
    assert losses_of(tmp_path) == pytest.approx(losses, rel=1e-5)
    for name, tensor in plain.adapter.items():
        torch.testing.assert_close(done.adapter[name], tensor, rtol=0, atol=1e-3 * float(tensor.abs().max()))


def test_a_base_that_cannot_take_packed_batches_is_trained_on_padded_ones_and_that_is_told(
    tiny_base: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    config = FalconConfig(vocab_size=512, hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
    FalconForCausalLM(config).save_pretrained(base)
    said: list[str] = []
    trained(base, tmp_path / "run", said=said, **SHORT)
    told = [line for line in said if "is off" in line]
    assert told == ["padding_free is off: FalconForCausalLM takes no other attention."]
    trained(base, tmp_path / "plain", **SHORT | PLAIN)
    assert losses_of(tmp_path / "run") == pytest.approx(losses_of(tmp_path / "plain"), rel=1e-5)


def test_noise_that_is_scaled_by_the_length_of_a_row_is_not_given_packed_rows(tiny_base: Path, tmp_path: Path) -> None:
    said: list[str] = []
    trained(tiny_base, tmp_path, said=said, neftune_noise_alpha=5.0, **SHORT)
    told = [line for line in said if "is off" in line]
    assert told == ["padding_free is off: neftune_noise_alpha scales its noise by the length of a row."]


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning")
def test_experts_are_balanced_as_in_the_plain_computation(tiny_base: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=512, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, output_router_logits=True, router_aux_loss_coef=0.5,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(base)
    said: list[str] = []
    values = SHORT | {"load_in_4bit": False}
    trained(base, tmp_path / "plain", **values | PLAIN)
    trained(base, tmp_path / "run", said=said, **values)
    assert losses_of(tmp_path / "run") == pytest.approx(losses_of(tmp_path / "plain"), rel=1e-5)
    told = sorted(line for line in said if "is off" in line)
    why = "the loss that balances its experts is over all tokens of a batch"
    assert told == [f"padding_free is off: {why}.", f"supervised_only is off: {why}."]


@pytest.mark.parametrize(("free", "layers", "computed"), [(10**5, "all layers", 4), (10**10, "no layer", 2)])
def test_activations_are_computed_again_only_where_they_do_not_fit(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, layers: str, computed: int
) -> None:
    ran: list[str] = []
    step = RecipeTrainer.training_step

    def watched_step(self: RecipeTrainer, *args: Any, **options: Any) -> torch.Tensor:
        hook = register_module_forward_hook(lambda module, *_: ran.append(type(module).__name__))
        loss = step(self, *args, **options)
        hook.remove()
        return loss

    monkeypatch.setattr("hf_finetune.train.gains.free_memory", lambda: free)
    monkeypatch.setattr(RecipeTrainer, "training_step", watched_step)
    trained(tiny_base, tmp_path, **SHORT | {"max_steps": 1})
    assert ran.count("LlamaAttention") == computed  # each of two layers, and some once more in the backward pass
    assert read_json(tmp_path / "progress.json")["gains"]["gradient_checkpointing"] == layers


@pytest.mark.parametrize(
    ("refused", "kept"),
    [(0, [False] * 6), (1, [True, False, False, False, True, False]), (2, [True, False] * 3), (3, [True] * 6)],
)
def test_as_few_layers_as_possible_compute_their_activations_again(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int, kept: list[bool]
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    config = LlamaConfig(vocab_size=512, hidden_size=64, num_hidden_layers=6, num_attention_heads=4)
    LlamaForCausalLM(config).save_pretrained(base)
    answers = iter([False] * refused + [True])
    monkeypatch.setattr("hf_finetune.train.gains.keeps_at_most", lambda *_: next(answers))
    seen: list[list[bool]] = []
    step = RecipeTrainer.training_step

    def watched_step(self: RecipeTrainer, *args: Any, **options: Any) -> torch.Tensor:
        layers = [module for module in self.model.modules() if isinstance(module, GradientCheckpointingLayer)]
        seen.append([bool(layer.gradient_checkpointing) for layer in layers])
        return step(self, *args, **options)

    monkeypatch.setattr(RecipeTrainer, "training_step", watched_step)
    trained(base, tmp_path / "run", **SHORT | {"max_steps": 1})
    assert seen == [kept]


def test_rows_that_belong_together_are_trained_together_when_asked(tiny_base: Path, tmp_path: Path) -> None:
    few = SHORT | {"per_device_train_batch_size": 2, "max_steps": 4}
    trained(tiny_base, tmp_path / "random", **few)
    trained(tiny_base, tmp_path / "grouped", group_by="length", **few)
    assert losses_of(tmp_path / "grouped") != losses_of(tmp_path / "random")


def test_the_memory_that_a_forward_pass_keeps_is_counted() -> None:
    layer = torch.nn.Linear(10, 10, bias=False)
    x = torch.ones(7, 10)

    def two_layers() -> torch.Tensor:
        return layer(layer(x)).exp().sum()  # type: ignore[no-any-return]

    assert keeps_at_most(3 * x.nbytes, layer, two_layers)
    assert not keeps_at_most(3 * x.nbytes - 1, layer, two_layers)
    with torch.no_grad():
        assert keeps_at_most(0, layer, two_layers)


def test_a_finished_training_leaves_no_model_in_memory(tiny_base: Path, tmp_path: Path) -> None:
    def models() -> int:
        gc.collect()
        return sum(type(thing) is LlamaForCausalLM for thing in gc.get_objects())

    before = models()
    trained(tiny_base, tmp_path, **SHORT)
    assert models() == before


def test_what_was_kept_to_be_counted_is_freed() -> None:
    layer = torch.nn.Linear(10, 10)
    kept: list[Any] = []

    def forward() -> torch.Tensor:
        result = layer(torch.ones(7, 10)).exp()  # exp saves its own result
        kept.append(weakref.ref(result))
        return result.sum()  # type: ignore[no-any-return]

    assert keeps_at_most(10**6, layer, forward)
    gc.collect()
    assert kept[0]() is None


def test_a_run_learns_easy_rows_and_keeps_its_best_step(tiny_base: Path, tmp_path: Path) -> None:
    result = trained(tiny_base, tmp_path, num_train_epochs=4, learning_rate=1e-2)
    log = read_jsonl(tmp_path / "training_log.jsonl")
    losses = {line["step"]: line["eval_loss"] for line in log if "eval_loss" in line}
    assert len(losses) == 4
    assert result.state["best_global_step"] == min(losses, key=losses.__getitem__)
    assert result.state["best_metric"] == min(losses.values())
    assert result.best.name == f"checkpoint-{result.state['best_global_step']}"


def test_a_single_step_is_no_warm_up_step_and_so_learns(tiny_base: Path, tmp_path: Path) -> None:
    result = trained(tiny_base, tmp_path, count=2, num_train_epochs=1, warmup_steps=0.1)
    assert result.state["global_step"] == 1
    assert any(tensor.any() for name, tensor in result.adapter.items() if "lora_B" in name)


def test_adapters_are_trained_in_float32(tiny_base: Path, tmp_path: Path) -> None:
    adapter = trained(tiny_base, tmp_path, max_steps=1, dtype="bfloat16").adapter
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}


def test_two_runs_are_bit_identical(tiny_base: Path, tmp_path: Path) -> None:
    one, two = (
        trained(tiny_base, tmp_path / name, num_train_epochs=2, lora_dropout=0.1).best / "adapter_model.safetensors"
        for name in ("one", "two")
    )
    assert sha256(one) == sha256(two)


def test_the_last_step_is_evaluated_also_where_no_evaluation_is_due(tiny_base: Path, tmp_path: Path) -> None:
    result = trained(tiny_base, tmp_path, max_steps=5, eval_strategy="steps", eval_steps=3)
    log = read_jsonl(tmp_path / "training_log.jsonl")
    assert [line["step"] for line in log if "eval_loss" in line] == [3, 5]
    assert result.last.name == "checkpoint-5"


def test_early_stopping_ends_a_run_that_gets_worse(tiny_base: Path, tmp_path: Path) -> None:
    result = trained(tiny_base, tmp_path, num_train_epochs=20, learning_rate=3.0, early_stopping_patience=1)
    assert result.state["epoch"] < 20


def test_a_loss_that_is_no_number_stops_the_run(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"at step \d+ \(lines [\d, ]+.*so the model is lost.*lower learning_rate"):
        trained(tiny_base, tmp_path, num_train_epochs=20, learning_rate=1e30, max_grad_norm=0.0)


NAN, INFINITE = float("nan"), float("inf")
LINES: list[tuple[dict[str, float], float, bool, str | None]] = [
    ({"loss": 2.0, "grad_norm": 1.0}, 1.0, False, None),
    ({"loss": 6.5}, 6.0, False, None),  # ln(512) is 6.24: a model that has learned nothing yet
    ({"loss": 6.5}, 1.5, False, "the loss is 6.50, worse than blind guessing, and was 1.50"),
    ({"loss": NAN}, 1.0, True, "loss is nan"),
    ({"eval_loss": NAN}, 1.0, False, "eval_loss is nan"),
    ({"loss": 1.0, "grad_norm": INFINITE}, 1.0, False, "grad_norm is inf"),
    ({"loss": 1.0, "grad_norm": INFINITE}, 1.0, True, None),  # float16: the step is left out and the scale lowered
]


@pytest.mark.parametrize(("logs", "lowest", "is_float16", "fault"), LINES)
def test_a_loss_that_is_no_number_or_has_exploded_is_a_fault(
    logs: dict[str, float], lowest: float, is_float16: bool, fault: str | None
) -> None:
    assert fault_in(logs, lowest, 512, is_float16) == fault


def test_a_lost_training_names_what_is_left(tiny_base: Path, tmp_path: Path) -> None:
    first = trained(tiny_base, tmp_path, max_steps=3).last
    tensors = load_file(first / "adapter_model.safetensors")
    lost = {name: torch.full_like(tensor, float("nan")) for name, tensor in tensors.items()}
    save_file(lost, first / "adapter_model.safetensors")
    with pytest.raises(RecipeError, match=r"at step 4 \(.*checkpoint-3 is from before that\. Start"):
        trained(tiny_base, tmp_path, checkpoint=first, max_steps=9)
    assert [checkpoint.name for checkpoint in steps_of(tmp_path / "checkpoints")] == ["checkpoint-3"]


OTHER_FORMS: list[dict[str, Any]] = [
    {"use_dora": True},
    {"use_rslora": True},
    {"gradient_checkpointing": True},
    {"load_in_4bit": False, "load_in_8bit": True},
    {"load_in_4bit": False},
    {"lora_target_modules": ["q_proj", "v_proj"]},
    {"optim": "adamw_8bit"},
]


@pytest.mark.parametrize("values", OTHER_FORMS, ids=str)
def test_the_other_forms_train_too(tiny_base: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    result = trained(tiny_base, tmp_path, max_steps=2, **values)
    assert result.state["global_step"] == 2


def test_the_loss_curve_is_a_picture(tiny_base: Path, tmp_path: Path) -> None:
    trained(tiny_base, tmp_path, max_steps=2)
    draw_loss_curve(tmp_path / "training_log.jsonl", tmp_path / "loss_curve.png")
    assert (tmp_path / "loss_curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_log_leaves_out_an_overflowing_gradient_and_what_comes_after_the_last_step(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 6, "loss": 1.5}\n{"step": 7, "loss": 1.25}\n{"step": 8, "loss": 1.0}\n{"step": 9, "lo')
    log = LogFile(path, last_step=7)
    logs = {"grad_norm": float("inf"), "loss": 1.0}  # float16: its step is left out and the scale lowered
    log.on_log(SimpleNamespace(), TrainerState(global_step=8, epoch=1.0), TrainerControl(), logs=logs)
    lines = [{"step": 6, "loss": 1.5}, {"step": 7, "loss": 1.25}, {"step": 8, "epoch": 1.0, "loss": 1.0}]
    assert read_jsonl(path) == lines


def test_a_disk_without_room_for_the_checkpoints_is_told_before_the_first_step(tmp_path: Path) -> None:
    check_room(tmp_path, 2**20, 2)
    with pytest.raises(RecipeError, match=r"4,194,304 MiB are needed for 4 checkpoints, and [\d,]+ MiB"):
        check_room(tmp_path, 2**40, 2)


REFUSALS: list[Exception] = [
    OSError(errno.EROFS, "Read-only file system"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    RecipeError("sealed.json: cannot be written"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
def test_a_checkpoint_that_the_disk_refuses_is_removed_and_the_one_before_stays(
    tmp_path: Path, refusal: Exception
) -> None:
    if isinstance(refusal, RecipeError):
        refusal.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    for step in (3, 6):
        (tmp_path / f"checkpoint-{step}").mkdir()
    said = r"checkpoint-6: cannot be written: .*It needs about 2 MiB, [\d,]+ MiB are free.*start the same command again"
    with pytest.raises(RecipeError, match=said), removed_if_refused(tmp_path / "checkpoint-6", 2 * 2**20):
        raise refusal
    assert [checkpoint.name for checkpoint in tmp_path.iterdir()] == ["checkpoint-3"]


def test_a_fault_that_is_not_the_disks_keeps_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), removed_if_refused(tmp_path / "checkpoint-6", 1):
        raise RuntimeError("shapes do not match")
