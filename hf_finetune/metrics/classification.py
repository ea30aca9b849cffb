"""Marks of labels: how often they are right, for each class, and which is taken for which."""

from collections import Counter
from collections.abc import Sequence


def accuracy(references: Sequence[object], predictions: Sequence[object]) -> float:
    """The share of answers that are right, 0-1; 0 for no rows."""
    right = sum(given == wanted for wanted, given in zip(references, predictions, strict=True))
    return right / len(references) if references else 0.0


def readable_rate(predictions: Sequence[object]) -> float:
    """The share of answers that could be read (are not None), 0-1; 0 for no rows."""
    return sum(given is not None for given in predictions) / len(predictions) if predictions else 0.0


def f1_by_class(references: Sequence[str], predictions: Sequence[str | None]) -> dict[str, float]:
    """F1 (harmonic mean of precision and recall) of each class that occurs in either sequence, sorted by name."""
    hits = _hits(references, predictions)
    named = Counter(references) + Counter(given for given in predictions if given is not None)
    return {name: 2 * hits[name] / named[name] for name in sorted(named)}


def macro_f1(references: Sequence[str], predictions: Sequence[str | None]) -> float:
    """The plain mean of the classes' F1, as scikit-learn's `f1_score(average="macro")`; 0 for no rows."""
    scores = f1_by_class(references, predictions).values()
    return sum(scores) / len(scores) if scores else 0.0


def by_class(references: Sequence[str], predictions: Sequence[str | None]) -> dict[str, dict[str, float]]:
    """`precision`, `recall`, `f1` and `rows` (references) of each class that occurs, sorted by name.

    Precision is 0 for a class that is never answered, and recall for one that is never the truth.
    """
    hits, wanted = _hits(references, predictions), Counter(references)
    given = Counter(answer for answer in predictions if answer is not None)
    return {
        name: {
            "precision": hits[name] / given[name] if given[name] else 0.0,
            "recall": hits[name] / wanted[name] if wanted[name] else 0.0,
            "f1": 2 * hits[name] / (wanted[name] + given[name]),
            "rows": wanted[name],
        }
        for name in sorted(wanted | given)
    }


def confusion_matrix(
    references: Sequence[str], predictions: Sequence[str | None], labels: Sequence[str]
) -> list[list[int]]:
    """How many rows of each label (down, in the order of `labels`) got which answer (across, in the same order).

    One more column, the last, counts the answers that are unreadable or none of the labels.

    Raises:
        ValueError: when a reference is none of the labels.
    """
    places: dict[str | None, int] = {label: place for place, label in enumerate(labels)}
    matrix = [[0] * (len(labels) + 1) for _ in labels]
    for number, (wanted, given) in enumerate(zip(references, predictions, strict=True), start=1):
        if wanted not in places:
            raise ValueError(f"row {number}: the reference {wanted!r} is no label. Labels: {', '.join(labels)}.")
        matrix[places[wanted]][places.get(given, len(labels))] += 1
    return matrix


def _hits(references: Sequence[str], predictions: Sequence[str | None]) -> Counter[str]:
    """The number of right answers of each class."""
    return Counter(wanted for wanted, given in zip(references, predictions, strict=True) if wanted == given)
