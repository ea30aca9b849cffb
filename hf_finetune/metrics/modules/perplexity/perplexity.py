"""Perplexity as a module of the `evaluate` package; loads without a network and runs no model."""

from hf_finetune.metrics import perplexity
from hf_finetune.metrics.module import COUNT, NUMBER, MetricModule


class Perplexity(MetricModule):
    """e to the mean loss of a token. `losses` are each row's nats, summed; `tokens` is the number they are of.

    `compute(losses=[3.2, 0.7], tokens=[4, 1])`
    """

    columns = {"losses": NUMBER, "tokens": COUNT}

    def _compute(self, losses: list[float], tokens: list[int]) -> dict[str, float]:
        return {"perplexity": perplexity(losses, tokens)}
