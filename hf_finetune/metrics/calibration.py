"""Marks of the probabilities of closed answers: whether a model that is 80 % sure is right 80 % of the time.

A row's answer is its most probable choice, the first of them where several are equally probable; its confidence
is that choice's probability. Every function here raises ValueError, with the row's number from 1, for a gold choice
that is not among the choices and for probabilities that are none (not finite, negative, or not 1 in sum).
"""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence

TENTHS = tuple(tenth / 10 for tenth in range(1, 11))
SUM_TOLERANCE = 0.01
"""How far from 1 a row's probabilities may sum: half precision and figures rounded to three places stay inside."""


def expected_calibration_error(
    references: Sequence[str], probabilities: Sequence[Mapping[str, float]], bins: int = 10
) -> float:
    """How far confidence and accuracy are apart on average over the rows, 0-1; 0 for no rows.

    Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv:1706.04599), equation 3, over the bins of
    `reliability`.
    """
    found = reliability(references, probabilities, bins)
    gaps = sum(part["rows"] * abs(part["accuracy"] - part["confidence"]) for part in found)
    return gaps / len(references) if references else 0.0


def reliability(
    references: Sequence[str], probabilities: Sequence[Mapping[str, float]], bins: int = 10
) -> list[dict[str, float]]:
    """The points of a reliability diagram: mean `confidence`, `accuracy` and `rows` of each bin that has rows.

    The bins are of equal width and hold their upper edge, not their lower one; the least confidence comes first.
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}. It must be 1 or more.")
    # A division rounds once, so that a probability of 5/6 is on the edge 5/6; it is above 5 * (1 / 6).
    edges = [upper / bins for upper in range(1, bins)]
    found: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for confidence, right in _answers(references, probabilities):
        found[bisect_left(edges, confidence)].append((confidence, right))
    return [
        {
            "confidence": sum(confidence for confidence, _ in part) / len(part),
            "accuracy": sum(right for _, right in part) / len(part),
            "rows": len(part),
        }
        for _, part in sorted(found.items())
    ]


def brier_score(references: Sequence[str], probabilities: Sequence[Mapping[str, float]]) -> float:
    """The squared error of the probabilities, summed over a row's choices and meaned over rows, 0-2; 0 for no rows.

    Brier 1950, "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review 78(1), equation 2.
    It is lower for better; with two choices it is twice the figure that looks at one of them alone.
    """
    total = 0.0
    for number, (wanted, row) in enumerate(zip(references, probabilities, strict=True), start=1):
        _check(number, wanted, row)
        total += sum((probability - (choice == wanted)) ** 2 for choice, probability in row.items())
    return total / len(references) if references else 0.0


def selective_accuracy(
    references: Sequence[str], probabilities: Sequence[Mapping[str, float]], coverages: Sequence[float] = TENTHS
) -> list[dict[str, float]]:
    """For each `coverage` (a share of the rows, above 0 and up to 1) the `accuracy` on the rows it is surest of.

    The number of rows is rounded up. Of several rows that are equally sure and do not all fit in, each counts with
    their mean accuracy, so that the order of the rows changes nothing. Empty for no rows.
    """
    for coverage in coverages:
        if not 0 < coverage <= 1:
            raise ValueError(f"the coverage {coverage} is no share of the rows. It must be above 0 and up to 1.")
    answers = _answers(references, probabilities)
    if not answers:
        return []
    return [{"coverage": coverage, "accuracy": _accuracy_of_surest(answers, coverage)} for coverage in coverages]


def by_choice(choices: Sequence[Sequence[str]], probabilities: Sequence[Sequence[float]]) -> list[dict[str, float]]:
    """Each row's probabilities by choice, of two columns of lists; ValueError where they are no pairs."""
    rows = []
    for number, (names, values) in enumerate(zip(choices, probabilities, strict=True), start=1):
        if not len(set(names)) == len(names) == len(values):
            raise ValueError(
                f"row {number}: the choices {', '.join(names)} have {len(values)} probabilities. "
                f"Give one for each choice, and each choice once."
            )
        rows.append(dict(zip(names, values, strict=True)))
    return rows


def _accuracy_of_surest(answers: Sequence[tuple[float, bool]], coverage: float) -> float:
    """The accuracy on a share of the (confidence, right) answers, the most confident ones."""
    # 0.28 * 25 is more than 7 by a rounding error, which must not make it 8 rows.
    wanted = max(1, math.ceil(coverage * len(answers) - 1e-9))
    least = sorted((confidence for confidence, _ in answers), reverse=True)[wanted - 1]
    surer = [right for confidence, right in answers if confidence > least]
    equal = [right for confidence, right in answers if confidence == least]
    return (sum(surer) + (wanted - len(surer)) * sum(equal) / len(equal)) / wanted


def _answers(references: Sequence[str], probabilities: Sequence[Mapping[str, float]]) -> list[tuple[float, bool]]:
    """Each row's confidence, and whether its answer is right."""
    answers = []
    for number, (wanted, row) in enumerate(zip(references, probabilities, strict=True), start=1):
        _check(number, wanted, row)
        answer = max(row, key=row.__getitem__)
        answers.append((row[answer], answer == wanted))
    return answers


def _check(number: int, wanted: str, row: Mapping[str, float]) -> None:
    if wanted not in row:
        raise ValueError(f"row {number}: the gold choice {wanted!r} is not among the choices {', '.join(row)}.")
    for choice, probability in row.items():
        if not math.isfinite(probability) or probability < 0:
            raise ValueError(f"row {number}: the probability of {choice!r} is {probability}. It must be in 0-1.")
    if abs(sum(row.values()) - 1) > SUM_TOLERANCE:
        raise ValueError(f"row {number}: the probabilities sum to {sum(row.values()):g}. They must sum to 1.")
