"""The arguments that TRL's trainer takes, from the settings of a run."""

import os
from pathlib import Path
from typing import Any

import torch
from trl import SFTConfig

from hf_finetune.model import compute_dtype
from hf_finetune.processes import sharding
from hf_finetune.settings import Settings


def training_arguments(settings: Settings, folder: Path) -> SFTConfig:
    """TRL's arguments for a training in `folder`; what is computed in is set for Accelerate too."""
    half = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(compute_dtype(settings), "no")
    os.environ["ACCELERATE_MIXED_PRECISION"] = half  # the user's accelerate config must not train in another dtype
    computing = {"bf16": half == "bf16", "fp16": half == "fp16", "use_cpu": not torch.cuda.is_available()}
    named = _known(settings) | _renamed(settings) | _fixed()
    arguments = SFTConfig(output_dir=str(folder / "checkpoints"), **computing, **named)
    if arguments.device.type == "cuda":  # asking sets the number of GPUs, and TRL refuses to use several in one process
        arguments._n_gpu = 1
    return arguments


def _known(settings: Settings) -> dict[str, Any]:
    """The settings that TRL has by name, less the two that are given otherwise."""
    names = SFTConfig.__dataclass_fields__.keys() - {"output_dir", "gradient_checkpointing"}
    return {name: value for name, value in settings.model_dump().items() if name in names}


def _renamed(settings: Settings) -> dict[str, Any]:
    """What TRL has under another name."""
    checkpointing = settings.gradient_checkpointing
    return {
        # What was gradient_checkpointing. auto: the trainer decides once it has seen what the activations take
        "activation_checkpointing": sharding() is not None if checkpointing == "auto" else checkpointing,
        "save_strategy": settings.eval_strategy,
        "save_steps": settings.eval_steps,
    }


def _fixed() -> dict[str, Any]:
    """What is the same for all settings, as rows are prepared and checkpoints kept in the way of this package."""
    return {
        "max_length": None,  # rows that are too long were taken out before, and counted
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "padding_free": False,  # TRL's own has rows see each other in bases that take no position_ids
        "logging_nan_inf_filter": False,  # it replaces a loss that is no number before anyone sees it
        "pad_to_multiple_of": None,
        "save_total_limit": None,  # old ones are removed here, after the new one is sealed
        "restore_callback_states_from_checkpoint": True,  # else early stopping counts from 0 again
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "prediction_loss_only": True,
        "ddp_find_unused_parameters": False,
        "disable_tqdm": True,
        "include_num_input_tokens_seen": "no",
    }
