"""Precision and recall of each class as a module of the `evaluate` package; loads without a network."""

from hf_finetune.metrics import by_class
from hf_finetune.metrics.module import LABELS, MetricModule, readable


class PrecisionRecall(MetricModule):
    """`by_class`: each class's precision, recall, f1 and number of references.

    An empty prediction stands for an unreadable answer, which is no class.
    """

    columns = LABELS

    def _compute(self, references: list[str], predictions: list[str]) -> dict[str, dict[str, dict[str, float]]]:
        return {"by_class": by_class(references, readable(predictions))}
