"""The gains of speed on a real GPU: the losses of the plain computation, and less memory.

On a machine with a GPU; what each gain is worth there is for `hf-finetune bench` to tell:

    pytest -m gpu tests/gpu/test_speed.py
    hf-finetune bench RECIPE
"""

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    "gain", ["padding_free", "shared_prefix", "supervised_only", "fused_lora", "dequantize_once", "all"]
)
def test_each_gain_trains_what_the_plain_computation_trains(
    tiny_base: Path, tmp_path: Path, gain: str, dtype: str
) -> None:
    from test_train import ONE_GAIN, PLAIN, SHORT, losses_of, trained  # here: collecting the tests must stay quick

    said: list[str] = []
    values: dict[str, Any] = SHORT | {"dtype": dtype, "gradient_checkpointing": "auto"}
    trained(tiny_base, tmp_path / "plain", **values | PLAIN)
    trained(tiny_base, tmp_path / "run", said=said, **values | PLAIN | ONE_GAIN[gain])
    assert not any("is off" in line for line in said)
    tolerance = 1e-4 if dtype == "float32" else 0.02
    assert losses_of(tmp_path / "run") == pytest.approx(losses_of(tmp_path / "plain"), rel=tolerance)


@pytest.mark.gpu
def test_a_finished_training_leaves_nothing_on_the_gpu(tiny_base: Path, tmp_path: Path) -> None:
    import gc

    import torch
    from test_train import SHORT, trained

    before = torch.cuda.memory_allocated()
    trained(tiny_base, tmp_path, **SHORT)
    gc.collect()
    assert torch.cuda.memory_allocated() - before < 2**20
