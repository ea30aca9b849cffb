"""Our marks are scikit-learn's, and an unreadable answer is wrong without being a class."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import accuracy_score, f1_score

from hf_finetune import metrics
from hf_finetune.errors import RecipeError

CASES = 150
UNREADABLE = "(unreadable)"


def random_answers(chance: random.Random, unreadable: float = 0.0) -> tuple[list[str], list[str | None]]:
    """References and predictions over up to five classes, some of which only one of the two uses."""
    classes = ["a", "b", "c", "d", "e"]
    rows = chance.randint(1, 40)
    wanted = chance.choices(classes[: chance.randint(1, 5)], k=rows)
    others: list[str | None] = list(classes[chance.randint(0, 2) :])
    given = [
        None if chance.random() < unreadable else gold if chance.random() < 0.6 else chance.choice(others)
        for gold in wanted
    ]
    return wanted, given


def test_accuracy_is_that_of_scikit_learn() -> None:
    chance = random.Random(1)
    for _ in range(CASES):
        wanted, given = random_answers(chance)
        assert metrics.accuracy(wanted, given) == pytest.approx(accuracy_score(wanted, given), abs=1e-12)


def test_macro_f1_is_that_of_scikit_learn() -> None:
    chance = random.Random(2)
    for _ in range(CASES):
        wanted, given = random_answers(chance)
        expected = f1_score(wanted, given, average="macro", zero_division=0)
        assert metrics.macro_f1(wanted, given) == pytest.approx(expected, abs=1e-12)


def test_f1_of_each_class_is_that_of_scikit_learn() -> None:
    chance = random.Random(3)
    for _ in range(CASES):
        wanted, given = random_answers(chance)
        ours = metrics.f1_by_class(wanted, given)
        expected = f1_score(wanted, given, labels=list(ours), average=None, zero_division=0)
        assert list(ours.values()) == pytest.approx(expected.tolist(), abs=1e-12)


def test_an_unreadable_answer_counts_against_recall_and_is_no_class_of_its_own() -> None:
    chance = random.Random(4)
    for _ in range(CASES):
        wanted, given = random_answers(chance, unreadable=0.3)
        classes = sorted({*wanted, *(answer for answer in given if answer is not None)})
        named = [answer or UNREADABLE for answer in given]
        expected = f1_score(wanted, named, labels=classes, average="macro", zero_division=0)
        assert metrics.macro_f1(wanted, given) == pytest.approx(expected, abs=1e-12)
        assert metrics.accuracy(wanted, given) == pytest.approx(accuracy_score(wanted, named), abs=1e-12)


def test_answers_that_are_all_unreadable_are_worth_nothing() -> None:
    assert metrics.accuracy(["a", "b"], [None, None]) == 0
    assert metrics.macro_f1(["a", "b"], [None, None]) == 0


def test_no_rows_are_worth_nothing() -> None:
    assert metrics.accuracy([], []) == 0
    assert metrics.macro_f1([], []) == 0
    assert metrics.f1_by_class([], []) == {}


def test_classes_come_sorted_by_name() -> None:
    assert list(metrics.f1_by_class(["c", "a"], ["b", "a"])) == ["a", "b", "c"]


@pytest.mark.parametrize("mark", [metrics.accuracy, metrics.macro_f1, metrics.f1_by_class])
def test_a_missing_prediction_is_an_error_and_not_a_shorter_list(mark: Any) -> None:
    with pytest.raises(ValueError, match="shorter"):
        mark(["a", "b"], ["a"])


def test_an_unknown_metric_is_told_with_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match=r"there is no metric 'macro_f2'\. Did you mean 'macro_f1'\?"):
        metrics.path("macro_f2")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accuracy", "macro_f1"])
def test_a_metric_loads_with_evaluate_and_without_a_network(tmp_path: Path, name: str) -> None:
    wanted, given = random_answers(random.Random(5), unreadable=0.2)
    script = """
import json, sys
import evaluate
import hf_finetune.metrics
name, wanted, given = json.loads(sys.argv[1])
module = evaluate.load(hf_finetune.metrics.path(name))
print(json.dumps(module.compute(references=wanted, predictions=[answer or "" for answer in given])))
"""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HTTP_PROXY": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps([name, wanted, given])],
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    ours = {"accuracy": metrics.accuracy, "macro_f1": metrics.macro_f1}[name](wanted, given)
    assert json.loads(done.stdout.splitlines()[-1]) == {name: pytest.approx(ours, abs=1e-12)}
