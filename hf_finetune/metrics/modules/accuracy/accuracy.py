"""Accuracy as a module of the `evaluate` package, for text answers; loads without a network."""

from hf_finetune.metrics import accuracy
from hf_finetune.metrics.module import LABELS, MetricModule, readable


class Accuracy(MetricModule):
    """The share of predictions equal to their reference; an empty prediction stands for an unreadable answer."""

    columns = LABELS

    def _compute(self, references: list[str], predictions: list[str]) -> dict[str, float]:
        return {"accuracy": accuracy(references, readable(predictions))}
