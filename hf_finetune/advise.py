"""Fine-tune, prompt, or look facts up? Answers to a few questions, and a finished run's figures -> a recommendation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_finetune.errors import RecipeError, nearest, plural
from hf_finetune.intervals import gain_over
from hf_finetune.report import Report

CHANGES = ("never", "yearly", "monthly", "weekly", "daily")
"""How often the facts that answers rest on change."""
FEW, ENOUGH = 50, 500
"""Labelled examples. Below 50 hosted fine-tuning services expect no clear gain (OpenAI's fine-tuning guide: 50 to 100);
a tenth of 500 is a test split of 50, whose 95 % interval of an accuracy near 0.8 is about +-0.11."""
FEW_REQUESTS, MANY_REQUESTS = 100, 10_000
"""A day. Each request with examples in its prompt computes these again, or needs them kept in a cache."""
SHORT_LATENCY = 500
"""Milliseconds. A search and a prompt of some thousand tokens on top of an answer seldom fit into it."""
WAYS = {
    "tfidf": "TF-IDF: the baseline without a language model",
    "prompt": "prompt: instructions and examples, no training",
    "rag": "RAG: look the facts up, and put them into the prompt",
    "fine-tune": "fine-tune",
    "rag and fine-tune": "both: RAG for the facts, fine-tuning for form and behaviour",
}


@dataclass(frozen=True)
class Situation:
    """What is known of a task; None: nobody said."""

    facts_change: str | None = None
    examples: int | None = None
    requests_per_day: int | None = None
    latency_ms: int | None = None
    private: bool | None = None
    """Whether the texts must not leave the machines of their owner."""


@dataclass(frozen=True)
class Advice:
    """What to do, and why."""

    way: str
    """A key of WAYS."""
    reasons: tuple[str, ...]
    """Each with the answer or the figure that it rests on."""
    cautions: tuple[str, ...]
    """Where answers contradict each other, or leave something open."""

    def as_json(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return {"way": self.way, "reasons": list(self.reasons), "cautions": list(self.cautions)}


def check_situation(given: Situation) -> None:
    """Whether the answers are such as there can be.

    Raises:
        RecipeError: naming the one that is not.
    """
    if given.facts_change is not None and given.facts_change not in CHANGES:
        raise RecipeError(
            f"--facts-change {given.facts_change}: is no such frequency. {nearest(given.facts_change, CHANGES)}"
        )
    numbers = {"examples": given.examples, "requests-per-day": given.requests_per_day, "latency-ms": given.latency_ms}
    for name, value in numbers.items():
        if value is not None and value < (1 if name == "latency-ms" else 0):
            raise RecipeError(f"--{name} {value}: is too small. Give a number from {int(name == 'latency-ms')} on.")
    if all(value is None for value in vars(given).values()):
        raise RecipeError(
            "advise: nothing is known of the task. Answer a question at least: see hf-finetune advise -h."
        )


def advise(given: Situation, report: Report | None = None) -> Advice:
    """The recommendation for a task, by its answers and by what a finished run has measured.

    Facts that change ask for looking up, whatever else is true; beside it, and without it, fine-tuning is weighed
    against a prompt: by what was measured on the task itself where there is a run, else by the answers.
    """
    looked_up, facts = _facts(given)
    measured, figures = _measured(report)
    tunes, reasons = _tunes(given)
    way = measured or ("fine-tune" if tunes else "prompt")
    if looked_up:
        way = "rag and fine-tune" if way == "fine-tune" else "rag"
    return Advice(way, (*facts, *figures, *reasons), tuple(_cautions(given, report, looked_up)))


def _facts(given: Situation) -> tuple[bool, list[str]]:
    """Whether facts are to be looked up, and why."""
    change = given.facts_change
    if change in ("daily", "weekly"):
        return True, [
            f"facts change {change}: a model knows what its training data said, and would have to be trained, "
            f"evaluated and put in place {change}; a search finds what holds now"
        ]
    if change == "monthly":
        return True, [
            "facts change monthly: twelve trainings a year cost more than an index that is kept up to date, and the "
            "source of an answer can be shown"
        ]
    if change:
        return False, [f"facts change {change}: there is nothing to look up that could not be learned"]
    return False, []


def _measured(report: Report | None) -> tuple[str, list[str]]:
    """What a run's figures speak for, or nothing; and the sentence with the figures."""
    if report is None:
        return "", []
    tuned = report.scores["tuned"][report.primary_metric]
    for column, way in (("tfidf", "tfidf"), ("few_shot", "prompt")):
        if gain_over(column) in report.intervals and report.intervals[gain_over(column)][0] <= 0:
            return way, [f"measured: {_against(report, column, tuned)}: fine-tuning is not measurably better"]
    if report.outcome in ("helped", "worse", "no measurable gain"):
        low, high = report.intervals["gain"]
        base = report.scores["base"][report.primary_metric]
        shown = f"{report.primary_metric} {tuned:.3f} fine-tuned, {base:.3f} base ({low:+.3f} to {high:+.3f}, 95 %)"
        beside = [_against(report, "few_shot", tuned)] if gain_over("few_shot") in report.intervals else []
        helped = report.outcome == "helped"
        return "fine-tune" if helped else "prompt", [
            f"measured: {'; '.join([shown, *beside])}: {'it is better' if helped else 'training has not helped'}"
        ]
    return "", [f"measured: {plural(report.rows, 'test row')} are too few to tell"]


def _against(report: Report, column: str, tuned: float) -> str:
    """The figures of a cheaper way beside the fine-tuned model's."""
    low, high = report.intervals[gain_over(column)]
    name = {"few_shot": f"{report.few_shot_examples} examples in the prompt", "tfidf": report.tfidf}[column]
    score = report.scores[column][report.primary_metric]
    return f"{report.primary_metric} {score:.3f} with {name}, {tuned:.3f} fine-tuned ({low:+.3f} to {high:+.3f}, 95 %)"


def _tunes(given: Situation) -> tuple[bool, list[str]]:
    """Whether the answers speak for fine-tuning rather than a prompt alone, and why."""
    votes: list[tuple[int, str]] = []
    if given.examples is not None:
        shown = plural(given.examples, "labelled example")
        votes.append(
            (-3, f"{shown}: too few to train on and to test with; the best of them go into the prompt")
            if given.examples < FEW
            else (0, f"{shown}: enough for a trial, whose test split will hardly tell a small gain from none")
            if given.examples < ENOUGH
            else (2, f"{shown}: enough to train on, and to measure on a tenth of them whether it was worth it")
        )
    if given.requests_per_day is not None:
        shown = plural(given.requests_per_day, "request")
        if given.requests_per_day >= MANY_REQUESTS:
            votes.append(
                (1, f"{shown} a day: a small model that needs no examples in its prompt saves on each of them")
            )
        elif given.requests_per_day < FEW_REQUESTS:
            votes.append((-1, f"{shown} a day: what a shorter prompt saves never pays for a training"))
    if given.latency_ms is not None and given.latency_ms < SHORT_LATENCY:
        votes.append((1, f"{given.latency_ms} ms: a short prompt to a small fine-tuned model is the quickest answer"))
    if given.private:
        votes.append((1, "private: a small model of one's own has to do, and fine-tuning makes up for its size"))
    elif given.private is False:
        votes.append((-1, "not private: a large hosted model may be asked, which needs no training"))
    return sum(weight for weight, _ in votes) > 0, [reason for _, reason in votes]


def _cautions(given: Situation, report: Report | None, looked_up: bool) -> list[str]:
    """Where the answers contradict each other or a run, and what is still to be done."""
    told = []
    if looked_up and given.latency_ms is not None and given.latency_ms < SHORT_LATENCY:
        told.append(
            f"facts change {given.facts_change}, and {given.latency_ms} ms are short for a search and a longer prompt: "
            f"measure the search first, or look up beforehand what is asked most"
        )
    if looked_up and (given.examples or 0) >= ENOUGH:
        told.append(
            f"{plural(given.examples or 0, 'labelled example')}, and facts that change {given.facts_change}: leave out "
            f"of the training what will no longer hold, else the model learns to give old answers"
        )
    if report and given.examples is not None and given.examples < FEW and report.rows > given.examples:
        told.append(
            f"{plural(given.examples, 'labelled example')} are said, but the run was tested on "
            f"{plural(report.rows, 'row')}: the run's figures are taken"
        )
    if given.examples == 0 and report is None:
        told.append("without labelled examples nobody can tell which way is better: label 50 to test with first")
    if report is None and (given.examples or 0) >= FEW:
        told.append(
            "not measured yet: `hf-finetune run RECIPE` compares base, examples in the prompt and fine-tuned on the "
            "same rows; then advise on the run's folder"
        )
    return told


def in_lines(advice: Advice) -> Sequence[str]:
    """The advice as lines for the screen."""
    lines = [f"advice    {WAYS[advice.way]}"]
    lines += [f"because   {reason}" for reason in advice.reasons]
    return lines + [f"mind      {caution}" for caution in advice.cautions]
