"""`check_recipe`: what must hold for a recipe, as small named checks that need neither a model nor a network.

Each check takes a recipe and a few of its rows and raises RecipeError with what is wrong and how to mend it. The heart
is one invariant: the gold completion, through the recipe's own parse and marking, is worth 1.0, and an unreadable
answer costs marks.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hf_finetune.data.checks import typed_rows
from hf_finetune.data.reading import read_records
from hf_finetune.data.sources import LocalFile, Source
from hf_finetune.errors import RecipeError, nearest
from hf_finetune.licences import LICENSES
from hf_finetune.marks import found_marks, refuse_bad_marks
from hf_finetune.recipe import Recipe, marks_each_row, mean_marks

Check = Callable[[Recipe[Any], Sequence[Any]], None]

ODD_ANSWERS = (
    "",
    " ",
    "\n\n",
    "\x00",
    "🙂",
    "null",
    "{",
    '{"a": ',
    "[]",
    "SELECT",
    "0",
    "-1e999",
    "a" * 10_000,
    "<|im_end|>",
)


def check_recipe(recipe: Recipe[Any], rows: Sequence[Any] | Path | str) -> None:
    """Runs every check on the rows, which are instances of the row type or a file of them; 10-20 odd rows are enough.

    Raises:
        RecipeError: with one line for each check that failed.
    """
    samples = read_rows(recipe, rows) if isinstance(rows, (Path, str)) else rows
    faults = failed_checks(recipe, samples)
    if faults:
        raise RecipeError(in_lines(faults))


def failed_checks(recipe: Recipe[Any], rows: Sequence[Any]) -> dict[str, str]:
    """The name and the fault of each check that does not hold."""
    return {name: fault for name, fault in each_check(recipe, rows) if fault is not None}


def each_check(recipe: Recipe[Any], rows: Sequence[Any]) -> Iterator[tuple[str, str | None]]:
    """The name of each check and its fault, None where it holds, as soon as it is done."""
    if len(rows) < 2:
        raise RecipeError("check_recipe: needs at least two rows. Give 10-20 odd ones.")
    for check in CHECKS:
        try:
            check(recipe, rows)
        except RecipeError as error:
            yield check.__name__, str(error)
        else:
            yield check.__name__, None


def in_lines(faults: Mapping[str, str]) -> str:
    """A line for each fault, with the names of the checks that it fails."""
    checks: dict[str, list[str]] = {}
    for name, fault in faults.items():
        checks.setdefault(fault, []).append(name)
    return "\n".join(f"{', '.join(names)}: {fault}" for fault, names in checks.items())


def read_rows(recipe: Recipe[Any], path: Path | str) -> list[Any]:
    """The rows of a file as instances of the recipe's row type."""
    row_type = recipe.row_type()
    fields = [field.name for field in dataclasses.fields(row_type)]
    return typed_rows(read_records(LocalFile(str(path)).locate(), fields), row_type)


def has_a_docstring(recipe: Recipe[Any], rows: Sequence[Any]) -> None:
    """The docstring opens the model card: what, whence, limits."""
    if not (type(recipe).__dict__.get("__doc__") or "").strip():
        raise RecipeError("the class has no docstring. Say what the task is, where its data are from, and its limits.")


def has_a_frozen_row_type(recipe: Recipe[Any], rows: Sequence[Any]) -> None:
    """Rows are frozen dataclasses, so that no method can change them."""
    row_type = recipe.row_type()
    parameters = getattr(row_type, "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        raise RecipeError(f"{row_type.__name__} is no frozen dataclass. Put @dataclass(frozen=True) above it.")


def names_a_source(recipe: Recipe[Any], rows: Sequence[Any]) -> None:
    """The data set is something that can be located."""
    if not isinstance(recipe.dataset, Source):
        raise RecipeError(
            "dataset is no source. Write HubDataset('owner/name'), LocalFile('rows.jsonl') or LocalFolder('rows')."
        )


def has_a_known_license(recipe: Recipe[Any], rows: Sequence[Any]) -> None:
    """The licence is one that the Hub knows."""
    if recipe.license not in LICENSES:
        raise RecipeError(f"license {recipe.license!r} is not one the Hub knows. {nearest(recipe.license, LICENSES)}")


def has_known_hyperparameters(recipe: Recipe[Any], rows: Sequence[Any]) -> None:
    """Hyperparameters are settings, with values of their types; gates are numbers."""
    from hf_finetune.layers import Layer, settle

    settle([Layer("hyperparameters", recipe.hyperparameters), Layer("gates", {"gates": dict(recipe.gates)})])


def asks_and_answers_in_text(recipe: Recipe[Any], rows: Sequence[Any]) -> None:
    """Prompt and completion are text, and not empty."""
    for number, row in enumerate(rows, 1):
        for name, text in (("prompt", recipe.prompt(row)), ("completion", recipe.completion(row))):
            if not isinstance(text, str) or not text.strip():
                raise RecipeError(f"row {number}: {name}() gives {text!r}. Give back text that is not empty.")


def does_not_ask_with_the_answer(recipe: Recipe[Any], rows: Sequence[Any]) -> None:
    """The prompt must not read all that the answer is made from; a field both read may be a name, but not every one."""
    for number, row in enumerate(rows, 1):
        answer_fields = [f for f, other in _changed(row) if _differs(recipe.completion, row, other)]
        leaking = [f for f, other in _changed(row) if f in answer_fields and _differs(recipe.prompt, row, other)]
        if answer_fields and set(leaking) == set(answer_fields):
            raise RecipeError(
                f"row {number}: prompt() reads {', '.join(sorted(set(leaking)))}, the answer. Leave it out."
            )


def never_raises_in_parse(recipe: Recipe[Any], rows: Sequence[Any]) -> None:
    """A model may say anything; parse gives None for what it cannot read."""
    gold = [recipe.completion(row) for row in rows]
    for text in (
        *ODD_ANSWERS,
        *gold,
        *(answer[: len(answer) // 2] for answer in gold),
        *(answer * 2 for answer in gold),
    ):
        try:
            recipe.parse(text)
        except Exception as error:
            raise RecipeError(
                f"parse({text[:40]!r}) raises {type(error).__name__}: {error}. Give back None."
            ) from error


def gives_the_same_twice(recipe: Recipe[Any], rows: Sequence[Any]) -> None:
    """Methods are pure: called again they give the same, and the recipe holds no state."""
    before = copy.deepcopy(vars(recipe))
    gold = _gold(recipe, rows)
    for row in rows:
        for method in (recipe.prompt, recipe.completion, recipe.choices, recipe.group):
            if method(row) != method(row):
                raise RecipeError(
                    f"{method.__name__}() gives two results for one row. Take out chance, clock and state."
                )
    if not _are_same(_marks(recipe, rows, gold), _marks(recipe, rows, gold)):
        raise RecipeError(
            f"{_marking(recipe)} gives two results for the same answers. Take out chance, clock and state."
        )
    if vars(recipe) != before:
        raise RecipeError("a method changed the recipe itself. Keep no state in it.")


def marks_the_gold_completion_full(recipe: Recipe[Any], rows: Sequence[Any]) -> None:
    """The gold completion, through parse and score, is worth 1.0, and each row's own mark is right."""
    gold = _gold(recipe, rows)
    mark = _primary(recipe, rows, gold)
    for number, (row, prediction) in enumerate(zip(rows, gold, strict=True), 1):
        if prediction is None:
            raise RecipeError(f"row {number}: parse() cannot read the gold completion {recipe.completion(row)[:40]!r}.")
        if not recipe.correct(row, prediction):
            raise RecipeError(f"row {number}: correct() calls the gold completion {prediction!r} wrong.")
    if not math.isclose(mark, 1.0, abs_tol=1e-9):
        raise RecipeError(
            f"the gold completions are marked {mark:.3f}, not 1.0. parse() and {_marking(recipe)} disagree."
        )


def takes_marks_off_unreadable_answers(recipe: Recipe[Any], rows: Sequence[Any]) -> None:
    """An answer that cannot be read is a wrong answer, not one to be left out."""
    gold = _gold(recipe, rows)
    if _primary(recipe, rows, [None, *gold[1:]]) >= _primary(recipe, rows, gold):
        raise RecipeError(f"an unreadable answer (None) costs no marks. Count it as wrong in {_marking(recipe)}.")
    if recipe.correct(rows[0], None):
        raise RecipeError("correct() calls an unreadable answer (None) right.")


def scores_lie_in_0_to_1(recipe: Recipe[Any], rows: Sequence[Any]) -> None:
    """Marks are finite numbers in 0-1, the primary metric among them."""
    gold = _gold(recipe, rows)
    for predictions in (gold, [None] * len(gold), gold[1:] + gold[:1]):
        refuse_bad_marks(recipe, found_marks(recipe, rows, predictions))


def offers_the_answer_among_the_choices(recipe: Recipe[Any], rows: Sequence[Any]) -> None:
    """Closed answers: the gold completion is one of them, they differ, and each can be read."""
    for number, row in enumerate(rows, 1):
        choices = recipe.choices(row)
        if choices is None:
            continue
        if recipe.completion(row) not in choices:
            raise RecipeError(f"row {number}: the completion {recipe.completion(row)!r} is not among {list(choices)}.")
        readings = [recipe.parse(choice) for choice in choices]
        if None in readings or len(set(map(repr, readings))) < len(choices):
            raise RecipeError(f"row {number}: parse() cannot tell the choices {list(choices)} apart.")


def groups_by_something_hashable(recipe: Recipe[Any], rows: Sequence[Any]) -> None:
    """group() gives something that rows can be sorted by."""
    for row in rows:
        try:
            hash(recipe.group(row))
        except TypeError as error:
            raise RecipeError(
                f"group() gives {recipe.group(row)!r}: {error}. Give back text, a number or a tuple."
            ) from error


CHECKS: tuple[Check, ...] = (
    has_a_docstring,
    has_a_frozen_row_type,
    names_a_source,
    has_a_known_license,
    has_known_hyperparameters,
    asks_and_answers_in_text,
    does_not_ask_with_the_answer,
    never_raises_in_parse,
    gives_the_same_twice,
    marks_the_gold_completion_full,
    takes_marks_off_unreadable_answers,
    scores_lie_in_0_to_1,
    offers_the_answer_among_the_choices,
    groups_by_something_hashable,
)


def _gold(recipe: Recipe[Any], rows: Sequence[Any]) -> list[Any]:
    return [recipe.parse(recipe.completion(row)) for row in rows]


def _primary(recipe: Recipe[Any], rows: Sequence[Any], predictions: Sequence[Any]) -> float:
    return _marks(recipe, rows, predictions).get(recipe.primary_metric, math.nan)


def _marking(recipe: Recipe[Any]) -> str:
    """The method that the recipe's author wrote."""
    return "mark()" if marks_each_row(recipe) else "score()"


def _marks(recipe: Recipe[Any], rows: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
    """What score() gives."""
    return mean_marks(found_marks(recipe, rows, predictions))


def _are_same(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether marks are the same; NaN is the same as itself, and another check tells it."""
    return one.keys() == other.keys() and all(
        mark == other[name] or (math.isnan(mark) and math.isnan(other[name])) for name, mark in one.items()
    )


def _changed(row: Any) -> list[tuple[str, Any]]:
    """The row with one field changed at a time: to each other value of a Literal, or to a text that stands nowhere."""
    hints = get_type_hints(type(row))
    changed = []
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        hint = hints[field.name]
        others: tuple[Any, ...] = ()
        if get_origin(hint) is Literal:
            others = tuple(other for other in get_args(hint) if other != value)
        elif isinstance(value, str):
            others = ("⟂ changed ⟂",)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            others = (value + 1,)
        changed += [(field.name, dataclasses.replace(row, **{field.name: other})) for other in others]
    return changed


def _differs(method: Callable[[Any], str], row: Any, other: Any) -> bool:
    """Whether a method notices the change; a method that cannot work with the changed row has noticed it."""
    try:
        return method(row) != method(other)
    except Exception:  # noqa: BLE001  # a recipe's method may fail in any way on a row that never was
        return True
