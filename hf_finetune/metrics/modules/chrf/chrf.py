"""chrF as a module of the `evaluate` package; loads without a network."""

from hf_finetune.metrics import chrf
from hf_finetune.metrics.module import TextModule


class Chrf(TextModule):
    """sacrebleu's chrF2 of all rows together, as a share of 1; a reference is a text, or a list of accepted texts."""

    def _compute(self, references: list[list[str]], predictions: list[str]) -> dict[str, float]:
        return {"chrf": chrf(references, predictions)}
