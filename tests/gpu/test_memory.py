"""Estimates beside what a real GPU takes: peak memory, and seconds of a step, in processes of their own.

On a machine with a GPU; `-s` shows the figures as a table:

    pytest -m gpu -s tests/gpu/test_memory.py
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

SHAPE = {
    "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
    "num_attention_heads": 32, "num_key_value_heads": 4,
}  # fmt: skip
"""That of TinyLlama-1.1B."""
CASES: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "in 4 bits": {"dequantize_once": False, "gradient_checkpointing": False},
    "all layers run again": {"gradient_checkpointing": True},
    "LoRA": {"load_in_4bit": False, "gradient_checkpointing": False},
    "padded": {"padding_free": False, "gradient_checkpointing": False},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training_memory import write_base

    return write_base(tmp_path_factory.mktemp("models") / "llama", SHAPE)


@pytest.mark.gpu
@pytest.mark.parametrize("case", list(CASES))
def test_the_peak_is_within_15_percent_of_the_estimate(base: Path, case: str) -> None:
    import torch
    from training_memory import estimated, made_rows, measured

    from hf_finetune.estimate import find_gpus

    rows = made_rows(128, 60, 400, 40, SHAPE["vocab_size"])
    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    near = min(find_gpus([]), key=lambda gpu: abs(gpu.memory_gib - total))
    values = {"per_device_train_batch_size": 8} | CASES[case]
    found = estimated(base, rows, replace(near, memory_gib=total), **values)
    took = measured(base, rows, steps=6, **values)
    held = found.memory.training - found.memory.context  # torch does not count the context
    click.echo(
        f"\n{case}: {held:.2f} GiB estimated, {took.peak_gib:.2f} measured; {took.seconds:.3f} s a step on {near.name}"
    )
    assert held == pytest.approx(took.peak_gib, rel=0.15)
