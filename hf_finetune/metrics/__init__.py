"""Marks for answers: pure functions of `(references, predictions)`, and the same as modules of the `evaluate` package.

Truth comes first, as in scikit-learn. A prediction of None is an unreadable answer: it is wrong,
and no class of its own. Nothing heavy is imported before a mark that needs it is called.
"""

from pathlib import Path

from hf_finetune.errors import RecipeError, nearest
from hf_finetune.metrics.calibration import brier_score, expected_calibration_error, reliability, selective_accuracy
from hf_finetune.metrics.classification import (
    accuracy,
    by_class,
    confusion_matrix,
    f1_by_class,
    macro_f1,
    readable_rate,
)
from hf_finetune.metrics.sampling import pass_at_k
from hf_finetune.metrics.text import bleu, chrf, collapse_spaces, exact_match, perplexity, rouge

__all__ = [
    "accuracy",
    "bleu",
    "brier_score",
    "by_class",
    "chrf",
    "collapse_spaces",
    "confusion_matrix",
    "exact_match",
    "expected_calibration_error",
    "f1_by_class",
    "macro_f1",
    "pass_at_k",
    "path",
    "perplexity",
    "readable_rate",
    "reliability",
    "rouge",
    "selective_accuracy",
]


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
