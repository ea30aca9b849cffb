"""A base and an adapter -> plain weights in files, one tensor in memory at a time, as any transformers reads them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hf_finetune.errors import RecipeError, first_line
from hf_finetune.files import read_json
from hf_finetune.interruption import without_waiting
from hf_finetune.model import (
    BaseModel,
    compute_dtype,
    guard_cpu_4bit_layers,
    load_adapter,
    load_base_model,
    quantization,
)
from hf_finetune.resolve import explaining_refusals
from hf_finetune.settings import Settings
from hf_finetune.ship.published import BESIDE_WEIGHTS
from hf_finetune.ship.readable import copy_texts, settle_config
from hf_finetune.ship.shards import Shards, as_os_error

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig

Way = Literal["dequantised", "full precision"]

PREFIX = "base_model.model."
"""What PEFT puts before a module's name in an adapter's file."""
WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")

Tensors = dict[str, "torch.Tensor"]


def base_files(base: BaseModel) -> Path:
    """The folder with all files of a base model, fetched from the Hub where it is not here."""
    if not base.commit:
        return Path(base.location)
    from huggingface_hub import snapshot_download

    with explaining_refusals(
        base.name, base.commit, "base model", file="config.json", other="Name another.",
        instead="name a folder of your own",
    ):  # fmt: skip
        wanted = [*WEIGHTS, *BESIDE_WEIGHTS]
        found = without_waiting(
            lambda: snapshot_download(base.name, revision=base.commit, allow_patterns=wanted, ignore_patterns=["*/*"])
        )
        return Path(found)


def write_merged(
    base: BaseModel, adapter: Path, settings: Settings, way: Way, dtype: "torch.dtype", shard_bytes: int, folder: Path
) -> None:
    """Leaves a base with an adapter merged into it in `folder`: weights of a dtype, config and tokenizer.

    `dequantised`: into the numbers that the quantised base computes with, which makes the model that was evaluated;
    `full precision`: into the base's own, which makes another one.

    Raises:
        RecipeError: when the base's files or the adapter's cannot be read, or do not fit each other.
    """
    files = base_files(base)
    with _explaining_damage(base.name):
        stored, skeleton = _stored(files), _skeleton(files)
    tied = set(getattr(skeleton, "_tied_weights_keys", None) or ())
    copy_texts(files, folder)
    if _holds_what_it_computes_with(skeleton, set(stored) | tied) and not settings.load_in_8bit:
        rounded = _quantised_layers(skeleton, settings) if way == "dequantised" else frozenset()
        tensors = _tensors(stored, base.name)
        own_head = _write_by_tensor(tensors, set(stored), tied, adapter, settings, rounded, dtype, shard_bytes, folder)
    else:
        own_head = False
        _write_whole(base, skeleton, adapter, settings, way, dtype, shard_bytes, folder)
    settle_config(folder / "config.json", dtype, own_head)


@contextmanager
def _explaining_damage(name: str) -> Iterator[None]:
    """Turns what is raised on files that cannot be read into an error that names the base.

    Raises:
        RecipeError: instead of it.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise RecipeError(
            f"base model {name!r}: cannot be read: {first_line(error)}. Fetch or save it again."
        ) from error


def _skeleton(files: Path) -> Any:
    """The base model without any weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(files, trust_remote_code=False))


def _holds_what_it_computes_with(skeleton: Any, stored: set[str]) -> bool:
    """Whether a base's files hold the model's tensors under its own names, as they are, and not packed or turned."""
    needed = {name for name, tensor in skeleton.state_dict().items() if tensor.is_floating_point()}
    return needed <= stored and not _turned(skeleton) and not hasattr(skeleton.config, "quantization_config")


def _turned(skeleton: Any) -> frozenset[str]:
    """The names of weights that are stored as input by output, as GPT-2 has them."""
    from transformers.pytorch_utils import Conv1D

    return frozenset(f"{name}.weight" for name, module in skeleton.named_modules() if isinstance(module, Conv1D))


def _stored(files: Path) -> dict[str, Path]:
    """The file of each tensor of a base's safetensors; none where it has no such files."""
    from safetensors import safe_open

    index = files / "model.safetensors.index.json"
    if index.is_file():
        return {name: files / file for name, file in read_json(index)["weight_map"].items()}
    single = files / "model.safetensors"
    if not single.is_file():
        return {}
    with safe_open(single, framework="pt") as file:
        return dict.fromkeys(file.keys(), single)


def _quantised_layers(skeleton: Any, settings: Settings) -> frozenset[str]:
    """The names of the weights that `from_pretrained` would hold in 4 bits."""
    import bitsandbytes as bnb
    from transformers.quantizers import AutoHfQuantizer

    config = quantization(settings)
    if config is None:
        return frozenset()
    AutoHfQuantizer.from_config(config).preprocess_model(skeleton, device_map=None)
    return frozenset(f"{name}.weight" for name, m in skeleton.named_modules() if isinstance(m, bnb.nn.Linear4bit))


def _write_by_tensor(
    tensors: Iterable[tuple[str, "torch.Tensor"]], stored: set[str], tied: set[str], adapter: Path,
    settings: Settings, rounded: frozenset[str], dtype: "torch.dtype", shard_bytes: int, folder: Path,
) -> bool:  # fmt: skip
    """Merges one tensor after another, so that a base larger than the memory can be merged.

    Whether the adapter has a head of its own, which the base shares with its embeddings, is given back.
    """
    from peft import LoraConfig

    config = LoraConfig.from_pretrained(adapter)
    parts = _parts(adapter)
    unknown = sorted(parts.keys() - stored)
    own_head = [name for name in unknown if name in tied and "" in parts[name]]
    if unknown != own_head:
        raise RecipeError(f"{adapter}: has weights for {unknown[0]}, which the base does not have. Name its own base.")
    with Shards(folder, shard_bytes) as shards:
        for name, tensor in tensors:
            if name in rounded:
                tensor = _rounded(tensor, settings)
            if name in parts:
                tensor = _merged(tensor, name.removesuffix(".weight"), parts[name], config)
            shards.add(name, tensor.to(dtype) if tensor.is_floating_point() else tensor)
        for name in own_head:
            shards.add(name, parts[name][""].to(dtype))
    return bool(own_head)


def _tensors(stored: Mapping[str, Path], base: str) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Each tensor with its name, file by file."""
    from safetensors import safe_open

    for path in dict.fromkeys(stored.values()):
        with _explaining_damage(base), safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # not a dict
                yield name, file.get_tensor(name)


def _parts(adapter: Path) -> dict[str, Tensors]:
    """An adapter's tensors by the weight that they change, under PEFT's names below the module."""
    from safetensors.torch import load_file

    parts: dict[str, Tensors] = defaultdict(dict)
    for key, tensor in load_file(adapter / "adapter_model.safetensors").items():
        module, _, part = key.removeprefix(PREFIX).partition(".lora_")
        parts[f"{module}.weight" if part else module][f"lora_{part}" if part else ""] = tensor
    return dict(parts)


def _rounded(weight: "torch.Tensor", settings: Settings) -> "torch.Tensor":
    """The numbers that a weight has once it is held in 4 bits."""
    import bitsandbytes as bnb
    import torch

    guard_cpu_4bit_layers()
    device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
    packed, state = bnb.functional.quantize_4bit(
        weight.to(device, compute_dtype(settings)).contiguous(),
        compress_statistics=settings.use_bnb_nested_quant,
        quant_type=settings.bnb_4bit_quant_type,
    )
    unpacked: torch.Tensor = bnb.functional.dequantize_4bit(packed, state)
    return unpacked.cpu()


def _merged(weight: "torch.Tensor", module: str, parts: Tensors, config: "LoraConfig") -> "torch.Tensor":
    """A layer's weight with its adapter merged in, in float32, as PEFT itself does it for one layer."""
    import torch
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    if "" in parts:
        return parts[""]
    own = LoraConfig(**config.to_dict() | {"target_modules": f".*{module.rsplit('.', 1)[-1]}"})
    holder = torch.nn.Module()
    inside = holder
    *path, last = module.split(".")
    for name in path:
        inside.add_module(name, torch.nn.Module())
        inside = getattr(inside, name)
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = torch.nn.Parameter(weight.float(), requires_grad=False)
    inside.add_module(last, linear)
    inject_adapter_in_model(own, holder)
    set_peft_model_state_dict(holder, {f"{module}.{name}": tensor.float() for name, tensor in parts.items()})
    layer: Any = holder.get_submodule(module)
    layer.merge(safe_merge=True)
    return torch.Tensor(layer.get_base_layer().weight.data)


def _write_whole(
    base: BaseModel, skeleton: Any, adapter: Path, settings: Settings, way: Way, dtype: "torch.dtype",
    shard_bytes: int, folder: Path,
) -> None:  # fmt: skip
    """Merges in memory: a base whose files hold other tensors than the model, or packed or turned ones."""
    import torch

    plain = settings.model_copy(update={"load_in_4bit": False, "load_in_8bit": False})
    model: Any = load_base_model(base, settings if way == "dequantised" else plain)
    if getattr(model, "is_quantized", False):
        model = model.dequantize()
    merged = load_adapter(model, adapter).merge_and_unload(safe_merge=True).to(dtype)
    linear = {f"{name}.weight" for name, module in merged.named_modules() if isinstance(module, torch.nn.Linear)}
    turned = _turned(skeleton) & linear  # unpacking makes them plain layers
    tensors = {name: own.T.contiguous() if name in turned else own for name, own in merged.state_dict().items()}
    was_packed = hasattr(skeleton.config, "quantization_config")
    with as_os_error():
        merged.save_pretrained(
            folder, state_dict=tensors, max_shard_size=shard_bytes, save_original_format=not was_packed
        )
