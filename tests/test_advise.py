"""What to do with a task: each answer and each figure counts as it is said to, and contradictions are told."""

from dataclasses import replace
from pathlib import Path

import pytest

from conftest import run_cli
from hf_finetune.advise import Situation, advise, check_situation
from hf_finetune.errors import RecipeError
from hf_finetune.report import Report

FINISHED = Path(__file__).parent.parent / "model_cards" / "finsent"
PLENTY = Situation(facts_change="never", examples=2_000)


@pytest.mark.parametrize(
    ("given", "way", "because"),
    [
        (PLENTY, "fine-tune", "2,000 labelled examples: enough to train on"),
        (replace(PLENTY, facts_change="yearly"), "fine-tune", "facts change yearly: there is nothing to look up"),
        (replace(PLENTY, facts_change="monthly"), "rag and fine-tune", "facts change monthly"),
        (replace(PLENTY, facts_change="weekly"), "rag and fine-tune", "facts change weekly"),
        (replace(PLENTY, facts_change="daily", examples=10), "rag", "facts change daily"),
        (Situation(facts_change="daily"), "rag", "a search finds what holds now"),
        (Situation(examples=49), "prompt", "49 labelled examples: too few to train on"),
        (Situation(examples=50), "prompt", "50 labelled examples: enough for a trial"),
        (Situation(examples=499, private=True), "fine-tune", "private: a small model of one's own"),
        (Situation(examples=1), "prompt", "1 labelled example: too few"),
        (Situation(examples=100, requests_per_day=10_000), "fine-tune", "10,000 requests a day: a small model"),
        (Situation(examples=100, requests_per_day=99), "prompt", "99 requests a day: what a shorter prompt saves"),
        (Situation(examples=100, latency_ms=499), "fine-tune", "499 ms: a short prompt"),
        (Situation(examples=100, latency_ms=500), "prompt", "100 labelled examples"),
        (Situation(examples=100, private=False), "prompt", "not private: a large hosted model"),
        (Situation(examples=40, requests_per_day=20_000, private=True), "prompt", "40 labelled examples"),
    ],
)
def test_each_answer_counts(given: Situation, way: str, because: str) -> None:
    advice = advise(given)
    assert advice.way == way
    assert any(reason.startswith(because) or because in reason for reason in advice.reasons)


def test_every_reason_names_the_answer_that_it_rests_on() -> None:
    given = Situation("daily", 500, 20_000, 300, True)
    reasons = advise(given).reasons
    assert len(reasons) == 5
    for said, reason in zip(["daily", "500", "20,000", "300 ms", "private"], reasons, strict=True):
        assert said in reason


@pytest.mark.parametrize(
    ("given", "caution"),
    [
        (Situation(facts_change="daily", latency_ms=200), "facts change daily, and 200 ms are short for a search"),
        (Situation(facts_change="weekly", examples=5_000), "leave out of the training what will no longer hold"),
        (Situation(examples=0), "without labelled examples nobody can tell"),
        (Situation(examples=500), "not measured yet"),
    ],
)
def test_answers_that_contradict_each_other_are_told(given: Situation, caution: str) -> None:
    assert any(caution in one for one in advise(given).cautions)


def test_answers_without_a_contradiction_have_no_caution() -> None:
    assert advise(Situation(facts_change="daily", latency_ms=5_000)).cautions == ()


def finished(**changed: object) -> Report:
    """The report of the reference run, with other figures."""
    return replace(Report.read(FINISHED), **changed)  # type: ignore[arg-type]


def test_a_run_that_has_helped_speaks_for_fine_tuning_whatever_is_answered() -> None:
    advice = advise(Situation(requests_per_day=1, private=False), finished())
    assert advice.way == "fine-tune"
    assert advice.reasons[0].startswith("measured: macro_f1 0.705 fine-tuned, 0.155 base")
    assert "with 4 examples in the prompt" in advice.reasons[0]


def test_a_few_shot_baseline_that_is_as_good_speaks_for_the_prompt() -> None:
    report = finished()
    report = finished(intervals=report.intervals | {"gain_over_few_shot": [-0.02, 0.05]})
    advice = advise(Situation(examples=10_000, requests_per_day=50_000), report)
    assert advice.way == "prompt"
    assert "with 4 examples in the prompt" in advice.reasons[0]
    assert "(-0.020 to +0.050, 95 %)" in advice.reasons[0]


def test_tfidf_that_is_as_good_needs_no_model() -> None:
    report = finished()
    scores = report.scores | {"tfidf": {report.primary_metric: 0.7}}
    report = finished(scores=scores, intervals=report.intervals | {"gain_over_tfidf": [-0.04, 0.03]})
    assert advise(PLENTY, report).way == "tfidf"


def test_a_run_that_has_not_helped_speaks_for_the_prompt() -> None:
    report = finished()
    kept = {name: value for name, value in report.intervals.items() if not name.startswith("gain_over")}
    assert advise(PLENTY, finished(intervals=kept | {"gain": [-0.1, 0.1]})).way == "prompt"
    assert advise(PLENTY, finished(intervals=kept | {"gain": [-0.3, -0.1]})).way == "prompt"


def test_a_run_with_too_few_rows_leaves_it_to_the_answers() -> None:
    report = finished()
    kept = {name: value for name, value in report.intervals.items() if not name.startswith("gain_over")}
    advice = advise(PLENTY, finished(intervals=kept, rows=10))
    assert advice.way == "fine-tune"
    assert "measured: 10 test rows are too few to tell" in advice.reasons


def test_facts_that_change_are_looked_up_beside_a_run_that_has_helped() -> None:
    assert advise(Situation(facts_change="daily"), finished()).way == "rag and fine-tune"


def test_a_number_of_examples_that_the_run_contradicts_is_told() -> None:
    advice = advise(Situation(examples=10), finished())
    assert any("10 labelled examples are said, but the run was tested on 79 rows" in one for one in advice.cautions)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (Situation(facts_change="dayly"), "--facts-change dayly: is no such frequency. Did you mean 'daily'?"),
        (Situation(examples=-1), "--examples -1: is too small. Give a number from 0 on."),
        (Situation(latency_ms=0), "--latency-ms 0: is too small. Give a number from 1 on."),
        (Situation(), "advise: nothing is known of the task."),
    ],
)
def test_an_answer_that_cannot_be_is_refused(given: Situation, told: str) -> None:
    with pytest.raises(RecipeError) as error:
        check_situation(given)
    assert str(error.value).startswith(told)


def test_the_command_prints_the_advice_with_its_reasons(tmp_path: Path) -> None:
    done = run_cli("advise", "--facts-change", "daily", "--examples", "500", "--private", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "advice    both: RAG for the facts, fine-tuning for form and behaviour"
    assert sum(line.startswith("because   ") for line in lines) == 3


def test_the_command_takes_a_runs_folder_and_refuses_one_without_a_report(tmp_path: Path) -> None:
    assert run_cli("advise", str(FINISHED), cwd=tmp_path).stdout.startswith("advice    fine-tune\n")
    done = run_cli("advise", ".", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        1, "error: .: has no report. Start the run's command again, so that it ends.\n",
    )  # fmt: skip
