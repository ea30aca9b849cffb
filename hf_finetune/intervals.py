"""How sure a mark is: bootstrap intervals of marks and of their differences, and McNemar's test."""

import random
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import comb
from statistics import mean
from typing import Any

from hf_finetune.marks import checked_metrics
from hf_finetune.progress import Progress, tracked
from hf_finetune.recipe import Recipe, marks_each_row

RESAMPLES = 1000
"""Of the bootstrap."""
CONFIDENCE = 0.95


def gain_over(column: str) -> str:
    """What the difference of the fine-tuned model to a column is called."""
    return "gain" if column == "base" else f"gain_over_{column}"


def bootstrap_intervals(
    recipe: Recipe[Any], rows: Sequence[Any], predictions: Mapping[str, Sequence[Sequence[Any]]], seed: int = 0,
    resamples: int = RESAMPLES, progress: Progress | None = None,
) -> dict[str, list[float]]:  # fmt: skip
    """95 % percentile intervals of the primary metric of each column, and of what `tuned` gains over the others.

    Each column has one or several lists of predictions, whose metrics are averaged. All are marked on the same
    resampled rows (Efron and Tibshirani 1993, chapter 13), so the rows' difficulty cancels in `gain`, which is
    fine-tuned less base, and in `gain_over_majority` and the others.
    """
    chance = random.Random(seed)
    drawn: dict[str, list[float]] = {name: [] for name in predictions}
    metrics = {name: [_metric(recipe, rows, given) for given in lists] for name, lists in predictions.items()}
    for _ in tracked(range(resamples), progress, "intervals", "resamples"):
        sample = chance.choices(range(len(rows)), k=len(rows))
        for name, own in metrics.items():
            drawn[name].append(mean([metric(sample) for metric in own]))
    for other in [name for name in predictions if name != "tuned"]:
        drawn[gain_over(other)] = [tuned - less for tuned, less in zip(drawn["tuned"], drawn[other], strict=True)]
    return {name: percentile_interval(values) for name, values in drawn.items()}


def _metric(recipe: Recipe[Any], rows: Sequence[Any], given: Sequence[Any]) -> Callable[[Sequence[int]], float]:
    """The primary metric of the rows with the numbers it is called with; each row is marked once where it can be."""
    name = recipe.primary_metric
    if not marks_each_row(recipe):
        where = "rows drawn from the test split"
        return lambda sample: checked_metrics(recipe, [rows[i] for i in sample], [given[i] for i in sample], where)[
            name
        ]
    marks = [recipe.mark(row, prediction)[name] for row, prediction in zip(rows, given, strict=True)]
    return lambda sample: sum(marks[i] for i in sample) / len(sample)


def percentile_interval(values: Sequence[float]) -> list[float]:
    """The two values between which the middle 95 % of the resampled ones lie."""
    ordered = sorted(values)
    tail = round(len(ordered) * (1 - CONFIDENCE) / 2)
    return [ordered[tail], ordered[-1 - tail]]


def mean_interval(values: Sequence[float], seed: int = 0) -> list[float]:
    """The 95 % bootstrap interval of a mean."""
    chance = random.Random(seed)
    return percentile_interval([mean(chance.choices(values, k=len(values))) for _ in range(RESAMPLES)])


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact test, two-sided: the p-value of the rows that only the one or only the other model has right.

    Where the models are as good, each such row is as likely to be the one's as the other's (McNemar 1947).
    """
    changed, fewer = only_first + only_second, min(only_first, only_second)
    return min(1.0, float(2 * Fraction(sum(comb(changed, n) for n in range(fewer + 1)), 2**changed)))
