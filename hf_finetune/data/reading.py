"""Files -> raw records with their row numbers; typed and checked later."""

import csv
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_finetune.data.sources import READABLE, Located
from hf_finetune.errors import RecipeError, many_faults

DELIMITERS = ",;\t|"
TOO_MANY = "cells beyond the header"


@dataclass(frozen=True)
class Record:
    """One row as the file has it."""

    file: str
    number: int
    """1 for the first row: the line in jsonl and txt, the record below the header in csv."""
    values: dict[str, Any]
    is_text: bool = False
    """True where the format knows no types, so that numbers arrive as text (csv, txt)."""
    folder: Path = Path()
    """Where the file lies: what a row names by a relative path lies there too."""
    is_confined: bool = False
    """Whether a row may name files of that folder only: the data set is somebody else's."""


def read_records(located: Located, fields: Sequence[str]) -> list[Record]:
    """All records of the source, in the files' order.

    `fields` are the recipe's field names: they find a csv's delimiter and name the columns of a headerless `text@label`
    file.

    Raises:
        RecipeError: an unreadable file, naming every broken line; or no rows at all.
    """
    names, member = located.file_names, located.member
    records = [
        replace(record, folder=path.parent, is_confined=located.commit is not None)
        for path, name in names.items()
        for record in _read(path, name, member, fields)
    ]
    if not records:
        raise RecipeError(f"{located.name}: holds no rows. Give it rows with the fields {', '.join(fields)}.")
    return records


def decode(content: bytes) -> str:
    """Text from UTF-8 (with or without a byte order mark), UTF-16 with one, Windows-1252, or else latin-1."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return content.decode("latin-1")  # which decodes any bytes


def _read(path: Path, name: str, member: str | None, fields: Sequence[str]) -> list[Record]:
    try:
        is_zip = path.suffix.lower() == ".zip"
        file, content = _unzip(path, name, member) if is_zip else (name, path.read_bytes())
    except OSError as error:
        raise RecipeError(f"{name}: cannot be read: {error.strerror}. Check its rights.") from error
    readers: dict[str, Callable[[str, bytes, Sequence[str]], list[Record]]] = {
        ".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _csv, ".txt": _text_at_label, ".parquet": _parquet
    }  # fmt: skip
    suffix = Path(file).suffix.lower()
    if suffix not in readers:
        raise RecipeError(f"{file}: {suffix or 'no suffix'} is not a format read here. Known: {', '.join(READABLE)}.")
    return readers[suffix](file, content, fields)


def _unzip(path: Path, shown: str, member: str | None) -> tuple[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            readable = [
                name
                for name in archive.namelist()
                if Path(name).suffix.lower() in READABLE and not name.startswith("__MACOSX/")
            ]
            if member is None and len(readable) == 1:
                member = readable[0]
            if member not in archive.namelist():
                if not readable:
                    raise RecipeError(f"{shown}: holds no readable file. Known: {', '.join(READABLE)}.")
                wanted = f"has no {member!r}" if member else "holds several files"
                raise RecipeError(f"{shown}: {wanted}. Name one with member=: {', '.join(readable)}.")
            return Path(member).name, archive.read(member)
    except RuntimeError as error:
        raise RecipeError(f"{shown}: cannot be unpacked ({error}). Give one without a password.") from error
    except zipfile.BadZipFile as error:
        raise RecipeError(f"{shown}: is not a whole zip archive. Fetch it again.") from error


def _jsonl(name: str, content: bytes, fields: Sequence[str]) -> list[Record]:
    lines = [(number, line) for number, line in enumerate(decode(content).split("\n"), 1) if line.strip()]
    return _objects(name, lines, json.loads)


def _json(name: str, content: bytes, fields: Sequence[str]) -> list[Record]:
    try:
        value = json.loads(decode(content))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # several objects, one after the other: JSONL under another name
            return _jsonl(name, content, fields)
        raise RecipeError(f"{name}: line {error.lineno}: is not JSON ({error.msg}). Mend that line.") from error
    lists = [v for v in (value.values() if isinstance(value, dict) else [value]) if isinstance(v, list)]
    rows = next((v for v in lists if any(isinstance(row, dict) for row in v)), lists[0] if lists else None)
    if rows is None:
        raise RecipeError(f"{name}: holds no list of rows. Write them as [{{...}}, {{...}}], or one a line as .jsonl.")
    return _objects(name, list(enumerate(rows, 1)), lambda row: row)


def _objects(name: str, rows: Sequence[tuple[int, Any]], load: Callable[[Any], Any]) -> list[Record]:
    """A record for each numbered row that `load` makes a JSON object of; every other one is named in one error."""
    records, faults = [], []
    for number, row in rows:
        try:
            records.append(_record(name, number, load(row)))
        except ValueError as error:
            faults.append(f"row {number}: is not a JSON object ({error}).")
    if faults:
        raise many_faults(name, faults, len(rows))
    return records


def _csv(name: str, content: bytes, fields: Sequence[str]) -> list[Record]:
    csv.field_size_limit(max(csv.field_size_limit(), len(content)))  # a cell may hold a whole document
    text = decode(content).replace("\r\n", "\n").replace("\r", "\n")
    header = text.split("\n", 1)[0]

    def fit(delimiter: str) -> tuple[int, int]:
        columns = next(csv.reader([header], delimiter=delimiter), [])
        return len({column.strip() for column in columns} & set(fields)), len(columns)

    delimiter = max(DELIMITERS, key=fit)
    reader = csv.DictReader(
        io.StringIO(text), delimiter=delimiter, skipinitialspace=True, restkey=TOO_MANY, strict=True
    )
    try:
        rows = list(reader)
    except csv.Error as error:
        raise RecipeError(
            f"{name}: line {reader.line_num}: is not csv ({error}). Close each quote, and double those inside a cell."
        ) from error
    faults = [f"row {n}: has more cells than the header ({delimiter!r} parts them)." for n, r in enumerate(rows, 1)
              if TOO_MANY in r]  # fmt: skip
    if faults:
        raise many_faults(name, faults, len(rows))
    cells = [{key.strip(): value for key, value in row.items() if value is not None} for row in rows]
    return [Record(name, number, row, is_text=True) for number, row in enumerate(cells, 1)]


def _text_at_label(name: str, content: bytes, fields: Sequence[str]) -> list[Record]:
    """Lines `text@label`, the layout of the Financial PhraseBank; the text itself may hold an @."""
    records, faults = [], []
    lines = [(number, line.strip()) for number, line in enumerate(decode(content).split("\n"), 1) if line.strip()]
    for number, line in lines:
        parts = line.rsplit("@", 1)
        if len(parts) == 2:
            values = dict(zip(fields, (part.strip() for part in parts), strict=False))
            records.append(Record(name, number, values, is_text=True))
        else:
            faults.append(f"row {number}: has no '@' between text and label: {line[:40]!r}.")
    if faults:
        raise many_faults(name, faults, len(lines))
    return records


def _parquet(name: str, content: bytes, fields: Sequence[str]) -> list[Record]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
    except pyarrow.ArrowException as error:
        raise RecipeError(f"{name}: is not a whole parquet file ({error}). Fetch or write it again.") from error
    return [_record(name, number, row) for number, row in enumerate(rows, 1)]


def _record(name: str, number: int, value: Any) -> Record:
    if not isinstance(value, dict):
        raise ValueError(f"it is {type(value).__name__}: {str(value)[:40]!r}")
    return Record(name, number, value)
