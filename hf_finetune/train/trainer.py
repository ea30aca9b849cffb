"""QLoRA through TRL's SFTTrainer, loss on the completion only; the best checkpoint on validation is kept."""

import errno
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import RecipeError
from hf_finetune.model import compute_dtype, explaining_full_memory
from hf_finetune.settings import Settings
from hf_finetune.train.callbacks import LogFile, ProgressBar

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig, SFTTrainer

TokenIds = Mapping[str, Sequence[int]]
"""`input_ids` and `labels` of one row."""


@dataclass(frozen=True)
class Trained:
    """The model with its best adapter, and what the training took."""

    model: "PeftModel"
    facts: dict[str, Any]


def train(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    train_rows: Sequence[TokenIds],
    validation_rows: Sequence[TokenIds],
    adapter: "LoraConfig",
    settings: Settings,
    folder: Path,
) -> Trained:
    """The model with an adapter trained on `train_rows`, at the step with the lowest loss on `validation_rows`.

    Leaves `training_log.jsonl` and `checkpoints/` in `folder`.

    Raises:
        RecipeError: when the loss is no longer a number, or the GPU's memory is full.
    """
    log = LogFile(folder / "training_log.jsonl")
    trainer = _trainer(model, tokenizer, train_rows, validation_rows, adapter, settings, folder, log)
    started = time.monotonic()
    with explaining_full_memory(
        "Halve per_device_train_batch_size and double gradient_accumulation_steps (the result is the same), "
        "or add gradient_checkpointing=true."
    ):
        result = _explaining_full_disk(trainer.train, folder)
    facts = {
        "steps": result.global_step,
        "best_step": trainer.state.best_global_step,
        "best_validation_loss": trainer.state.best_metric,
        "epochs": round(float(trainer.state.epoch or 0), 2),
        "seconds": round(time.monotonic() - started, 1),
        **count_parameters(trainer.model),
    }
    return Trained(trainer.model, facts)


def count_parameters(model: Any) -> dict[str, int]:
    """Trainable and all parameters; a packed 4-bit weight counts as what it unpacks to, not as its bytes."""
    sizes = [
        (
            p.requires_grad,
            p.quant_state.shape.numel() if getattr(p, "quant_state", None) is not None else p.numel(),
        )
        for p in model.parameters()
    ]
    return {
        "trainable_parameters": sum(size for trainable, size in sizes if trainable),
        "all_parameters": sum(size for _, size in sizes),
    }


def _explaining_full_disk(work: Callable[[], Any], folder: Path) -> Any:
    """What `work` gives back; a checkpoint that the disk refuses is told in one sentence."""
    try:
        return work()
    except (OSError, RuntimeError) as error:
        refused = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
        if not refused and "PytorchStreamWriter" not in str(error):  # what torch.save says of a full disk
            raise
        raise RecipeError(
            f"{folder / 'checkpoints'}: a checkpoint cannot be written: {error}. "
            f"Make room there, or name another folder with output_dir=FOLDER."
        ) from error


def _trainer(
    model: Any,
    tokenizer: Any,
    train_rows: Sequence[TokenIds],
    validation_rows: Sequence[TokenIds],
    adapter: "LoraConfig",
    settings: Settings,
    folder: Path,
    log: LogFile,
) -> "SFTTrainer":
    from datasets import Dataset
    from transformers import EarlyStoppingCallback, PrinterCallback
    from trl import SFTTrainer

    patience = settings.early_stopping_patience
    with warnings.catch_warnings():
        # PEFT 0.21 still asks transformers 5 by the attribute's old name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        trainer = SFTTrainer(
            model=model,
            args=_arguments(settings, folder),
            train_dataset=Dataset.from_list(list(train_rows)),
            eval_dataset=Dataset.from_list(list(validation_rows)),
            processing_class=tokenizer,
            peft_config=adapter,
            callbacks=[log, ProgressBar(), *([EarlyStoppingCallback(patience)] if patience else [])],
        )
    trainer.remove_callback(PrinterCallback)  # it prints every log line as a dict
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            # TRL casts a QLoRA adapter to bfloat16: small steps are lost, and a resume, in float32, is another run.
            parameter.data = parameter.data.float()
    return trainer


def _arguments(settings: Settings, folder: Path) -> "SFTConfig":
    """TRL's arguments: the settings that it knows by name, and what follows from the way rows are prepared here."""
    import torch
    from trl import SFTConfig

    dtype = compute_dtype(settings)
    half = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "no")
    os.environ["ACCELERATE_MIXED_PRECISION"] = half  # the user's accelerate config must not train in another dtype
    known = {name: value for name, value in settings.model_dump().items() if name in SFTConfig.__dataclass_fields__}
    del known["gradient_checkpointing"]  # deprecated; its new name is below
    arguments = SFTConfig(
        **known
        | {
            "output_dir": str(folder / "checkpoints"),
            "max_length": None,  # rows that are too long were taken out before, and counted
            "dataset_kwargs": {"skip_prepare_dataset": True},
            "activation_checkpointing": settings.gradient_checkpointing,
            "bf16": half == "bf16",
            "fp16": half == "fp16",
            "logging_nan_inf_filter": False,  # it replaces a loss that is no number before anyone sees it
            "pad_to_multiple_of": None,
            "save_strategy": settings.eval_strategy,
            "save_steps": settings.eval_steps,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "prediction_loss_only": True,
            "ddp_find_unused_parameters": False,
            "use_cpu": not torch.cuda.is_available(),
            "disable_tqdm": True,
            "include_num_input_tokens_seen": "no",
        }
    )
    if arguments.device.type == "cuda":  # asking sets the number of GPUs, and TRL refuses to use several in one process
        arguments._n_gpu = 1
    return arguments
