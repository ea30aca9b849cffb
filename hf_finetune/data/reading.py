"""Files -> raw records with their row numbers; typed and checked later."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hf_finetune.data.json_rows import json_document, json_lines
from hf_finetune.data.line_rows import csv_rows, delimiter_of, text_lines
from hf_finetune.data.opening import HEAD, MEND, encoding_of, known_suffix, opened, text_of
from hf_finetune.data.records import Broken, Record, folded
from hf_finetune.data.sources import COMPRESSED, TEXTUAL, Located
from hf_finetune.data.table_rows import arrow_rows, parquet_rows, xlsx_rows
from hf_finetune.errors import RecipeError, many_faults

__all__ = ["Broken", "Record", "forms_of", "read_records", "stream_located", "stream_records"]


def read_records(located: Located, fields: Sequence[str]) -> list[Record]:
    """All records of the source, in the files' order.

    `fields` are the recipe's field names: they find a csv's delimiter and name the columns of a headerless `text@label`
    file.

    Raises:
        RecipeError: an unreadable file, naming every broken line; two columns with the name of one field; or no rows
            at all.
    """
    records: list[Record] = []
    for path, name in located.file_names.items():
        read = list(_stream(path, name, located.member, fields, may_be_short=True))
        unread = [one for one in read if isinstance(one, Broken)]
        broken = [one for one in unread if not _costs_nothing(one, fields)]
        records += [_placed(one, name, path, located) for one in read if isinstance(one, Record)]
        reasons = broken or [one for one in unread if one.check != "duplicate_column"]
        if broken or (reasons and len(unread) == len(read)):
            raise _cannot_read(reasons, len(read))
    if not records:
        raise RecipeError(f"{located.name}: holds no rows. Give it rows with the fields {', '.join(fields)}.")
    return records


def stream_located(located: Located, fields: Sequence[str] = ()) -> Generator[Record | Broken]:
    """The records of all files of a source, in the files' order, without keeping any; see `stream_records`.

    All bear the name of a file of the source, those out of an archive the archive's.
    """
    for path, name in located.file_names.items():
        for one in stream_records(path, name, located.member, fields):
            yield _placed(one, name, path, located) if isinstance(one, Record) else replace(one, file=name)


def stream_records(
    path: Path, name: str, member: str | None = None, fields: Sequence[str] = ()
) -> Iterator[Record | Broken]:
    """The records of one file as they are read, and each line or record that is none: it stops nothing.

    `name` is what the file is called in messages, `member` the file to read inside a zip archive. `fields` are names
    that columns may have: they help to find a csv's delimiter.

    Raises:
        RecipeError: a file that cannot be opened, unpacked or is not whole, also after some of its records.
    """
    return _stream(path, name, member, fields, may_be_short=False)


def forms_of(located: Located, fields: Sequence[str] = ()) -> list[str]:
    """How the files of a source are written, each way once, in words: `csv with ';' between cells, UTF-16, gzip`.

    Raises:
        RecipeError: a file that cannot be opened or is not read here.
    """
    forms = (_form_of(path, name, located.member, fields) for path, name in located.file_names.items())
    return list(dict.fromkeys(forms))


def _form_of(path: Path, name: str, member: str | None, fields: Sequence[str]) -> str:
    with opened(path, name, member) as (file, content):
        suffix = known_suffix(file)
        words = [suffix.removeprefix(".")]
        if suffix in TEXTUAL:
            head = content.read(HEAD)
            encoding = encoding_of(head, is_whole=len(head) < HEAD)
            if suffix in (".csv", ".tsv"):
                lines = head.decode(encoding, MEND).splitlines(keepends=True)
                words[0] += f" with {delimiter_of(lines, fields)!r} between cells"
            words.append(ENCODINGS[encoding])
        words += [COMPRESSED[end] for end in [Path(file).suffix.lower()] if end in COMPRESSED]
        return ", ".join(words)


ENCODINGS = {
    "utf-8": "UTF-8", "utf-8-sig": "UTF-8 with a byte order mark", "utf-16": "UTF-16", "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16", "cp1252": "Windows-1252", "latin-1": "latin-1",
}  # fmt: skip


def _stream(
    path: Path, name: str, member: str | None, fields: Sequence[str], *, may_be_short: bool
) -> Iterator[Record | Broken]:
    with opened(path, name, member) as (file, content):
        match known_suffix(file):
            case ".jsonl" | ".ndjson":
                yield from json_lines(file, text_of(content))
            case ".json":
                yield from json_document(file, text_of(content))
            case ".csv" | ".tsv":
                yield from csv_rows(file, text_of(content, newline=None), fields, may_be_short=may_be_short)
            case ".txt":
                yield from text_lines(file, text_of(content), fields)
            case ".parquet":
                yield from parquet_rows(file, content)
            case ".xlsx":
                yield from xlsx_rows(file, content)
            case _:
                yield from arrow_rows(file, content)


def _placed(record: Record, name: str, path: Path, located: Located) -> Record:
    """The record with what its file tells of it."""
    is_confined, split = located.commit is not None, located.splits.get(path)
    return replace(record, file=name, folder=path.parent, is_confined=is_confined, split=split)


def _costs_nothing(one: Broken, fields: Sequence[str]) -> bool:
    """Whether all that a recipe asks for is read all the same."""
    is_of_others = one.check == "duplicate_column" and folded(one.text) not in map(folded, fields)
    return one.check == "not_read" or is_of_others


def _cannot_read(broken: Sequence[Broken], total: int) -> RecipeError:
    """One error for all that is broken in a file."""
    first = broken[0]
    if first.check in ("broken_csv", "duplicate_column", "not_read"):
        return RecipeError(f"{first.file}: {first.message} {first.advice}")
    if first.check == "broken_json" and first.advice == "Mend that line.":
        what = first.message.removeprefix("is not JSON (").split(" at line ")[0]
        return RecipeError(f"{first.file}: line {first.line}: is not JSON ({what}). {first.advice}")
    faults = [f"row {one.number}: {one.message}{'' if one.check == 'no_label' else f' {one.advice}'}" for one in broken]
    return many_faults(first.file, faults, total)
