"""Exact match as a module of the `evaluate` package, for free text; loads without a network."""

from collections.abc import Callable

from hf_finetune.metrics import collapse_spaces, exact_match
from hf_finetune.metrics.module import TextModule


class ExactMatch(TextModule):
    """The share of predictions that equal a reference; a reference is a text, or a list of accepted texts.

    Both are compared after `normalise`, a function of a text, which by default strips and collapses white space.
    """

    def _compute(
        self,
        references: list[list[str]],
        predictions: list[str],
        normalise: Callable[[str], str] = collapse_spaces,
    ) -> dict[str, float]:
        return {"exact_match": exact_match(references, predictions, normalise)}
