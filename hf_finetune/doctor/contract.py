"""The recipe: its contract, its words, and the licence that it claims."""

from collections.abc import Iterator, Sequence
from typing import Any

from hf_finetune.card_check import local_paths
from hf_finetune.doctor.line import Line, fault, ok, parted
from hf_finetune.doctor.subject import Subject
from hf_finetune.errors import RecipeError, plural
from hf_finetune.testing import failed_checks, in_lines, read_rows

ENOUGH = 20
"""About so many rows are checked: marking the answer to a query takes milliseconds."""


def contract(subject: Subject) -> Iterator[Line]:
    """Whether the recipe keeps the contract, on its own odd rows; without these that is looked at on the data."""
    if subject.recipe is None or subject.odd_rows is None:
        return
    try:
        rows = read_rows(subject.recipe, subject.odd_rows)
    except RecipeError as error:
        raise RecipeError(f"the rows to check the recipe with: {error}") from error
    yield from _held_to(subject, rows[:: max(1, len(rows) // ENOUGH)], subject.odd_rows.name)


def contract_on_data(subject: Subject) -> Iterator[Line]:
    """Whether the recipe keeps the contract on the first rows of the data, where it has no odd rows."""
    if subject.recipe is not None and subject.odd_rows is None and subject.prepared is not None:
        yield from _held_to(subject, subject.prepared.rows["train"][:ENOUGH], "the data")


def docstring(subject: Subject) -> Iterator[Line]:
    """Whether the docstring can be quoted on a model card."""
    paths = local_paths(type(subject.recipe).__doc__ or "") if subject.recipe else []
    if paths:
        yield fault(f"its docstring goes onto the model card and names the path {paths[0]}", "leave that out of it")


def _held_to(subject: Subject, rows: Sequence[Any], whence: str) -> Iterator[Line]:
    faults = failed_checks(subject.recipe, rows) if subject.recipe else {}
    for told in in_lines(faults).splitlines():
        what, fix = parted(told.replace("_", " ", told.split(": ", 1)[0].count("_")))
        yield fault(what, fix or "hf-finetune check")
    if not faults:
        yield ok(
            f"{subject.recipe.name if subject.recipe else ''} keeps the contract on {plural(len(rows), 'row')} of "
            f"{whence}"
        )
