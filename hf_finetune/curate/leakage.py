"""Whether test rows have a twin among the training rows after all: by other means than those that split them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_finetune.curate.rows import column, hashed
from hf_finetune.curate.settling import Settled
from hf_finetune.curate.similar import Tokens, batches
from hf_finetune.curate.sketches import Numbers

COMPARED = 200
"""Test rows that are compared with every training row."""
BATCH_WORDS = 20_000
"""Words of training rows that are looked up at once."""


def leakage(
    folders: Sequence[Path],
    sketches: Sequence[Path],
    settled: Settled,
    with_answers: bool,
    similarity: float,
    seed: int,
) -> dict[str, Any]:
    """How many test rows ask what a training row asks; of a draw of them how many ask nearly so, without any shortcut.

    The draw is compared with every training row, so it also finds what the search by bands has missed. `with_answers`:
    rows are told apart by their answers too, as they have but a few prompts.
    """
    train, test = (np.flatnonzero(settled.of(name)) for name in ("train", "test"))
    prompts = column(folders, "prompt")
    asked = np.isin(prompts[test], prompts[train]) & (prompts[test] != hashed(""))
    if with_answers:  # the prompts are instructions that all rows share
        asked[:] = False
    drawn = np.sort(np.random.default_rng(seed).permutation(test)[:COMPARED])
    near = _nearest(Tokens(sketches), drawn, train) if len(drawn) and len(train) else np.zeros(0)
    return {
        "with_answers": with_answers,
        "test_rows": len(test),
        "prompts_in_train": int(asked.sum()),
        "compared_with_all": len(drawn),
        "near_in_train": int((near >= similarity).sum()),
        "highest_similarity": round(float(near.max(initial=0)), 3),
    }


def _nearest(tokens: Tokens, asked: Numbers, others: Numbers) -> NDArray[np.float64]:
    """The highest token Jaccard index of each asked row with any of the others."""
    words, owners = tokens.of(asked)
    vocabulary = np.unique(words)
    has = np.zeros((len(vocabulary) + 1, len(asked)), dtype=np.uint16)  # the last line: words that no asked row has
    has[np.searchsorted(vocabulary, words), owners] = 1
    sizes = tokens.sizes.astype(np.int64)
    best = np.zeros(len(asked))
    for batch in batches(sizes[others], BATCH_WORDS):
        rows = others[batch]
        given, owner = tokens.of(rows)
        place = np.minimum(np.searchsorted(vocabulary, given), len(vocabulary) - 1)
        place[vocabulary[place] != given] = len(vocabulary)
        starts = np.searchsorted(owner, np.arange(len(rows)))
        shared = np.add.reduceat(has[place], starts, axis=0, dtype=np.uint16)
        union = sizes[rows][:, None] + sizes[asked][None, :] - shared
        best = np.maximum(best, (shared / union).max(axis=0))
    return best
