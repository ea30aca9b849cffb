"""csv and lines of text -> records, one after the other; a broken row costs no row after it."""

import csv
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import TextIO

from hf_finetune.data.records import SHOWN, Broken, Record, named_twice

Read = Iterator[Record | Broken]

DELIMITERS = ",;\t|"
LOOKED_AT = 20
"""Rows of a csv from which its delimiter is told."""
LONGEST_CELL = 32 * 2**20
"""Characters of one csv row from which a quote counts as never closed: a cell may hold a whole document."""
SEPARATOR = re.compile(r"sep=(.)\r?\n")
"""The line by which Excel is told what parts the cells; it stands before the header."""
LABELLED = re.compile(r".*@\s*[\w .+/-]{1,40}")


def csv_rows(name: str, file: TextIO, fields: Sequence[str], *, may_be_short: bool) -> Read:
    """A record for each row below the header.

    `fields` are names that columns may have: they help to find the delimiter. A row that `may_be_short` lacks its last
    values; else it is broken.
    """
    head = list(islice(file, 4 * LOOKED_AT))
    delimiter = delimiter_of(head, fields)
    lines = _Lines(chain(head, file))
    if head and SEPARATOR.fullmatch(head[0]):
        next(lines)
    columns: list[str] | None = None
    number = 0
    for line, cells in _parsed(lines, delimiter):
        if columns is None and not isinstance(cells, csv.Error):
            columns = [cell.strip() for cell in cells]
            yield from named_twice(name, columns, line)
            continue
        number += 1
        if columns is None or isinstance(cells, csv.Error):
            yield _unparsed(name, number, line, lines.taken, cells)
        elif len(cells) > len(columns) or (len(cells) < len(columns) and not may_be_short):
            yield _ragged(name, number, line, cells, columns, delimiter, lines.taken)
        else:
            yield Record(name, number, dict(zip(columns, cells, strict=False)), is_text=True)


def _parsed(lines: "_Lines", delimiter: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """The cells of each row, or why it has none, with the line that it begins in; after a broken row the next line."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        lines.taken.clear()
        line = lines.number + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, error
            lines.give_back()
        else:
            if cells:
                yield line, cells


def delimiter_of(head: Sequence[str], fields: Sequence[str] = ()) -> str:
    """What parts the cells, as the line for Excel says.

    Without it what parts the header into most known names, and then all rows into as many cells.
    """
    if head and (told := SEPARATOR.fullmatch(head[0])):
        return told[1]

    def fit(delimiter: str) -> tuple[int, float, int]:
        reader = csv.reader(head, delimiter=delimiter, skipinitialspace=True)
        try:
            rows = [row for row in islice(reader, LOOKED_AT) if row]
        except csv.Error:
            rows = []
        columns = rows[0] if rows else []
        even = sum(len(row) == len(columns) for row in rows) / len(rows) if len(columns) > 1 else 0.0
        return len({column.strip() for column in columns} & set(fields)), even, len(columns)

    return max(DELIMITERS, key=fit)


class _Lines:
    """The lines of a file, of which those that a broken row took can be given back."""

    def __init__(self, lines: Iterator[str]) -> None:
        self.lines, self.waiting = lines, deque[str]()
        self.taken: list[str] = []
        self.number = 0
        self.size = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self.waiting.popleft() if self.waiting else next(self.lines)
        self.size = len(line) + (self.size if self.taken else 0)
        self.taken.append(line)
        self.number += 1
        if self.size > LONGEST_CELL:
            raise csv.Error("a quote that is not closed")
        return line

    def give_back(self) -> None:
        """Has all lines but the first of those taken come again."""
        self.waiting.extendleft(reversed(self.taken[1:]))
        self.number -= len(self.taken) - 1


def _unparsed(name: str, number: int, line: int, taken: Sequence[str], error: object) -> Broken:
    what = f"line {line}: is not csv ({error})."
    advice = "Close each quote, and double those inside a cell."
    return Broken(name, number, "broken_csv", what, advice, line, text=taken[0][:SHOWN].strip() if taken else "")


def _ragged(
    name: str,
    number: int,
    line: int,
    cells: Sequence[str],
    columns: Sequence[str],
    delimiter: str,
    taken: Sequence[str],
) -> Broken:
    if len(cells) > len(columns):
        what = f"has more cells than the header ({delimiter!r} parts them)."
        advice = "Put cells that hold it into quotes."
    else:
        what = f"has {len(cells)} cells of the header's {len(columns)} ({delimiter!r} parts them)."
        advice = "Write all cells, empty ones too, and put those with line breaks into quotes."
    return Broken(name, number, "ragged_row", what, advice, line, text="".join(taken)[:SHOWN].strip())


def text_lines(name: str, file: TextIO, fields: Sequence[str]) -> Read:
    """Lines `text@label`, the layout of the Financial PhraseBank, or a text a line.

    `fields` name the two columns; without them the first lines say which it is, and they are called `text` and `label`.
    """
    head = list(islice(file, 200))
    names = tuple(fields) or (("text", "label") if _is_labelled(head) else ("text",))
    for number, line in enumerate(chain(head, file), 1):
        text = line.strip()
        if not text:
            continue
        parts = text.rsplit("@", 1) if names != ("text",) else [text]
        if names == ("text",) or len(parts) == 2:
            yield Record(name, number, dict(zip(names, (part.strip() for part in parts), strict=False)), is_text=True)
        else:
            what = f"has no '@' between text and label: {text[:40]!r}."
            yield Broken(name, number, "no_label", what, "Write text@label.", number, text=text[:SHOWN])


def _is_labelled(lines: Sequence[str]) -> bool:
    """Whether nearly all lines end with `@label`, of few labels."""
    told = [line.strip() for line in lines if line.strip()]
    labels = Counter(line.rsplit("@", 1)[1].strip() for line in told if LABELLED.fullmatch(line))
    return len(told) > 0 and labels.total() >= 0.9 * len(told) and len(labels) <= max(2, len(told) // 5)
