"""The comparison: what is counted, how sure it is, and the sentence that is drawn from it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hf_finetune.evaluate import Answer, Report, bootstrap_intervals, compare
from hf_finetune.recipe import load_recipe

FINSENT = load_recipe(str(Path(__file__).parent.parent / "recipes" / "finsent.py"))
Sentence = FINSENT.row_type()
LABELS = ("negative", "neutral", "positive")


def rows(count: int) -> list[Any]:
    return [Sentence(f"sentence {i}", LABELS[i % 3]) for i in range(count)]


def answers(test: list[Any], wrong: set[int]) -> list[Answer]:
    """Right answers but for the rows in `wrong`, which get the next label."""
    given = [LABELS[(LABELS.index(row.label) + (i in wrong)) % 3] for i, row in enumerate(test)]
    return [Answer(text, text, text == row.label) for text, row in zip(given, test, strict=True)]


def report(base_wrong: set[int], tuned_wrong: set[int], count: int = 90) -> Report:
    test = rows(count)
    return compare(FINSENT, rows(9), test, answers(test, base_wrong), answers(test, tuned_wrong), 5)


def test_a_real_gain_is_called_one() -> None:
    given = report(set(range(60)), set(range(10)))
    assert given.verdict.startswith("Fine-tuning helped: macro_f1 0.333 -> 0.889")
    assert given.intervals["gain"][0] > 0


def test_a_run_that_learned_nothing_is_told_so() -> None:
    assert report(set(range(40)), set(range(40))).verdict.startswith("No measurable gain")


def test_a_real_loss_is_called_one() -> None:
    assert report(set(range(10)), set(range(60))).verdict.startswith("Fine-tuning made it worse")


def test_too_few_rows_give_no_verdict() -> None:
    assert report({0, 1}, {0}, count=6).verdict.startswith("No measurable gain")


def test_corrected_and_spoiled_rows_are_counted() -> None:
    given = report({0, 1, 2}, {2, 3})
    assert (given.corrected, given.spoiled) == (2, 1)


def test_unreadable_answers_are_wrong_and_counted() -> None:
    test = rows(6)
    unreadable = [Answer("what?", None, False)] * 6
    given = compare(FINSENT, rows(9), test, unreadable, answers(test, set()), 5)
    assert given.unreadable == {"base": 6, "tuned": 0}
    assert given.scores["base"]["accuracy"] == 0
    assert given.scores["tuned"]["accuracy"] == 1


def test_always_the_most_frequent_training_answer_is_beside_closed_answers() -> None:
    test = rows(9)
    train = [*rows(9), Sentence("one more", "neutral")]
    given = compare(FINSENT, train, test, answers(test, set()), answers(test, set()), 5)
    assert given.majority_answer == "neutral"
    assert given.scores["majority"]["accuracy"] == pytest.approx(1 / 3)
    assert given.scores["majority"]["macro_f1"] == pytest.approx(1 / 6)


def test_the_interval_covers_the_score_and_is_the_same_each_time() -> None:
    test = rows(90)
    predictions = [answer.prediction for answer in answers(test, set(range(20)))]
    first = bootstrap_intervals(FINSENT, test, predictions, predictions)
    low, high = first["tuned"]
    assert low < FINSENT.score(test, predictions)["macro_f1"] < high
    assert first == bootstrap_intervals(FINSENT, test, predictions, predictions)
    assert first["gain"] == [0, 0]


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    given = report({0}, {1})
    given.write(tmp_path)
    assert Report.read(tmp_path) == given
    assert given.verdict in (tmp_path / "report.md").read_text()


def test_the_page_names_the_primary_metric_and_all_columns() -> None:
    page = replace(report({0}, {1}), recipe="finsent").as_markdown()
    assert "| metric | always `negative` | base | fine-tuned |" in page
    assert "| macro_f1 (primary) |" in page


def test_without_a_majority_answer_there_is_no_column_for_it() -> None:
    given = report({0}, {1})
    assert list(given.columns) == ["majority", "base", "tuned"]
    scores = {name: given.scores[name] for name in ("tuned", "base")}
    assert replace(given, scores=scores, majority_answer=None).columns == {"base": "base", "tuned": "fine-tuned"}
