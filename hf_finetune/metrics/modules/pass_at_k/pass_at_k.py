"""pass@k as a module of the `evaluate` package; loads without a network and runs no code."""

from hf_finetune.metrics import pass_at_k
from hf_finetune.metrics.module import COUNT, MetricModule


class PassAtK(MetricModule):
    """The chance that one of k answers is right, as `pass@k`: `compute(num_samples=[10], num_correct=[3], k=1)`.

    A row is a prompt: how many answers were sampled for it, and how many of them are right.
    """

    columns = {"num_samples": COUNT, "num_correct": COUNT}

    def _compute(self, num_samples: list[int], num_correct: list[int], k: int) -> dict[str, float]:
        return {f"pass@{k}": pass_at_k(num_samples, num_correct, k)}
