"""Marks for answers: pure functions of `(references, predictions)`, and the same as modules of the `evaluate` package.

Truth comes first, as in scikit-learn. A prediction of None is an unreadable answer: it is wrong,
and no class of its own.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hf_finetune.errors import RecipeError, nearest


def accuracy(references: Sequence[object], predictions: Sequence[object]) -> float:
    """The share of answers that are right, 0-1; 0 for no rows."""
    right = sum(given == wanted for wanted, given in zip(references, predictions, strict=True))
    return right / len(references) if references else 0.0


def f1_by_class(references: Sequence[str], predictions: Sequence[str | None]) -> dict[str, float]:
    """F1 (harmonic mean of precision and recall) of each class that occurs in either sequence, sorted by name."""
    hits = Counter(wanted for wanted, given in zip(references, predictions, strict=True) if wanted == given)
    named = Counter(references) + Counter(given for given in predictions if given is not None)
    return {name: 2 * hits[name] / named[name] for name in sorted(named)}


def macro_f1(references: Sequence[str], predictions: Sequence[str | None]) -> float:
    """The plain mean of the classes' F1, as scikit-learn's `f1_score(average="macro")`; 0 for no rows."""
    scores = f1_by_class(references, predictions).values()
    return sum(scores) / len(scores) if scores else 0.0


def path(name: str) -> str:
    """The folder of a metric, for `evaluate.load(hf_finetune.metrics.path("macro_f1"))`: it needs no network.

    Raises:
        RecipeError: when there is no metric of that name.
    """
    folder = Path(__file__).parent / "modules"
    known = sorted(module.parent.name for module in folder.glob("*/*.py") if module.stem == module.parent.name)
    if name not in known:
        raise RecipeError(f"metrics: there is no metric {name!r}. {nearest(name, known)}")
    return str(folder / name)
