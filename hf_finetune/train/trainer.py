"""QLoRA through TRL's SFTTrainer, loss on the completion only; the best checkpoint on validation is kept."""

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import RecipeError
from hf_finetune.model import adapter_config, compute_dtype, explaining_full_memory
from hf_finetune.settings import Settings
from hf_finetune.train.callbacks import LogFile, ProgressBar

if TYPE_CHECKING:
    from peft import PeftModel
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
    settings: Settings,
    folder: Path,
) -> Trained:
    """The model with an adapter trained on `train_rows`, at the step with the lowest loss on `validation_rows`.

    Leaves `training_log.jsonl` and `checkpoints/` in `folder`.

    Raises:
        RecipeError: when the loss is no longer a number, or the GPU's memory is full.
    """
    from safetensors import SafetensorError

    log = LogFile(folder / "training_log.jsonl")
    trainer = _trainer(model, tokenizer, train_rows, validation_rows, settings, folder, log)
    started = time.monotonic()
    with explaining_full_memory(
        "Halve per_device_train_batch_size and double gradient_accumulation_steps (the result is the same), "
        "or add gradient_checkpointing=true."
    ):
        try:
            result = trainer.train()
        except (OSError, SafetensorError) as error:
            raise RecipeError(
                f"{folder / 'checkpoints'}: a checkpoint cannot be written: {error}. "
                f"Make room there, or name another folder with output_dir=FOLDER."
            ) from error
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


def _trainer(
    model: Any,
    tokenizer: Any,
    train_rows: Sequence[TokenIds],
    validation_rows: Sequence[TokenIds],
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
            peft_config=adapter_config(model, settings),
            callbacks=[log, ProgressBar(), *([EarlyStoppingCallback(patience)] if patience else [])],
        )
    trainer.remove_callback(PrinterCallback)  # it prints every log line as a dict
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            # TRL casts a QLoRA adapter to bfloat16: small steps are lost, and a resume, which loads it in float32,
            # differs.
            parameter.data = parameter.data.float()
    return trainer


def _arguments(settings: Settings, folder: Path) -> "SFTConfig":
    """TRL's arguments: the settings that it knows by name, and what follows from the way rows are prepared here."""
    import torch
    from trl import SFTConfig

    dtype = compute_dtype(settings)
    known = {name: value for name, value in settings.model_dump().items() if name in SFTConfig.__dataclass_fields__}
    return SFTConfig(
        **known
        | {
            "output_dir": str(folder / "checkpoints"),
            "max_length": None,  # rows that are too long were taken out before, and counted
            "dataset_kwargs": {"skip_prepare_dataset": True},
            "activation_checkpointing": known.pop("gradient_checkpointing"),
            "bf16": dtype == torch.bfloat16,
            "fp16": dtype == torch.float16,
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
