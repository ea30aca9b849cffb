"""Loading, quantising and saving, with real bitsandbytes and PEFT."""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from hf_finetune.errors import RecipeError
from hf_finetune.model import (
    _left_in_cgroup,
    adapter_config,
    check_adapter,
    find_base_model,
    free_memory,
    load_adapter,
    load_base_model,
    load_tokenizer,
    num_parameters,
    save_adapter,
)
from hf_finetune.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def settings(base: Path, **values: Any) -> Settings:
    return Settings(model_name_or_path=str(base), **values)


def with_adapter(base: Path, **values: Any) -> PeftModel:
    torch.manual_seed(0)
    chosen = settings(base, lora_r=4, lora_dropout=0.0, **values)
    model = load_base_model(find_base_model(chosen), chosen)
    return get_peft_model(model, adapter_config(model, chosen))


def checkpoint_of(model: PeftModel, folder: Path) -> Path:
    """What the trainer leaves of a model."""
    model.save_pretrained(folder / "checkpoint-1", save_embedding_layers=False)
    return folder / "checkpoint-1"


def gradients(model: PeftModel) -> list[torch.Tensor]:
    ids = torch.arange(3, 35)[None]
    model.train()
    model.zero_grad()
    model(input_ids=ids, labels=ids).loss.backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_the_base_is_held_in_nf4_with_double_quantisation(tiny_base: Path) -> None:
    model = load_base_model(find_base_model(settings(tiny_base)), settings(tiny_base))
    state = model.model.layers[0].self_attn.q_proj.weight.quant_state
    assert (state.quant_type, state.nested) == ("nf4", True)


def test_8_bit_and_unquantised_bases_load(tiny_base: Path) -> None:
    eight = settings(tiny_base, load_in_4bit=False, load_in_8bit=True)
    none = settings(tiny_base, load_in_4bit=False)
    assert load_base_model(find_base_model(eight), eight).is_loaded_in_8bit
    assert load_base_model(find_base_model(none), none).model.layers[0].self_attn.q_proj.weight.dtype == torch.float32


def test_gradients_are_the_same_after_an_evaluation(tiny_base: Path) -> None:
    """bitsandbytes on AVX512-BF16 repacks 4-bit weights in evaluation; without the guard this fails on such CPUs."""
    model = with_adapter(tiny_base, dtype="bfloat16")
    before = gradients(model)
    model.eval()
    with torch.inference_mode():
        model(input_ids=torch.arange(3, 35)[None])
    after = gradients(model)
    assert before
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_packed_weights_count_as_what_they_unpack_to(tiny_base: Path) -> None:
    packed, plain = with_adapter(tiny_base), with_adapter(tiny_base, load_in_4bit=False)
    assert num_parameters(packed) == num_parameters(plain) == sum(p.numel() for p in plain.parameters())


def test_a_saved_adapter_holds_two_files_and_no_path(tiny_base: Path, tmp_path: Path) -> None:
    base = find_base_model(settings(tiny_base))
    save_adapter(checkpoint_of(with_adapter(tiny_base), tmp_path), base, tmp_path / "adapter")
    assert sorted(file.name for file in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    text = (tmp_path / "adapter" / "adapter_config.json").read_text()
    assert str(tiny_base.parent) not in text
    config = json.loads(text)
    assert config["base_model_name_or_path"] == "tiny-base"
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["task_type"] == "CAUSAL_LM"


def test_a_saved_adapter_answers_the_same_when_loaded_again(tiny_base: Path, tmp_path: Path) -> None:
    model = with_adapter(tiny_base)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    base = find_base_model(settings(tiny_base))
    save_adapter(checkpoint_of(model, tmp_path), base, tmp_path / "adapter")
    again = load_adapter(load_base_model(base, settings(tiny_base)), tmp_path / "adapter")
    ids = torch.arange(3, 35)[None]
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(ids).logits, again.eval()(ids).logits, rtol=0, atol=0)


DOWN = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"
STRANGE = "base_model.model.model.layers.2.mlp.down_proj.lora_A.weight"


@pytest.fixture
def adapter(tiny_base: Path, tmp_path: Path) -> Path:
    """The folder of an adapter, saved."""
    save_adapter(
        checkpoint_of(with_adapter(tiny_base), tmp_path), find_base_model(settings(tiny_base)), tmp_path / "adapter"
    )
    return tmp_path / "adapter"


def refusal(base: Path, adapter: Path, without: Sequence[str] = (), extra: Sequence[str] = ()) -> str:
    """What is told of an adapter whose file lacks some tensors and has others."""
    file = adapter / "adapter_model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(file).items() if name not in without}
    save_file(tensors | {name: torch.zeros(4, 128) for name in extra}, file)
    with pytest.raises(RecipeError) as caught:
        load_adapter(load_base_model(find_base_model(settings(base)), settings(base)), adapter)
    return str(caught.value)


def test_an_adapter_that_lacks_a_tensor_is_refused(tiny_base: Path, adapter: Path) -> None:
    told = refusal(tiny_base, adapter, without=[DOWN])
    assert f"adapter: the adapter does not fit this base model: it lacks 1 tensor, such as {DOWN}. Load it" in told


def test_an_adapter_with_a_tensor_too_many_is_refused(tiny_base: Path, adapter: Path) -> None:
    """PEFT says nothing of one: it would be left out silently."""
    told = refusal(tiny_base, adapter, extra=[STRANGE])
    assert f"does not fit this base model: it holds 1 tensor too many, such as {STRANGE}. Load it" in told


def test_a_missing_and_an_unknown_tensor_of_an_adapter_are_both_named(tiny_base: Path, adapter: Path) -> None:
    told = refusal(tiny_base, adapter, without=[DOWN, DOWN.replace("_A", "_B")], extra=[STRANGE])
    assert f"it lacks 2 tensors, such as {DOWN}; it holds 1 tensor too many, such as {STRANGE}." in told


@pytest.mark.parametrize("values", [{}, {"use_dora": True}, {"lora_target_modules": ["q_proj"]}], ids=str)
def test_an_adapter_that_fits_is_loaded_without_a_warning(
    tiny_base: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    base = find_base_model(settings(tiny_base))
    save_adapter(checkpoint_of(with_adapter(tiny_base, **values), tmp_path), base, tmp_path / "adapter")
    model = load_base_model(base, settings(tiny_base))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_adapter(model, tmp_path / "adapter").peft_config["default"].r == 4


def test_what_peft_warns_of_an_adapter_is_heard(tiny_base: Path, adapter: Path) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"from_a_later_peft": True}))
    model = load_base_model(find_base_model(settings(tiny_base)), settings(tiny_base))
    with pytest.warns(UserWarning, match="from_a_later_peft"):
        load_adapter(model, adapter)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match=r"has no config.json, tokenizer_config.json"):
        find_base_model(settings(tmp_path / "empty"))
    with pytest.raises(RecipeError, match="no such folder"):
        find_base_model(settings(tmp_path / "none"))


@pytest.mark.parametrize("tokenizer", ["{}", "[]", '{"added_tokens": []}', '{"added_tokens": [], "model": {}}', "\0"])
def test_damaged_files_of_a_base_are_named(tmp_path: Path, tokenizer: str) -> None:
    for file in ("config.json", "tokenizer_config.json"):
        (tmp_path / file).write_text("{}")
    (tmp_path / "tokenizer.json").write_text(tokenizer)
    base = find_base_model(settings(tmp_path))
    with pytest.raises(RecipeError, match="tokenizer cannot be loaded"):
        load_tokenizer(base)
    with pytest.raises(RecipeError, match="cannot be loaded"):
        load_base_model(base, settings(tmp_path))


def test_a_layer_that_the_base_has_not_is_named_with_the_nearest(tiny_base: Path) -> None:
    with pytest.raises(RecipeError, match=r"has no layer 'q_prj'. Did you mean 'q_proj'\?"):
        with_adapter(tiny_base, lora_target_modules=["q_prj"])


def spoiled(checkpoint: Path, spoil: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    """The checkpoint with each tensor that starts at zero replaced."""
    tensors = load_file(checkpoint / "adapter_model.safetensors")
    changed = {name: spoil(t) if "lora_B" in name else t for name, t in tensors.items()}
    save_file(changed, checkpoint / "adapter_model.safetensors")
    return checkpoint


def test_an_adapter_that_was_trained_passes_and_its_values_are_counted(tiny_base: Path, tmp_path: Path) -> None:
    model = with_adapter(tiny_base)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert check_adapter(spoiled(checkpoint_of(model, tmp_path), torch.ones_like), must_differ=True) == trainable


SPOILED: list[tuple[Callable[[torch.Tensor], torch.Tensor], str]] = [
    (lambda tensor: torch.empty(0), r"14 of 28 tensors are empty, for example .*lora_B"),  # what ZeRO-3 saved once
    (lambda tensor: torch.full_like(tensor, float("nan")), "lora_B.* holds values that are no numbers"),
    (torch.zeros_like, "no tensor has changed in training"),
]


@pytest.mark.parametrize(("spoil", "what"), SPOILED)
def test_an_adapter_that_a_save_has_spoiled_is_refused(
    tiny_base: Path, tmp_path: Path, spoil: Callable[[torch.Tensor], torch.Tensor], what: str
) -> None:
    checkpoint = spoiled(checkpoint_of(with_adapter(tiny_base), tmp_path), spoil)
    with pytest.raises(RecipeError, match=f"was not saved as it was trained: .*{what}"):
        check_adapter(checkpoint, must_differ=True)


def test_an_adapter_that_was_to_learn_nothing_may_be_unchanged(tiny_base: Path, tmp_path: Path) -> None:
    assert check_adapter(checkpoint_of(with_adapter(tiny_base), tmp_path), must_differ=False)


def test_a_limit_on_a_container_is_a_limit_on_free_memory(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("1:cpu:/x\n0::/job/7\n")
    group = tmp_path / "job" / "7"
    group.mkdir(parents=True)
    assert _left_in_cgroup(tmp_path, tmp_path / "own") == []
    (group / "memory.current").write_text("1000\n")
    (group / "memory.max").write_text("max\n")
    assert _left_in_cgroup(tmp_path, tmp_path / "own") == []
    (group / "memory.max").write_text("5000\n")
    assert _left_in_cgroup(tmp_path, tmp_path / "own") == [4000]
    assert 0 < free_memory() <= psutil.virtual_memory().total
