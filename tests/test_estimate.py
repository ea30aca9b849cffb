"""What a run takes: published landmarks, parts held against real layers, and the command with good and bad words."""

import json
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from conftest import make_base, run_cli, sample_rows, write_rows
from hf_finetune.errors import RecipeError
from hf_finetune.estimate import CPU, Estimate, Shape, assumed_lengths, estimate, find_gpus, shape_of, shape_of_config
from hf_finetune.estimate.fit import Estimator
from hf_finetune.estimate.gpus import gpu_of_device, known_gpus
from hf_finetune.estimate.memory import GIB, quantized_bytes, weights_bytes
from hf_finetune.estimate.methods import adapter_parameters
from hf_finetune.estimate.words import suggestion
from hf_finetune.model import find_base_model
from hf_finetune.settings import Settings

SIZES: dict[str, dict[str, Any]] = {
    # config.json of meta-llama/Llama-2-7b-hf, Llama-2-70b-hf, Llama-3.1-8B and Llama-3.2-1B
    "Llama-2-7B": {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32,
    },
    "Llama-2-70B": {
        "vocab_size": 32000, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8,
    },
    "Llama-3.1-8B": {
        "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8,
    },
    "Llama-3.2-1B": {
        "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True,
    },
}  # fmt: skip


@cache
def shape(name: str) -> Shape:
    from transformers import LlamaConfig

    return shape_of_config(LlamaConfig(**SIZES[name]), name)


@cache
def gemma() -> Shape:
    """google/gemma-3-1b-it, by its config.json."""
    from transformers import Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=262144, hidden_size=1152, intermediate_size=6912, num_hidden_layers=26, num_attention_heads=4,
        num_key_value_heads=1, head_dim=256, sliding_window=512,
    )  # fmt: skip
    return shape_of_config(config, "gemma-3-1b")


@cache
def qwen() -> Shape:
    """Qwen/Qwen2.5-1.5B-Instruct, by its config.json."""
    from transformers import Qwen2Config

    config = Qwen2Config(
        vocab_size=151936, hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    return shape_of_config(config, "Qwen2.5-1.5B")


ESTIMATORS: dict[str, Estimator] = {}
"""Counting steps takes seconds, so that each is done once."""


def on(name: str, shape: Shape, method: str = "qlora", num_gpus: int = 1, **values: Any) -> Estimate:
    """What a training takes there, with short evaluations and rows of 512 tokens if nothing else is said."""
    settings = Settings(**{"few_shot": 0, "per_device_eval_batch_size": 1, "max_length": 512, **values})
    key = f"{shape.name} {settings}"
    if key not in ESTIMATORS:
        ESTIMATORS[key] = Estimator(shape, settings, assumed_lengths(settings))
    return ESTIMATORS[key].estimate(find_gpus([name])[0], num_gpus, method)


@pytest.mark.parametrize(
    ("shape_name", "billions"),
    # As their model cards and reports count them: 6.74, 68.98, 8.03 and 1.24 billion.
    [("Llama-2-7B", 6.738), ("Llama-2-70B", 68.977), ("Llama-3.1-8B", 8.030), ("Llama-3.2-1B", 1.236)],
)
def test_parameters_are_counted_as_published(shape_name: str, billions: float) -> None:
    assert shape(shape_name).num_parameters / 1e9 == pytest.approx(billions, abs=0.001)


def test_tied_embeddings_count_once() -> None:
    assert qwen().num_parameters == 1_543_714_304  # what its safetensors on the Hub hold
    assert qwen().is_tied
    assert gemma().num_parameters == 999_885_952  # as its card on the Hub says
    assert not shape("Llama-2-7B").is_tied


def test_rank_16_on_a_square_of_4096_is_131_072_parameters() -> None:
    # arXiv:2106.09685, section 4.1: r (d + k)
    one = replace(shape("Llama-2-7B"), linears=shape("Llama-2-7B").linears[:1])
    assert (one.linears[0].inputs, one.linears[0].outputs) == (4096, 4096)
    assert adapter_parameters(one, Settings(lora_r=16)) == 131_072


def test_7b_in_half_precision_is_14_gb_and_in_nf4_between_3_5_and_4() -> None:
    # arXiv:2305.14314, section 3: 4.127 bits a parameter with double quantisation, 4.5 without
    seven = shape("Llama-2-7B")
    assert weights_bytes(seven, Settings(), "lora", 2) / 1e9 == pytest.approx(14, abs=0.6)
    assert 3.5 <= weights_bytes(seven, Settings(), "qlora", 2) / 1e9 <= 4
    assert 8 * quantized_bytes(seven, Settings()) / seven.quantized_parameters == pytest.approx(4.127, abs=1e-3)
    plain = Settings(use_bnb_nested_quant=False)
    assert 8 * quantized_bytes(seven, plain) / seven.quantized_parameters == pytest.approx(4.5, abs=1e-3)


def test_full_fine_tuning_of_7b_with_adam_needs_84_to_112_gb() -> None:
    # 12 to 16 bytes a parameter: arXiv:1910.02054, section 3.1
    memory = on("H200", shape("Llama-2-7B"), "full", per_device_train_batch_size=1, gradient_checkpointing=True).memory
    states = memory.weights + memory.adapter + memory.gradients + memory.optimizer
    assert 84 <= states * GIB / 1e9 <= 112


def test_a_qlora_of_70b_fits_one_card_of_48_gb() -> None:
    # arXiv:2305.14314, abstract: a model of 65 billion parameters on a single GPU of 48 GB
    found = on("L40S", shape("Llama-2-70B"), per_device_train_batch_size=1)
    assert found.fits
    assert found.checkpointed == "all layers"
    assert not on("L40S", shape("Llama-2-70B"), "lora", per_device_train_batch_size=1).fits


@pytest.mark.parametrize("model", [gemma, lambda: shape("Llama-3.2-1B")])
def test_a_qlora_of_1b_fits_a_t4(model: Any) -> None:
    # Google's guide "Fine-Tune Gemma using Hugging Face Transformers and QLoRA": 1b on a T4 with 16 GB
    found = on("T4", model(), per_device_train_batch_size=4)
    assert found.fits
    assert found.largest_batch >= 4


def test_4_bit_layers_take_the_bytes_that_bitsandbytes_takes(tmp_path: Path) -> None:
    import bitsandbytes as bnb

    from hf_finetune.model import load_base_model

    settings = Settings(model_name_or_path=str(make_base(tmp_path)))
    base = find_base_model(settings)
    layers = [layer for layer in load_base_model(base, settings).modules() if isinstance(layer, bnb.nn.Linear4bit)]
    taken = 0
    for layer in layers:
        state = layer.weight.quant_state
        parts = (layer.weight, state.absmax, state.state2.absmax, state.offset)
        taken += sum(int(part.numel() * part.element_size()) for part in parts)
    found = shape_of(base)
    assert len(layers) == sum(layer.is_quantized for layer in found.linears) > 0
    assert quantized_bytes(found, settings) == taken


@pytest.mark.parametrize("values", [{}, {"lora_target_modules": "q_proj,v_proj", "lora_r": 8}, {"use_dora": True}])
def test_an_adapter_has_the_parameters_that_peft_gives_it(tiny_base: Path, values: dict[str, Any]) -> None:
    from peft import get_peft_model

    from hf_finetune.model import adapter_config, load_base_model

    settings = Settings(model_name_or_path=str(tiny_base), load_in_4bit=False, **values)
    base = find_base_model(settings)
    model = load_base_model(base, settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT 0.21 asks transformers 5 by an attribute's old name
        adapted = get_peft_model(model, adapter_config(model, settings))
    trainable = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert adapter_parameters(shape_of(base), settings) == trainable


def test_a_layer_that_the_base_lacks_is_refused() -> None:
    with pytest.raises(RecipeError, match="lora_target_modules: the base has no layer c_attn"):
        adapter_parameters(qwen(), Settings(lora_target_modules=["c_attn"]))


def test_more_rows_and_fewer_layers_run_again_take_more_memory() -> None:
    settings = Settings(max_length=256, few_shot=0)
    counter = Estimator(qwen(), settings, assumed_lengths(settings)).counter
    import torch

    from hf_finetune.estimate.steps import Kind

    kind = Kind(torch.bfloat16, False, "flash", True, True)
    peaks = [counter.steps(kind, 16).step(every).peak for every in (0, 4, 2, 1)]
    assert peaks == sorted(peaks, reverse=True)
    assert counter.steps(kind, 16).step(1).flops > 1.2 * counter.steps(kind, 16).step(0).flops
    sizes = [counter.steps(kind, size).step(0).peak for size in (1, 2, 8, 16, 32)]
    assert sizes == sorted(sizes)
    assert counter.untraceable == {}


@pytest.mark.parametrize("is_full", [False, True])
def test_a_step_takes_the_same_whatever_was_traced_before_it(is_full: bool) -> None:
    """Checkpointing has a model's embeddings give gradients, which it goes on with when it is switched off."""
    import torch

    from hf_finetune.estimate.steps import Kind

    settings = Settings(max_length=64, few_shot=0)
    kind = Kind(torch.bfloat16, is_full, "flash", True, not is_full)
    counters = [Estimator(qwen(), settings, assumed_lengths(settings)).counter for _ in range(2)]
    counters[1].steps(kind, 2).step(1)
    steps = [counter.steps(kind, 16) for counter in counters]
    assert steps[0].step(0) == steps[1].step(0)
    assert steps[0].step(4) == steps[1].step(4)


def test_heads_without_groups_take_the_same_on_a_gpu_without_flash_attention() -> None:
    settings = Settings(max_length=64, few_shot=0, per_device_train_batch_size=4)
    seven, eight = (
        Estimator(shape(name), settings, assumed_lengths(settings)) for name in ("Llama-2-7B", "Llama-3.1-8B")
    )
    for estimator in (seven, eight):
        for name in ("T4", "A10G"):
            estimator.estimate(find_gpus([name])[0], 1, "qlora")
    kinds = [{kind.attention for kind, _ in estimator.counter._traced} for estimator in (seven, eight)]
    assert kinds == [{"flash"}, {"flash", "efficient"}]


def test_the_operations_of_a_step_are_those_of_the_formula() -> None:
    # Forward and, as the base is frozen, the gradients of activations alone: 4 operations a parameter and token.
    settings = Settings(max_length=128, lora_r=1, shared_prefix=False, few_shot=0)
    lengths = assumed_lengths(settings)
    counter = Estimator(shape("Llama-2-7B"), settings, lengths).counter
    import torch

    from hf_finetune.estimate.steps import Kind

    steps = counter.steps(Kind(torch.bfloat16, False, "flash", True, True), 16)
    expected = 4.0 * shape("Llama-2-7B").quantized_parameters * steps.num_tokens
    assert steps.step(0).flops == pytest.approx(expected, rel=0.05)


def test_an_architecture_that_cannot_be_traced_is_estimated_by_formula_and_told() -> None:
    from transformers import MixtralConfig

    config = MixtralConfig(hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4)
    settings = Settings(few_shot=0)
    estimator = Estimator(shape_of_config(config, "mixture"), settings, assumed_lengths(settings))
    found = estimator.estimate(find_gpus(["L4"])[0], 1, "qlora")
    assert found.fits
    assert len(estimator.counter.untraceable) == 1


def test_several_gpus_share_a_base_that_fits_none_of_them() -> None:
    large = shape("Llama-3.1-8B")
    alone, two, eight = (
        on("A100-40", large, "full", number, per_device_train_batch_size=1) for number in (1, 2, 8)
    )  # fmt: skip
    assert (alone.fits, two.fits, eight.fits, eight.sharing) == (False, False, True, "fsdp")
    one, both = (on("A100-40", large, "qlora", number, per_device_train_batch_size=1) for number in (1, 2))
    assert (both.fits, both.sharing) == (True, "ddp")
    assert both.steps < one.steps


def test_a_batch_that_does_not_fit_is_halved_with_as_many_rows_a_step() -> None:
    settings = Settings(few_shot=0, per_device_train_batch_size=64, max_length=1024, per_device_eval_batch_size=64)
    found = estimate(shape("Llama-2-7B"), settings, assumed_lengths(settings), find_gpus(["T4"])[0])
    assert found.fits
    assert found.batch < 64
    assert found.batch * found.accumulation == 64
    assert found.evaluation_batch < 64
    line = suggestion([found], settings, "qlora")
    assert line.startswith(f"fits a T4 with batch {found.batch}: ")
    assert f"per_device_train_batch_size={found.batch} gradient_accumulation_steps={found.accumulation}" in line
    assert f"per_device_eval_batch_size={found.evaluation_batch}" in line


def test_the_parts_add_up_to_the_peak_and_are_in_the_json() -> None:
    found = on("L4", qwen())
    told = found.as_json()
    parts = {name: value for name, value in told["memory"].items() if name != "evaluation"}
    assert sum(parts.values()) == pytest.approx(found.memory.training, abs=0.01)
    assert told["peak_gib"] == pytest.approx(max(found.memory.training, found.memory.evaluation), abs=0.001)
    json.dumps(told)


def test_dequantised_layers_are_held_where_a_quarter_of_the_room_is_enough() -> None:
    small, large = on("T4", qwen()), on("H200", shape("Llama-3.1-8B"), per_device_train_batch_size=1)
    assert small.is_dequantized
    assert large.is_dequantized
    assert large.memory.weights == pytest.approx(2 * shape("Llama-3.1-8B").num_parameters / GIB)
    tight = on("T4", shape("Llama-3.1-8B"), per_device_train_batch_size=1)
    assert not tight.is_dequantized
    assert tight.memory.weights < 7


def test_every_gpu_of_the_file_is_whole_and_has_a_source() -> None:
    told = json.loads((Path(__file__).parent.parent / "hf_finetune/estimate/gpus.json").read_text(encoding="utf-8"))
    assert len(known_gpus()) == len(told["gpus"]) >= 10
    for entry in told["gpus"]:
        assert entry["sheet"].startswith("https://")
        assert entry["price_of"] in told["sources"]
    for gpu in known_gpus():
        assert gpu.price(1)
        assert 10 < gpu.memory_gib < 200


def test_a_number_of_gpus_that_no_machine_has_is_priced_by_several_or_a_larger_one() -> None:
    (card,) = find_gpus(["L4"])
    assert (card.price(1), card.price(2), card.price(4), card.price(8)) == (0.80, 1.60, 3.80, 6.40)
    assert replace(card, usd_an_hour=((4, 3.0),)).price(2) == 3.0
    assert CPU.price(1) is None


@pytest.mark.parametrize(("name", "found"), [("a100", "A100-80"), ("Nvidia T4", "T4"), ("rtx 4090", "RTX4090")])
def test_gpus_are_found_by_the_names_people_write(name: str, found: str) -> None:
    assert find_gpus([name])[0].name == found


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Tesla T4", "T4"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L40", None),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA A10", None),
        ("NVIDIA A100-SXM4-40GB", "A100-40"),
        ("NVIDIA A100-SXM4-80GB", "A100-80"),
        ("NVIDIA A100 80GB PCIe", "A100-80"),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA B200", "B200"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", None),
        ("NVIDIA RTX 6000 Ada Generation", None),
        ("Quadro RTX 6000", None),
    ],
)
def test_a_device_is_the_gpu_of_its_own_name_and_none_of_a_like_one(name: str, found: str | None) -> None:
    gpu = gpu_of_device(name)
    assert (gpu.name if gpu else None) == found


def test_an_unknown_gpu_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError) as error:
        find_gpus(["H20O"])
    assert str(error.value) == "--gpu H20O: no GPU of that name is known. Did you mean 'H200'?"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows and a base."""
    folder = tmp_path_factory.mktemp("here")
    make_base(folder / "base")
    write_rows(folder / "rows.jsonl", sample_rows(40))
    return folder


def told(here: Path, *words: str) -> tuple[int, str, str]:
    done = run_cli("estimate", "finsent", "--data", "rows.jsonl", *words, cwd=here)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_the_command_counts_the_rows_and_suggests_the_cheapest(here: Path) -> None:
    code, out, errors = told(here, "--gpu", "T4,H200", "model_name_or_path=base")
    assert code == 0, errors
    assert "lengths   120 rows counted" in out
    assert "prices    prices of 20" in out
    assert out.splitlines()[-1].startswith("suggest   fits a T4 with batch 16: ")
    assert len([line for line in out.splitlines() if line.startswith(("T4 ", "H200 "))]) == 6


@pytest.mark.slow
def test_the_command_prints_json_for_programs_and_says_what_is_assumed(here: Path) -> None:
    words = ("--gpu", "L4", "--method", "qlora", "--json", "--rows", "5000", "--tokens", "64")
    code, out, errors = told(here, *words, "model_name_or_path=base")
    assert code == 0, errors
    found = json.loads(out)
    assert 100_000 < found["parameters"] < 200_000
    assert (found["best"]["gpu"], found["best"]["method"], found["best"]["fits"]) == ("L4", "qlora", True)
    assert found["train_tokens"] == 5000 * 0.8 * 64
    assert found["lengths"].startswith("assumed: 5,000 rows of 64 tokens (as given)")


def test_rows_that_are_not_on_this_machine_are_taken_to_be_like_the_sample_rows(here: Path) -> None:
    from hf_finetune.cli.estimate import _lengths
    from hf_finetune.recipe import load_recipe

    recipe = load_recipe("finsent")
    settings = Settings(model_name_or_path=str(here / "base"))
    base = find_base_model(settings)
    sampled = _lengths(recipe, recipe.dataset, settings, base, False, (None, None))
    assert sampled.told.startswith("assumed: 1,000 rows like the sample rows of the recipe (792 rows counted")
    assert sampled.told.endswith("--download reads it, --rows N says how many")
    assert sampled.num_rows == 800
    told_so = _lengths(recipe, recipe.dataset, settings, base, False, (3_000, None))
    assert told_so.num_rows == 2_400
    assert told_so.train_tokens == pytest.approx(3 * sampled.train_tokens, rel=0.01)


def unknown_architecture(base: Path) -> None:
    (base / "config.json").write_text('{"model_type": "nosuchmodel"}')


def no_text(base: Path) -> None:
    (base / "config.json").write_text('{"model_type": "vit"}')


def odd_numbers(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"hidden_size": "wide"}))


def not_json(base: Path) -> None:
    (base / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (unknown_architecture, "its architecture is not known to the transformers that is installed"),
        (no_text, "it is no causal language model"),
        (odd_numbers, "no model can be built of its config.json"),
        (not_json, "no model can be built of its config.json"),
    ],
)
def test_a_base_that_cannot_be_built_is_told_in_a_sentence(tmp_path: Path, spoil: Any, why: str) -> None:
    spoil(make_base(tmp_path / "base"))
    settings = Settings(model_name_or_path=str(tmp_path / "base"))
    with pytest.raises(RecipeError) as error:
        shape_of(find_base_model(settings))
    assert str(error.value).startswith(f"base model 'base': {why}")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--gpu", "H10"), "error: --gpu H10: no GPU of that name is known. Did you mean 'H100'?\n"),
        (("--method", "qlorra"), "error: --method qlorra: there is no such method. Did you mean 'qlora'?\n"),
        (("lora_rr=3",), "error: command line: no setting is called 'lora_rr'. Did you mean 'lora_r'?\n"),
        (
            ("model_name_or_path=./nothing",),
            "error: base model './nothing': there is no such folder. Check model_name_or_path.\n",
        ),
    ],
)
def test_a_mistake_ends_with_one_sentence(here: Path, words: tuple[str, ...], error: str) -> None:
    code, _, errors = told(here, *words)
    assert (code, errors) == (1, error)
