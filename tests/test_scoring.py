"""The comparison: what is counted, how sure it is, and the sentence that is drawn from it."""

import math
import operator
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hf_finetune.baseline import tfidf_answers
from hf_finetune.errors import RecipeError
from hf_finetune.files import read_json, write_json
from hf_finetune.gates import check_gates, refuse_unmeasured
from hf_finetune.intervals import bootstrap_intervals
from hf_finetune.recipe import Recipe, load_recipe
from hf_finetune.report import Answer, Report
from hf_finetune.scoring import check_evaluation, make_report
from hf_finetune.settings import Settings

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
    return make_report(
        FINSENT, rows(9), test, {"base": [answers(test, base_wrong)], "tuned": [answers(test, tuned_wrong)]}
    )


def test_a_real_gain_is_called_one() -> None:
    given = report(set(range(60)), set(range(10)))
    assert given.verdict.startswith("Fine-tuning helped: macro_f1 0.333 -> 0.889")
    assert given.intervals["gain"][0] > 0


def test_a_run_that_learned_nothing_is_told_so() -> None:
    assert report(set(range(40)), set(range(40))).verdict.startswith("No measurable gain")


def test_a_real_loss_is_called_one() -> None:
    assert report(set(range(10)), set(range(60))).verdict.startswith("Fine-tuning made it worse")


@pytest.mark.parametrize(
    ("count", "wrong", "verdict"),
    [
        (6, {0, 1}, "Too few rows to tell"), (30, set(), "No measurable gain"),
        (1, {0}, "Too few rows to tell"), (19, set(range(19)), "Too few rows to tell"),
        (100, {0, 1, 2, 3, 4}, "Too few rows to tell"), (100, {0, 1, 2, 3, 4, 5}, "Fine-tuning helped"),
    ],
)  # fmt: skip
def test_too_few_rows_give_no_verdict(count: int, wrong: set[int], verdict: str) -> None:
    assert report(wrong, {0} if count == 6 else set(), count).verdict.startswith(verdict)
    assert report(set(), wrong, count).outcome != "worse" or (count == 100 and len(wrong) == 6)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 6, 30, 100])
def test_two_equal_models_are_seldom_told_apart(count: int) -> None:
    """In 1 of 20 comparisons they may be; 400 trials leave 2.2 points for chance."""
    chance, apart, trials = random.Random(count), 0, 400
    recipe, test = Counting(), ["a"] * count
    blank = report(set(), set())
    for _ in range(trials):
        base, tuned = chance.choices("ab", k=count), chance.choices("ab", k=count)
        found = bootstrap_intervals(recipe, test, {"base": [base], "tuned": [tuned]}, resamples=200)
        changed = Counter((b == "a", t == "a") for b, t in zip(base, tuned, strict=True) if b != t)
        corrected, spoiled = changed[False, True], changed[True, False]
        given = replace(blank, intervals=found, rows=count, corrected=corrected, spoiled=spoiled)
        apart += given.outcome in ("helped", "worse")
    assert apart / trials <= 0.05 + 0.025


def test_corrected_and_spoiled_rows_are_counted() -> None:
    given = report({0, 1, 2}, {2, 3})
    assert (given.corrected, given.spoiled) == (2, 1)


def test_the_test_of_a_change_is_mcnemars() -> None:
    assert report({0, 1, 2}, {2, 3}).p_value == 1.0  # 2 corrected, 1 spoiled
    # 10 corrected, 1 spoiled: 2 (1 + 11) / 2^11, and the same the other way round
    assert report(set(range(10)), {20}).p_value == report({20}, set(range(10))).p_value == 24 / 2048
    assert report(set(), set()).p_value == 1.0
    assert 0 < replace(report(set(), set()), corrected=5000, spoiled=4000).p_value < 1e-20


def beside_examples(base_wrong: set[int], tuned_wrong: set[int], *draws: set[int]) -> Report:
    test = rows(90)
    base, tuned, *few_shot = (answers(test, wrong) for wrong in (base_wrong, tuned_wrong, *draws))
    return make_report(FINSENT, rows(9), test, {"base": [base], "few_shot": few_shot, "tuned": [tuned]}, num_examples=4)


def test_the_few_shot_column_is_the_mean_of_its_draws() -> None:
    given = beside_examples(set(range(60)), set(range(10)), set(range(30)), set(range(60)))
    assert given.scores["few_shot"]["accuracy"] == pytest.approx(1 / 2)
    assert given.few_shot_scores == pytest.approx([2 / 3, 1 / 3])
    assert list(given.columns.values()) == ["always `negative`", "base", "base, 4-shot", "fine-tuned"]
    low, high = given.intervals["few_shot"]
    assert low < 1 / 2 < high
    assert "before each question: the mean of 2 draws (macro_f1 0.667, 0.333)." in given.as_markdown()
    assert "before each question: 1 draw (macro_f1 0.500). Its" in replace(given, few_shot_scores=[0.5]).draws


@pytest.mark.parametrize(
    ("base", "tuned", "few_shot", "verdict"),
    [
        (60, 10, 40, "Fine-tuning helped: .* It is also better than the base with 4 examples in the prompt"),
        (60, 10, 11, "Fine-tuning helped: .* But it is not measurably better than the base .*: use few-shot, .*unless"),
        (60, 40, 5, "Fine-tuning helped: .* But the base with 4 examples in the prompt is better .*: use few-shot"),
        (40, 40, 5, "No measurable gain .* But the base with 4 examples in the prompt is better .*: use few-shot"),
        (40, 40, 40, "No measurable gain .*rows[)]. Nor is it measurably better than the base with 4 examples[^:]*$"),
        (10, 60, 60, "Fine-tuning made it worse.*Do not use this adapter.$"),
    ],
)
def test_the_verdict_tells_whether_examples_in_the_prompt_would_do(
    base: int, tuned: int, few_shot: int, verdict: str
) -> None:
    given = beside_examples(set(range(base)), set(range(tuned)), set(range(few_shot)))
    assert re.match(verdict, given.verdict)


def test_a_report_of_before_there_were_examples_is_still_read(tmp_path: Path) -> None:
    report({0}, {1}).write(tmp_path)
    old = read_json(tmp_path / "report.json")
    later = ["few_shot_examples", "few_shot_scores", "labels", "by_class", "confusion", "calibration", "perplexity"]
    for name in (*later, "pass_at_k", "general_loss", "gates"):
        del old[name]
    write_json(tmp_path / "report.json", old)
    given = Report.read(tmp_path)
    assert given.verdict == report({0}, {1}).verdict
    assert given.verdict in given.as_markdown()


def test_unreadable_answers_are_wrong_and_counted() -> None:
    test = rows(6)
    unreadable = [Answer("what?", None, False)] * 6
    given = make_report(FINSENT, rows(9), test, {"base": [unreadable], "tuned": [answers(test, set())]})
    assert given.unreadable == {"base": 6, "tuned": 0}
    assert given.scores["base"]["accuracy"] == 0
    assert given.scores["tuned"]["accuracy"] == 1


@pytest.mark.parametrize("count", [6, 60])
def test_the_verdict_says_when_no_answer_could_be_read(count: int) -> None:
    test = rows(count)
    unread = [Answer("what?", None, False)] * count
    none = make_report(FINSENT, rows(9), test, {"base": [answers(test, set())], "tuned": [unread]})
    one = make_report(FINSENT, rows(9), test, {"base": [unread], "tuned": [[*answers(test[:1], set()), *unread[1:]]]})
    assert ", none of the fine-tuned model's answers could be read)." in none.verdict
    assert "could be read" not in one.verdict


def test_always_the_most_frequent_training_answer_is_beside_closed_answers() -> None:
    test = rows(9)
    train = [*rows(9), Sentence("one more", "neutral")]
    given = make_report(FINSENT, train, test, {"base": [answers(test, set())], "tuned": [answers(test, set())]})
    assert given.majority_answer == "neutral"
    assert given.scores["majority"]["accuracy"] == pytest.approx(1 / 3)
    assert given.scores["majority"]["macro_f1"] == pytest.approx(1 / 6)


def test_the_interval_covers_the_score_and_is_the_same_each_time() -> None:
    test = rows(90)
    predictions = [answer.prediction for answer in answers(test, set(range(20)))]
    first = bootstrap_intervals(FINSENT, test, {"base": [predictions], "tuned": [predictions]})
    low, high = first["tuned"]
    assert low < FINSENT.score(test, predictions)["macro_f1"] < high
    assert first == bootstrap_intervals(FINSENT, test, {"base": [predictions], "tuned": [predictions]})
    assert first["gain"] == [0, 0]


def test_marking_each_row_once_gives_the_intervals_of_marking_all_again() -> None:
    calls: Counter[str] = Counter()

    class Again(type(FINSENT)):  # type: ignore[misc]  # the recipe's class is known when the file is loaded
        primary_metric = "accuracy"

        def score(self, rows: Any, predictions: Any) -> dict[str, float]:
            return {"accuracy": sum(map(operator.eq, (row.label for row in rows), predictions)) / len(rows)}

    class Once(type(FINSENT)):  # type: ignore[misc]
        primary_metric = "accuracy"
        score = Recipe.score

        def mark(self, row: Any, prediction: Any) -> dict[str, float]:
            calls["mark"] += 1
            return {"accuracy": float(row.label == prediction)}

    test = rows(40)
    given = {name: [[a.prediction for a in answers(test, wrong)]] for name, wrong in
             (("base", set(range(20))), ("tuned", {3}))}  # fmt: skip
    assert bootstrap_intervals(Once(), test, given) == bootstrap_intervals(Again(), test, given)
    assert calls["mark"] == 2 * len(test)


def test_a_mark_that_few_rows_have_is_shown_with_their_number() -> None:
    class Short(OpenSentiment):
        primary_metric = "accuracy"
        score = Recipe.score

        def mark(self, row: Any, prediction: Any) -> dict[str, float]:
            right = float(row.label == prediction)
            return {"accuracy": right} | ({"accuracy_first": right} if row.sentence == "sentence 0" else {})

    test = rows(30)
    given = make_report(Short(), test, test, {"base": [answers(test, {1, 2})], "tuned": [answers(test, set())]})
    assert given.mark_rows == {"accuracy_first": 1}
    assert "| accuracy_first (1 row) | 1.000 | 1.000 |" in given.as_markdown()
    assert "| accuracy (primary) | 0.933 | 1.000 |" in given.as_markdown()


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


def gates_of(given: Report, **gates: float) -> dict[str, Any]:
    return {gate.name: (gate.found, gate.held) for gate in check_gates(given, gates)}


def test_a_gate_is_held_from_its_own_side() -> None:
    given = report(set(range(60)), set(range(9)))
    assert gates_of(given, macro_f1=0.9, accuracy=0.91) == {
        "macro_f1": (pytest.approx(0.9), True),
        "accuracy": (pytest.approx(0.9), False),
    }
    wrong = report(set(), set(range(9)))
    assert gates_of(wrong, gain=-0.05, gain_low=-0.5) == {
        "gain": (pytest.approx(-0.1), False),
        "gain_low": (wrong.intervals["gain"][0], True),
    }
    loud = replace(given, general_loss={"base": 2.0, "tuned": 2.5, "low": 0.4, "high": 0.6}, unreadable={"tuned": 9})
    assert gates_of(loud, forgetting=0.5, unreadable=0.05) == {"forgetting": (0.5, True), "unreadable": (0.1, False)}


def test_a_gate_on_what_is_not_measured_is_told_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match=r"gates: this run does not measure 'macro_f2'\. Did you mean 'macro_f1'\?"):
        refuse_unmeasured(check_gates(report(set(), set()), {"macro_f2": 0.5}), report(set(), set()))


def test_a_gate_that_could_not_be_measured_after_all_is_missed() -> None:
    (gate,) = check_gates(report(set(), set()), {"forgetting": 0.05})
    assert (gate.found, gate.held, gate.shown) == (None, False, "not measured")


def test_a_gate_forgives_rounding_and_shows_what_it_does_not_forgive() -> None:
    given = report(set(range(9)), set(range(9)), count=50)
    exact = replace(given, scores=given.scores | {"base": {"macro_f1": 0.8}, "tuned": {"macro_f1": 0.82}})
    (held,) = check_gates(exact, {"gain": 0.02})
    assert held.held
    (missed,) = check_gates(exact, {"macro_f1": 0.82000004})
    assert (missed.held, missed.shown) == (False, "0.8200")
    (close,) = check_gates(replace(exact, scores=exact.scores | {"tuned": {"macro_f1": 0.799996}}), {"macro_f1": 0.8})
    assert (close.held, close.shown) == (False, "0.799996")


def test_a_gate_may_be_on_a_class_and_on_what_always_one_answer_reaches() -> None:
    given = report(set(range(60)), set(range(9)))
    found = gates_of(given, recall_negative=0.9, gain_over_majority_low=0.5, f1_neutral=0.95)
    assert found["recall_negative"] == (pytest.approx(0.9), True)
    assert found["f1_neutral"][1] is False
    assert found["gain_over_majority_low"] == (given.intervals["gain_over_majority"][0], True)


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        ("gain_over_tfidf_low", "Ask for it with --baseline tfidf."),
        ("gain_over_few_shot", "Ask for it with few_shot=4."),
        ("accuracy_low", "Did you mean 'accuracy'?"),
    ],
)
def test_what_would_measure_a_gate_is_told(gate: str, told: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(told)):
        check_evaluation(FINSENT, split_rows(9), Settings(gates={gate: 0.1}, few_shot=0))


def test_a_gate_that_nothing_can_reach_is_told() -> None:
    with pytest.raises(RecipeError, match=r"macro_f1 cannot be 80: marks lie in 0-1\. Write 0\.8 for 80 %\."):
        check_evaluation(FINSENT, split_rows(9), Settings(gates={"macro_f1": 80}))


def test_a_model_that_always_says_the_same_is_told_to_be_no_better_than_that() -> None:
    test = [Sentence(f"sentence {i}", "neutral" if i < 27 else LABELS[2 * (i % 2)]) for i in range(36)]
    base, tuned = ([Answer(text, text, text == row.label) for row in test] for text in ("positive", "neutral"))
    given = make_report(FINSENT, test, test, {"base": [base], "tuned": [tuned]})
    assert given.outcome == "helped"
    assert "But it is not measurably better than always answering `neutral` (0.286" in given.verdict
    assert "always answering" not in report(set(range(60)), set(range(9))).verdict


def test_perplexity_is_taken_on_the_rows_where_all_models_have_a_loss() -> None:
    test = rows(30)
    base, tuned = (with_probabilities(test, set(), 0.8) for _ in range(2))
    tuned[0] = replace(tuned[0], gold_loss=None)
    base[0] = replace(base[0], gold_loss=99.0)
    given = make_report(FINSENT, rows(9), test, {"base": [base], "tuned": [tuned]}, gold_tokens=[1] * 30)
    assert given.perplexity == pytest.approx({"base": math.exp(0.5), "tuned": math.exp(0.5)})


def test_programs_find_the_conclusions_in_the_file(tmp_path: Path) -> None:
    given = report(set(range(60)), set(range(9)))
    given.write(tmp_path)
    written = read_json(tmp_path / "report.json")
    assert (written["outcome"], written["verdict"], written["p_value"]) == ("helped", given.verdict, given.p_value)
    assert Report.read(tmp_path) == given


def test_a_damaged_report_is_told(tmp_path: Path) -> None:
    for text in ("{", "[]", "{}"):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(RecipeError, match=r"report\.json: is damaged, or of another version"):
            Report.read(tmp_path)


def split_rows(count: int) -> dict[str, list[Any]]:
    return {"train": rows(count), "validation": rows(9), "test": rows(9)}


def test_what_cannot_be_measured_is_told_before_the_training() -> None:
    check_evaluation(FINSENT, split_rows(9), Settings(gates={"macro_f1": 0.9, "gain_over_few_shot_low": 0}))
    check_evaluation(FINSENT, split_rows(9), Settings(gates={"gain_over_tfidf": 0.1}, baseline="tfidf"))
    for wrong, words in (
        ({"gates": {"gain_over_tfidf": 0.1}}, "does not measure 'gain_over_tfidf'"),
        ({"gates": {"gain_over_few_shot": 0.1}, "few_shot": 0}, "does not measure 'gain_over_few_shot'"),
        ({"gates": {"forgetting": 0.1}, "measure_forgetting": False}, "does not measure 'forgetting'"),
        ({"num_samples": 4}, "answers are chosen, not written, so none are sampled"),
    ):
        with pytest.raises(RecipeError, match=words):
            check_evaluation(FINSENT, split_rows(9), Settings(**wrong))


def with_probabilities(test: list[Any], wrong: set[int], sure: float) -> list[Answer]:
    def own(text: str) -> dict[str, float]:
        return {label: sure if label == text else (1 - sure) / 2 for label in LABELS}

    return [replace(answer, probabilities=own(answer.text), gold_loss=0.5) for answer in answers(test, wrong)]


def test_the_report_tells_classes_confusion_calibration_and_perplexity() -> None:
    test = rows(90)
    given = make_report(
        FINSENT, rows(9), test,
        {"base": [with_probabilities(test, {0, 3}, 0.6)], "tuned": [with_probabilities(test, set(range(18)), 0.8)]},
        gold_tokens=[2] * 90,
    )  # fmt: skip
    assert given.labels == list(LABELS)
    assert given.confusion["base"] == [[28, 2, 0, 0], [0, 30, 0, 0], [0, 0, 30, 0]]
    assert given.by_class["tuned"]["negative"]["recall"] == pytest.approx(0.8)
    assert given.by_class["tuned"]["negative"]["rows"] == 30
    assert given.calibration["tuned"]["expected_calibration_error"] == pytest.approx(0)
    assert given.calibration["base"]["expected_calibration_error"] == pytest.approx(88 / 90 - 0.6)
    assert "majority" not in given.calibration
    assert given.perplexity == pytest.approx({"base": math.exp(0.25), "tuned": math.exp(0.25)})
    assert given.worse_classes["recall of negative"] == pytest.approx((28 / 30, 0.8))
    assert given.worse_classes["F1 of neutral"] == pytest.approx((60 / 62, 0.8))
    page = given.as_markdown()
    assert "| negative | 30 | 0.800 | 0.800 | 0.800 | 0.966 |" in page
    assert "| perplexity of the gold answers, less is better | | 1.28 | 1.28 |" in page


def test_answers_of_one_class_and_unreadable_ones_are_scored() -> None:
    test = [Sentence(f"sentence {i}", "neutral") for i in range(6)]
    unreadable = [Answer("", None, False)] * 6
    given = make_report(FINSENT, test, test, {"base": [unreadable], "tuned": [answers(test, set())]})
    assert given.scores["tuned"] == {"accuracy": 1, "macro_f1": 1}
    assert given.scores["base"] == {"accuracy": 0, "macro_f1": 0}
    assert given.confusion["base"] == [[0, 0, 0, 0], [0, 0, 0, 6], [0, 0, 0, 0]]
    assert (given.calibration, given.perplexity) == ({}, {})
    assert "| negative | 0 | – | – | – | – |" in given.as_markdown()
    assert "| neutral | 6 | 1.000 | 1.000 | 1.000 | 0.000 |" in given.as_markdown()
    assert given.outcome == "too few rows to tell"


def test_texts_are_scored_by_likeness_and_samples_by_pass_at_k() -> None:
    recipe = OpenSentiment()
    test = rows(6)
    right = [Answer(row.label, row.label, True, correct_samples=2) for row in test]
    wrong = [Answer("what?", None, False, correct_samples=0) for row in test]
    given = make_report(recipe, rows(9), test, {"base": [wrong], "tuned": [right]}, num_samples=4)
    assert {"exact_match": 1, "rougeL": 1, "chrf": 1, "readable_rate": 1}.items() <= given.scores["tuned"].items()
    assert given.scores["base"]["readable_rate"] == given.scores["base"]["exact_match"] == 0
    assert given.pass_at_k["base"] == {"1": 0, "2": 0, "4": 0}
    assert given.pass_at_k["tuned"] == pytest.approx({"1": 0.5, "2": 1 - 1 / 6, "4": 1})
    assert gates_of(given, **{"pass@2": 0.8}) == {"pass@2": (pytest.approx(5 / 6), True)}
    assert given.labels == []
    assert "majority" not in given.scores


class OpenSentiment(type(FINSENT)):  # type: ignore[misc]  # its class is known at run time only
    """The same task with open answers."""

    def choices(self, row: Any) -> tuple[str, ...] | None:
        return None


def test_tfidf_learns_from_the_training_rows_and_is_a_column_of_its_own() -> None:
    words = {"negative": "loss fell", "neutral": "meeting held", "positive": "profit rose"}
    some = [Sentence(f"{words[LABELS[i % 3]]} {i}", LABELS[i % 3]) for i in range(72)]
    split = {"train": some[:30], "validation": some[30:42], "test": some[42:]}
    given = tfidf_answers(FINSENT, split)
    assert all(answer.correct for answer in given)
    assert sum((given[0].probabilities or {}).values()) == pytest.approx(1)
    base = answers(split["test"], set(range(30)))
    compared = make_report(FINSENT, split["train"], split["test"], {"tfidf": [given], "base": [base], "tuned": [base]})
    assert list(compared.columns) == ["majority", "tfidf", "base", "tuned"]
    assert "But TF-IDF with logistic regression is better (1.000" in compared.verdict


def test_tfidf_on_one_class_answers_that_class() -> None:
    one = [Sentence(f"sentence {i}", "neutral") for i in range(6)]
    given = tfidf_answers(FINSENT, {"train": one, "validation": one, "test": rows(3)})
    assert [answer.text for answer in given] == ["neutral"] * 3


def test_tfidf_gives_the_answer_of_the_nearest_training_row_where_answers_are_open() -> None:
    words = {"negative": "loss fell", "neutral": "meeting held", "positive": "profit rose"}
    some = [Sentence(f"{words[LABELS[i % 3]]} {i}", LABELS[i % 3]) for i in range(72)]
    split = {"train": some[:42], "test": some[42:]}
    check_evaluation(OpenSentiment(), split, Settings(baseline="tfidf"))
    given = tfidf_answers(OpenSentiment(), split)
    assert [answer.text for answer in given] == [row.label for row in split["test"]]
    assert all(answer.correct for answer in given)
    wrong = [Answer("", None, False)] * len(given)
    found = make_report(
        OpenSentiment(), split["train"], split["test"], {"tfidf": [given], "base": [wrong], "tuned": [wrong]}
    )
    assert "But the answer of the nearest training row (TF-IDF) is better (1.000" in found.verdict


def test_tfidf_cannot_answer_where_each_row_has_choices_of_its_own() -> None:
    class Own(OpenSentiment):
        def choices(self, row: Any) -> tuple[str, ...]:
            return (row.label, row.sentence)

    with pytest.raises(RecipeError, match="TF-IDF can choose among answers that all rows share"):
        check_evaluation(Own(), split_rows(9), Settings(baseline="tfidf"))


@pytest.mark.slow
def test_a_95_percent_interval_of_accuracy_covers_the_truth_in_95_percent_of_trials() -> None:
    """Of 2,000 test sets of 150 rows; chance leaves a point each way."""
    covered = coverage(Counting(), {"tuned": 0.8, "base": 0.6, "gain": 0.2}, ["a"] * 150, "ab")
    assert {name: 0.93 <= share <= 0.97 for name, share in covered.items()} == dict.fromkeys(covered, True), covered


@pytest.mark.slow
def test_a_95_percent_interval_of_macro_f1_covers_the_truth_in_95_percent_of_trials() -> None:
    """Of three classes as frequent, F1 is the share that is right: a wrong answer is as likely either class."""
    covered = coverage(FINSENT, {"tuned": 0.8, "base": 0.6, "gain": 0.2}, rows(120), LABELS)
    assert {name: 0.93 <= share <= 0.97 for name, share in covered.items()} == dict.fromkeys(covered, True), covered


def coverage(recipe: Any, truth: dict[str, float], test: list[Any], answers: Sequence[str]) -> dict[str, float]:
    """The share of 2,000 trials in which each interval holds the truth; models are right at random, so often."""
    chance, covered = random.Random(7), Counter[str]()

    def answered(row: Any, right: float) -> str:
        gold = str(getattr(row, "label", row))
        return gold if chance.random() < right else chance.choice([text for text in answers if text != gold])

    for trial in range(2000):
        # Rows are drawn anew, as are their numbers in each class.
        sample = chance.choices(test, k=len(test))
        given = {name: [[answered(row, truth[name]) for row in sample]] for name in ("tuned", "base")}
        found = bootstrap_intervals(recipe, sample, given, trial, resamples=250)
        covered.update(name for name, value in truth.items() if found[name][0] <= value <= found[name][1])
    return {name: covered[name] / 2000 for name in truth}


class Counting(type(FINSENT)):  # type: ignore[misc]  # its class is known at run time only
    """Scores answers by how many are right, and nothing else, to be quick."""

    primary_metric = "accuracy"

    def score(self, rows: Any, predictions: Any) -> dict[str, float]:
        return {"accuracy": sum(map(operator.eq, rows, predictions)) / len(rows)}


@pytest.mark.parametrize("bad", [40.0, -0.5, math.nan, math.inf])
def test_a_mark_outside_0_to_1_is_refused_with_its_row_and_not_reported(bad: float) -> None:
    class Odd(OpenSentiment):
        name = "odd"
        primary_metric = "accuracy"
        score = Recipe.score

        def mark(self, row: Any, prediction: Any) -> dict[str, float]:
            return {"accuracy": bad if prediction == "neutral" and row.label != "neutral" else 1.0}

    test = rows(6)
    wrong = [replace(answer, prediction="neutral") for answer in answers(test, set())]
    given = {"base": [answers(test, set())], "tuned": [[*answers(test[:3], set()), *wrong[3:]]]}
    fault = f"recipe 'odd': test split: row 4: mark() gives accuracy = {bad}. Marks lie in 0-1, higher is better."
    with pytest.raises(RecipeError, match=f"^{re.escape(fault)}$"):
        make_report(Odd(), test, test, given)


@pytest.mark.parametrize("each", [False, True])
def test_a_bad_metric_of_score_is_refused_also_where_only_some_draws_of_rows_have_it(each: bool) -> None:
    class Odd(Counting):
        name = "odd"

        def score(self, rows: Any, predictions: Any) -> dict[str, float]:
            return {"accuracy": math.nan if each or len(set(rows)) == 1 else 0.5}

    test = rows(3)
    given = {"base": [answers(test, set())], "tuned": [answers(test, set())]}
    where = "test split" if each else "rows drawn from the test split"
    with pytest.raises(RecipeError, match=f"^recipe 'odd': {where}: score\\(\\) gives accuracy = nan. Marks lie"):
        make_report(Odd(), test, test, given)


def test_the_last_digits_of_a_sum_may_go_beyond_1() -> None:
    class Summed(Counting):
        def score(self, rows: Any, predictions: Any) -> dict[str, float]:
            return {"accuracy": math.nextafter(1, 2)}

    test = rows(3)
    given = {"base": [answers(test, set())], "tuned": [answers(test, set())]}
    assert make_report(Summed(), test, test, given).scores["tuned"]["accuracy"] == math.nextafter(1, 2)
