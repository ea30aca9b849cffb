"""An estimate of a base on the Hub: small files alone, prices of the day, and a gate that is told."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loopback_hub import LoopbackHub

START = "from hf_finetune.cli import main; main()"


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        yield running


def python(hub: LoopbackHub, cwd: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
    return subprocess.run(
        [sys.executable, "-c", *words], cwd=cwd, env=inherited | hub.environment(cwd / "home"), capture_output=True,
        text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
def test_a_base_on_the_hub_is_estimated_without_its_weights(hub: LoopbackHub, tiny_base: Path, tmp_path: Path) -> None:
    hub.add_repo("acme/base", files=tiny_base)
    hub.hardware[1]["unitCostUSD"] = 0.02  # the T4
    words = ("estimate", "finsent", "model_name_or_path=acme/base", "--gpu", "T4,B200", "--method", "qlora", "--json")
    done = python(hub, tmp_path, START, *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["prices"].startswith("prices of now")
    small, large = found["estimates"]
    assert small["price_usd"] == pytest.approx(small["seconds"] / 3600 * 1.20)
    assert large["price_usd"] == pytest.approx(large["seconds"] / 3600 * 6.99)  # which the Hub has not
    assert not [request for request in hub.requests if "safetensors" in request]


def test_a_gated_base_is_told_with_its_page(hub: LoopbackHub, tiny_base: Path, tmp_path: Path) -> None:
    hub.add_repo("acme/base", files=tiny_base, gated=True)
    done = python(hub, tmp_path, START, "estimate", "finsent", "model_name_or_path=acme/base", "--gpu", "T4")
    assert done.returncode == 1
    assert done.stderr.startswith("error: base model 'acme/base': is gated, and you are not logged in. ")
    assert "Traceback" not in done.stderr


def test_the_prices_of_the_file_stay_where_the_hub_does_not_answer(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.hardware = [{"name": "odd"}]
    script = (
        "from hf_finetune.estimate.gpus import find_gpus, with_prices_of_today as today\n"
        "gpus = find_gpus(['T4'])\npriced, told = today(gpus)\nassert priced == gpus, priced\nprint(told)"
    )
    done = python(hub, tmp_path, script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("prices of 20")
