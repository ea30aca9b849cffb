"""Estimated beside measured on this machine's CPU: peak memory, and how step times compare. `-s` shows the figures."""

import sys
from pathlib import Path
from typing import Any

import click
import pytest
from training_memory import LLAMA, estimated, made_rows, measured, write_base

WORDS = LLAMA["vocab_size"]
CASES: dict[str, tuple[list[dict[str, list[int]]], dict[str, Any]]] = {
    "QLoRA, what is shared once": (made_rows(8, 40, 160, 20, WORDS), {"dequantize_once": False}),
    "all layers run again": (made_rows(8, 40, 160, 20, WORDS), {"gradient_checkpointing": True}),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("models") / "llama", LLAMA)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("case", list(CASES))
def test_the_peak_of_a_real_training_is_within_15_percent_of_the_estimate(base: Path, case: str) -> None:
    rows, changed = CASES[case]
    values = {"per_device_train_batch_size": 4, "gradient_checkpointing": False} | changed
    found, took = estimated(base, rows, **values), measured(base, rows, steps=2, **values)
    click.echo(f"\n{case}: {found.memory.training:.3f} GiB estimated, {took.peak_gib:.3f} measured")
    assert found.memory.training == pytest.approx(took.peak_gib, rel=0.15)
