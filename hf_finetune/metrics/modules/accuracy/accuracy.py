"""Accuracy as a module of the `evaluate` package, for text answers; loads without a network."""

import datasets
import evaluate

from hf_finetune.metrics import accuracy


class Accuracy(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """The share of predictions equal to their reference; an empty prediction stands for an unreadable answer."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=self.__doc__ or "",
            citation="",
            features=datasets.Features({"references": text, "predictions": text}),
        )

    def _compute(self, references: list[str], predictions: list[str]) -> dict[str, float]:
        return {"accuracy": accuracy(references, predictions)}
