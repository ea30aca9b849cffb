"""Raw records -> rows of the recipe's own type, every broken one named at once."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any, TypeVar, get_type_hints

from hf_finetune.data.reading import Record
from hf_finetune.errors import RecipeError, many_faults, nearest

Row = TypeVar("Row")


def typed_rows(records: Sequence[Record], row_type: type[Row]) -> list[Row]:
    """One instance of `row_type` (a dataclass) for each record, in order; columns it does not name are left out.

    Raises:
        RecipeError: with the number and the fault of each row that does not fit the type.
    """
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(row_type)
    rows: list[Row] = []
    faults: list[tuple[Record, str]] = []
    for record in records:
        try:
            # Strict JSON for files that know types: "2" in a jsonl is text, not a number.
            row = (
                adapter.validate_strings(record.values)
                if record.is_text
                else adapter.validate_json(json.dumps(record.values, default=_as_text), strict=True)
            )
        except ValidationError as error:
            faults.append((record, _in_words(error.errors(), record)))
            continue
        unusable = _unusable(row)
        if unusable:
            faults.append((record, " ".join(unusable)))
        rows.append(row)
    if faults:
        raise faulty_rows(faults, len(records))
    return rows


def faulty_rows(faults: Sequence[tuple[Record, str]], total: int) -> RecipeError:
    """One error for all faulty rows, each with its number, and with its file where the source has several."""
    files = list(dict.fromkeys(record.file for record, _ in faults))
    several = len(files) > 1
    lines = [f"{record.file + ', ' if several else ''}row {record.number}: {fault}" for record, fault in faults]
    return many_faults(", ".join(files), lines, total)


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


def _in_words(errors: Sequence[Any], record: Record) -> str:
    return " ".join(_one_in_words(error, record) for error in errors)


def _one_in_words(error: Any, record: Record) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        unused = [column for column in record.values if column]
        return f"{name!r} is missing (it has {', '.join(unused)}). {_rename(name, unused)}".rstrip()
    message = str(error["msg"]).replace("Input should be", "it should be")
    return f"{name!r} is {error['input']!r}; {message}."


def _rename(name: str, columns: Sequence[str]) -> str:
    hint = nearest(name, columns)
    return hint if hint.startswith("Did") else ""
