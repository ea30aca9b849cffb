"""The environment's hardware: the GPU and its driver, what is computed in, and what runs on it."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hf_finetune.doctor.line import Line, fault, ok, warning
from hf_finetune.doctor.subject import Subject
from hf_finetune.errors import first_line, plural
from hf_finetune.files import existing
from hf_finetune.model import compute_dtype, free_memory
from hf_finetune.processes import cores, num_processes, was_launched

DRIVER = Path("/proc/driver/nvidia/version")
"""Where NVIDIA's driver says that it is there."""
FLASH = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
"""Attention kernels, and the modules that they come in."""
INSTALLED_BY = {"flash_attn": "pip install flash-attn --no-build-isolation", "flash_attn_interface": ""}
LITTLE_DISK = 2**30
GEMMA = ("gemma3", "gemma3_text", "gemma3n", "gemma3n_text")
"""Architectures whose activations are larger than float16 can hold (transformers issue 36822)."""


def gpu(subject: Subject) -> Iterator[Line]:
    """Which device the run is computed on, and whether torch sees the GPU that is there."""
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            one = torch.cuda.get_device_properties(number)
            memory = f"{one.total_memory / 2**30:.0f} GiB, {torch.cuda.mem_get_info(number)[0] / 2**30:.0f} free"
            yield ok(f"GPU {number}: {one.name}, {memory}, CUDA {torch.version.cuda}, driver {_driver() or 'unknown'}")
        yield from _unused_gpus(torch.cuda.device_count())
        return
    if _driver() and os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() not in ("", "-1"):
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
        yield fault(
            f"there is an NVIDIA GPU (driver {_driver()}), but torch {torch.__version__} does not see it: it {built}",
            "update the driver" if torch.version.cuda else "install torch with CUDA, as pytorch.org says",
        )
    yield ok(f"no GPU: {plural(cores(), 'core')}, {free_memory() / 2**30:.1f} GiB of memory free")


def dtype(subject: Subject) -> Iterator[Line]:
    """What the run is computed in, and whether this device can."""
    import torch

    asked, is_auto = subject.settings.dtype, subject.settings.dtype == "auto"
    has_gpu = torch.cuda.is_available()
    if asked == "float16" and not has_gpu:
        yield fault("dtype is float16, which needs a GPU", "leave it out: dtype=auto")
    elif asked == "bfloat16" and has_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        yield fault(
            f"dtype is bfloat16, which {torch.cuda.get_device_name()} cannot compute in",
            "dtype=float16, or dtype=float32 for bases that overflow it, such as Gemma 3",
        )
    else:
        chosen = str(compute_dtype(subject.settings)).removeprefix("torch.")
        yield ok(f"computed in {chosen}" + (" (dtype=auto)" if is_auto else f" (dtype={asked})"))


def overflow(subject: Subject) -> Iterator[Line]:
    """Whether the base is one whose numbers do not fit into float16."""
    import torch

    kind = getattr(subject.config, "model_type", "")
    if kind in GEMMA and compute_dtype(subject.settings) == torch.float16:
        yield fault(
            f"{kind} overflows in float16, which this run is computed in: its loss would be no number",
            "dtype=float32 on this GPU, or a GPU that has bfloat16",
        )


def attention(subject: Subject) -> Iterator[Line]:
    """Whether the attention kernel that is asked for is there."""
    import torch

    asked = subject.settings.attn_implementation
    module = FLASH.get(asked)
    if module and not torch.cuda.is_available():
        yield fault(f"attn_implementation is {asked}, which needs a GPU", "attn_implementation=auto")
    elif module and not any(map(importlib.util.find_spec, (module, "kernels"))):  # which fetches it from the Hub
        how = INSTALLED_BY[module]
        yield fault(
            f"attn_implementation is {asked}, and its package {module} is not installed",
            f"{how + ', or ' if how else ''}attn_implementation=auto",
        )


def quantiser(subject: Subject) -> Iterator[Line]:
    """Whether bitsandbytes has what it needs for this device."""
    import torch

    if not (subject.settings.load_in_4bit or subject.settings.load_in_8bit):
        return
    bits = "4 bits" if subject.settings.load_in_4bit else "8 bits"
    try:
        from bitsandbytes.cextension import lib
    except (ImportError, OSError, RuntimeError) as error:
        yield fault(f"bitsandbytes cannot be loaded: {first_line(error)}", "pip install --force-reinstall bitsandbytes")
        return
    if torch.cuda.is_available() and not getattr(lib, "compiled_with_cuda", True):
        yield fault(
            f"bitsandbytes has no library for CUDA {torch.version.cuda}, which {bits} need",
            "pip install --upgrade bitsandbytes, or load_in_4bit=false",
        )


def disk(subject: Subject) -> Iterator[Line]:
    """Whether the disks of the run and of the downloads have any room."""
    from huggingface_hub import constants

    for what, place in (("runs", subject.folder), ("downloads (HF_HOME)", Path(constants.HF_HOME))):
        free = shutil.disk_usage(existing(place)).free
        if free < LITTLE_DISK:
            yield warning(f"{free / 2**20:,.0f} MiB are free on the disk for {what}, {place}", "make room there")


def _driver() -> str:
    """The version of NVIDIA's driver; empty where there is none."""
    try:
        words = DRIVER.read_text(encoding="utf-8").split()
    except OSError:
        return ""
    return next((word for word in words if word[0].isdigit() and "." in word), "of an unknown version")


def _unused_gpus(count: int) -> Iterator[Line]:
    if count > 1 and num_processes() == 1 and was_launched():
        yield warning(
            f"this machine has {count} GPUs, and this run uses one", f"accelerate launch --num_processes {count}"
        )
