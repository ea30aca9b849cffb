"""No test row has a twin among the rows that were learned."""

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import pytest

from hf_finetune.data.splits import (
    SPLITS,
    Example,
    jaccard,
    keep_splits,
    near_duplicate_pairs,
    split_examples,
    tokens,
    varying_parts,
)
from hf_finetune.errors import RecipeError

SHARES = {"validation": 0.1, "test": 0.1}
SIMILARITY = 0.8
WORDS = [f"word{number}" for number in range(400)]
INSTRUCTION = " ".join(f"instruction{number}" for number in range(60))


def sentence(chance: random.Random, words: int = 12) -> str:
    return " ".join(chance.sample(WORDS, words))


def varied(chance: random.Random, text: str) -> str:
    """The text with a word exchanged, left out or doubled, or in another order, in capitals or with other signs."""
    words = text.split()
    place = chance.randrange(len(words))
    change = chance.randrange(6)
    if change == 0:
        words[place] = chance.choice(WORDS)
    elif change == 1:
        del words[place]
    elif change == 2:
        words.insert(place, words[place])
    elif change == 3:
        chance.shuffle(words)
    return " ".join(words).upper() if change == 4 else ", ".join(words) + "!" if change == 5 else " ".join(words)


def corpus(seed: int, rows: int = 300, is_closed: bool = True) -> list[Example]:
    """Rows of which about a half are made from an earlier one."""
    chance = random.Random(seed)
    prompts = [sentence(chance)]
    while len(prompts) < rows:
        prompts.append(varied(chance, chance.choice(prompts)) if chance.random() < 0.5 else sentence(chance))
    labels = {prompt: chance.choice(["no", "yes"]) for prompt in prompts}
    return [Example(prompt, labels[prompt], is_closed) for prompt in prompts]


def distinct(rows: int, completion: str = "yes", is_closed: bool = True, start: int = 0) -> list[Example]:
    """Rows that share no word."""
    numbers = range(start, start + rows)
    return [Example(f"first{n} middle{n} last{n}", completion, is_closed) for n in numbers]


def brute_force(texts: Sequence[str], similarity: float) -> set[tuple[int, int]]:
    words = [tokens(text) for text in texts]
    return {(i, j) for i, j in combinations(range(len(texts)), 2) if jaccard(words[i], words[j]) >= similarity}


def side_of_each(splits: dict[str, list[int]]) -> dict[int, str]:
    return {index: name for name, indices in splits.items() for index in indices}


@pytest.mark.parametrize("seed", range(5))
def test_no_prompt_is_in_two_splits(seed: int) -> None:
    chance = random.Random(seed)
    examples = corpus(seed, is_closed=False)
    # Open answers: the same prompt again with other answers, which are no duplicates and all stay.
    again = [Example(chance.choice(examples).prompt, f"another {n}", False) for n in range(100)]
    splits, _ = split_examples(examples + again, SHARES, SIMILARITY, seed)
    prompts = {name: {(examples + again)[index].prompt for index in splits[name]} for name in SPLITS}
    assert all(prompts.values())
    assert not any(prompts[left] & prompts[right] for left, right in combinations(SPLITS, 2))


@pytest.mark.parametrize("seed", range(5))
def test_no_near_duplicates_are_in_two_splits(seed: int) -> None:
    examples = corpus(seed)
    prompts = [example.prompt for example in examples]
    assert varying_parts(prompts) == [" ".join(prompt.split()) for prompt in prompts]  # else other texts are compared
    side = side_of_each(split_examples(examples, SHARES, SIMILARITY, seed)[0])
    pairs = [(i, j) for i, j in brute_force(prompts, SIMILARITY) if i in side and j in side]
    assert len(pairs) > 50
    assert [(prompts[i], prompts[j]) for i, j in pairs if side[i] != side[j]] == []


def test_rows_that_a_chain_of_near_duplicates_connects_stay_together() -> None:
    words = [f"link{n}" for n in range(30)]
    chain = [Example(" ".join(words[n : n + 20]), "yes", True) for n in range(10)]
    assert jaccard(tokens(chain[0].prompt), tokens(chain[-1].prompt)) < SIMILARITY
    for seed in range(10):
        side = side_of_each(split_examples(chain + distinct(90), SHARES, SIMILARITY, seed)[0])
        assert len({side[index] for index in range(10)}) == 1


def test_the_prefix_filter_finds_exactly_the_pairs_of_brute_force() -> None:
    chance = random.Random(7)
    found = 0
    for _ in range(400):
        vocabulary = WORDS[: chance.choice([3, 6, 12, 40])]
        weights = [1 / (rank + 1) for rank in range(len(vocabulary))]  # few frequent words and many rare ones
        texts = [
            " ".join(chance.choices(vocabulary, weights, k=chance.randint(1, 14))) for _ in range(chance.randint(2, 25))
        ]
        similarity = chance.choice([0.1, 1 / 3, 0.5, 0.6, 2 / 3, 0.75, 0.8, 0.9, 1.0])
        pairs = list(near_duplicate_pairs(texts, similarity))
        assert len(pairs) == len(set(pairs))
        assert set(pairs) == brute_force(texts, similarity), (texts, similarity)
        found += len(pairs)
    assert found > 1000


def test_texts_without_a_word_are_near_duplicates_of_each_other() -> None:
    # jaccard() calls two empty sets the same; as prompts, "!!!" and "🙂" must not stand in two splits either.
    assert set(near_duplicate_pairs(["!!!", "word", "🙂"], SIMILARITY)) == brute_force(
        ["!!!", "word", "🙂"], SIMILARITY
    )


def test_each_row_that_stays_is_in_one_split_in_order() -> None:
    examples = corpus(3)
    splits, counts = split_examples(examples, SHARES, SIMILARITY, seed=1)
    assert list(splits) == list(SPLITS)
    assert all(indices == sorted(indices) for indices in splits.values())
    kept = [index for indices in splits.values() for index in indices]
    assert len(kept) == len(set(kept)) == len(examples) - counts["exact_duplicates"] - counts["contradictory"]


def test_closed_answers_have_the_same_shares_in_each_split() -> None:
    labels = ["negative"] * 100 + ["neutral"] * 600 + ["positive"] * 300
    examples = [Example(f"a{n} b{n} c{n}", label, True) for n, label in enumerate(labels)]
    splits, _ = split_examples(examples, SHARES, SIMILARITY, seed=1)
    answers = {name: Counter(labels[index] for index in splits[name]) for name in SPLITS}
    assert answers == {
        "train": {"negative": 80, "neutral": 480, "positive": 240},
        "validation": {"negative": 10, "neutral": 60, "positive": 30},
        "test": {"negative": 10, "neutral": 60, "positive": 30},
    }


def test_open_answers_are_split_by_their_shares() -> None:
    examples = [Example(f"a{n} b{n} c{n}", f"answer {n}", False) for n in range(100)]
    splits, _ = split_examples(examples, {"validation": 0.2, "test": 0.3}, SIMILARITY, seed=1)
    assert {name: len(splits[name]) for name in SPLITS} == {"train": 50, "validation": 20, "test": 30}


def test_large_clusters_leave_the_shares_as_they_are() -> None:
    twins = [Example(f"same text of cluster{c} only row{n}", "", False) for c in range(5) for n in range(15)]
    grouped = [Example(row.prompt, f"{n}", False, group=n // 15) for n, row in enumerate(twins)]
    examples = grouped + distinct(225, is_closed=False)
    splits, _ = split_examples(examples, SHARES, SIMILARITY, seed=1)
    assert {name: len(splits[name]) for name in SPLITS} == {"train": 240, "validation": 30, "test": 30}


@pytest.mark.parametrize("classes", [10, 200])
def test_many_small_classes_fill_all_splits_together(classes: int) -> None:
    # 5 rows a class cannot be split 8:1:1 one class at a time, but 50 or 1,000 rows can.
    examples = [Example(f"a{n} b{n} c{n}", f"class {n % classes}", True) for n in range(5 * classes)]
    splits, _ = split_examples(examples, SHARES, SIMILARITY, seed=1)
    assert len(splits["test"]) == pytest.approx(len(examples) / 10, rel=0.25)


def test_rows_of_one_group_stay_on_one_side() -> None:
    groups = [n // 4 for n in range(200)]
    examples = [Example(f"a{n} b{n} c{n}", "yes", True, group) for n, group in enumerate(groups)]
    for seed in range(5):
        splits, _ = split_examples(examples, SHARES, SIMILARITY, seed)
        sides = {name: {groups[index] for index in splits[name]} for name in SPLITS}
        assert all(sides.values())
        assert not any(sides[left] & sides[right] for left, right in combinations(SPLITS, 2))


def test_groups_and_near_duplicates_connect_each_other() -> None:
    # a and b are of one group, b and c are near-duplicates: all three stay together.
    a = Example("quite other words here", "yes", True, group="company")
    b = Example("one two three four five six", "yes", True, group="company")
    c = Example("one two three four five six seven", "yes", True, group="another")
    for seed in range(10):
        side = side_of_each(split_examples([a, b, c, *distinct(60)], SHARES, SIMILARITY, seed)[0])
        assert side[0] == side[1] == side[2]


def test_rows_without_a_group_are_no_group() -> None:
    _, counts = split_examples(distinct(60), SHARES, SIMILARITY, seed=1)
    assert counts["near_duplicates"] == 0


def test_the_same_seed_gives_the_same_split() -> None:
    assert split_examples(corpus(1), SHARES, SIMILARITY, 42) == split_examples(corpus(1), SHARES, SIMILARITY, 42)


def test_another_seed_gives_another_split() -> None:
    splits = [split_examples(corpus(1), SHARES, SIMILARITY, seed)[0] for seed in range(4)]
    assert all(left != right for left, right in combinations(splits, 2))


def test_the_split_does_not_depend_on_the_hash_seed_of_python() -> None:
    script = """
import sys
sys.path[:0] = sys.argv[1:]
from hf_finetune.data.splits import split_examples
from test_splits import SHARES, SIMILARITY, corpus
print(split_examples(corpus(1), SHARES, SIMILARITY, 42))
"""
    printed = {
        subprocess.run(
            [sys.executable, "-c", script, *sys.path],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for hash_seed in ("1", "2", "3")
    }
    assert len(printed) == 1
    assert "train" in printed.pop()


def test_of_exact_duplicates_the_first_stays() -> None:
    examples = distinct(30) + distinct(5) + distinct(2)
    splits, counts = split_examples(examples, SHARES, SIMILARITY, seed=1)
    assert counts["exact_duplicates"] == 7
    assert sorted(side_of_each(splits)) == list(range(30))


def test_rows_whose_closed_answers_contradict_each_other_are_dropped() -> None:
    examples = [*distinct(30), *distinct(2, "no"), Example("first0 middle0 last0", "yes", True)]
    splits, counts = split_examples(examples, SHARES, SIMILARITY, seed=1)
    assert counts["contradictory"] == 5  # none stays: nobody knows which of them is right
    assert counts["exact_duplicates"] == 0
    assert sorted(side_of_each(splits)) == list(range(2, 30))


def test_open_answers_to_one_prompt_all_stay_on_one_side() -> None:
    prompt = "first0 middle0 last0"
    others = [Example(prompt, f"another {n}", False) for n in range(3)]
    for seed in range(20):
        splits, counts = split_examples(distinct(60, is_closed=False) + others, SHARES, SIMILARITY, seed)
        side = side_of_each(splits)
        assert counts["contradictory"] == counts["exact_duplicates"] == 0
        assert len({side[0], side[60], side[61], side[62]}) == 1


def test_clusters_and_their_rows_are_counted() -> None:
    twins = [Example(f"one two three four five six seven extra{n}", "yes", True) for n in range(3)]
    capitals = [Example("FIRST0 middle0 LAST0", "yes", True)]
    _, counts = split_examples(distinct(30) + twins + capitals, SHARES, 0.7, seed=1)
    assert counts == {
        "exact_duplicates": 0,
        "contradictory": 0,
        "near_duplicates": 5,
    }


def test_too_few_rows_are_an_error() -> None:
    with pytest.raises(
        RecipeError, match=r"data: 5 rows in 5 independent groups cannot fill train, validation, test\."
    ):
        split_examples(distinct(5), SHARES, SIMILARITY, seed=1)


def test_many_rows_that_are_all_alike_are_too_few() -> None:
    alike = [Example(f"row{n} one two three four five six seven tail{n % 2}", "yes", True) for n in range(500)]
    with pytest.raises(RecipeError, match=r"data: 500 rows in 1 independent group cannot fill .* Give more rows"):
        split_examples(alike, SHARES, 0.5, seed=1)


def test_what_an_independent_group_is_and_how_many_are_needed_is_told() -> None:
    given = [Example(f"first{n} middle{n} last{n}", "yes", True, group=n % 3) for n in range(44)]
    with pytest.raises(RecipeError) as caught:
        split_examples(given, SHARES, SIMILARITY, seed=1)
    assert str(caught.value) == (
        "data: 44 rows in 3 independent groups cannot fill train, validation, test. A group is rows that are nearly "
        "the same, or that the recipe's group() holds together, as text2sql does queries of one form: it stays in one "
        "split. Give more rows, of at least 10 groups."
    )


def test_no_rows_are_an_error() -> None:
    with pytest.raises(RecipeError, match="data: 0 rows in 0 independent groups"):
        split_examples([], SHARES, SIMILARITY, seed=1)


def test_shares_too_small_for_a_row_are_an_error() -> None:
    with pytest.raises(RecipeError, match="data: no row is left for validation, test"):
        split_examples(distinct(10), {"validation": 0.01, "test": 0.01}, SIMILARITY, seed=1)


def test_a_long_instruction_that_all_prompts_share_does_not_make_them_near_duplicates() -> None:
    chance = random.Random(5)
    prompts = [f"{INSTRUCTION}\n\n{sentence(chance, words=6)}\n\nAnswer in one word." for _ in range(60)]
    assert len(brute_force(prompts, SIMILARITY)) == 60 * 59 / 2  # as whole prompts they are all alike
    examples = [Example(prompt, "yes", True) for prompt in prompts]
    _, counts = split_examples(examples, SHARES, SIMILARITY, seed=1)
    assert counts["near_duplicates"] == 0


def test_near_duplicates_behind_a_shared_instruction_are_still_found() -> None:
    rows = [f"first{n} middle{n} last{n}" for n in range(30)] + ["LAST0 first0, middle0!"]
    examples = [Example(f"{INSTRUCTION} {row}", "yes", True) for row in rows]
    _, counts = split_examples(examples, SHARES, SIMILARITY, seed=1)
    assert counts["near_duplicates"] == 2


def test_what_all_prompts_begin_and_end_with_is_left_out() -> None:
    prompts = ["Is this news good?\n\nSales rose . Answer:", "Is this news good?\n\nA loss widened . Answer:"]
    assert varying_parts(prompts) == ["Sales rose", "A loss widened"]


def test_beginning_and_end_do_not_overlap_in_the_shortest_prompt() -> None:
    assert varying_parts(["a b a", "a b x b a"]) == ["", "x b"]


@pytest.mark.parametrize("prompts", [[], ["only one"], ["same", "same"]])
def test_prompts_that_do_not_differ_are_left_whole(prompts: list[str]) -> None:
    assert varying_parts(prompts) == prompts


def test_words_are_compared_without_case_signs_and_order() -> None:
    assert tokens("Net SALES rose, rose; 12% (Q1)!") == {"net", "sales", "rose", "12", "q1"}


@pytest.mark.parametrize(
    ("left", "right", "index"), [("a b", "b c", 1 / 3), ("a", "b", 0), ("a b", "b a", 1), ("", "", 1), ("", "a", 0)]
)
def test_the_jaccard_index_is_intersection_over_union(left: str, right: str, index: float) -> None:
    assert jaccard(tokens(left), tokens(right)) == index


def test_lines_that_many_prompts_share_do_not_make_them_alike() -> None:
    """As the schemas of a few databases, each with many questions."""
    schemas = [" ".join(f"table{n}_{column}" for column in range(40)) for n in range(4)]
    prompts = [f"{schemas[n % 4]}\nHow many of {n} {n * n}?" for n in range(60)]
    assert varying_parts(prompts)[5] == "5 25?"
    assert not list(near_duplicate_pairs(varying_parts(prompts), 0.8))


def test_lines_that_few_prompts_share_are_part_of_what_they_are() -> None:
    """As the paragraphs of a text that stands there twice, but for its last line."""
    others = [f"some{n} other{n}\nwords{n} here{n}" for n in range(40)]
    prompts = [
        "a long common paragraph of ten words in all here\nend",
        "a long common paragraph of ten words in all here\nfin",
    ]
    assert list(near_duplicate_pairs(varying_parts([*prompts, *others]), 0.8)) == [(0, 1)]


def test_a_prompt_of_shared_lines_alone_is_compared_as_it_is() -> None:
    prompts = ["same line"] * 12 + [f"same line\n{n}" for n in range(3)]
    assert "" not in varying_parts(prompts)[12:]


def test_each_split_of_open_answers_has_groups_of_all_sizes() -> None:
    """As templates of queries, some of many questions and some of one, and questions without a query."""
    sizes = [20] * 10 + [5] * 20 + [1] * 200
    numbers = [(group, n) for group, size in enumerate(sizes) for n in range(size)]
    examples = [Example(f"q{group}a{n} w{n}x{group}", "", False, group) for group, n in numbers]
    splits, _ = split_examples(examples, {"validation": 0.1, "test": 0.1}, SIMILARITY, 42)
    for name, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
        assert len(splits[name]) == pytest.approx(share * len(examples), rel=0.1)
        alone = sum(sizes[numbers[i][0]] == 1 for i in splits[name]) / len(splits[name])
        assert alone == pytest.approx(0.4, abs=0.1)


def test_rows_stay_in_the_split_they_came_in() -> None:
    chance = random.Random(0)
    examples = [Example(sentence(chance), "yes", True) for _ in range(12)]
    given = ["test", "train", "train", "validation"] * 3
    splits, counts = keep_splits(examples, given, 0.1, SIMILARITY, 0)
    assert splits == {name: [i for i, own in enumerate(given) if own == name] for name in SPLITS}
    assert counts == {
        "exact_duplicates": 0, "contradictory": 0, "near_duplicates": 0, "near_other_splits": 0,
        "train_rows_of_test_groups": 0,
    }  # fmt: skip


def test_what_has_a_twin_in_the_test_rows_or_the_validation_rows_is_not_learned() -> None:
    chance = random.Random(0)
    texts = [sentence(chance) for _ in range(8)]
    twin = [f"{text} more" for text in texts]
    asked = [texts[0], twin[0], texts[1], twin[1], texts[2], twin[2], texts[3], texts[3], texts[4], texts[5]]
    given = ["train", "test", "train", "validation", "validation", "test", "train", "test", "train", "validation"]
    examples = [Example(text, "open", False) for text in [*asked, twin[5]]]
    splits, counts = keep_splits(examples, [*given, "validation"], 0.1, SIMILARITY, 0)
    assert splits == {"train": [8], "validation": [3, 9, 10], "test": [1, 5, 7]}
    assert counts["exact_duplicates"] == 1
    assert counts["near_duplicates"] == 2  # of one split, which both stay
    assert counts["near_other_splits"] == 3


def test_rows_of_a_group_stay_in_the_splits_they_came_in_and_are_counted() -> None:
    chance = random.Random(0)
    groups = ["one", "two", "one", None, "two", "one"]
    examples = [Example(sentence(chance), "open", False, group) for group in groups]
    splits, counts = keep_splits(
        examples, ["train", "train", "train", "train", "validation", "test"], 0.1, SIMILARITY, 0
    )
    assert splits == {"train": [0, 1, 2, 3], "validation": [4], "test": [5]}
    assert counts["train_rows_of_test_groups"] == 2


def test_a_contradiction_in_the_training_rows_takes_no_test_row_with_it() -> None:
    chance = random.Random(0)
    texts = [sentence(chance) for _ in range(4)]
    asked = [
        ("train", texts[0], "no"),
        ("train", texts[1], "no"),
        ("train", texts[1], "yes"),
        ("train", texts[2], "no"),
    ]
    asked += [("test", texts[0], "yes"), ("test", texts[3], "no"), ("validation", texts[1], "yes")]
    examples = [Example(text, answer, True) for _, text, answer in asked]
    splits, counts = keep_splits(examples, [split for split, _, _ in asked], 0.1, SIMILARITY, 0)
    assert splits == {"train": [3], "validation": [6], "test": [4, 5]}
    assert (counts["contradictory"], counts["near_other_splits"]) == (2, 1)


def test_validation_rows_are_taken_from_the_training_rows_where_none_come() -> None:
    chance = random.Random(0)
    examples = [Example(sentence(chance), "open", False) for _ in range(60)]
    splits, _ = keep_splits(examples, ["test"] * 10 + ["train"] * 50, 0.2, SIMILARITY, 0)
    assert splits["test"] == list(range(10))
    assert (len(splits["validation"]), sorted(splits["train"] + splits["validation"])) == (10, list(range(10, 60)))


def test_a_split_that_is_nothing_but_twins_of_another_is_told() -> None:
    examples = [Example("the same question here", "open", False) for _ in range(3)]
    with pytest.raises(RecipeError, match="of the train files no row is left: they contradict each other, or"):
        keep_splits(examples, ["train", "test", "validation"], 0.1, SIMILARITY, 0)
