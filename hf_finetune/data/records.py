"""What reading a file gives: rows as the file has them, and places where it holds no row."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_finetune.data.samples import Finding

SHOWN = 200
"""Characters of an unreadable line that are kept."""


@dataclass(frozen=True)
class Record:
    """One row as the file has it."""

    file: str
    number: int
    """1 for the first row: the line in jsonl and txt, the record below the header in csv and xlsx."""
    values: dict[str, Any]
    is_text: bool = False
    """True where the format knows no types, so that numbers arrive as text (csv, txt)."""
    folder: Path = Path()
    """Where the file lies: what a row names by a relative path lies there too."""
    is_confined: bool = False
    """Whether a row may name files of that folder only: the data set is somebody else's."""
    split: str | None = None
    """The split that its file is named after."""


@dataclass(frozen=True)
class Broken:
    """A line or a record that is no row, told as a finding is; the rows after it are read all the same."""

    file: str
    number: int
    """Counted as `Record.number`; 0 for what concerns the whole file."""
    check: str
    """Its name: `comment_line`, `broken_json`, `not_an_object`, `ragged_row`, `broken_csv`, `duplicate_column`,
    `no_label` or `not_read`.
    """
    message: str
    """What is wrong, with the line and the column in it where the number does not say them."""
    advice: str
    """How to mend it."""
    line: int | None = None
    """The line in the file, where that is known; 1 for the first."""
    column: int | None = None
    """The character in that line at which reading failed; 1 for the first."""
    text: str = ""
    """How the line or the record begins."""

    @property
    def is_row(self) -> bool:
        """Whether it stands in the place of a row, and is no note on the whole file."""
        return self.number > 0

    @property
    def finding(self) -> Finding:
        """The same as a fault of a row."""
        return Finding(self.check, True, self.message, self.advice)


def folded(name: str) -> str:
    """A name as columns and fields are compared: but for case, spaces and underscores."""
    return re.sub(r"[\s_]", "", name).lower()


def named_twice(name: str, columns: Sequence[str], line: int | None = None) -> Iterator[Broken]:
    """What is told of a header in which several columns have one name; `line` is where it stands, if that is known."""
    for column in (one for one, count in Counter(columns).items() if one and count > 1):
        what = f"two columns are called {column!r}: only the last is read."
        yield Broken(name, 0, "duplicate_column", what, "Rename one.", line, text=column)
