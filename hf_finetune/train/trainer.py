"""QLoRA through TRL's SFTTrainer: the same steps for any number of processes, and for a run that was stopped."""

import json
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PrinterCallback, Trainer
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTConfig, SFTTrainer

from hf_finetune.checkpoints import keep_newest, seal, step_of
from hf_finetune.errors import RecipeError
from hf_finetune.interruption import interruption
from hf_finetune.lora import fuse
from hf_finetune.model import compute_dtype, dequantize_if_asked, explaining_full_memory, free_memory
from hf_finetune.packed_model import PackedModel
from hf_finetune.packing import NO_LOSS, Batch
from hf_finetune.prepare import Encoded
from hf_finetune.processes import highest, is_main, num_processes, rank, sharding
from hf_finetune.progress import Progress
from hf_finetune.settings import Settings
from hf_finetune.train.batches import (
    SILENT_ROW,
    EpochLoader,
    ShardedBatches,
    groups_of,
    ignore_signals,
    packed_batch,
    supervised_batch,
)
from hf_finetune.train.callbacks import EarlyStopping, LogFile, ProgressReport, SaveWhenAsked
from hf_finetune.train.room import check_room, keeps_at_most, removed_if_refused

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def train(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: Encoded,
    adapter: "LoraConfig",
    settings: Settings,
    folder: Path,
    progress: Progress,
    checkpoint: Path | None = None,
) -> None:
    """Trains an adapter on `rows.train`, from the start or from a checkpoint on, bit for bit as without a stop.

    Leaves `training_log.jsonl` and `checkpoints/` in `folder`; the best adapter is in the checkpoint that
    `checkpoints.best_of` the last one names.

    Raises:
        RecipeError: when the loss is no longer a number, the GPU's memory is full, or a checkpoint cannot be written.
        Interrupted: when a signal asked to stop; what was trained so far has been saved.
    """
    trainer = RecipeTrainer(model, tokenizer, rows, adapter, settings, folder, progress, checkpoint)
    if is_main():
        check_room(folder, trainer.checkpoint_bytes(), settings.save_total_limit)
    if rank():
        torch.manual_seed(settings.seed + rank())  # else all processes would drop out the same, row by row
    advice = (
        "Start another run (output_dir=FOLDER or --overwrite) with half of per_device_train_batch_size and twice "
        "gradient_accumulation_steps, which takes the same steps, or with gradient_checkpointing=true if it is off."
    )
    with interruption.deferred(), explaining_full_memory(advice):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


class RecipeTrainer(SFTTrainer):  # type: ignore[misc]  # TRL exports it untyped
    """TRL's trainer with batches that do not depend on the number of processes, and checkpoints that are whole."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        rows: Encoded,
        adapter: "LoraConfig",
        settings: Settings,
        folder: Path,
        progress: Progress,
        checkpoint: Path | None,
    ) -> None:
        from datasets import Dataset

        is_dequantized = dequantize_if_asked(model, settings)
        self.rows = rows
        self.settings = settings
        self.saved_step = step_of(checkpoint) if checkpoint else 0
        self.stop = SaveWhenAsked(self.save_once)
        log = [LogFile(folder / "training_log.jsonl", self.saved_step)] if is_main() else []
        patience = settings.early_stopping_patience
        with warnings.catch_warnings():
            # PEFT 0.21 still asks transformers 5 by the attribute's old name.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            super().__init__(
                model=model,
                args=_arguments(settings, folder),
                train_dataset=Dataset.from_list([dict(row) for row in rows.train]),
                eval_dataset=Dataset.from_list([dict(row) for row in rows.validation]),
                processing_class=tokenizer,
                peft_config=adapter,
                callbacks=[
                    *log, ProgressReport(progress), self.stop,
                    *([EarlyStopping(patience)] if patience else []),
                ],
            )  # fmt: skip
        self.remove_callback(PrinterCallback)  # it prints every log line as a dict
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                # TRL casts a QLoRA adapter to bfloat16: small steps are lost, and a resume, in float32, is another run.
                parameter.data = parameter.data.float()
        self.lean = PackedModel(self.model)
        num_fused = fuse(self.model) if settings.fused_lora and not sharding() else 0
        self.is_packed = settings.padding_free and self._can("padding_free", progress)
        self.is_supervised = settings.supervised_only and (self.is_packed or self._can("supervised_only", progress))
        self.lean.switch(self.is_packed)
        self._collate: Callable[..., Batch] = (
            partial(packed_batch, shared_prefix=settings.shared_prefix) if self.is_packed
            else partial(supervised_batch, collator=self.data_collator) if self.is_supervised
            else self.data_collator
        )  # fmt: skip
        if settings.gradient_checkpointing == "auto" and not sharding():
            self._checkpoint_what_does_not_fit()
        progress.session.gains = {
            "padding_free": self.is_packed,
            "shared_prefix": self.is_packed and settings.shared_prefix,
            "supervised_only": self.is_supervised,
            "fused_lora": num_fused > 0,
            "dequantize_once": is_dequantized,
            "gradient_checkpointing": self._checkpointed(),
        }
        self.first_lost_step = torch.tensor(math.inf, device=self.args.device)
        groups = groups_of(rows.train, settings.group_by)
        self.train_batches = self._batches(rows.train, settings.per_device_train_batch_size, settings.seed, groups)
        if settings.group_by == "prefix" and not self.is_packed:
            progress.tell("group_by=prefix only makes batches more alike here, as padding_free is off.")
        self.stop.steps_in_epoch = math.ceil(len(self.train_batches) / settings.gradient_accumulation_steps)

    def get_train_dataloader(self) -> EpochLoader:
        """The training rows in an order that the epoch and the seed alone decide."""
        return self._loader(self.rows.train, self.train_batches)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> EpochLoader:
        """The validation rows in their order."""
        size = self.settings.per_device_eval_batch_size
        return self._loader(self.rows.validation, self._batches(self.rows.validation, size, None))

    def evaluation_loop(
        self, dataloader: EpochLoader, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> Any:
        """The mean loss a completion token, over all processes; transformers means over batches, whatever they hold."""
        self.model.eval()
        total = torch.zeros(2, dtype=torch.float64)  # loss, tokens
        for batch in dataloader:
            self.callback_handler.on_prediction_step(self.args, self.state, self.control)
            inputs = self._prepare_inputs(batch)
            labels = inputs["shift_labels"] if "shift_labels" in inputs else inputs["labels"][:, 1:]
            tokens = int((labels != NO_LOSS).sum())
            with torch.no_grad(), self.compute_loss_context_manager():
                loss = self.compute_loss(self.model, inputs)
            total += torch.tensor([float(loss) * tokens, tokens], dtype=torch.float64)
        loss_sum, tokens = self.accelerator.reduce(total.to(self.args.device), "sum").tolist()
        metrics = {f"{metric_key_prefix}_loss": loss_sum / tokens}
        return EvalLoopOutput(None, None, metrics, num_samples=len(self.rows.validation))

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The cross-entropy of the labels, a mean over those of all batches of a step; TRL's where nothing is saved."""
        if "predictors" not in inputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        total = self.lean.losses(model, inputs, self.is_supervised).sum()
        if num_items_in_batch is None:
            return total / max(1, len(inputs["shift_labels"]))
        return total / num_items_in_batch * num_processes()  # whose gradients DDP then averages

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The loss of a batch, after its backward pass; the first step with a loss that is no number is noted."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        step = torch.where(loss.isfinite(), math.inf, self.state.global_step + 1)
        self.first_lost_step = torch.minimum(self.first_lost_step, step)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs; stops when the training is lost."""
        self._stop_if_lost(logs)
        super().log(logs, start_time)

    def save_once(self, step: int) -> None:
        """Saves a checkpoint of the step, if there is one to save and it is not saved yet."""
        if step > self.saved_step:
            self._save_checkpoint(self.model, trial=None)
            self.callback_handler.on_save(self.args, self.state, self.control)

    def _batches(self, rows: Sequence[Any], size: int, seed: int | None, groups: Sequence[int] = ()) -> ShardedBatches:
        return ShardedBatches(len(rows), size, seed, rank(), num_processes(), groups)

    def _loader(self, rows: Sequence[Mapping[str, Sequence[int]]], batches: ShardedBatches) -> EpochLoader:
        return EpochLoader(
            [*rows, SILENT_ROW],
            batches,
            collate_fn=self._collate,
            num_workers=self.args.dataloader_num_workers,
            worker_init_fn=ignore_signals,
            pin_memory=self.args.dataloader_pin_memory and torch.cuda.is_available(),
        )

    def _can(self, setting: str, progress: Progress) -> bool:
        """Whether the labels of two rows have the losses of the plain computation with this gain of speed too."""
        rows = self.rows.train[:2]
        padded = supervised_batch(rows, self.data_collator)
        lean = packed_batch(rows, self.settings.shared_prefix) if setting == "padding_free" else padded
        has_noise = setting == "padding_free" and self.settings.neftune_noise_alpha is not None
        why = (
            "DeepSpeed shares the model out" if sharding() == "DeepSpeed"
            else "the loss that balances its experts is over all tokens of a batch" if self.aux_loss_enabled
            else "neftune_noise_alpha scales its noise by the length of a row" if has_noise
            else None
        )  # fmt: skip
        if why is None:
            with self.accelerator.autocast():
                why = self.lean.fault(self._prepare_inputs(padded), self._prepare_inputs(lean))
        if highest(float(why is not None)):
            progress.tell(f"{setting} is off: {why or 'as in another process'}.")
            return False
        return True

    def _checkpoint_what_does_not_fit(self) -> None:
        """Has as few layers as possible compute their activations again: none, every fourth, every second, or all."""
        for every in (0, 4, 2, 1):
            if every:
                self.args.activation_checkpointing = True
                self.args.activation_checkpointing_kwargs = {"every_n_layers": every, "use_reentrant": False}
                self.model.activation_checkpointing_enable({"use_reentrant": False}, every_n_layers=every)
            if every == 1 or self._activations_fit():
                return

    def _checkpointed(self) -> str:
        """Which layers compute their activations again."""
        every = (self.args.activation_checkpointing_kwargs or {}).get("every_n_layers", 1)
        if not self.args.activation_checkpointing:
            return "no layer"
        return "all layers" if every == 1 else f"one layer in {every}"

    def _activations_fit(self) -> bool:
        """Whether the activations of the longest rows, sharing nothing, stay in memory until the backward pass."""
        size = self.settings.per_device_train_batch_size
        longest = sorted(self.rows.train, key=lambda row: len(row["input_ids"]))[-size:]
        batch = self._prepare_inputs(packed_batch(longest, False) if self.is_packed else self._collate(longest))
        trainable = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        optimizer = 3 * 4 * trainable  # the gradients, and AdamW's two moments
        room = int((free_memory() - optimizer) / 1.5)  # the backward pass needs some of its own
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        self.model.train()
        with torch.random.fork_rng(devices), self.compute_loss_context_manager(), self.accelerator.autocast():
            fits = keeps_at_most(room, self.model, lambda: self.compute_loss(self.model, dict(batch)))
        self._metrics["train"].clear()  # TRL notes what it computes
        self._total_train_tokens = 0
        return not highest(float(not fits))

    def _stop_if_lost(self, logs: Mapping[str, float]) -> None:
        first = -highest(-float(self.first_lost_step))
        if first < math.inf:
            self._lost(int(first), "the loss is no number")
        earlier = [entry["loss"] for entry in self.state.log_history if "loss" in entry]
        vocabulary = self.model.config.get_text_config().vocab_size
        if what := fault_in(logs, min(earlier, default=math.inf), vocabulary, self.args.fp16):
            self._lost(self.state.global_step, what)

    def _lost(self, step: int, what: str) -> None:
        """Raises the error that says when, with which rows, what is left, and what to do."""
        epoch, number = divmod(step - 1, self.stop.steps_in_epoch)
        size = self.settings.gradient_accumulation_steps
        batches = self.train_batches.batches(epoch)[number * size : (number + 1) * size]
        lines = sorted(self.rows.train_lines[row] for batch in batches for row in batch)
        shown = ", ".join(map(str, lines[:20])) + (", ..." if len(lines) > 20 else "")
        kept = f"checkpoint-{self.saved_step} is from before that. " if self.saved_step else ""
        raise RecipeError(
            f"training: {what} at step {step} (lines {shown} of splits/train.jsonl), so the model is lost. {kept}"
            f"Start another run (output_dir=FOLDER or --overwrite) with a lower learning_rate "
            f"(now {self.args.learning_rate:g}) or with gradients clipped lower (max_grad_norm is now "
            f"{f'{self.args.max_grad_norm:g}' if self.args.max_grad_norm else '0, which is off'})."
        )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """The adapter alone: no tokenizer, no pickled arguments, no embeddings (PEFT adds them when offline)."""
        if self.args.should_save:
            model = self.accelerator.unwrap_model(self.model)
            model.save_pretrained(output_dir, state_dict=state_dict, save_embedding_layers=False)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """A checkpoint, sealed once all processes have written their part; the one before stays until then."""
        self._stop_if_lost({})
        checkpoint = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        names = [name for process in range(num_processes()) for name in _files_of(process)]
        with removed_if_refused(checkpoint, self.checkpoint_bytes()):
            Trainer._save_checkpoint(self, model, trial)  # TRL's writes a model card first, which nobody reads
            self.accelerator.wait_for_everyone()
            if is_main():
                seal(checkpoint, ["adapter_model.safetensors", "trainer_state.json", *names])
        if is_main():
            keep_newest(checkpoint.parent, self.settings.save_total_limit)
        self.accelerator.wait_for_everyone()
        self.saved_step = self.state.global_step

    def checkpoint_bytes(self) -> int:
        """About what a checkpoint takes: the adapter, and AdamW's two moments of it, in float32."""
        trainable = sum(int(p.numel()) for p in self.model.parameters() if p.requires_grad)
        return 3 * 4 * trainable + 2**20

    def _save_rng_state(self, output_dir: str) -> None:
        """The random state of this process, and the losses since the last log line, so that the log goes on too."""
        super()._save_rng_state(output_dir)
        window = {"loss": float(self._tr_loss), "last_logged_step": self._globalstep_last_logged}
        _window_file(output_dir).write_text(json.dumps(window), encoding="utf-8")

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None:
            window = json.loads(_window_file(checkpoint).read_text(encoding="utf-8"))
            self._tr_loss += window["loss"]
            self._globalstep_last_logged = window["last_logged_step"]


def fault_in(logs: Mapping[str, float], lowest_loss: float, vocabulary: int, is_float16: bool) -> str | None:
    """What in a log line says that a training is lost, after losses that once were as low as `lowest_loss`."""
    # Under float16 a gradient that overflows is normal: its step is left out and the scale lowered.
    watched = ("loss", "eval_loss") if is_float16 else ("loss", "eval_loss", "grad_norm")
    for name in watched:
        if not math.isfinite(logs.get(name, 0.0)):
            return f"{name} is {logs[name]}"
    blind = math.log(vocabulary)  # the loss of guessing each token blindly
    if logs.get("loss", 0.0) > blind and lowest_loss < blind / 2:
        return f"the loss is {logs['loss']:.2f}, worse than blind guessing, and was {lowest_loss:.2f}"
    return None


def _files_of(process: int) -> tuple[str, str]:
    """The files that each process writes of its own: its random state, and its losses since the last log line."""
    return f"rng_state_{process}.pth" if num_processes() > 1 else "rng_state.pth", f"log_window_{process}.json"


def _window_file(checkpoint: str) -> Path:
    return Path(checkpoint) / _files_of(rank())[1]


def _arguments(settings: Settings, folder: Path) -> "SFTConfig":
    """TRL's arguments: the settings that it knows by name, and what follows from the way rows are prepared here."""
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
            "padding_free": False,  # TRL's own has rows see each other in bases that take no position_ids
            # auto: the trainer decides once it has seen what the activations take
            "activation_checkpointing": sharding() is not None
            if settings.gradient_checkpointing == "auto"
            else settings.gradient_checkpointing,
            "bf16": half == "bf16",
            "fp16": half == "fp16",
            "logging_nan_inf_filter": False,  # it replaces a loss that is no number before anyone sees it
            "pad_to_multiple_of": None,
            "save_strategy": settings.eval_strategy,
            "save_steps": settings.eval_steps,
            "save_total_limit": None,  # old ones are removed here, after the new one is sealed
            "restore_callback_states_from_checkpoint": True,  # else early stopping counts from 0 again
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
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
