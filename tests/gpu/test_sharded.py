"""The shipped accelerate configs on real GPUs: each trains the demonstration and leaves an adapter that has learnt.

On a machine with GPUs, two for all of it:

    pytest -m gpu tests/gpu
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SHIPPED = Path(__file__).parent.parent.parent / "hf_finetune" / "templates" / "accelerate"

# Sharding over one process shares nothing out, but loads, trains and saves in the same way: so one GPU tells much.
CASES = [("one_gpu", 1), ("fsdp2", 1), ("zero3", 1), ("ddp", 2), ("fsdp2", 2), ("zero3", 2)]


def accelerate_launch(config: str, processes: int, folder: Path) -> "subprocess.CompletedProcess[str]":
    """The finished training of the demonstration, in four steps, into folder/run."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(SHIPPED / f"{config}.yaml")]
    command += ["--num_processes", str(processes), "--main_process_port", "0"]
    command += ["-m", "hf_finetune", "finsent", "--demo", "max_steps=4", "output_dir=run"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )


@pytest.mark.gpu
@pytest.mark.parametrize(("config", "processes"), CASES, ids=[f"{config}-{count}" for config, count in CASES])
def test_a_shipped_config_trains_an_adapter(tmp_path: Path, config: str, processes: int) -> None:
    if config == "zero3" and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed")
    import torch  # here: collecting the tests must stay quick
    from safetensors.torch import load_file

    if torch.cuda.device_count() < processes:
        pytest.skip(f"needs {processes} CUDA GPUs, and there are {torch.cuda.device_count()}")
    done = accelerate_launch(config, processes, tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    tensors = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert tensors
    assert all(tensor.numel() for tensor in tensors.values())  # a shard that was not gathered is empty
    learnt = [tensor for name, tensor in tensors.items() if "lora_B" in name]
    assert learnt
    assert any(tensor.any() for tensor in learnt)  # it begins as zeros
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert (tmp_path / "run" / "report.json").is_file()
