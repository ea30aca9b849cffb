"""Macro-F1 as a module of the `evaluate` package, for text answers; loads without a network."""

from hf_finetune.metrics import macro_f1
from hf_finetune.metrics.module import LABELS, MetricModule, readable


class MacroF1(MetricModule):
    """The plain mean of the classes' F1; an empty prediction stands for an unreadable answer."""

    columns = LABELS

    def _compute(self, references: list[str], predictions: list[str]) -> dict[str, float]:
        return {"macro_f1": macro_f1(references, readable(predictions))}
