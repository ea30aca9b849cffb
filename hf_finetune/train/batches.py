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


class ShardedBatches(Sampler[list[int]]):
    """Each epoch's rows in a seeded order, cut into batches for all processes; each gets every n-th row of a batch.

    accelerate instead fills the last batch of an epoch with rows from its beginning, which then count twice.
    """

    def __init__(self, num_rows: int, batch_size: int, seed: int | None, rank: int = 0, num_processes: int = 1) -> None:
        self.num_rows = num_rows
        self.batch_size = batch_size * num_processes
        self.seed = seed
        """None: the rows in their own order."""
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
        order = self._order(epoch)
        return [order[start : start + self.batch_size] for start in range(0, self.num_rows, self.batch_size)]

    def _order(self, epoch: int) -> list[int]:
        if self.seed is None:
            return list(range(self.num_rows))
        generator = torch.Generator().manual_seed(self.seed + epoch)
        order: list[int] = torch.randperm(self.num_rows, generator=generator).tolist()
        return order


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
    """Rows end to end, what they all begin with once, or each in whole."""
    ids = [list(row["input_ids"]) for row in rows]
    shared = shared_start(ids) if shared_prefix else 0
    batch = pack(ids[0][:shared], [[own[shared:]] for own in ids], [row["labels"] for row in rows])
    return batch | {"labels": batch["shift_labels"]}  # the trainer counts labels where there is such a name


def supervised_batch(rows: Sequence[Mapping[str, Sequence[int]]], collator: Callable[..., Batch]) -> Batch:
    """Rows filled up to one length by TRL's collator, with what tells the head where a label is predicted from."""
    return supervised(collator(rows))
