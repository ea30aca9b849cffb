"""A training that fits into memory: the longest batch is tried first, and batches go through in pieces if they must."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from hf_finetune.errors import RecipeError, plural
from hf_finetune.files import read_json, write_json
from hf_finetune.memory import overflow
from hf_finetune.packing import Batch
from hf_finetune.processes import highest, is_main, num_processes, rank, sharding, share
from hf_finetune.progress import Progress
from hf_finetune.train.batches import Pieces
from hf_finetune.train.longest import Needs, neediest

if TYPE_CHECKING:
    from hf_finetune.train.trainer import RecipeTrainer


class Fitting:
    """How many rows of a trainer's batches go through its model at a time: all, or as many as memory holds."""

    def __init__(self, trainer: "RecipeTrainer", progress: Progress, size: int | None) -> None:
        """`size`: how many rows of a training batch it were before a stop."""
        settings, rows, gains = trainer.settings, trainer.rows, trainer.gains
        self.trainer, self.progress = trainer, progress
        self.train = Pieces(rows.train, settings.per_device_train_batch_size, gains.collate)
        self.validation = Pieces(rows.validation, settings.per_device_eval_batch_size, gains.collate)
        self.why_fixed = (
            f"{sharding()} shares the model out" if sharding()
            else "TRL's own loss needs all processes at once" if num_processes() > 1 and not gains.is_lean
            else None
        )  # fmt: skip
        """Why batches are left as they are, also where they do not fit."""
        self._step = -1
        self._of_step: list[Sequence[int]] = []
        known = share(_known(self._file) if is_main() else None)
        self._take(min(found for found in (self.train.size, size, known) if found))

    def prove(self) -> None:
        """Makes sure that the batches which need the most memory fit: takes a real step on them, which leaves no trace.

        Raises:
            RecipeError: when a single row does not fit.
        """
        if self.why_fixed:
            self.progress.tell(f"The longest batch is not tried first: {self.why_fixed}.")
            return
        self.trainer.gains.checkpoint_as_told()
        while why := self._why_too_large(self.train, self._batches_to_train(), with_gradients=True):
            self._halve_train(why)
        rows = range(len(self.trainer.rows.validation))
        while why := self._why_too_large(self.validation, [rows], with_gradients=False):
            self._halve_validation(why)

    def step(self, batch: Batch, compute: Callable[[list[Batch]], torch.Tensor]) -> torch.Tensor:
        """The loss of a batch of a step, and its gradients, added to those of the step's batches before it.

        Where memory is full, all that there is of the step is computed again in smaller pieces.
        """
        if self.why_fixed:
            return compute(self.train.of(batch))
        if self._step != self.trainer.state.global_step:
            self._step, self._of_step = self.trainer.state.global_step, []
        self._of_step.append(batch["numbers"])
        losses: list[torch.Tensor] = []
        why = overflow(lambda: losses.append(compute(self.train.of(batch))))
        while why:
            if num_processes() > 1:
                raise self._stopped(why)
            self._halve_train(why)
            self.trainer.model.zero_grad()  # some layers have the batch's part already, others have not
            why = overflow(lambda: losses.extend(compute(self.train(own)["pieces"]) for own in self._of_step))
        return losses[-1]

    def evaluate(self, batch: Batch, compute: Callable[[Batch], torch.Tensor]) -> torch.Tensor:
        """The sum of what `compute` gives for each piece of a validation batch."""
        if self.why_fixed:
            return torch.stack([compute(piece) for piece in self.validation.of(batch)]).sum(0)
        found: list[torch.Tensor] = []
        while why := overflow(lambda: found.extend(compute(piece) for piece in self.validation.of(batch))):
            found.clear()
            self._halve_validation(why)
        return torch.stack(found).sum(0)

    @property
    def _file(self) -> Path:
        """Where one of several processes leaves the size to go on with: inside a step they cannot agree on one."""
        return Path(self.trainer.args.output_dir) / "rows_at_a_time.json"

    def _why_too_large(self, pieces: Pieces, batches: Iterable[Sequence[int]], with_gradients: bool) -> str | None:
        """How memory is full in some process with the neediest piece of the batches; None when it is not."""
        settings, gains = self.trainer.settings, self.trainer.gains
        shares = gains.is_packed and settings.shared_prefix
        needs = Needs(self.trainer.model, pieces, shares, not gains.is_packed, not gains.is_supervised)
        cut = [piece for batch in batches for piece in pieces.cut(batch)]
        own = neediest(cut, needs.at_most, needs.laid_out)
        why = overflow(lambda: self._try(pieces(own)["pieces"][0], with_gradients)) if own else None
        return why or "in another process" if highest(float(why is not None)) else None

    def _try(self, piece: Batch, with_gradients: bool) -> None:
        """A forward pass, and a backward pass if asked for, beside what the optimiser will hold; no trace is left."""
        trainer = self.trainer
        devices = [trainer.args.device] if trainer.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices), self._beside_the_optimizer():
            trainer.model.train(with_gradients)
            inputs = trainer._prepare_inputs(piece)
            with (
                torch.set_grad_enabled(with_gradients),
                trainer.compute_loss_context_manager(),
                trainer.accelerator.autocast(),
            ):
                loss = trainer.compute_loss(trainer.model, inputs)
            if with_gradients:
                loss.backward()

    @contextmanager
    def _beside_the_optimizer(self) -> Iterator[None]:
        """Inside, as much memory is taken as the optimiser's state needs, and DDP's buckets; after it all is freed."""
        trainer, settings = self.trainer, self.trainer.settings
        trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        value_bytes = settings.optimizer_bytes + (4 if num_processes() > 1 else 0)
        was_training = trainer.model.training
        taken = torch.empty(int(trainable * value_bytes), dtype=torch.uint8, device=trainer.args.device)
        try:
            yield
        finally:
            del taken
            trainer.model.zero_grad(set_to_none=True)
            trainer.model.train(was_training)
            trainer.forget_what_was_noted()

    def _batches_to_train(self) -> list[Sequence[int]]:
        """This process's batches of the steps from the next one on to the last that there may be."""
        trainer, settings = self.trainer, self.trainer.settings
        in_epoch, size = trainer.stop.steps_in_epoch, settings.gradient_accumulation_steps
        first = trainer.saved_step
        last = settings.max_steps if settings.max_steps > 0 else math.ceil(settings.num_train_epochs * in_epoch)
        found: list[Sequence[int]] = []
        for epoch in range(first // in_epoch, math.ceil(last / in_epoch)):
            begin, end = max(0, first - epoch * in_epoch), last - epoch * in_epoch
            found += trainer.train_batches.own_batches(epoch)[begin * size : end * size]
        return found

    def _halve_train(self, why: str) -> None:
        """From now on half as many rows of a training batch go through the model at a time.

        Raises:
            RecipeError: when it was one.
        """
        before = min(self.train.size, len(self.trainer.rows.train))
        if before == 1:
            raise self._too_long(why)
        self._take(_half(before))
        used = self.progress.session.used
        noise = ", but other noise of lora_dropout" if self.trainer.settings.lora_dropout else ""
        self._tell(before, why, used, f"the same rows a step and the same loss{noise}")

    def _halve_validation(self, why: str) -> None:
        """From now on half as many validation rows go through the model at a time.

        Raises:
            RecipeError: when it was one.
        """
        before = min(self.validation.size, len(self.trainer.rows.validation))
        if before == 1:
            raise self._too_long_to_validate(why)
        self.validation.size = _half(before)
        used = {"per_device_eval_batch_size": self.validation.size}
        self.progress.session.used |= used
        self._tell(before, why, used, "the same validation loss")

    def _take(self, size: int) -> None:
        """Takes so many rows of a training batch at a time, and notes it if that is not what was asked for."""
        settings, self.train.size = self.trainer.settings, size
        asked = settings.per_device_train_batch_size
        if size < asked:
            self.progress.session.used |= {
                "per_device_train_batch_size": size,
                "gradient_accumulation_steps": settings.gradient_accumulation_steps * math.ceil(asked / size),
            }

    def _tell(self, before: int, why: str, used: Mapping[str, int], same: str) -> None:
        now = " ".join(f"{name}={value}" for name, value in used.items())
        self.progress.tell(
            f"memory    {plural(before, 'row')} at a time do not fit ({why}); goes on as with {now}: {same}"
        )
        self.progress.write()

    def _too_long(self, why: str) -> RecipeError:
        """What can be done where a row does not even fit alone."""
        trainer, settings = self.trainer, self.trainer.settings
        lengths = [len(row["input_ids"]) for row in trainer.rows.train]
        longest = max(range(len(lengths)), key=lengths.__getitem__)
        shorter = max(1, lengths[longest] // 2)
        longer = plural(sum(length > shorter for length in lengths), "row")
        is_checkpointed = trainer.gains.taken()["gradient_checkpointing"] == "all layers"
        helps = [
            *([] if is_checkpointed else ["gradient_checkpointing=true"]),
            *([] if settings.load_in_4bit else ["load_in_4bit=true"]),
            *(["dequantize_once=false"] if trainer.is_dequantized else []),
            f"max_length={shorter} (which leaves out {longer} of {len(lengths):,})",
        ]
        return RecipeError(
            f"training: the memory is full ({why}) with one row at a time; the longest is line "
            f"{trainer.rows.train_lines[longest]} of splits/train.jsonl, {plural(lengths[longest], 'token')}. "
            f"Start another run (output_dir=FOLDER or --overwrite) with {' or '.join(helps)}, or a smaller base model."
        )

    def _too_long_to_validate(self, why: str) -> RecipeError:
        """What can be done where a validation row does not even fit alone."""
        longest = max(len(row["input_ids"]) for row in self.trainer.rows.validation)
        return RecipeError(
            f"validation: the memory is full ({why}) with one row at a time; the longest row of "
            f"splits/validation.jsonl has {plural(longest, 'token')}. Start another run "
            f"(output_dir=FOLDER or --overwrite) with max_length={max(1, longest // 2)}, which leaves out longer rows, "
            f"or with a smaller base model."
        )

    def _stopped(self, why: str) -> RecipeError:
        """What there is to do where one of several processes has no memory left in the middle of a step."""
        before = min(self.train.size, max(map(len, self._of_step)))
        if before == 1:
            return self._too_long(why)
        size = _half(before)
        write_json(self._file, size)
        return RecipeError(
            f"training: the memory of process {rank()} is full ({why}). Start the same command again: it goes on from "
            f"the last checkpoint with {plural(size, 'row')} at a time, which makes the same steps."
        )


def _half(size: int) -> int:
    return (size + 1) // 2


def _known(file: Path) -> int | None:
    """The size that a process has left there."""
    try:
        return int(read_json(file))
    except (OSError, ValueError, TypeError):
        return None
