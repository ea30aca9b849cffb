"""What our modules of the `evaluate` package share; see `modules/` for them."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import datasets
import evaluate

from hf_finetune.metrics.text import Reference

TEXT = datasets.Value("string")
COUNT = datasets.Value("int64")
NUMBER = datasets.Value("float64")
LABELS = {"references": TEXT, "predictions": TEXT}
TEXTS = {"references": datasets.List(TEXT), "predictions": TEXT}
CHOICES = {"references": TEXT, "choices": datasets.List(TEXT), "probabilities": datasets.List(NUMBER)}


class MetricModule(evaluate.Metric, ABC):  # type: ignore[misc]  # evaluate ships no types
    """A metric that says what it takes in `columns`; its docstring is its description.

    It must stay abstract: `evaluate.load` takes the first class in a module's file that is not, imported ones too.
    """

    columns: ClassVar[Mapping[str, Any]]

    def _info(self) -> evaluate.MetricInfo:
        text = inspect.cleandoc(self.__doc__ or "")
        return evaluate.MetricInfo(
            description=text, inputs_description=text, citation="", features=datasets.Features(self.columns)
        )

    @abstractmethod
    def _compute(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The marks by name, of the columns and of what else `compute` is given, all by keyword."""


class TextModule(MetricModule):
    """A metric of free text, where a row's reference is a text or a list of accepted texts, as the user likes."""

    columns = TEXTS

    # A list in a column of texts would silently become its own Python notation, so all references become lists.
    # evaluate adds to these two docstrings: without one it fails.
    def add_batch(self, *, references: Sequence[Reference] | None = None, **columns: Any) -> None:
        """Takes in several rows."""
        super().add_batch(references=None if references is None else list(map(_as_list, references)), **columns)

    def add(self, *, reference: Reference | None = None, **columns: Any) -> None:
        """Takes in one row."""
        super().add(reference=None if reference is None else _as_list(reference), **columns)


def readable(predictions: Sequence[str | None]) -> list[str | None]:
    """The answers, with None for the empty ones: a column of texts must not begin with None."""
    return [given or None for given in predictions]


def _as_list(reference: Reference) -> list[str]:
    return [reference] if isinstance(reference, str) else list(reference)
