"""QLoRA through TRL's SFTTrainer: the same steps for any number of processes, and for a run that was stopped."""

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTTrainer

from hf_finetune.checkpoints import keep_newest, seal, step_of
from hf_finetune.errors import RecipeError
from hf_finetune.files import read_json
from hf_finetune.interruption import interruption
from hf_finetune.model import dequantize_if_asked, explaining_full_memory
from hf_finetune.packing import NO_LOSS, Batch
from hf_finetune.prepare import Encoded
from hf_finetune.processes import highest, is_main, num_processes, rank, sharding
from hf_finetune.progress import Progress
from hf_finetune.settings import Settings
from hf_finetune.train.arguments import training_arguments
from hf_finetune.train.batches import EpochLoader, Pieces, ShardedBatches, groups_of, ignore_signals, labels_of
from hf_finetune.train.callbacks import EarlyStopping, LogFile, ProgressReport, SaveWhenAsked
from hf_finetune.train.fitting import Fitting
from hf_finetune.train.gains import Gains
from hf_finetune.train.lost import fault_in, lost_training
from hf_finetune.train.room import check_room, removed_if_refused

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FULL = (
    "Start another run (output_dir=FOLDER or --overwrite) with half of per_device_train_batch_size and twice "
    "gradient_accumulation_steps, which takes the same steps, or with gradient_checkpointing=true if it is off."
)
"""What helps where batches cannot be cut into smaller pieces here."""


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
    with explaining_full_memory(FULL):
        trainer = RecipeTrainer(model, tokenizer, rows, adapter, settings, folder, progress, checkpoint)
    if is_main():
        check_room(folder, trainer.checkpoint_bytes(), settings.save_total_limit)
    if rank():
        torch.manual_seed(settings.seed + rank())  # else all processes would drop out the same, row by row
    trainer.fitting.prove()
    with interruption.deferred(), explaining_full_memory(FULL):
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

        self.is_dequantized = dequantize_if_asked(model, settings)
        self.rows = rows
        self.settings = settings
        self.saved_step = step_of(checkpoint) if checkpoint else 0
        self.stop = SaveWhenAsked(self.save_once)
        callbacks = self._callbacks(folder, progress)
        with warnings.catch_warnings():
            # PEFT 0.21 still asks transformers 5 by the attribute's old name.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            super().__init__(
                model=model,
                args=training_arguments(settings, folder),
                train_dataset=Dataset.from_list([dict(row) for row in rows.train]),
                eval_dataset=Dataset.from_list([dict(row) for row in rows.validation]),
                processing_class=tokenizer,
                peft_config=adapter,
                callbacks=callbacks,
            )
        self.remove_callback(PrinterCallback)  # it prints every log line as a dict
        self._hold_adapter_in_float32()
        # Labels are counted for `compute_loss`, which takes the count for any model.
        self.model_accepts_loss_kwargs = True
        self.gains = Gains(self, progress)
        if settings.gradient_checkpointing == "auto" and not sharding():
            self.gains.checkpoint_what_does_not_fit()
        progress.session.gains = self.gains.taken() | {"dequantize_once": self.is_dequantized}
        self.first_lost_step = torch.tensor(math.inf, device=self.args.device)
        self._share_rows_out(progress)
        window = read_json(_window_file(str(checkpoint))) if checkpoint else {}
        self.fitting = Fitting(self, progress, window.get("rows_at_a_time"))

    def _callbacks(self, folder: Path, progress: Progress) -> list[TrainerCallback]:
        """The log file in the main process, the progress, a stop that loses nothing, and early stopping if it is on."""
        log = [LogFile(folder / "training_log.jsonl", self.saved_step)] if is_main() else []
        patience = self.settings.early_stopping_patience
        return [*log, ProgressReport(progress), self.stop, *([EarlyStopping(patience)] if patience else [])]

    def _hold_adapter_in_float32(self) -> None:
        """Undoes TRL's cast of a QLoRA adapter to bfloat16: small steps are lost there, and a resume is in float32."""
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()

    def _share_rows_out(self, progress: Progress) -> None:
        """Decides which training rows come in one batch, and how many steps an epoch has."""
        settings = self.settings
        groups = groups_of(self.rows.train, settings.group_by)
        self.train_batches = self._batches(self.rows.train, settings.per_device_train_batch_size, settings.seed, groups)
        if settings.group_by == "prefix" and not self.gains.is_packed:
            progress.tell("group_by=prefix only makes batches more alike here, as padding_free is off.")
        self.stop.steps_in_epoch = math.ceil(len(self.train_batches) / settings.gradient_accumulation_steps)

    def get_train_dataloader(self) -> EpochLoader:
        """The training rows in an order that the epoch and the seed alone decide."""
        return self._loader(self.train_batches, self.fitting.train)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> EpochLoader:
        """The validation rows in their order."""
        size = self.settings.per_device_eval_batch_size
        return self._loader(self._batches(self.rows.validation, size, None), self.fitting.validation)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The learning rate of each step; a single one is no warm-up step, whose rate of 0 would learn nothing."""
        if num_training_steps == 1:
            self.args.warmup_steps = 0
        return super().create_scheduler(num_training_steps, optimizer)

    def evaluation_loop(
        self, dataloader: EpochLoader, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> Any:
        """The mean loss a completion token, over all processes; transformers means over batches, whatever they hold."""
        self.model.eval()
        total = torch.zeros(2, dtype=torch.float64)  # loss, tokens
        for batch in dataloader:
            self.callback_handler.on_prediction_step(self.args, self.state, self.control)
            total += self.fitting.evaluate(batch, self._loss_and_tokens)
        loss_sum, tokens = self.accelerator.reduce(total.to(self.args.device), "sum").tolist()
        metrics = {f"{metric_key_prefix}_loss": loss_sum / tokens}
        return EvalLoopOutput(None, None, metrics, num_samples=len(self.rows.validation))

    def _loss_and_tokens(self, piece: Batch) -> torch.Tensor:
        """The sum of the losses of a piece's labels, and their number, without gradients."""
        inputs = self._prepare_inputs(piece)
        tokens = int((labels_of(inputs) != NO_LOSS).sum())
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(self.model, inputs)
        return torch.tensor([float(loss) * tokens, tokens], dtype=torch.float64)

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The cross-entropy of the labels, a mean over those of all batches of a step; TRL's where nothing is saved."""
        if "predictors" not in inputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        total = self.gains.losses(model, inputs).sum()
        if num_items_in_batch is None:
            return total / max(1, len(inputs["shift_labels"]))
        return total / num_items_in_batch * num_processes()  # whose gradients DDP then averages

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> torch.Tensor:
        """The loss of a batch, after its backward pass; the first step with a loss that is no number is noted."""
        loss = self.fitting.step(inputs, partial(self._add_up, model, num_items_in_batch))
        step = torch.where(loss.isfinite(), math.inf, self.state.global_step + 1)
        self.first_lost_step = torch.minimum(self.first_lost_step, step)
        return loss

    def _add_up(self, model: Any, num_items_in_batch: Any, pieces: Sequence[Batch]) -> torch.Tensor:
        """The loss of pieces of a batch, after the backward pass of each; only the last waits for other processes."""
        losses = []
        for left, piece in zip(range(len(pieces) - 1, -1, -1), pieces, strict=True):
            with self.accelerator.no_sync(model) if left else nullcontext():
                losses.append(super().training_step(model, piece, num_items_in_batch))
        return torch.stack(losses).sum()

    def floating_point_ops(self, inputs: Batch) -> int:
        """About how many operations a batch takes, forward and backward."""
        return sum(super(RecipeTrainer, self).floating_point_ops(piece) for piece in inputs["pieces"])

    def forget_what_was_noted(self) -> None:
        """Forgets what TRL noted of losses that belong to no step."""
        self._metrics["train"].clear()
        self._metrics["eval"].clear()
        self._total_train_tokens = 0

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

    def _loader(self, batches: ShardedBatches, pieces: Pieces) -> EpochLoader:
        return EpochLoader(
            batches,
            collate_fn=pieces,
            num_workers=self.args.dataloader_num_workers,
            worker_init_fn=ignore_signals,
            pin_memory=self.args.dataloader_pin_memory and torch.cuda.is_available(),
        )

    def _stop_if_lost(self, logs: Mapping[str, float]) -> None:
        first = -highest(-float(self.first_lost_step))
        if first < math.inf:
            raise self._lost(int(first), "the loss is no number")
        earlier = [entry["loss"] for entry in self.state.log_history if "loss" in entry]
        vocabulary = self.model.config.get_text_config().vocab_size
        if what := fault_in(logs, min(earlier, default=math.inf), vocabulary, self.args.fp16):
            raise self._lost(self.state.global_step, what)

    def _lost(self, step: int, what: str) -> RecipeError:
        return lost_training(what, step, self._lines_of(step), self.saved_step, self.args)

    def _lines_of(self, step: int) -> list[int]:
        """The lines of splits/train.jsonl that a step learns from, in all processes."""
        epoch, number = divmod(step - 1, self.stop.steps_in_epoch)
        size = self.settings.gradient_accumulation_steps
        batches = self.train_batches.batches(epoch)[number * size : (number + 1) * size]
        return sorted(self.rows.train_lines[row] for batch in batches for row in batch)

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
        """The random state of this process, the losses since the last log line, so that the log goes on too, and how
        many rows go through the model at a time: in other pieces dropout is other noise."""
        super()._save_rng_state(output_dir)
        window = {
            "loss": float(self._tr_loss),
            "last_logged_step": self._globalstep_last_logged,
            "rows_at_a_time": self.fitting.train.size,
        }
        _window_file(output_dir).write_text(json.dumps(window), encoding="utf-8")

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None:
            window = json.loads(_window_file(checkpoint).read_text(encoding="utf-8"))
            self._tr_loss += window["loss"]
            self._globalstep_last_logged = window["last_logged_step"]


def _files_of(process: int) -> tuple[str, str]:
    """The files that each process writes of its own: its random state, and its losses since the last log line."""
    return f"rng_state_{process}.pth" if num_processes() > 1 else "rng_state.pth", f"log_window_{process}.json"


def _window_file(checkpoint: str) -> Path:
    return Path(checkpoint) / _files_of(rank())[1]
