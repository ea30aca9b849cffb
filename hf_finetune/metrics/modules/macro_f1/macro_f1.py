"""Macro-F1 as a module of the `evaluate` package, for text answers; loads without a network."""

import datasets
import evaluate

from hf_finetune.metrics import macro_f1


class MacroF1(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """The plain mean of the classes' F1; an empty prediction stands for an unreadable answer."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=self.__doc__ or "",
            citation="",
            features=datasets.Features({"references": text, "predictions": text}),
        )

    def _compute(self, references: list[str], predictions: list[str]) -> dict[str, float]:
        return {"macro_f1": macro_f1(references, [given or None for given in predictions])}
