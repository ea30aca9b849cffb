"""Batches: which rows, the same for any number of processes, so that two train what one would; and how they lie."""

import atexit
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil
from multiprocessing import active_children
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from hf_finetune.packing import NO_LOSS, Batch, pack, shared_start, supervised

SILENT_ROW = {"input_ids": [0], "labels": [NO_LOSS]}
"""A row without loss: what a process gets that would have none of the last batch."""
WORTH_SHARING = 16
"""Rows that go on alike for so many tokens are a group."""
SCORES_A_TOKEN = 1000
"""To save a token, the attention may compute so many scores more. A layer of width h takes 24 h² operations a token and
4 h a score: as many as 3,000 scores at a width of 512, and the attention runs slower than a matrix product."""


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
        yield from self.own_batches(self.epoch)

    def own_batches(self, epoch: int) -> list[list[int]]:
        """The rows of an epoch that this process gets, in its batches; `num_rows` is the number of the silent row."""
        return [batch[self.rank :: self.num_processes] or [self.num_rows] for batch in self.batches(epoch)]

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


def _kill_workers() -> None:
    """Ends the workers with this process. Python would ask them by SIGTERM, which they ignore, and wait for them."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises an error for a worker that is killed
    for worker in active_children():
        if worker.daemon:
            worker.kill()


class EpochLoader(DataLoader[Any]):
    """A data loader that tells its batches the epoch: transformers asks the loader, or looks two levels below it.

    What it hands to `collate_fn` are the numbers of the rows.
    """

    def __init__(self, batches: ShardedBatches, **options: Any) -> None:
        numbers = range(batches.num_rows + 1)  # and the silent row's
        super().__init__(numbers, batch_sampler=batches, **options)  # type: ignore[arg-type]  # it takes any sequence
        self.set_epoch = batches.set_epoch
        if self.num_workers:
            atexit.register(_kill_workers)  # called before what Python itself does then, which was registered earlier


class Pieces:
    """Makes a batch of rows in pieces of at most `size` rows, of which the model takes one at a time."""

    def __init__(
        self, rows: Sequence[Mapping[str, Sequence[int]]], size: int, collate: Callable[[Sequence[Any]], Batch]
    ) -> None:
        self.rows = [*rows, SILENT_ROW]
        self.size = size
        self.collate = collate

    def __call__(self, numbers: Sequence[int]) -> Batch:
        """The batch of the rows with those numbers: `pieces`, and the labels of all of them, which the trainer counts.

        `numbers` and `size` say what it was made of: a worker of the data loader may not know of a smaller size yet.
        """
        pieces = [self.collate([self.rows[number] for number in own]) for own in self.cut(numbers)]
        labels = torch.cat([labels_of(piece).flatten() for piece in pieces])
        shared = {"labels": labels, "shift_labels": labels}
        return {"pieces": pieces, "numbers": list(numbers), "size": self.size} | shared

    def of(self, batch: Batch) -> list[Batch]:
        """The pieces of a batch, of the size that they have now."""
        pieces: list[Batch] = (batch if batch["size"] == self.size else self(batch["numbers"]))["pieces"]
        return pieces

    def cut(self, numbers: Sequence[int]) -> list[Sequence[int]]:
        """The numbers of the rows of each piece."""
        return [numbers[start : start + self.size] for start in range(0, len(numbers), self.size)]


def labels_of(piece: Batch) -> torch.Tensor:
    """The labels of what each token is followed by, or of those alone that have one."""
    labels: torch.Tensor = piece["shift_labels"] if "shift_labels" in piece else piece["labels"][:, 1:]
    return labels


def packed_batch(rows: Sequence[Mapping[str, Sequence[int]]], shared_prefix: bool) -> Batch:
    """Rows end to end; with `shared_prefix`, what all of them or groups of them begin with stands there once."""
    ids = [list(row["input_ids"]) for row in rows]
    shared = shared_start(ids) if shared_prefix else 0
    segments = _in_groups(ids, shared) if shared_prefix else [[own] for own in ids]
    batch = pack(ids[0][:shared], segments, [row["labels"] for row in rows])
    return batch | {"labels": batch["shift_labels"]}  # the trainer counts labels where there is such a name


def _in_groups(ids: Sequence[list[int]], shared: int) -> list[list[list[int]]]:
    """What each row goes on with after `shared` tokens: what its group has in common, and its own; or all as one.

    The attention computes a group as one long row, so groups are made only where that costs less than they save.
    """
    apart = [[own[shared:]] for own in ids]
    grouped = list(apart)
    lengths, saved = [], 0
    for group in group_by_beginning(ids, shared):
        common = shared_start([ids[row] for row in group])
        for row in group:
            grouped[row] = [ids[row][shared:common], ids[row][common:]]
        lengths.append(common - shared + sum(len(ids[row]) - common for row in group))
        saved += (common - shared) * (len(group) - 1)
    more = _scores(lengths, shared) - _scores([len(own) for (own,) in apart], shared)
    return grouped if more <= SCORES_A_TOKEN * saved else apart


def _scores(lengths: Sequence[int], shared: int) -> int:
    """How many scores a head of the attention computes for branches of those lengths after `shared` tokens."""
    return len(lengths) * max(lengths) * (shared + max(lengths))


def groups_of(rows: Sequence[Mapping[str, Sequence[int]]], group_by: str | None) -> list[int]:
    """A number for each row, close for those that belong in one batch: its length, or its group of equal beginnings."""
    if group_by is None:
        return []
    ids = [list(row["input_ids"]) for row in rows]
    if group_by == "length":
        return [len(own) for own in ids]
    numbers = [0] * len(ids)
    for number, group in enumerate(_nested_groups(ids, range(len(ids)))):
        for row in group:
            numbers[row] = number
    return numbers


def _nested_groups(ids: Sequence[list[int]], some: Sequence[int]) -> list[list[int]]:
    """The rows in groups that go on alike, each again in groups while there are any; those like no other are one."""
    own = [ids[row] for row in some]
    parts = [[some[n] for n in part] for part in group_by_beginning(own, shared_start(own))]
    alone = [row for part in parts if len(part) == 1 for row in part]
    nested = [group for part in parts if len(part) > 1 for group in _nested_groups(ids, part)]
    return [alone, *nested] if alone else nested


def group_by_beginning(sequences: Sequence[list[int]], shared: int) -> list[list[int]]:
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
