"""The order of rows: the same for any number of processes, so that two of them train what one would."""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from hf_finetune.packing import Batch, pack, shared_start, supervised

SILENT_ROW = {"input_ids": [0], "labels": [-100]}
"""A row without loss: what a process gets that would have none of the last batch."""
WORTH_SHARING = 16
"""So many tokens that some rows of a batch have in common are computed once; for fewer it costs more than it saves."""


class ShardedBatches(Sampler[list[int]]):
    """Each epoch's rows in a seeded order, cut into batches for all processes; each gets every n-th row of a batch.

    accelerate instead fills the last batch of an epoch with rows from its beginning, which then count twice.
    """

    def __init__(
        self, num_rows: int, batch_size: int, seed: int | None, rank: int = 0, num_processes: int = 1,
        groups: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self.num_rows = num_rows
        self.batch_size = batch_size * num_processes
        self.seed = seed
        """None: the rows in their own order."""
        self.groups = groups
        """A number for each row: those with equal or close ones come in one batch, the batches in a seeded order."""
        self.rank = rank
        self.num_processes = num_processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration is of; transformers calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return ceil(self.num_rows / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches(self.epoch):
            yield batch[self.rank :: self.num_processes] or [self.num_rows]

    def batches(self, epoch: int) -> list[list[int]]:
        """The rows of an epoch, in batches for all processes together."""
        if self.seed is None:
            return self._cut(list(range(self.num_rows)))
        chance = torch.Generator().manual_seed(self.seed + epoch)
        order: list[int] = torch.randperm(self.num_rows, generator=chance).tolist()
        if not self.groups:
            return self._cut(order)
        grouped = self._cut(sorted(order, key=self.groups.__getitem__))
        return [grouped[number] for number in torch.randperm(len(grouped), generator=chance)]

    def _cut(self, order: list[int]) -> list[list[int]]:
        return [order[start : start + self.batch_size] for start in range(0, self.num_rows, self.batch_size)]


def ignore_signals(worker: int) -> None:
    """Lets a worker of the data loader live on when all processes are asked to stop, since the main one then saves."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class EpochLoader(DataLoader[Any]):
    """A data loader that tells its batches the epoch: transformers asks the loader, or looks two levels below it."""

    def __init__(self, rows: Sequence[Any], batches: ShardedBatches, **options: Any) -> None:
        super().__init__(rows, batch_sampler=batches, **options)  # type: ignore[arg-type]  # it takes any sequence
        self.set_epoch = batches.set_epoch


def packed_batch(rows: Sequence[Mapping[str, Sequence[int]]], shared_prefix: bool) -> Batch:
    """Rows end to end: what they all begin with once, and what some go on with, or each in whole."""
    ids = [list(row["input_ids"]) for row in rows]
    shared = shared_start(ids) if shared_prefix else 0
    segments = [[own[shared:]] for own in ids]
    for alike in beginning_alike(ids, shared) if shared_prefix else ():
        common = shared_start([ids[row] for row in alike])
        for row in alike:
            segments[row] = [ids[row][shared:common], ids[row][common:]]
    batch = pack(ids[0][:shared], segments, [row["labels"] for row in rows])
    return batch | {"labels": batch["shift_labels"]}  # the trainer counts labels where there is such a name


def groups_of(rows: Sequence[Mapping[str, Sequence[int]]], group_by: str | None) -> list[int]:
    """A number for each row, close for those that belong in one batch: its length, or its group of equal beginnings."""
    ids = [list(row["input_ids"]) for row in rows]
    if group_by is None:
        return []
    if group_by == "length":
        return [len(own) for own in ids]
    number = {row: n for n, alike in enumerate(beginning_alike(ids, shared_start(ids))) for row in alike}
    return [number[row] for row in range(len(ids))]


def beginning_alike(sequences: Sequence[list[int]], shared: int) -> list[list[int]]:
    """The numbers of the sequences, together those which go on alike after the `shared` tokens that all begin with."""
    groups: list[list[int]] = []
    for number in sorted(range(len(sequences)), key=sequences.__getitem__):
        if groups and shared_start([sequences[groups[-1][0]], sequences[number]]) >= shared + WORTH_SHARING:
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups


def supervised_batch(rows: Sequence[Mapping[str, Sequence[int]]], collator: Callable[..., Batch]) -> Batch:
    """Rows filled up to one length by TRL's collator, with what tells the head where a label is predicted from."""
    return supervised(collator(rows))
