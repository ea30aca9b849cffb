"""What a recipe's mark() or score() gives, checked: a dict of numbers in 0-1, the primary metric among them."""

from collections.abc import Mapping, Sequence
from typing import Any

from hf_finetune.errors import RecipeError, nearest, told_where
from hf_finetune.recipe import Recipe, as_marks, marks_each_row, mean_marks

ROUNDING = 1e-9
"""By how much the last digits of a sum may go beyond the bounds."""


def found_marks(recipe: Recipe[Any], rows: Sequence[Any], predictions: Sequence[Any]) -> list[dict[str, float]]:
    """What mark() gives for each row; of a recipe that defines score(), the one dict that it gives for all.

    Raises:
        RecipeError: with the row's number, when it is no dict of numbers, or mark() leaves the primary metric out.
    """
    if not marks_each_row(recipe):
        return [as_marks(recipe.score(rows, predictions), "score()")]
    found = []
    for number, (row, prediction) in enumerate(zip(rows, predictions, strict=True), 1):
        with told_where(f"row {number}"):
            marks = as_marks(recipe.mark(row, prediction), "mark()")
            if recipe.primary_metric not in marks:
                raise RecipeError(f"mark() has no {recipe.primary_metric!r}. Give it to every row.")
        found.append(marks)
    return found


def refuse_bad_marks(recipe: Recipe[Any], found: Sequence[Mapping[str, float]]) -> None:
    """Stops at a mark that is no finite number in 0-1, and where score() gives no primary metric.

    Raises:
        RecipeError: with the metric, its value and, of mark(), the row's number.
    """
    if recipe.primary_metric not in found[0]:
        raise RecipeError(f"score() has no {recipe.primary_metric!r}. {nearest(recipe.primary_metric, found[0])}")
    for number, marks in enumerate(found, 1):
        for name, mark in marks.items():
            if not -ROUNDING <= mark <= 1 + ROUNDING:  # False for NaN too
                where = f"row {number}: mark()" if marks_each_row(recipe) else "score()"
                raise RecipeError(f"{where} gives {name} = {mark}. Marks lie in 0-1, higher is better.")


def checked_metrics(
    recipe: Recipe[Any], rows: Sequence[Any], predictions: Sequence[Any], where: str = "test split"
) -> dict[str, float]:
    """The metrics of a model's answers.

    Raises:
        RecipeError: when a mark is no number in 0-1: the gold answers may have good ones, and this answer not.
    """
    with told_where(f"recipe {recipe.name!r}: {where}"):
        found = found_marks(recipe, rows, predictions)
        refuse_bad_marks(recipe, found)
    return mean_marks(found)
