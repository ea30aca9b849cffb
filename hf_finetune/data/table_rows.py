"""parquet, Arrow and xlsx -> records, a batch at a time."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, BinaryIO

from hf_finetune.data.records import Broken, Record, named_twice
from hf_finetune.errors import RecipeError, first_line

Read = Iterator[Record | Broken]

BATCH = 1000
"""Rows that are turned into Python at once."""


def parquet_rows(name: str, file: BinaryIO) -> Read:
    """A record for each row, with its types.

    Raises:
        RecipeError: when the file is not whole.
    """
    import pyarrow.parquet

    seekable = _seekable(file)
    with _whole(name, "parquet"):
        yield from _records(name, pyarrow.parquet.ParquetFile(seekable).iter_batches(batch_size=BATCH))


def arrow_rows(name: str, file: BinaryIO) -> Read:
    """A record for each row of an Arrow file, or of the stream of batches that `datasets` writes under that name.

    Raises:
        RecipeError: when the file is not whole.
    """
    import pyarrow

    seekable = _seekable(file)
    is_file = seekable.read(6) == b"ARROW1"
    seekable.seek(0)
    with _whole(name, "Arrow"):
        if is_file:
            reader = pyarrow.ipc.open_file(seekable)
            batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
        else:
            batches = iter(pyarrow.ipc.open_stream(seekable))
        yield from _records(name, chain.from_iterable(map(_parts, batches)))


def _parts(batch: Any) -> Iterator[Any]:
    """A batch cut into small ones."""
    batch.validate(full=True)  # nothing else looks at what its offsets say: where they are spoilt, Python is killed
    return (batch.slice(at, BATCH) for at in range(0, len(batch), BATCH))


def xlsx_rows(name: str, file: BinaryIO) -> Read:
    """A record for each row below the header of the first sheet that has rows.

    Raises:
        RecipeError: when the file is no workbook.
    """
    from openpyxl import load_workbook

    seekable = _seekable(file)
    with _whole(name, "xlsx"):
        with warnings.catch_warnings(action="ignore"):  # of what a workbook may hold and no row is
            book = load_workbook(seekable, read_only=True, data_only=True)
        read = ""
        for sheet in book.worksheets:
            rows = sheet.iter_rows(values_only=True)
            header = next((row for row in rows if any(cell is not None for cell in row)), None)
            if header is None:
                continue
            if read:
                what = f"the sheet {sheet.title!r} is not read, only {read!r} before it."
                yield Broken(name, 0, "not_read", what, "Save each sheet as a file of its own.")
                continue
            read = sheet.title
            yield from _sheet_rows(name, header, rows)
        book.close()


def _sheet_rows(name: str, header: tuple[Any, ...], rows: Iterator[tuple[Any, ...]]) -> Read:
    columns = ["" if cell is None else str(cell).strip() for cell in header]
    yield from named_twice(name, columns)
    for number, row in enumerate(rows, 1):
        over = [*columns, *[""] * (len(row) - len(columns))]
        cells = {column: _unspaced(cell) for column, cell in zip(over, row, strict=False) if column}
        beyond = [cell for column, cell in zip(over, row, strict=False) if cell is not None and not column]
        if beyond:
            what = f"has a cell that no column name stands over: {str(beyond[0])[:40]!r}."
            yield Broken(name, number, "ragged_row", what, "Name its column in the first row, or empty the cell.")
        elif any(cell is not None for cell in cells.values()):
            yield Record(name, number, cells)


def _unspaced(cell: Any) -> Any:
    """A cell as it is typed: Excel keeps whole numbers as decimal ones."""
    return int(cell) if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53 else cell


def _records(name: str, batches: Iterator[Any]) -> Read:
    rows = chain.from_iterable(batch.to_pylist() for batch in batches)
    return (Record(name, number, row) for number, row in enumerate(rows, 1))


def _seekable(file: BinaryIO) -> BinaryIO:
    """The file where its end can be read first; else all of it, as out of a zip archive."""
    return file if isinstance(file, io.BufferedReader) else io.BytesIO(file.read())


@contextmanager
def _whole(name: str, kind: str) -> Iterator[None]:
    """Has what a library raises while it reads a file told as one error.

    Raises:
        RecipeError: when the file is not whole.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # spoilt bytes may mean anything: ParseError, KeyError, OverflowError, UnicodeError
        what = f"is not a whole {kind} file ({first_line(error)})."
        raise RecipeError(f"{name}: {what} Fetch or write it again.") from error
