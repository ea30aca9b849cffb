"""ROUGE as a module of the `evaluate` package; loads without a network."""

from hf_finetune.metrics import rouge
from hf_finetune.metrics.module import TextModule


class Rouge(TextModule):
    """`rouge1`, `rouge2` and `rougeL`: F-measures meaned over rows, without a stemmer; for the letters a-z alone.

    A reference is a text, or a list of accepted texts of which the best counts.
    """

    def _compute(self, references: list[list[str]], predictions: list[str]) -> dict[str, float]:
        return rouge(references, predictions)
