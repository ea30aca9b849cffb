"""The energy counter of a real GPU: `pytest -m gpu tests/gpu/test_energy_counter.py`."""

import time

import pytest


@pytest.mark.gpu
def test_a_gpu_that_works_uses_energy() -> None:
    import torch

    from hf_finetune.energy import counters, own_gpus, used_since

    square = torch.randn(4096, 4096, device="cuda")
    before = counters()
    gpus = own_gpus()
    assert gpus
    assert gpus[0] in before
    began = time.monotonic()
    while time.monotonic() - began < 2:
        square = square @ square / 64
    torch.cuda.synchronize()
    used = used_since(before)
    assert used is not None
    assert used > 0
