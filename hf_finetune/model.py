"""Base model, tokenizer, quantisation and adapter: the one place where they are loaded."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import RecipeError, first_line, nearest, plural
from hf_finetune.files import read_json, sha256, whole_folder, write_json
from hf_finetune.memory import in_words, is_full
from hf_finetune.processes import highest, is_main, sharding
from hf_finetune.resolve import resolve_commit
from hf_finetune.settings import Settings

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class BaseModel:
    """A base model that was found: on the Hub at a commit, or in a folder."""

    name: str
    """Its Hub id, or the folder's own name: never a path, since this is what gets published."""
    location: str
    """What `from_pretrained` is given."""
    revision: str | None
    commit: str | None

    def as_json(self) -> dict[str, Any]:
        """What a run's record says of it: what it is, and not where it lies here; of a folder its weights' hashes."""
        files = {} if self.commit else {"files": self.hashes()}
        return {"name": self.name, "revision": self.revision, "commit": self.commit} | files

    def hashes(self) -> dict[str, str]:
        """The hash of each of a folder's weights files."""
        files = [
            path for pattern in ("*.safetensors", "pytorch_model*.bin") for path in Path(self.location).glob(pattern)
        ]
        return {path.name: sha256(path) for path in sorted(files)}


def find_base_model(settings: Settings, commit: str | None = None) -> BaseModel:
    """The base model the settings name, on the Hub at a commit: the given one, else the one its revision means now.

    Raises:
        RecipeError: no such folder or repo, no access, no network.
    """
    name = settings.model_name_or_path
    folder = Path(name).expanduser()
    if folder.is_dir():
        missing = [file for file in ("config.json", "tokenizer_config.json") if not (folder / file).is_file()]
        has_words = any(list(folder.glob(name)) for name in ("tokenizer.json", "*.model", "vocab.*", "tekken.json"))
        missing += [] if has_words else ["tokenizer.json"]
        if missing:
            raise RecipeError(
                f"base model {name!r}: the folder has no {', '.join(missing)}. Name a saved model's folder."
            )
        return BaseModel(folder.resolve().name, str(folder), None, None)
    if name.startswith((".", "/", "~")):
        raise RecipeError(f"base model {name!r}: there is no such folder. Check model_name_or_path.")
    return BaseModel(name, name, settings.model_revision, commit or resolve_commit(name, settings.model_revision))


def load_tokenizer(base: BaseModel) -> "PreTrainedTokenizerBase":
    """The base model's tokenizer, padding on the left as generation and scoring need it."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            base.location, revision=base.commit, padding_side="left", trust_remote_code=False
        )
    except Exception as error:  # of a damaged file, transformers and tokenizers raise errors of any kind
        raise RecipeError(f"base model {base.name!r}: its tokenizer cannot be loaded: {first_line(error)}.") from error
    return tokenizer


def load_base_model(base: BaseModel, settings: Settings, as_saved: bool = False) -> "PreTrainedModel":
    """The base model, quantised as the settings say or `as_saved`, on this process's device.

    Raises:
        RecipeError: when it cannot be loaded as a causal language model.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    guard_cpu_4bit_layers()
    if not (is_main() and sys.stderr.isatty()):
        disable_progress_bar()  # of the weights, a line a tick without a terminal
    try:
        with explaining_full_memory("Take a smaller base model, or a GPU with more memory."):
            model = AutoModelForCausalLM.from_pretrained(
                base.location,
                revision=base.commit,
                dtype=compute_dtype(settings),
                quantization_config=None if as_saved else quantization(settings),
                attn_implementation=None if settings.attn_implementation == "auto" else settings.attn_implementation,
                trust_remote_code=False,  # None would ask the user in the middle of a run
                device_map=_device_map(),
            )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise RecipeError(f"base model {base.name!r}: cannot be loaded: {first_line(error)}.") from error
    return model


def load_adapter(model: "PreTrainedModel", folder: Path) -> "PeftModel":
    """The base model with an adapter's weights from disk.

    Raises:
        RecipeError: when the adapter's tensors and the model's do not match one to one; PEFT itself only warns, and
            only of those that the file lacks.
    """
    import warnings

    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found missing adapter keys")  # told below, as an error
        # PEFT 0.21 still asks transformers 5 by the attribute's old name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        with_adapter = PeftModel.from_pretrained(model, folder)
    _check_tensors(with_adapter, folder)
    return with_adapter


def _check_tensors(model: "PeftModel", folder: Path) -> None:
    """Whether the adapter file in `folder` holds the tensors of the model's adapter, and no others."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    # save_embedding_layers: as in the trainer's checkpoints, whose file this is.
    wanted = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        given = set(file.keys())
    missing, unknown = sorted(wanted - given), sorted(given - wanted)
    faults = [f"it lacks {plural(len(missing), 'tensor')}, such as {missing[0]}"] if missing else []
    faults += [f"it holds {plural(len(unknown), 'tensor')} too many, such as {unknown[0]}"] if unknown else []
    if faults:
        raise RecipeError(
            f"{folder}: the adapter does not fit this base model: {'; '.join(faults)}. "
            f"Load it on the base that its adapter_config.json names, or train it again."
        )


def save_adapter(checkpoint: Path, base: BaseModel, folder: Path) -> None:
    """Leaves a checkpoint's adapter in `folder`, whole or not at all: safetensors and their config, no path in it."""
    with whole_folder(folder) as temporary:
        shutil.copy(checkpoint / "adapter_model.safetensors", temporary)
        config = read_json(checkpoint / "adapter_config.json")
        config["base_model_name_or_path"] = base.name
        config["revision"] = base.commit
        config["target_modules"] = sorted(config["target_modules"])  # a set: its order differs from process to process
        write_json(temporary / "adapter_config.json", config)


def check_adapter(folder: Path, must_differ: bool) -> int:
    """The number of values in an adapter's file, after checking what a save from several GPUs can spoil.

    Raises:
        RecipeError: when a tensor is empty (ZeRO-3 saved its own part only) or holds a value that is no number, or
            all that start at zero are so still although they `must_differ`: a warm-up's first step changes nothing.
    """
    from safetensors.torch import load_file

    tensors = load_file(folder / "adapter_model.safetensors")
    empty = [name for name, tensor in tensors.items() if not tensor.numel()]
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    at_zero = [tensor for name, tensor in tensors.items() if "lora_B" in name]
    what = (
        f"{len(empty)} of {len(tensors)} tensors are empty, for example {empty[0]}" if empty
        else f"{broken[0]} holds values that are no numbers" if broken
        else "it holds no tensors" if not tensors
        else "no tensor has changed in training" if must_differ and not any(tensor.any() for tensor in at_zero)
        else None
    )  # fmt: skip
    if what:
        raise RecipeError(
            f"{folder}: the adapter was not saved as it was trained: {what}. "
            f"Start another run (output_dir=FOLDER) with ddp.yaml."
        )
    return sum(tensor.numel() for tensor in tensors.values())


def num_parameters(model: "PreTrainedModel") -> int:
    """The parameters of a base model; a packed 4-bit weight counts as what it unpacks to, not as its bytes."""
    states = [(p, getattr(p, "quant_state", None)) for p in model.parameters()]
    return sum(p.numel() if state is None else state.shape.numel() for p, state in states)


@contextmanager
def explaining_full_memory(advice: str) -> Iterator[None]:
    """Turns an error inside the block which says that memory is full into one that says what to do."""
    import torch

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_full(error):
            raise
        whose = "the GPU's memory" if isinstance(error, torch.OutOfMemoryError) else "the memory"
        raise RecipeError(f"{whose} is full ({in_words(error)}). {advice}") from error


def adapter_config(model: "PreTrainedModel", settings: Settings) -> "LoraConfig":
    """PEFT's config for the adapter the settings describe, on a model that has the layers they name.

    Raises:
        RecipeError: when it has no layer of such a name.
    """
    import torch
    from peft import LoraConfig

    targets = settings.lora_target_modules
    head = model.get_output_embeddings()  # TRL's loss goes past an adapter on the head, which would not be trained
    linear = [(name, m) for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not head]
    layers = {name.rsplit(".", 1)[-1] for name, _ in linear}
    unknown = [name for name in targets if name not in layers and targets != ["all-linear"]]
    if unknown:
        raise RecipeError(f"lora_target_modules: the base has no layer {unknown[0]!r}. {nearest(unknown[0], layers)}")
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets[0] if targets == ["all-linear"] else targets,
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
    )


def quantization(settings: Settings) -> "BitsAndBytesConfig | None":
    """How the base model's weights are held; None: as they are."""
    from transformers import BitsAndBytesConfig

    if settings.load_in_8bit:
        return BitsAndBytesConfig(load_in_8bit=True)
    if not settings.load_in_4bit:
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=settings.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=settings.use_bnb_nested_quant,
        bnb_4bit_compute_dtype=compute_dtype(settings),
        # What is shared out must be of one dtype: bytes are left whole on each GPU, with a warning.
        bnb_4bit_quant_storage=compute_dtype(settings) if sharding() else None,
    )


def compute_dtype(settings: Settings) -> Any:
    """The torch dtype that `dtype` means here. auto: bfloat16, float16 on a GPU without it (T4), float32 on a CPU."""
    import torch

    if settings.dtype != "auto":
        return getattr(torch, settings.dtype)
    if not torch.cuda.is_available():
        return torch.float32  # bfloat16 is slower on many CPUs, on some that have instructions for it too
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def dequantize_if_asked(model: "PreTrainedModel", settings: Settings) -> bool:
    """Replaces 4-bit layers by plain ones of the same numbers; `auto`: if that takes a quarter of the free memory.

    The numbers are those that the 4-bit layers would be turned into in each forward and each backward pass.
    """
    import bitsandbytes as bnb
    import torch

    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, bnb.nn.Linear4bit)}
    needed = sum(layer.weight.quant_state.shape.numel() * layer.compute_dtype.itemsize for layer in layers.values())
    fits = not sharding() and not highest(float(needed > free_memory() / 4))  # all processes hold the same
    if not (fits if settings.dequantize_once == "auto" else settings.dequantize_once):
        return False
    for name, layer in layers.items():
        weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        plain = torch.nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        plain.weight, plain.bias = torch.nn.Parameter(weight.to(layer.compute_dtype), False), layer.bias
        model.set_submodule(name, plain)
    return bool(layers)


def free_memory() -> int:
    """Bytes that this process may still take on its device: its GPU's, or its share of the machine's."""
    import psutil
    import torch

    if torch.cuda.is_available():
        unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return int(torch.cuda.mem_get_info()[0] + unused)
    available = min([psutil.virtual_memory().available, *_left_in_cgroup()])
    return available // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _left_in_cgroup(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """The bytes that a container or a Slurm job may still take, where it has a limit (Linux's cgroup v2)."""
    try:
        group = next(line.removeprefix("0::/") for line in own.read_text().splitlines() if line.startswith("0::/"))
        limit = (root / group / "memory.max").read_text().strip()
        used = int((root / group / "memory.current").read_text())
    except (OSError, StopIteration):
        return []
    return [max(0, int(limit) - used)] if limit.isdigit() else []


def guard_cpu_4bit_layers() -> None:
    """Keeps bitsandbytes 0.50 from repacking 4-bit weights on CPUs with AVX512-BF16.

    It repacks them in place in the first forward in evaluation mode; from then on gradients through the layer vanish
    and dequantising gives garbage, silently (nn/modules.py and autograd/_functions.py of 0.50.2). GPUs are not
    affected.
    """
    import bitsandbytes.nn.modules as modules

    modules.has_avx512bf16 = lambda: False


def _device_map() -> dict[str, int] | None:
    import torch

    return {"": torch.cuda.current_device()} if torch.cuda.is_available() else None
