"""What real training steps take, in a process of their own, beside what is estimated for them."""

import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from hf_finetune.demo import BASE_MODEL
from hf_finetune.estimate import CPU, Estimate, Gpu, Lengths, estimate, shape_of
from hf_finetune.model import find_base_model
from hf_finetune.settings import Settings

LLAMA = {
    "vocab_size": 32000, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8,
    "num_attention_heads": 8, "num_key_value_heads": 4,
}  # fmt: skip
"""A small Llama whose activations and logits are larger than what the allocator rounds up."""


@dataclass(frozen=True)
class Took:
    """What some training steps took."""

    peak_gib: float
    """More than before the base was loaded."""
    seconds: float
    """Of a step, the median."""


def write_base(folder: Path, shape: Mapping[str, int]) -> Path:
    """A folder with a random Llama of that shape, with the demonstration's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shutil.copytree(BASE_MODEL, folder, dirs_exist_ok=True)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(folder)
    return folder


def made_rows(count: int, shared: int, own: int, answer: int, words: int) -> list[dict[str, list[int]]]:
    """Rows that begin alike, go on otherwise and end with an answer; with so many tokens each."""
    start = list(range(3, 3 + shared))
    rows = []
    for number in range(count):
        asked = start + [3 + (number * 7 + place * 13) % (words - 3) for place in range(own)]
        said = [3 + (number + place * 5) % (words - 3) for place in range(answer)]
        rows.append({"input_ids": asked + said, "labels": [-100] * len(asked) + said})
    return rows


def lengths_of(rows: list[dict[str, list[int]]]) -> Lengths:
    """The rows as an estimate takes them, with hardly anything to evaluate."""
    answer = sum(label != -100 for label in rows[0]["labels"])
    return Lengths(rows, len(rows), 0, 1, len(rows[0]["input_ids"]), answer, is_closed=True, told="made up")


def estimated(base: Path, rows: list[dict[str, list[int]]], gpu: Gpu | None = None, **values: Any) -> Estimate:
    """The estimate of a training on those rows, on this machine's CPU if no GPU is given."""
    import psutil

    settings = Settings(model_name_or_path=str(base), few_shot=0, **values)
    here = gpu or replace(CPU, memory_gib=psutil.virtual_memory().available / 2**30)
    return estimate(shape_of(find_base_model(settings)), settings, lengths_of(rows), here)


def measured(base: Path, rows: list[dict[str, list[int]]], steps: int = 3, **values: Any) -> Took:
    """What those steps take, in a process that does nothing else."""
    # Large blocks go back to the system when they are freed: what is measured is what is alive.
    before = os.environ.get("MALLOC_MMAP_THRESHOLD_")
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            return alone.submit(_train, base, rows, steps, values).result()
    finally:
        if before is None:
            del os.environ["MALLOC_MMAP_THRESHOLD_"]
        else:
            os.environ["MALLOC_MMAP_THRESHOLD_"] = before


def _train(base: Path, rows: list[dict[str, list[int]]], steps: int, values: Mapping[str, Any]) -> Took:
    import gc
    import tempfile
    from statistics import median

    from hf_finetune.cli.run import prepare_libraries

    prepare_libraries()
    import bitsandbytes  # noqa: F401  # before the memory is looked at, like all that training imports
    import torch

    from hf_finetune.bench import _train as trained
    from hf_finetune.prepare import Encoded
    from hf_finetune.train import trainer  # noqa: F401

    changed = {"max_steps": steps, "eval_strategy": "steps", "eval_steps": 10**9, "logging_steps": 10**9}
    settings = Settings(model_name_or_path=str(base), **{**changed, **values})
    encoded = Encoded(rows, rows[:1], list(range(1, len(rows) + 1)), {})
    on_gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:  # a small training first, for what libraries load when they are used
        small = settings.model_copy(update={"model_name_or_path": str(BASE_MODEL), "max_steps": 1})
        two = made_rows(2, 4, 4, 2, 99)
        few = Encoded(two, two, [1, 2], {})
        trained(find_base_model(small), few, small, Path(folder))
    gc.collect()
    before = _forget_peak(on_gpu)
    with tempfile.TemporaryDirectory() as folder:
        _, clock = trained(find_base_model(settings), encoded, settings, Path(folder))
    return Took(_peak(on_gpu) - before, median(clock.seconds[1:]))


def _forget_peak(on_gpu: bool) -> float:
    """GiB in use now, from which on the peak is noted afresh."""
    import torch

    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        return 0.0
    Path("/proc/self/clear_refs").write_text("5")
    return _peak(on_gpu)


def _peak(on_gpu: bool) -> float:
    """GiB at most, since the peak was forgotten; of a GPU what torch holds, less the context."""
    import torch

    if on_gpu:
        return torch.cuda.max_memory_reserved() / 2**30
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in status if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 2**20
