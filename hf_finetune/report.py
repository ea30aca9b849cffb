"""Answers of base, few-shot and fine-tuned model to the same rows -> how good each is, and how sure that is."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from math import comb
from pathlib import Path
from statistics import mean
from typing import Any

from hf_finetune.errors import plural
from hf_finetune.files import read_json, write_json, write_text
from hf_finetune.recipe import Recipe, shares_choices

RESAMPLES = 1000
CONFIDENCE = 0.95


Answers = Sequence["Answer"]


@dataclass(frozen=True)
class Answer:
    """One model's answer to one row."""

    text: str
    prediction: Any
    """What the recipe's parse() reads in the text; None when it cannot."""
    correct: bool
    probabilities: dict[str, float] | None = None
    """Closed answers: each choice's share of the likelihood."""


@dataclass(frozen=True)
class Report:
    """How base, few-shot and fine-tuned model did on the test rows; `report.json` is this and nothing else."""

    recipe: str
    primary_metric: str
    rows: int
    answered_by: str
    """`likelihood of the choices` or `greedy generation`."""
    scores: dict[str, dict[str, float]]
    """Metrics of `base`, `few_shot` (the mean over the draws), `tuned` and, for closed answers, `majority`: always the
    most frequent training answer."""
    intervals: dict[str, list[float]]
    """95 % bootstrap intervals of the primary metric: of each model, and of the paired differences `gain`, fine-tuned
    less base, and `gain_over_few_shot`."""
    unreadable: dict[str, int]
    corrected: int
    """Rows the base had wrong and the fine-tuned model has right."""
    spoiled: int
    """Rows the base had right and the fine-tuned model has wrong."""
    majority_answer: str | None
    example_prompt: str
    max_new_tokens: int
    few_shot_examples: int = 0
    """Training rows that the base is shown before a question in the column `few_shot`."""
    few_shot_scores: list[float] = field(default_factory=list)
    """The primary metric of each draw of them."""

    @property
    def p_value(self) -> float:
        """McNemar's exact test, two-sided: how likely as uneven a change is where fine-tuning changes nothing.

        Of the rows that only one of the two models has right, each is then as likely to have; McNemar 1947.
        """
        changed, fewer = self.corrected + self.spoiled, min(self.corrected, self.spoiled)
        return min(1.0, float(2 * Fraction(sum(comb(changed, n) for n in range(fewer + 1)), 2**changed)))

    @property
    def verdict(self) -> str:
        """Did fine-tuning help, measurably? And would examples in the prompt have done as well?"""
        low, high = self.intervals["gain"]
        name = self.primary_metric
        change = f"{name} {self.scores['base'][name]:.3f} -> {self.scores['tuned'][name]:.3f}"
        interval = f"95 % interval of the difference {low:+.3f} to {high:+.3f}, {plural(self.rows, 'test row')}"
        if low > 0:
            return f"Fine-tuning helped: {change} ({interval}).{self._beside_few_shot()}"
        if high < 0:
            return f"Fine-tuning made it worse: {change} ({interval}). Do not use this adapter."
        return f"No measurable gain from fine-tuning: {change} ({interval}).{self._beside_few_shot()}"

    def _beside_few_shot(self) -> str:
        """What is to be said of examples in the prompt, after a space; nothing where they were not tried."""
        if not self.few_shot_examples:
            return ""
        low, high = self.intervals["gain_over_few_shot"]
        with_examples = f"the base with {plural(self.few_shot_examples, 'example')} in the prompt"
        found = (
            f"{self.scores['few_shot'][self.primary_metric]:.3f}, "
            f"95 % interval of the difference {low:+.3f} to {high:+.3f}"
        )
        if low > 0:
            return f" It is also better than {with_examples} ({found})."
        if high < 0:
            return f" But {with_examples} is better ({found}): use few-shot."
        if self.intervals["gain"][0] > 0:
            return f" But {with_examples} is as good ({found}): use few-shot."
        return ""

    @property
    def columns(self) -> dict[str, str]:
        """The names in `scores`, in the order in which they are shown, and the Markdown title of each."""
        titles = {
            "majority": f"always `{self.majority_answer}`",
            "base": "base",
            "few_shot": f"base, {self.few_shot_examples}-shot",
            "tuned": "fine-tuned",
        }
        return {name: title for name, title in titles.items() if name in self.scores}

    @classmethod
    def read(cls, folder: Path) -> "Report":
        """The report in a run's folder."""
        return cls(**read_json(folder / "report.json"))

    def write(self, folder: Path) -> None:
        """Leaves report.md in the folder, then report.json, which says that the evaluation is done."""
        write_text(folder / "report.md", self.as_markdown())
        write_json(folder / "report.json", asdict(self))

    def as_markdown(self) -> str:
        """The comparison as a page for a terminal or a pull request."""
        lines = [
            f"# {self.recipe}: base and fine-tuned model on the same {plural(self.rows, 'test row')}",
            "",
            self.verdict,
            "",
            "| metric | " + " | ".join(self.columns.values()) + " |",
            "|---|" + "---:|" * len(self.columns),
        ]
        for metric in self.scores["tuned"]:
            cells = [f"{self.scores[column][metric]:.3f}" for column in self.columns]
            lines.append(f"| {metric}{' (primary)' if metric == self.primary_metric else ''} | {' | '.join(cells)} |")
        low, high = self.intervals["tuned"]
        lines += [
            "",
            f"Fine-tuned {self.primary_metric}: 95 % interval {low:.3f} to {high:.3f} "
            f"({RESAMPLES:,} bootstrap resamples of the test rows).",
            f"Of {plural(self.rows, 'row')}, fine-tuning corrected {self.corrected} and spoiled {self.spoiled} "
            f"(McNemar's exact test: p = {self.p_value:.2g}). "
            f"Unreadable answers: base {self.unreadable['base']}, fine-tuned {self.unreadable['tuned']}.",
            *([self.draws] if self.few_shot_examples else []),
            f"Answers by {self.answered_by}; every answer is in answers.jsonl.",
            "",
        ]
        return "\n".join(lines)

    @property
    def draws(self) -> str:
        """A sentence on the draws of examples."""
        each = ", ".join(f"{score:.3f}" for score in self.few_shot_scores)
        shown = plural(len(self.few_shot_scores), "draw")
        shown = f"the mean of {shown}" if len(self.few_shot_scores) > 1 else shown
        return (
            f"In the {self.few_shot_examples}-shot column the base was shown training rows before each question: "
            f"{shown} ({self.primary_metric} {each})."
        )


def compare(
    recipe: Recipe[Any], train: Sequence[Any], test: Sequence[Any], base: Answers, tuned: Answers, max_new_tokens: int,
    few_shot: Sequence[Answers] = (), num_examples: int = 0,
) -> Report:  # fmt: skip
    """The report on answers to the same rows; `few_shot` has those of each draw of `num_examples` examples."""
    is_closed = all(recipe.choices(row) is not None for row in test)
    one_set = shares_choices(recipe, test)
    majority = Counter(recipe.completion(row) for row in train).most_common(1)[0][0] if one_set else None
    models = {"base": [base]} | ({"few_shot": few_shot} if few_shot else {}) | {"tuned": [tuned]}
    predictions = {name: [[a.prediction for a in answers] for answers in draws] for name, draws in models.items()}
    if majority is not None:
        predictions = {"majority": [[recipe.parse(majority)] * len(test)]} | predictions
    scores = {name: [_scores(recipe, test, one, is_closed) for one in draws] for name, draws in predictions.items()}
    return Report(
        recipe=recipe.name,
        primary_metric=recipe.primary_metric,
        rows=len(test),
        answered_by="likelihood of the choices" if is_closed else "greedy generation",
        scores={name: {metric: mean(one[metric] for one in own) for metric in own[0]} for name, own in scores.items()},
        intervals=bootstrap_intervals(recipe, test, {name: predictions[name] for name in models}),
        unreadable={name: sum(p is None for own in predictions[name] for p in own) for name in models},
        corrected=sum(t.correct and not b.correct for b, t in zip(base, tuned, strict=True)),
        spoiled=sum(b.correct and not t.correct for b, t in zip(base, tuned, strict=True)),
        majority_answer=majority,
        example_prompt=recipe.prompt(test[0]),
        max_new_tokens=max_new_tokens,
        few_shot_examples=num_examples if few_shot else 0,
        few_shot_scores=[one[recipe.primary_metric] for one in scores.get("few_shot", [])],
    )


def bootstrap_intervals(
    recipe: Recipe[Any], rows: Sequence[Any], predictions: Mapping[str, Sequence[Sequence[Any]]], seed: int = 0
) -> dict[str, list[float]]:
    """95 % percentile intervals of the primary metric of `base`, `tuned`, `few_shot`, if given, and of differences.

    Each model has one or several lists of predictions, whose metrics are averaged. All are marked on the same resampled
    rows (Efron and Tibshirani 1993, chapter 13), so the rows' difficulty cancels in `gain`, which is fine-tuned less
    base, and in `gain_over_few_shot`.
    """
    chance = random.Random(seed)
    drawn: dict[str, list[float]] = {name: [] for name in predictions}
    for _ in range(RESAMPLES):
        sample = chance.choices(range(len(rows)), k=len(rows))
        some = [rows[i] for i in sample]
        for name, lists in predictions.items():
            marks = [recipe.score(some, [given[i] for i in sample])[recipe.primary_metric] for given in lists]
            drawn[name].append(mean(marks))
    for gain, other in (("gain", "base"), ("gain_over_few_shot", "few_shot")):
        if other in drawn:
            drawn[gain] = [tuned - less for tuned, less in zip(drawn["tuned"], drawn[other], strict=True)]
    tail = round(RESAMPLES * (1 - CONFIDENCE) / 2)
    return {name: [sorted(values)[tail], sorted(values)[-1 - tail]] for name, values in drawn.items()}


def _scores(recipe: Recipe[Any], rows: Sequence[Any], predictions: Sequence[Any], is_closed: bool) -> dict[str, float]:
    """The recipe's own marks; for closed answers also accuracy and macro-F1, through the modules of `evaluate`."""
    return (_closed_scores(recipe, rows, predictions) if is_closed else {}) | recipe.score(rows, predictions)


def _closed_scores(recipe: Recipe[Any], rows: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
    from hf_finetune.metrics.modules.accuracy.accuracy import Accuracy
    from hf_finetune.metrics.modules.macro_f1.macro_f1 import MacroF1

    references = [str(recipe.parse(recipe.completion(row))) for row in rows]
    given = ["" if prediction is None else str(prediction) for prediction in predictions]
    marks: dict[str, float] = {}
    for metric in (Accuracy(keep_in_memory=True), MacroF1(keep_in_memory=True)):
        marks |= metric.compute(references=references, predictions=given)
    return marks
