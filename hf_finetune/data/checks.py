"""Raw records -> rows of the recipe's own type, every broken one named at once."""

import dataclasses
import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from hf_finetune.data.records import Record, folded
from hf_finetune.errors import RecipeError, many_faults, plural

Row = TypeVar("Row")


NEARLY = 0.8
"""How alike the names of an unused column and of a field must be, by difflib: most such columns are no mistake."""

NAMED = 5
"""Rows that are named of those that have the same fault."""

Fault = tuple[Record, str]
"""A broken record, and what is wrong with it."""


def typed_rows(records: Sequence[Record], row_type: type[Row]) -> list[Row]:
    """One instance of `row_type` (a dataclass) for each record, in order; columns it does not name are left out.

    Raises:
        RecipeError: with the number and the fault of each row that does not fit the type.
    """
    rows, faults = rows_and_faults(records, row_type)
    if faults:
        raise faulty_rows(faults, len(records))
    return [row for _, row in rows]


def rows_and_faults(records: Sequence[Record], row_type: type[Row]) -> tuple[list[tuple[Record, Row]], list[Fault]]:
    """The records that fit the type with their rows, and the others with what is wrong with them.

    A column is found for a field also where only case, spaces or underscores differ. A path is taken from the folder of
    the file that names it; an empty cell of a csv is no value for a field that has a default and is no text.
    """
    from pydantic import TypeAdapter, ValidationError

    adapter, fields = TypeAdapter(row_type), dataclasses.fields(row_type)  # type: ignore[arg-type]  # a dataclass
    hints = get_type_hints(row_type)
    paths = [name for name, hint in hints.items() if hint in (Path, Path | None)]
    optional = {one.name for one in fields if one.default is not dataclasses.MISSING and hints[one.name] is not str}
    names = tuple(one.name for one in fields)
    rows: list[tuple[Record, Row]] = []
    faults: list[Fault] = []
    for record in records:
        values = _by_field(record.values, names)
        empty = optional if record.is_text else optional.intersection(paths)
        values = {name: value for name, value in values.items() if value != "" or name not in empty}
        try:
            # Strict JSON for files that know types: "2" in a jsonl is text, not a number.
            row = (
                adapter.validate_strings(values)
                if record.is_text
                else adapter.validate_json(json.dumps(values, default=_as_text), strict=True)
            )
        except ValidationError as error:
            faults.append((record, _in_words(error.errors(), record, names)))
            continue
        row = _with_paths(row, paths, record.folder)
        outside = _outside(row, paths, record) if record.is_confined else []
        unusable = [*_ambiguous(record.values, names), *_unusable(row), *outside]
        if unusable:
            faults.append((record, " ".join(unusable)))
        else:
            rows.append((record, row))
    return rows, faults


def columns_not_used(records: Sequence[Record], row_type: type[Any]) -> dict[str, str | None]:
    """The columns that are no field of the type, and of each the field without a column that it may be meant for.

    Where a name is misspelt, an optional field stays empty.
    """
    fields = tuple(field.name for field in dataclasses.fields(row_type))
    unused: dict[str, str | None] = {}
    for columns in dict.fromkeys(tuple(record.values) for record in records):
        found = _field_names(columns, fields)
        lacking = [field for field in fields if field not in found.values()]
        for column in (one for one, field in found.items() if field not in fields):
            unused[column] = unused.get(column) or _nearest(column, lacking, NEARLY)
    return unused


def faulty_rows(faults: Sequence[Fault], total: int) -> RecipeError:
    """One error for all faulty rows: the numbers of those that have the same fault, and that once.

    Where the source has several files, each fault has its file.
    """
    return many_faults(", ".join(_files(faults)), alike_in_words(faults), total, count=len(faults))


def alike_in_words(faults: Sequence[Fault]) -> list[str]:
    """A line for each kind of fault: a column that is misspelt is told once, with the rows that lack it."""
    several = len(_files(faults)) > 1
    alike: dict[tuple[str, str], list[int]] = {}
    for record, fault in faults:
        alike.setdefault((f"{record.file}, " if several else "", fault), []).append(record.number)
    return [f"{file}{_rows_in_words(numbers)}: {fault}" for (file, fault), numbers in alike.items()]


def _rows_in_words(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"row {numbers[0]}"
    first = ", ".join(map(str, numbers[:NAMED]))
    return f"rows {first}" if len(numbers) <= NAMED else f"{plural(len(numbers), 'row')} ({first}, ...)"


def faults_in_words(faults: Sequence[Fault]) -> list[str]:
    """A line for each fault, with the row's number, and its file where there are several."""
    several = len(_files(faults)) > 1
    return [f"{record.file + ', ' if several else ''}row {record.number}: {fault}" for record, fault in faults]


def _files(faults: Sequence[Fault]) -> list[str]:
    return list(dict.fromkeys(record.file for record, _ in faults))


def _by_field(values: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    """The values under the names of the fields."""
    names = _field_names(tuple(values), fields)
    return {names[column]: value for column, value in values.items()}


@lru_cache
def _field_names(columns: tuple[str, ...], fields: tuple[str, ...]) -> dict[str, str]:
    """The field that each column is: itself, or the one field of that name but for case, spaces and underscores."""
    lacking = {folded(name): name for name in fields if name not in columns}
    counts = Counter(map(folded, columns))
    found = {column: lacking.get(folded(column), column) for column in columns if counts[folded(column)] == 1}
    return {column: column if column in fields else found.get(column, column) for column in columns}


def _with_paths(row: Row, names: Sequence[str], folder: Path) -> Row:
    """The row with its relative paths taken from a folder."""
    own = {name: (folder / getattr(row, name)).absolute() for name in names if getattr(row, name) is not None}
    return dataclasses.replace(row, **own) if own else row  # type: ignore[type-var]  # a dataclass


def _outside(row: Any, names: Sequence[str], record: Record) -> list[str]:
    """What a row of somebody else's data set may not name: files elsewhere on this machine."""
    given = {name: getattr(row, name) for name in names if getattr(row, name) is not None}
    folder = record.folder.absolute()
    return [f"{name!r} is not a file of the data set. Name one that lies beside the rows."
            for name, path in given.items() if not Path(os.path.normpath(path)).is_relative_to(folder)]  # fmt: skip


def _ambiguous(values: dict[str, Any], fields: tuple[str, ...]) -> list[str]:
    """What is wrong with columns of which two could be the same field."""
    lacking = {folded(name): name for name in fields if name not in values}
    alike = {name: [column for column in values if folded(column) == own] for own, name in lacking.items()}
    return [f"columns {' and '.join(map(repr, own))} could both be {name!r}. Rename one." for name, own in alike.items()
            if len(own) > 1]  # fmt: skip


def _as_text(value: Any) -> str:
    """A value that JSON has no form for, as text: bytes as UTF-8, dates as ISO 8601."""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def _unusable(row: Any) -> list[str]:
    """What is wrong with a row that fits its type, a sentence each."""
    return _blank_fields(row) + _not_finite(dataclasses.asdict(row))


def _blank_fields(row: Any) -> list[str]:
    """One sentence on the fields that must hold text and do not; a field with a default may be empty."""
    hints = get_type_hints(type(row))
    blanks = [
        field.name
        for field in dataclasses.fields(row)
        if hints[field.name] is str
        and field.default is dataclasses.MISSING
        and not str(getattr(row, field.name)).strip()
    ]
    return [f"{', '.join(map(repr, blanks))} is empty."] if blanks else []


def _not_finite(value: Any, place: str = "") -> list[str]:
    """A sentence for each NaN or infinity in a row, at any depth: JSON, and so splits/, cannot hold them."""
    if isinstance(value, float) and not math.isfinite(value):
        return [f"{place!r} is {value}, which is not a finite number. Write one, or take the row out."]
    listed = enumerate(value) if isinstance(value, list | tuple | set) else ()
    parts = value.items() if isinstance(value, dict) else listed
    return [fault for name, part in parts for fault in _not_finite(part, f"{place}.{name}".lstrip("."))]


def _in_words(errors: Sequence[Any], record: Record, fields: Sequence[str]) -> str:
    return " ".join(_one_in_words(error, record, fields) for error in errors)


def _one_in_words(error: Any, record: Record, fields: Sequence[str]) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        columns = [column for column in record.values if column]
        meant = _nearest(name, [column for column in columns if column not in fields])
        advice = f" Rename the column {meant!r} to {name!r}." if meant else ""
        return f"{name!r} is missing (it has {', '.join(columns)}).{advice}"
    message = str(error["msg"]).replace("Input should be", "it should be")
    return f"{name!r} is {error['input']!r}; {message}."


def _nearest(name: str, options: Sequence[str], cutoff: float = 0.6) -> str | None:
    """The option that is spelt most like a name, if one is nearly; case, spaces and underscores do not count."""
    by_spelling = {folded(option): option for option in options}
    return next((by_spelling[one] for one in get_close_matches(folded(name), by_spelling, 1, cutoff)), None)
