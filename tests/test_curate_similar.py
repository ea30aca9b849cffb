"""Near-duplicates among many rows: the exact index decides, and time grows with the rows and not with their pairs."""

import random
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from curate_data import questions
from hf_finetune.curate.settling import assign
from hf_finetune.curate.similar import Tokens, find_similar, jaccards, roots, unite
from hf_finetune.curate.sketches import Banding, sketch
from hf_finetune.data.splits import jaccard, near_duplicate_pairs, tokens


def sketched(tmp_path: Path, texts: list[str], similarity: float = 0.8, rows: int = 10_000) -> list[Path]:
    """The folders of the sketches of texts, so many in each."""
    folders = []
    for start in range(0, len(texts), rows):
        folder = tmp_path / f"sketch-{start}"
        folder.mkdir(parents=True)
        sketch(texts[start : start + rows], Banding.for_similarity(similarity), seed=1).write(folder)
        folders.append(folder)
    return folders


def varied(count: int, seed: int = 3) -> list[str]:
    """Texts of which a third are others with a word or two changed."""
    chance = random.Random(seed)
    texts = [row["question"] for row in questions(count, seed)]
    for place in range(count):
        if chance.random() < 0.35:
            words = texts[chance.randrange(count)].split()
            for _ in range(chance.randint(1, 3)):
                words[chance.randrange(len(words))] = chance.choice(["old", "new", "far", "red"])
            texts[place] = " ".join(words)
    return texts


def groups_by_all_pairs(texts: list[str], similarity: float) -> list[int]:
    """Of each text the first that it is connected to, by comparing all pairs."""
    parents = np.arange(len(texts), dtype=np.int32)
    words = [tokens(text) for text in texts]
    pairs = [(i, j) for i, j in combinations(range(len(texts)), 2) if jaccard(words[i], words[j]) >= similarity]
    unite(parents, np.array([i for i, _ in pairs], dtype=int), np.array([j for _, j in pairs], dtype=int))
    return list(roots(parents, np.arange(len(texts))).tolist())


@pytest.mark.parametrize("similarity", [0.6, 0.8])
def test_the_same_rows_are_alike_as_by_comparing_all_pairs(tmp_path: Path, similarity: float) -> None:
    texts = varied(400)
    expected = groups_by_all_pairs(texts, similarity)
    found = find_similar(sketched(tmp_path, texts, similarity), similarity)
    assert len(set(expected)) < 350  # there is something to find
    assert found.first.tolist() == expected
    assert found.compared < 400 * 399 / 2


def test_the_groups_are_those_of_the_splitter_for_recipes(tmp_path: Path) -> None:
    texts = varied(1500)
    pairs = np.array(list(near_duplicate_pairs(texts, 0.8)))
    first = find_similar(sketched(tmp_path, texts), 0.8).first
    missed = (first[pairs[:, 0]] != first[pairs[:, 1]]).mean()
    assert missed <= 0.02  # bands find a pair of 0.8 in 998 of 1,000 cases


def test_how_rows_are_cut_into_chunks_does_not_count(tmp_path: Path) -> None:
    texts = varied(300)
    whole = find_similar(sketched(tmp_path / "a", texts), 0.8)
    cut = find_similar(sketched(tmp_path / "b", texts, rows=70), 0.8)
    assert cut.first.tolist() == whole.first.tolist()
    assert (cut.compared, cut.crowded) == (whole.compared, whole.crowded)


def test_the_index_of_pairs_is_the_exact_one(tmp_path: Path) -> None:
    texts = [*varied(60), "", "One word", "word ONE!", "ein Wört", "\ud800 odd"]
    on_disk = Tokens(sketched(tmp_path, texts, rows=13))
    pairs = np.array(list(combinations(range(len(texts)), 2)))
    words = [tokens(text) or frozenset({""}) for text in texts]
    expected = [jaccard(words[i], words[j]) for i, j in pairs]
    assert jaccards(on_disk, pairs[:, 0], pairs[:, 1]).tolist() == expected


def test_a_bucket_of_thousands_costs_a_bounded_number_of_comparisons_and_is_told(tmp_path: Path) -> None:
    long = " ".join(f"clause{number}" for number in range(60))
    texts = [f"{long} {' '.join(f'own{number}x{word}' for word in range(24))}" for number in range(4000)]  # index 0.56
    found = find_similar(sketched(tmp_path, texts), 0.8)
    assert (found.first == np.arange(4000)).all()
    assert found.crowded > 2000  # they met in buckets of hundreds and more
    assert found.compared < 4000 * 21 * 64  # of eight million pairs


def test_texts_that_differ_in_nothing_but_order_and_case_are_one(tmp_path: Path) -> None:
    found = find_similar(sketched(tmp_path, ["a b c d", "D c, b A", "x y"]), 0.8)
    assert found.first.tolist() == [0, 0, 2]
    assert found.texts == 2


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
def test_bands_find_nearly_all_pairs_of_the_similarity_asked_for(similarity: float) -> None:
    banding = Banding.for_similarity(similarity)
    assert banding.found(similarity) >= 0.99
    assert banding.bands * banding.rows <= 128
    longer = Banding(128 // (banding.rows + 1), banding.rows + 1)
    assert longer.found(similarity) < 0.99 or banding.rows == 16  # no more telling cut would do


def test_clusters_fill_the_splits_by_their_shares_in_each_stratum() -> None:
    chance = np.random.default_rng(0)
    sizes = np.concatenate([np.ones(900, dtype=int), chance.integers(2, 9, 60)])
    strata = chance.integers(1, 4, len(sizes)).astype(np.uint64)
    order = chance.integers(0, 2**63, len(sizes)).astype(np.uint64)
    codes = assign(sizes, strata, order, {"validation": 0.1, "test": 0.1})
    for stratum in (1, 2, 3):
        own = strata == stratum
        shares = np.bincount(codes[own], weights=sizes[own], minlength=3) / sizes[own].sum()
        assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)


def test_the_order_of_clusters_does_not_decide_where_they_go() -> None:
    chance = np.random.default_rng(1)
    sizes, order = chance.integers(1, 5, 200), chance.integers(0, 2**63, 200).astype(np.uint64)
    strata = np.zeros(200, dtype=np.uint64)
    shares = {"validation": 0.1, "test": 0.1}
    again = chance.permutation(200)
    assert (
        assign(sizes[again], strata[again], order[again], shares) == assign(sizes, strata, order, shares)[again]
    ).all()
