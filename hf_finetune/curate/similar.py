"""Sketches of all chunks -> which rows are near-duplicates of which, in time about linear in their number.

Rows of the same words are one text. Texts that agree in a band are candidates; each candidate is compared by the exact
token Jaccard index before two texts count as near-duplicates. One band at a time is in memory.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_finetune.curate.sketches import BANDS, OFFSETS, SETS, TOKENS, Hashes, Numbers, Words

WINDOW = 64
"""Texts of one bucket are each compared with so many others: all pairs of a bucket of 65."""
CROWDED_WINDOW = 8
"""The same in a bucket of more: there texts stand in the order of the next band, so that similar ones are near."""
BATCH_TOKENS = 2_000_000
"""Words that are compared at once."""

Parents = NDArray[np.int32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Similar:
    """Which rows are alike."""

    first: Parents
    """Of each row the first one that is connected to it by near-duplicates: itself, where it is like none before it."""
    compared: int
    """Pairs of texts that were compared exactly."""
    crowded: int
    """Texts in buckets so large that not all pairs of them were compared."""
    texts: int
    """Different sets of words."""


class Tokens:
    """The words of all texts, in one file on disk: of any of them, in any order, without holding the rest."""

    def __init__(self, folders: Sequence[Path]) -> None:
        counts = [np.diff(np.load(folder / OFFSETS)).astype(np.int32) for folder in folders]
        self.sizes: Parents = np.concatenate(counts)
        """Of each text the number of its words."""
        ends = np.cumsum(self.sizes, dtype=np.int64)
        self._starts = ends - self.sizes
        self._words = _on_disk(folders[0], (int(ends[-1]) if len(ends) else 1,))
        done = 0
        for folder in folders:
            own = np.load(folder / TOKENS)
            self._words[done : done + len(own)] = own
            done += len(own)

    def of(self, rows: Numbers) -> tuple[Words, Numbers]:
        """The words of the rows, one row after the other, and of each word which of the given rows it is of."""
        sizes = self.sizes[rows].astype(np.int64)
        ends = np.cumsum(sizes)
        owner = np.repeat(np.arange(len(rows)), sizes)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)
        return np.asarray(self._words[within + np.repeat(self._starts[rows], sizes)]), owner


def find_similar(
    folders: Sequence[Path], similarity: float, advance: Callable[[int], None] = lambda done: None
) -> Similar:
    """Near-duplicates among the rows whose sketches lie in the folders; `advance` is told the bands that are done."""
    tokens = Tokens(folders)
    sets: Hashes = np.concatenate([np.load(folder / SETS) for folder in folders])
    _, texts, text_of_row = np.unique(sets, return_index=True, return_inverse=True)
    del sets
    parents = np.arange(len(texts), dtype=np.int32)
    compared, crowded = 0, np.zeros(len(texts), dtype=bool)
    bands = _all_bands(folders, len(text_of_row))
    for band in range(len(bands)):
        here, next_one = bands[band][texts], bands[(band + 1) % len(bands)][texts]
        compared += _join_band(here, next_one, tokens, texts, similarity, parents, crowded)
        parents[:] = roots(parents, np.arange(len(parents)))
        advance(band + 1)
    first = np.full(len(texts), np.iinfo(np.int32).max, dtype=np.int32)
    np.minimum.at(first, parents, texts.astype(np.int32))
    return Similar(first[parents][text_of_row], compared, int(crowded.sum()), len(texts))


def _all_bands(folders: Sequence[Path], rows: int) -> Words:
    """(bands, rows) of all chunks: one file on disk, as there may be more chunks than files that may be open."""
    count = np.load(folders[0] / BANDS, mmap_mode="r").shape[0]
    bands = _on_disk(folders[0], (count, rows))
    done = 0
    for folder in folders:
        own = np.load(folder / BANDS)
        bands[:, done : done + own.shape[1]] = own
        done += own.shape[1]
    return bands


def _on_disk(folder: Path, shape: tuple[int, ...]) -> Words:
    """An array in a file without a name, so that nothing is left of it."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, np.uint32, "w+", shape=shape)


def unite(parents: Parents, left: Numbers, right: Numbers) -> None:
    """Makes one tree of each two that a pair connects: all pairs at once, a larger root below a smaller one."""
    while len(left):
        one, other = roots(parents, left), roots(parents, right)
        apart = one != other
        left, right, one, other = left[apart], right[apart], one[apart], other[apart]
        np.minimum.at(parents, np.maximum(one, other), np.minimum(one, other))


def roots(parents: Parents, of: NDArray[Any]) -> Parents:
    """The root above each node."""
    found: Parents = parents[of]
    while True:
        above: Parents = parents[found]
        if np.array_equal(above, found):
            return found
        found = parents[above]


def _join_band(
    here: Words, next_one: Words, tokens: Tokens, texts: Numbers, similarity: float, parents: Parents, crowded: Flags
) -> int:
    """Connects the near-duplicates that agree in one band, and gives back how many pairs were compared."""
    order = np.lexsort((next_one, here))
    values = here[order]
    begins = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    sizes = np.diff(np.concatenate([begins, [len(values)]]))
    is_crowded = np.repeat(sizes > WINDOW + 1, sizes)
    crowded[order[is_crowded]] = True
    # Of each text the number of those after it in its bucket, as far as it is compared with them.
    after = np.repeat(begins + sizes, sizes) - np.arange(len(values)) - 1
    after = np.minimum(after, np.where(is_crowded, CROWDED_WINDOW, WINDOW))
    compared, places = 0, np.flatnonzero(after)
    for distance in range(1, WINDOW + 1):
        places = places[after[places] >= distance]
        if not len(places):
            break
        left, right = order[places], order[places + distance]
        wanted = _may_be_similar(tokens, texts, left, right, similarity)
        wanted &= roots(parents, left) != roots(parents, right)
        left, right = left[wanted], right[wanted]
        compared += len(left)
        for pairs in batches(tokens.sizes[texts[left]].astype(np.int64) + tokens.sizes[texts[right]], BATCH_TOKENS):
            one, other = left[pairs], right[pairs]
            same = jaccards(tokens, texts[one], texts[other]) >= similarity
            unite(parents, one[same], other[same])
    return compared


def _may_be_similar(tokens: Tokens, texts: Numbers, left: Numbers, right: Numbers, similarity: float) -> Flags:
    """Whether the numbers of words of two texts allow for it."""
    one, other = tokens.sizes[texts[left]], tokens.sizes[texts[right]]
    return np.minimum(one, other) >= similarity * np.maximum(one, other) - 1e-9


def batches(sizes: Numbers, most: int) -> list[slice]:
    """Runs of things with about so many words together at most."""
    if not len(sizes):
        return []
    batch = np.cumsum(sizes) // most
    ends = [*(np.flatnonzero(batch[1:] != batch[:-1]) + 1).tolist(), len(sizes)]
    return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def jaccards(tokens: Tokens, left: Numbers, right: Numbers) -> NDArray[np.float64]:
    """The token Jaccard index of each pair of rows, exactly."""
    keys = np.concatenate([_keys(*tokens.of(left)), _keys(*tokens.of(right))])
    keys.sort(kind="stable")  # two ascending runs: merged in linear time
    shared = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(32)
    both = np.bincount(shared.astype(np.int64), minlength=len(left))
    return both / (tokens.sizes[left].astype(np.int64) + tokens.sizes[right] - both)


def _keys(words: Words, owners: Numbers) -> Hashes:
    return (owners.astype(np.uint64) << np.uint64(32)) | words
