"""Which gains of speed a training takes up: those that are asked for and leave the losses as they are."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from hf_finetune.lora import fuse
from hf_finetune.memory import fault_of_first_that_fits
from hf_finetune.model import free_memory
from hf_finetune.packed_model import PackedModel
from hf_finetune.packing import Batch
from hf_finetune.processes import highest, sharding
from hf_finetune.progress import Progress
from hf_finetune.train.batches import packed_batch, supervised_batch
from hf_finetune.train.room import keeps_at_most

if TYPE_CHECKING:
    from hf_finetune.train.trainer import RecipeTrainer


Row = Mapping[str, Sequence[int]]


class Gains:
    """The gains of speed of one trainer, whose model they change."""

    def __init__(self, trainer: "RecipeTrainer", progress: Progress) -> None:
        settings = trainer.settings
        self.trainer = trainer
        self.lean = PackedModel(trainer.model)
        self.is_fused = settings.fused_lora and not sharding() and fuse(trainer.model) > 0
        self.is_packed = settings.padding_free and self._can("padding_free", progress)
        self.is_supervised = settings.supervised_only and (self.is_packed or self._can("supervised_only", progress))
        self.lean.switch(self.is_packed)
        self.collate = self._collator()

    def losses(self, model: Any, inputs: Batch) -> torch.Tensor:
        """The loss of each label of a lean batch."""
        return self.lean.losses(model, inputs, self.is_supervised)

    def taken(self) -> dict[str, bool | str]:
        """Which gains are in use, under the names of their settings."""
        return {
            "padding_free": self.is_packed,
            "shared_prefix": self.is_packed and self.trainer.settings.shared_prefix,
            "supervised_only": self.is_supervised,
            "fused_lora": self.is_fused,
            "gradient_checkpointing": self._checkpointed(),
        }

    @property
    def is_lean(self) -> bool:
        """Whether the loss is computed here, of what it needs; else TRL computes it."""
        return self.is_packed or self.is_supervised

    def checkpoint_as_told(self) -> None:
        """Has the chosen layers compute their activations again from now on, not from when the trainer starts."""
        args = self.trainer.args
        options = dict(args.activation_checkpointing_kwargs or {})
        every = options.pop("every_n_layers", 1)
        if args.activation_checkpointing:
            self.trainer.model.activation_checkpointing_enable(options or None, every_n_layers=every)

    def checkpoint_what_does_not_fit(self) -> None:
        """Has as few layers as possible compute their activations again: none, every fourth, every second, or all."""
        args = self.trainer.args
        for every in (0, 4, 2, 1):
            if every:
                args.activation_checkpointing = True
                args.activation_checkpointing_kwargs = {"every_n_layers": every, "use_reentrant": False}
                self.checkpoint_as_told()
            if every == 1 or self._activations_fit():
                return

    def _collator(self) -> Callable[..., Batch]:
        """What makes a batch of rows under the gains that were chosen."""
        if self.is_packed:
            return partial(packed_batch, shared_prefix=self.trainer.settings.shared_prefix)
        plain: Callable[..., Batch] = self.trainer.data_collator
        return partial(supervised_batch, collator=plain) if self.is_supervised else plain

    def _can(self, setting: str, progress: Progress) -> bool:
        """Whether the labels of two rows have the losses of the plain computation with this gain of speed too."""
        trainer = self.trainer
        has_noise = setting == "padding_free" and trainer.settings.neftune_noise_alpha is not None
        why = (
            "DeepSpeed shares the model out" if sharding() == "DeepSpeed"
            else "the loss that balances its experts is over all tokens of a batch" if trainer.aux_loss_enabled
            else "neftune_noise_alpha scales its noise by the length of a row" if has_noise
            else None
        )  # fmt: skip
        if why is None:
            first, shortest = trainer.rows.train[:2], sorted(trainer.rows.train, key=_length)[:2]
            why = fault_of_first_that_fits(
                partial(self._fault, setting, first), partial(self._fault, setting, shortest)
            )
        if highest(float(why is not None)):
            progress.tell(f"{setting} is off: {why or 'as in another process'}.")
            return False
        return True

    def _fault(self, setting: str, rows: Sequence[Row]) -> str | None:
        """What is wrong with the losses of some rows with this gain of speed."""
        trainer = self.trainer
        padded = supervised_batch(rows, trainer.data_collator)
        lean = packed_batch(rows, trainer.settings.shared_prefix) if setting == "padding_free" else padded
        with trainer.accelerator.autocast():
            return self.lean.fault(trainer._prepare_inputs(padded), trainer._prepare_inputs(lean))

    def _checkpointed(self) -> str:
        """Which layers compute their activations again."""
        args = self.trainer.args
        every = (args.activation_checkpointing_kwargs or {}).get("every_n_layers", 1)
        if not args.activation_checkpointing:
            return "no layer"
        return "all layers" if every == 1 else f"one layer in {every}"

    def _activations_fit(self) -> bool:
        """Whether the activations of the longest rows, sharing nothing, stay in memory until the backward pass."""
        trainer = self.trainer
        size = trainer.settings.per_device_train_batch_size
        longest = sorted(trainer.rows.train, key=_length)[-size:]
        batch = trainer._prepare_inputs(packed_batch(longest, False) if self.is_packed else self.collate(longest))
        trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        optimizer = (4 + trainer.settings.optimizer_bytes) * trainable  # and the gradients
        room = int((free_memory() - optimizer) / 1.5)  # the backward pass needs some of its own
        devices = [trainer.args.device] if trainer.args.device.type == "cuda" else []
        trainer.model.train()
        with torch.random.fork_rng(devices), trainer.compute_loss_context_manager(), trainer.accelerator.autocast():
            fits = keeps_at_most(room, trainer.model, lambda: trainer.compute_loss(trainer.model, dict(batch)))
        trainer.forget_what_was_noted()
        return not highest(float(not fits))


def _length(row: Row) -> int:
    return len(row["input_ids"])
