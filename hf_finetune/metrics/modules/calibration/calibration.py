"""Calibration of closed answers as a module of the `evaluate` package; loads without a network."""

from typing import Any

from hf_finetune.metrics import brier_score, expected_calibration_error, reliability
from hf_finetune.metrics.calibration import by_choice
from hf_finetune.metrics.module import CHOICES, MetricModule


class Calibration(MetricModule):
    """`expected_calibration_error`, `brier_score` and the points of a `reliability` diagram, in `bins` bins.

    A row of `choices` lists its answers, and the same row of `probabilities` their probabilities, which sum to 1:
    `compute(references=["yes"], choices=[["no", "yes"]], probabilities=[[0.1, 0.9]], bins=10)`.
    """

    columns = CHOICES

    def _compute(
        self, references: list[str], choices: list[list[str]], probabilities: list[list[float]], bins: int = 10
    ) -> dict[str, Any]:
        rows = by_choice(choices, probabilities)
        return {
            "expected_calibration_error": expected_calibration_error(references, rows, bins),
            "brier_score": brier_score(references, rows),
            "reliability": reliability(references, rows, bins),
        }
