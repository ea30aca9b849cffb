"""Accuracy on the surest answers as a module of the `evaluate` package; loads without a network."""

from collections.abc import Sequence

from hf_finetune.metrics import selective_accuracy
from hf_finetune.metrics.calibration import TENTHS, by_choice
from hf_finetune.metrics.module import CHOICES, MetricModule


class SelectiveAccuracy(MetricModule):
    """The accuracy on the share of rows that the model is surest of, for each share in `coverages`.

    A row of `choices` lists its answers, and the same row of `probabilities` their probabilities, which sum to 1:
    `compute(references=["yes"], choices=[["no", "yes"]], probabilities=[[0.1, 0.9]], coverages=[0.5, 1.0])`.
    """

    columns = CHOICES

    def _compute(
        self,
        references: list[str],
        choices: list[list[str]],
        probabilities: list[list[float]],
        coverages: Sequence[float] = TENTHS,
    ) -> dict[str, list[dict[str, float]]]:
        return {"selective_accuracy": selective_accuracy(references, by_choice(choices, probabilities), coverages)}
