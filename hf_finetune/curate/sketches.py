"""Texts -> what near-duplicates are found by: hashes of their words, and MinHash signatures cut into bands."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_finetune.data.splits import tokens

PERMUTATIONS = 128
"""MinHash values of a text."""
RECALL = 0.99
"""The share of pairs of just the wanted similarity that bands are to find; more similar ones are found more often."""
BATCH = 2_000
"""Texts that are signed together."""
TOKENS, OFFSETS, SETS, BANDS = "tokens.npy", "offsets.npy", "sets.npy", "bands.npy"

Words = NDArray[np.uint32]
Numbers = NDArray[np.int64]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Banding:
    """How signatures are cut: texts that agree in all rows of one band are compared."""

    bands: int
    rows: int

    @classmethod
    def for_similarity(cls, similarity: float) -> "Banding":
        """The cut with the longest, so most telling, bands that finds pairs of this token Jaccard index.

        Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.4: a pair of similarity s agrees in one of b bands
        of r rows with the probability 1 - (1 - s^r)^b.
        """
        cuts = [cls(PERMUTATIONS // rows, rows) for rows in range(1, 17)]
        return next((cut for cut in reversed(cuts) if cut.found(similarity) >= RECALL), cuts[0])

    def found(self, similarity: float) -> float:
        """The share of pairs of a similarity that meet in a band."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)


@dataclass(frozen=True)
class Sketch:
    """Of texts in their order: the words of each as hashes, a hash of all its words, and its bands."""

    tokens: Words
    """The distinct words of the texts, one text after the other, each text's ascending."""
    offsets: Numbers
    """Where each text's words begin, and where the last one's end."""
    sets: Hashes
    """The same for texts of the same words."""
    bands: Words
    """(bands, texts)."""

    def write(self, folder: Path) -> None:
        """Leaves the arrays in a folder."""
        for name, array in zip((TOKENS, OFFSETS, SETS, BANDS), self._arrays(), strict=True):
            np.save(folder / name, array)

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        return self.tokens, self.offsets, self.sets, self.bands


def sketch(texts: Sequence[str], banding: Banding, seed: int) -> Sketch:
    """What near-duplicates of the texts are found by; texts without a word are all the same."""
    words = [tokens(text) or {""} for text in texts]
    owners = np.repeat(np.arange(len(words), dtype=np.uint64), [len(own) for own in words])
    flat = np.fromiter((word_hash(word) for own in words for word in own), dtype=np.uint64, count=len(owners))
    keys = np.unique((owners << np.uint64(32)) | flat)  # by text, then ascending
    found = keys.astype(np.uint32)
    offsets = np.searchsorted(keys, np.arange(len(words) + 1, dtype=np.uint64) << np.uint64(32)).astype(np.int64)
    return Sketch(found, offsets, _of_sets(found, offsets), _bands(found, offsets, banding, seed))


def word_hash(word: str) -> int:
    """32 bits of a word: two words of a pair of texts have the same one in a pair out of four billion."""
    return zlib.crc32(word.encode("utf-8", "surrogatepass"))


def mixed(values: Hashes) -> Hashes:
    """The values with their bits spread (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _of_sets(flat: Words, offsets: Numbers) -> Hashes:
    """One hash of each set of words: their sum, once each is spread, which no order can change."""
    spread = mixed(flat.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15))
    return mixed(np.add.reduceat(spread, offsets[:-1]) if len(offsets) > 1 else spread)


def _bands(flat: Words, offsets: Numbers, banding: Banding, seed: int) -> Words:
    """A hash of each band of each text's signature."""
    made = np.empty((banding.bands, len(offsets) - 1), dtype=np.uint32)
    for start in range(0, made.shape[1], BATCH):
        end = min(start + BATCH, made.shape[1])
        signatures = _signatures(flat[offsets[start] : offsets[end]], offsets[start : end + 1] - offsets[start],
                                 banding.bands * banding.rows, seed)  # fmt: skip
        cut = signatures.reshape(end - start, banding.bands, banding.rows).astype(np.uint64)
        folded = np.zeros(cut.shape[:2], dtype=np.uint64)
        for row in range(banding.rows):
            folded = mixed(folded + cut[:, :, row] + np.uint64(row + 1))
        made[:, start:end] = (folded >> np.uint64(32)).T
    return made


def _signatures(flat: Words, offsets: Numbers, count: int, seed: int) -> Words:
    """So many MinHash values of each text."""
    from rensa import RMinHash

    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        flat.astype(np.uint64), offsets.astype(np.uint64), num_perm=count, seed=seed
    )
    return np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(offsets) - 1, count)
