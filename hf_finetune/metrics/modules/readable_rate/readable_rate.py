"""How many answers can be read, as a module of the `evaluate` package; loads without a network."""

from hf_finetune.metrics import readable_rate
from hf_finetune.metrics.module import TEXT, MetricModule, readable


class ReadableRate(MetricModule):
    """The share of predictions that are not empty: an empty one stands for an unreadable answer."""

    columns = {"predictions": TEXT}

    def _compute(self, predictions: list[str]) -> dict[str, float]:
        return {"readable_rate": readable_rate(readable(predictions))}
