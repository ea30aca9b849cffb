"""Merged weights: the model that was evaluated, in files that every version of transformers reads alike."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from hf_finetune.cli.merge import in_bytes, merge
from hf_finetune.cli.verify import verify
from hf_finetune.errors import RecipeError
from hf_finetune.files import read_json, write_json
from hf_finetune.model import adapter_config, find_base_model, load_base_model
from hf_finetune.settings import Settings
from hf_finetune.ship.merged_weights import Way, write_merged
from hf_finetune.ship.readable import make_readable

# PEFT 0.21 still asks transformers 5 by the attribute's old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
IDS = torch.arange(40)[None]


def trained(base: Path, folder: Path, config: LoraConfig | None = None, **values: Any) -> tuple[Settings, torch.Tensor]:
    """Leaves an adapter with large random weights in `folder`; its settings, and its logits on the quantised base."""
    settings = Settings(model_name_or_path=str(base), lora_dropout=0.0, **values)
    model = load_base_model(find_base_model(settings), settings)
    torch.manual_seed(1)
    with_adapter: Any = get_peft_model(model, config or adapter_config(model, settings))
    for name, parameter in with_adapter.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.05)
        elif "magnitude" in name:
            parameter.data *= 1.1
    with_adapter.save_pretrained(folder)
    return settings, logits(with_adapter)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(IDS).logits.float()
    return found


def merged(settings: Settings, adapter: Path, folder: Path, way: Way = "dequantised", shard: int = 10**9) -> Any:
    """The model that merging leaves in `folder`, in float32."""
    folder.mkdir()
    write_merged(find_base_model(settings), adapter, settings, way, torch.float32, shard, folder)
    make_readable(folder, 2)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def tied_base(folder: Path, source: Path) -> Path:
    """A base whose head is its embeddings, in two files, saved in bfloat16, beside another base's tokenizer."""
    shutil.copytree(source, folder)
    (folder / "model.safetensors").unlink()
    config = LlamaConfig.from_pretrained(source)
    config.tie_word_embeddings = True
    torch.manual_seed(3)
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder, max_shard_size="150KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"use_dora": True},
        {"use_rslora": True, "lora_r": 4},
        {"bnb_4bit_quant_type": "fp4", "use_bnb_nested_quant": False},
        {"lora_target_modules": ["q_proj", "down_proj"]},
        {"load_in_4bit": False},
    ],
)
def test_merged_weights_are_the_model_that_was_evaluated(
    tiny_base: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    settings, evaluated = trained(tiny_base, tmp_path / "adapter", **values)
    model = merged(settings, tmp_path / "adapter", tmp_path / "merged")
    assert (logits(model) - evaluated).abs().max() < 1e-5
    assert evaluated.abs().max() > 0.1


def test_the_full_precision_base_makes_another_model(tiny_base: Path, tmp_path: Path) -> None:
    settings, evaluated = trained(tiny_base, tmp_path / "adapter")
    model = merged(settings, tmp_path / "adapter", tmp_path / "merged", "full precision")
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), tmp_path / "adapter")
    assert (logits(model) - logits(plain)).abs().max() < 1e-5
    assert (logits(model) - evaluated).abs().max() > 1e-3


def test_a_base_in_several_files_with_a_tied_head_is_merged_file_by_file(tiny_base: Path, tmp_path: Path) -> None:
    settings, evaluated = trained(tied_base(tmp_path / "base", tiny_base), tmp_path / "adapter")
    model = merged(settings, tmp_path / "adapter", tmp_path / "merged", shard=100_000)
    assert (logits(model) - evaluated).abs().max() < 1e-5
    files = sorted((tmp_path / "merged").glob("*.safetensors"))
    assert files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    assert all(sum(t.nbytes for t in load_file(file).values()) <= 131_072 + 100_000 for file in files)
    index = read_json(tmp_path / "merged" / "model.safetensors.index.json")
    assert set(index["weight_map"].values()) == {file.name for file in files}
    assert "lm_head.weight" not in index["weight_map"]


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_a_head_of_the_adapters_own_is_no_longer_tied(tiny_base: Path, tmp_path: Path) -> None:
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["lm_head"])
    settings, evaluated = trained(tied_base(tmp_path / "base", tiny_base), tmp_path / "adapter", config)
    model = merged(settings, tmp_path / "adapter", tmp_path / "merged")
    assert (logits(model) - evaluated).abs().max() < 1e-5
    assert not model.config.tie_word_embeddings


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to:UserWarning")
def test_a_base_with_turned_weights_is_merged_in_memory(tiny_base: Path, tmp_path: Path) -> None:
    """GPT-2's linear layers are stored as input by output."""
    shutil.copytree(tiny_base, tmp_path / "base")
    torch.manual_seed(2)
    config = GPT2Config(vocab_size=512, n_embd=64, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules=["c_attn"], fan_in_fan_out=True)
    settings, evaluated = trained(tmp_path / "base", tmp_path / "adapter", lora)
    model = merged(settings, tmp_path / "adapter", tmp_path / "merged")
    assert (logits(model) - evaluated).abs().max() < 1e-4


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`:UserWarning")
def test_a_base_that_is_saved_in_4_bits_is_unpacked(tiny_base: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_base, tmp_path / "base")
    quantised = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    AutoModelForCausalLM.from_pretrained(tiny_base, quantization_config=quantised).save_pretrained(tmp_path / "base")
    settings, evaluated = trained(tmp_path / "base", tmp_path / "adapter")
    model = merged(settings, tmp_path / "adapter", tmp_path / "merged")
    assert "quantization_config" not in read_json(tmp_path / "merged" / "config.json")
    assert (logits(model) - evaluated).abs().max() < 1e-5


def test_an_adapter_of_another_base_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    settings, _ = trained(tiny_base, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name.replace("layers.1", "layers.7"): tensor for name, tensor in tensors.items()}, file)
    with pytest.raises(RecipeError, match=r"has weights for model.layers.7.mlp.down_proj.weight, which the base does"):
        merged(settings, tmp_path / "adapter", tmp_path / "merged")


LARGE = """
import sys, threading, time
from pathlib import Path
import torch
from hf_finetune.ship.merged_weights import write_merged
from hf_finetune.model import find_base_model
from hf_finetune.settings import Settings

def held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

def watch():
    while True:
        peak[0] = max(peak[0], held())
        time.sleep(0.005)

base, adapter, out = map(Path, sys.argv[1:])
import peft, transformers, bitsandbytes
torch.zeros(1)
before, peak = held(), [0]
threading.Thread(target=watch, daemon=True).start()
settings = Settings(model_name_or_path=str(base))
out.mkdir()
write_merged(find_base_model(settings), adapter, settings, "dequantised", torch.bfloat16, 20_000_000, out)
print((peak[0] - before) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_base_larger_than_the_memory_it_takes_is_merged(tiny_base: Path, tmp_path: Path) -> None:
    """A 570 MB base in files of 50 MB takes less than half of it: a file's worth and a tensor's copies."""
    shutil.copytree(tiny_base, tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").unlink()
    config = LlamaConfig(
        vocab_size=512, hidden_size=1024, intermediate_size=2816, num_hidden_layers=11, num_attention_heads=8,
        bos_token_id=None, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 0.01)
    model.save_pretrained(tmp_path / "base", max_shard_size="50MB")
    size = sum(file.stat().st_size for file in (tmp_path / "base").glob("*.safetensors"))
    assert size > 500e6
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules=["down_proj"], r=2)
    get_peft_model(model, lora).save_pretrained(tmp_path / "adapter")
    words = [str(tmp_path / name) for name in ("base", "adapter", "merged")]
    done = subprocess.run(
        [sys.executable, "-c", LARGE, *words], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < size / 2


@pytest.mark.parametrize(
    ("written", "for_version_4"),
    [
        ({"rope_theta": 500000.0, "rope_type": "default"}, {"rope_theta": 500000.0}),
        (
            {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0},
            {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        ),
        (
            {"full_attention": {"rope_theta": 1e6, "rope_type": "default"}, "sliding_attention": {"rope_theta": 1e4}},
            {"rope_theta": 1e6, "rope_local_base_freq": 1e4},
        ),
    ],
)
@pytest.mark.parametrize("inside", [None, "text_config"])
def test_transformers_4_is_told_of_the_rotary_embedding(
    tmp_path: Path, written: dict[str, Any], for_version_4: dict[str, Any], inside: str | None
) -> None:
    own = {"rope_parameters": written}
    write_json(tmp_path / "config.json", {"eos_token_id": 2} | ({inside: own} if inside else own))
    make_readable(tmp_path, 2)
    config = read_json(tmp_path / "config.json")
    assert (config[inside] if inside else config) == own | for_version_4 | ({} if inside else {"eos_token_id": 2})


def test_what_the_machine_left_in_a_tokenizers_config_is_taken_out(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"eos_token_id": 2})
    left = {"is_local": True, "local_files_only": True, "backend": "tokenizers"}
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "TokenizersBackend", "eos_token": "x"} | left)
    make_readable(tmp_path, 2)
    own = read_json(tmp_path / "tokenizer_config.json")
    assert own == {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "x"}


@pytest.mark.parametrize(("before", "after"), [(7, [5, 7]), ([7, 8], [5, 7, 8]), (None, [5]), (5, 5), ([8, 5], [8, 5])])
def test_generation_stops_at_the_end_that_was_trained(tmp_path: Path, before: Any, after: Any) -> None:
    write_json(tmp_path / "config.json", {})
    write_json(tmp_path / "generation_config.json", {"eos_token_id": before, "do_sample": False})
    make_readable(tmp_path, 5)
    assert read_json(tmp_path / "generation_config.json") == {"eos_token_id": after, "do_sample": False}


def test_a_base_without_a_generation_config_gets_one(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"eos_token_id": 5})
    make_readable(tmp_path, 5)
    assert read_json(tmp_path / "generation_config.json") == {"eos_token_id": [5]}


@pytest.mark.parametrize(("size", "count"), [("5GB", 5 * 10**9), ("500mb", 5 * 10**8)])
def test_sizes_are_read(size: str, count: int) -> None:
    assert in_bytes(size) == count


def test_files_too_small_for_a_tensor_are_refused() -> None:
    with pytest.raises(RecipeError, match="--max-shard-size 1KB: would make a file of each tensor"):
        in_bytes("1KB")


def test_a_limit_that_is_no_number_is_refused() -> None:
    done = CliRunner().invoke(merge, ["nowhere", "--max-kl", "nan"])
    assert (done.exit_code, "'--max-kl': nan is no number." in done.output) == (2, True)


def test_an_interpreter_without_a_name_is_refused() -> None:
    done = CliRunner().invoke(verify, ["nowhere", "--python", ""])
    assert (done.exit_code, "Name an interpreter, or leave it out." in done.output) == (2, True)


@pytest.mark.parametrize("size", ["5", "GB", "0GB", "-1GB", "5TB", "five GB"])
def test_what_is_no_size_is_refused(size: str) -> None:
    with pytest.raises(RecipeError, match="Write it as 500MB or 5GB"):
        in_bytes(size)
