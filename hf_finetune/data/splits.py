"""Rows -> train, validation and test, so that no test row has a twin among the rows that were learned.

Exact duplicates leave. Rows with near-duplicate prompts or of one group stay together on one side.
"""

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hf_finetune.errors import RecipeError, plural

SPLITS = ("train", "validation", "test")
FEWEST = 10
"""Independent rows that 80/10/10 needs."""
COMMON = 0.05
"""The share of prompts from which a line that they have is no mark of any of them."""


@dataclass(frozen=True)
class Example:
    """What splitting needs to know of a row."""

    prompt: str
    completion: str
    is_closed: bool
    """Whether the answer is one of a closed set: then splits are stratified by it, and contradictions can be told."""
    group: Hashable | None = None


def split_examples(
    examples: Sequence[Example], shares: Mapping[str, float], similarity: float, seed: int
) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Indices of the rows of each split, sorted, and counts of what was dropped or kept together.

    `shares` gives the validation's and the test's share of the rows; `similarity` is the token Jaccard index (0-1) from
    which two prompts count as near-duplicates.

    Raises:
        RecipeError: when there are too few independent rows for three splits.
    """
    kept, counts = _without_duplicates(examples)
    twins = _twins(examples, kept, similarity)
    counts["near_duplicates"] = len({index for pair in twins for index in pair})
    clusters = _clusters([example.group for example in examples], kept, twins)
    if len(clusters) < FEWEST:
        raise RecipeError(
            f"data: {plural(len(kept), 'row')} in {plural(len(clusters), 'independent group')} cannot fill "
            f"{', '.join(SPLITS)}. A group is rows that are nearly the same, or that the recipe's group() holds "
            f"together, as text2sql does queries of one form: it stays in one split. "
            f"Give more rows, of at least {FEWEST} groups."
        )
    wanted = {"train": 1 - sum(shares.values()), **shares}
    return _assign(examples, clusters, wanted, random.Random(seed)), counts


def keep_splits(
    examples: Sequence[Example], given: Sequence[str], validation_share: float, similarity: float, seed: int
) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Indices of the rows of each split, sorted, where the data come split; and counts of what was dropped.

    `given` is the split of each row. Of rows that are nearly the same those of the test split stay, or else those of
    the validation split: what is learned has no twin in either. Rows of one group may stand in several splits, which is
    counted. Without validation rows, a share of the training rows is taken for them.

    Raises:
        RecipeError: when no row of a split is left.
    """
    kept, counts = _without_duplicates(examples, given)
    twins = _twins(examples, kept, similarity)
    splits: dict[str, list[int]] = {name: [] for name in SPLITS}
    training: list[list[int]] = []
    for cluster in _clusters([None] * len(examples), kept, twins):
        last = max((given[index] for index in cluster), key=SPLITS.index)
        own = [index for index in cluster if given[index] == last]
        splits[last] += own
        training += [own] if last == "train" else []
    for name in dict.fromkeys(given):
        if not splits[name]:
            raise RecipeError(
                f"data: of the {name} files no row is left: they contradict each other, or are nearly the same as rows "
                f"of other splits. Give that split other rows."
            )
    if "validation" not in given:
        wanted = {"train": 1 - validation_share, "validation": validation_share}
        splits |= _assign(examples, training, wanted, random.Random(seed))
    stayed = {index for own in splits.values() for index in own}
    groups = {examples[index].group for index in splits["test"]} - {None}
    counts |= {
        "near_duplicates": len({index for pair in twins if stayed.issuperset(pair) for index in pair}),
        "near_other_splits": len(kept) - len(stayed),
        "train_rows_of_test_groups": sum(examples[index].group in groups for index in splits["train"]),
    }
    return {name: sorted(indices) for name, indices in splits.items()}, counts


def tokens(text: str) -> frozenset[str]:
    """The distinct words of a text, lower-cased: what the Jaccard index is taken over."""
    return frozenset(re.findall(r"\w+", text.lower()))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Size of the intersection over size of the union, 0-1; two empty sets are the same."""
    return len(left & right) / len(left | right) if left or right else 1.0


def near_duplicate_pairs(texts: Sequence[str], similarity: float) -> Iterable[tuple[int, int]]:
    """All pairs of texts whose token Jaccard index is at least `similarity`, exactly.

    Prefix filtering (Chaudhuri, Ganti and Kaushik, ICDE 2006): with the words of each text sorted rarest first, two
    texts can only be that similar when the first `n - ceil(similarity * n) + 1` words of both share one; the rest is
    never compared.
    """
    words = [tokens(text) or frozenset({""}) for text in texts]  # texts without a word are all the same
    frequency = Counter(word for text in words for word in text)
    seen: dict[str, list[int]] = defaultdict(list)
    for index, text in enumerate(words):
        ordered = sorted(text, key=lambda word: (frequency[word], word))
        prefix = ordered[: len(ordered) - math.ceil(similarity * len(ordered) - 1e-9) + 1]
        for other in sorted({other for word in prefix for other in seen[word]}):
            if jaccard(text, words[other]) >= similarity:
                yield other, index
        for word in prefix:
            seen[word].append(index)


@dataclass(frozen=True)
class Boilerplate:
    """What many prompts share, and what therefore is no mark of any of them."""

    lines: frozenset[str] = frozenset()
    head: tuple[str, ...] = ()
    """Words that all begin with, once the lines are gone."""
    tail: tuple[str, ...] = ()

    def without(self, prompt: str) -> str:
        """What tells a prompt apart."""
        words = self._words(prompt)
        first, last = len(self.head), len(words) - len(self.tail)
        if last < first or tuple(words[:first]) != self.head or tuple(words[last:]) != self.tail:
            return " ".join(words)
        return " ".join(words[first:last])

    def _words(self, prompt: str) -> list[str]:
        stripped = (line.strip() for line in prompt.splitlines())
        return " ".join(line for line in stripped if line not in self.lines).split() or prompt.split()


def boilerplate(prompts: Sequence[str]) -> Boilerplate:
    """The lines that many of the prompts have, and the words that all of them begin and end with.

    A long instruction, or the schema that a tenth of the questions are about, would make all of them look alike.
    """
    if len(set(prompts)) < 2:
        return Boilerplate()
    shared = Counter(line for prompt in prompts for line in {line.strip() for line in prompt.splitlines()})
    known = Boilerplate(
        frozenset(line for line, count in shared.items() if count >= max(FEWEST, COMMON * len(prompts)))
    )
    split = [known._words(prompt) for prompt in prompts]
    shortest = min(map(len, split))
    head = next((i for i in range(shortest) if len({words[i] for words in split}) > 1), shortest)
    tail = next((i for i in range(shortest - head) if len({words[-1 - i] for words in split}) > 1), shortest - head)
    one = split[0]
    return Boilerplate(known.lines, tuple(one[:head]), tuple(one[len(one) - tail :]))


def varying_parts(prompts: Sequence[str]) -> list[str]:
    """What tells prompts apart: each less the boilerplate of all of them."""
    shared = boilerplate(prompts)
    return [shared.without(prompt) for prompt in prompts]


def _without_duplicates(examples: Sequence[Example], given: Sequence[str] = ()) -> tuple[list[int], dict[str, int]]:
    """Indices that stay. Same prompt and answer: the first stays, or the one of the test split where splits are given.

    Same prompt, two closed answers, in one split: none stays.
    """
    where = given or ["train"] * len(examples)
    answers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for split, example in zip(where, examples, strict=True):
        answers[split, example.prompt].add(example.completion)
    kept: list[int] = []
    seen: set[tuple[str, str]] = set()
    counts = {"exact_duplicates": 0, "contradictory": 0}
    for index in sorted(range(len(examples)), key=lambda index: -SPLITS.index(where[index])):
        example = examples[index]
        if example.is_closed and len(answers[where[index], example.prompt]) > 1:
            counts["contradictory"] += 1
        elif (example.prompt, example.completion) in seen:
            counts["exact_duplicates"] += 1
        else:
            seen.add((example.prompt, example.completion))
            kept.append(index)
    return sorted(kept), counts


def _twins(examples: Sequence[Example], kept: Sequence[int], similarity: float) -> list[tuple[int, int]]:
    """The pairs of rows whose prompts are nearly the same."""
    texts = varying_parts([examples[index].prompt for index in kept])
    return [(kept[left], kept[right]) for left, right in near_duplicate_pairs(texts, similarity)]


def _clusters(
    groups: Sequence[Hashable | None], kept: Sequence[int], twins: Sequence[tuple[int, int]]
) -> list[list[int]]:
    """Rows that must stay together, as lists of indices: connected by near-duplicate prompts or a common group."""
    parent = {index: index for index in kept}

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for left, right in twins:
        parent[root(right)] = root(left)
    first_of_group: dict[Hashable, int] = {}
    for index in kept:
        group = groups[index]
        if group is not None:
            parent[root(index)] = root(first_of_group.setdefault(group, index))
    clusters: dict[int, list[int]] = defaultdict(list)
    for index in kept:
        clusters[root(index)].append(index)
    return list(clusters.values())


def _assign(
    examples: Sequence[Example], clusters: list[list[int]], wanted: Mapping[str, float], chance: random.Random
) -> dict[str, list[int]]:
    """Whole clusters to splits, in each stratum to the split that is furthest from the share of the rows it wants.

    Rows of open answers are one stratum: there each split gets clusters of all sizes, as else the test rows would be
    those that are like no others.
    """
    strata: dict[str, list[list[int]]] = defaultdict(list)
    for cluster in clusters:
        first = examples[cluster[0]]
        strata[first.completion if first.is_closed else ""].append(cluster)
    splits: dict[str, list[int]] = {name: [] for name in wanted}
    lacking = dict.fromkeys(wanted, 0.0)  # carried on: strata too small to divide even each other out
    for stratum in sorted(strata):
        chance.shuffle(strata[stratum])
        ordered = sorted(strata[stratum], key=len, reverse=True)  # large ones first: the small ones even it out
        for name in wanted:
            lacking[name] += wanted[name] * sum(map(len, ordered))
        for cluster in ordered:
            fitting = [split for split in wanted if not stratum and lacking[split] >= len(cluster)]
            name = max(fitting or wanted, key=lambda split: lacking[split] / (wanted[split] if fitting else 1))
            lacking[name] -= len(cluster)
            splits[name] += cluster
    if not all(splits.values()):
        empty = ", ".join(name for name in wanted if not splits[name])
        raise RecipeError(f"data: no row is left for {empty}. Give more rows, or larger validation_size and test_size.")
    return {name: sorted(indices) for name, indices in splits.items()}
