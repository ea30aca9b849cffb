"""The steps of batches of any size, from two sizes whose steps were counted, and how much work a run is."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from math import ceil
from statistics import mean
from typing import TYPE_CHECKING, TypeVar

from hf_finetune.estimate.formula import formula_steps
from hf_finetune.estimate.lengths import Lengths, Row, num_labels, padded
from hf_finetune.estimate.shape import Shape
from hf_finetune.estimate.steps import Kind, Steps
from hf_finetune.settings import Settings

if TYPE_CHECKING:
    from hf_finetune.estimate.trace import Tracer

Value = TypeVar("Value")

SMALL = 2
"""The smaller of the two batches that are traced."""
LARGEST_TRACED = 64
SAMPLED = 4
"""Batches whose mean stands for all of an epoch."""


class Counter:
    """Counts the steps of one model on one set of rows."""

    def __init__(self, shape: Shape, settings: Settings, lengths: Lengths) -> None:
        self.shape, self.settings, self.lengths = shape, settings, lengths
        self.untraceable: dict[Kind, str] = {}
        """Kinds whose steps come from a formula, and why."""
        self._tracers: dict[Kind, Tracer] = {}
        self._traced: dict[tuple[Kind, int], Steps] = {}
        self._labels: dict[int, int] = {}
        self._means: dict[tuple[bool, int], float] = {}

    def steps(self, kind: Kind, size: int) -> Steps:
        """The step of the longest rows in a batch of that size; linear in their tokens between those traced."""
        high = min(LARGEST_TRACED, max(2 * SMALL, self.settings.per_device_train_batch_size))
        if size in (SMALL, high):
            return self._counted(kind, size)
        low, top = self._counted(kind, SMALL), self._counted(kind, high)
        below, above = self.tokens(SMALL), self.tokens(high)
        return low.towards(top, (self.tokens(size) - below) / (above - below))

    def tokens(self, size: int) -> int:
        """The tokens of so many of the longest rows, whatever they share."""
        return sum(len(row["input_ids"]) for row in self.lengths.longest(size))

    def labels(self, size: int) -> int:
        """The tokens of so many of the longest rows that carry loss."""
        if size not in self._labels:
            self._labels[size] = sum(map(num_labels, self.lengths.longest(size)))
        return self._labels[size]

    def mean_tokens(self, kind: Kind, size: int) -> float:
        """The tokens that are computed for a batch of that size on average."""
        own = kind.is_packed, min(size, LARGEST_TRACED)
        if own not in self._means:
            self._means[own] = self._mean(*own)
        return size * self._means[own]

    def _mean(self, is_packed: bool, size: int) -> float:
        """The tokens that are computed for a row of a batch of that size on average."""
        from hf_finetune.train.batches import ShardedBatches

        rows = self.lengths.typical
        drawn = ShardedBatches(len(rows), size, self.settings.seed).batches(0)[:SAMPLED]
        whole = [batch for batch in drawn if len(batch) == size] or drawn
        return mean(self._computed(is_packed, [rows[number] for number in batch]) / len(batch) for batch in whole)

    def batches(self, size: int, num_gpus: int, accumulation: int) -> tuple[int, int]:
        """The batches that each device computes in a run at most, and the steps of the optimiser."""
        an_epoch = ceil(self.lengths.num_rows / (size * num_gpus))
        if self.settings.max_steps > 0:
            return self.settings.max_steps * accumulation, self.settings.max_steps
        epochs = self.settings.num_train_epochs
        return ceil(epochs * an_epoch), ceil(epochs * ceil(an_epoch / accumulation))

    def _computed(self, is_packed: bool, rows: Sequence[Row]) -> int:
        from hf_finetune.train.batches import packed_batch

        if is_packed:
            return int(packed_batch(rows, self.settings.shared_prefix)["input_ids"].numel())
        return sum(len(row["input_ids"]) for row in padded(rows))

    def _counted(self, kind: Kind, size: int) -> Steps:
        if (kind, size) not in self._traced:
            self._traced[kind, size] = self._trace(kind, self.lengths.longest(size))
        return self._traced[kind, size]

    def _trace(self, kind: Kind, rows: Sequence[Row]) -> Steps:
        """The steps as they are traced; those of the formula where the model cannot be, at once or as layers are run
        again."""
        formula = formula_steps(self.shape, kind, rows)
        steps = self._tried(kind, lambda: self._tracer(kind).steps(rows), lambda: formula)
        return replace(steps, again=cache(lambda: self._tried(kind, steps.again, formula.again)))

    def _tracer(self, kind: Kind) -> "Tracer":
        from hf_finetune.estimate.trace import Tracer

        if kind not in self._tracers:
            self._tracers[kind] = Tracer(self.shape, self.settings, kind)
        return self._tracers[kind]

    def _tried(self, kind: Kind, trace: Callable[[], Value], formula: Callable[[], Value]) -> Value:
        from hf_finetune.estimate.trace import UNTRACEABLE

        if kind not in self.untraceable:
            try:
                return trace()
            except UNTRACEABLE as error:
                self.untraceable[kind] = f"{type(error).__name__}: {error}"
        return formula()
