"""parquet, Arrow and xlsx -> records, a batch at a time."""

import io
import warnings
from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO

from hf_finetune.data.records import Broken, Record
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

    try:
        batches = pyarrow.parquet.ParquetFile(_seekable(file)).iter_batches(batch_size=BATCH)
        yield from _records(name, batches)
    except (pyarrow.ArrowException, OSError) as error:
        raise _not_whole(name, "parquet", error) from error


def arrow_rows(name: str, file: BinaryIO) -> Read:
    """A record for each row of an Arrow file, or of the stream of batches that `datasets` writes under that name.

    Raises:
        RecipeError: when the file is not whole.
    """
    import pyarrow

    seekable = _seekable(file)
    is_file = seekable.read(6) == b"ARROW1"
    seekable.seek(0)
    try:
        if is_file:
            reader = pyarrow.ipc.open_file(seekable)
            batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
        else:
            batches = iter(pyarrow.ipc.open_stream(seekable))
        yield from _records(name, (batch.slice(at, BATCH) for batch in batches for at in range(0, len(batch), BATCH)))
    except (pyarrow.ArrowException, OSError) as error:
        raise _not_whole(name, "Arrow", error) from error


def xlsx_rows(name: str, file: BinaryIO) -> Read:
    """A record for each row below the header of the first sheet that has rows.

    Raises:
        RecipeError: when the file is no workbook.
    """
    from openpyxl import load_workbook

    try:
        with warnings.catch_warnings(action="ignore"):  # of what a workbook may hold and no row is
            book = load_workbook(_seekable(file), read_only=True, data_only=True)
    except Exception as error:  # whatever its XML makes openpyxl raise
        raise _not_whole(name, "xlsx", error) from error
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
    for number, row in enumerate(rows, 1):
        cells = dict(zip(columns, row, strict=False))
        beyond = [cell for cell in row[len(columns) :] if cell is not None]
        beyond += [cells.pop("")] if cells.get("") is not None else []
        cells.pop("", None)
        if beyond:
            what = f"has a cell that no column name stands over: {str(beyond[0])[:40]!r}."
            yield Broken(name, number, "ragged_row", what, "Name its column in the first row, or empty the cell.")
        elif any(cell is not None for cell in cells.values()):
            yield Record(name, number, {column: _unspaced(cell) for column, cell in cells.items()})


def _unspaced(cell: Any) -> Any:
    """A cell as it is typed: Excel keeps whole numbers as decimal ones."""
    return int(cell) if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53 else cell


def _records(name: str, batches: Iterator[Any]) -> Read:
    rows = chain.from_iterable(batch.to_pylist() for batch in batches)
    return (Record(name, number, row) for number, row in enumerate(rows, 1))


def _seekable(file: BinaryIO) -> BinaryIO:
    """The file where its end can be read first; else all of it, as out of a zip archive."""
    return file if isinstance(file, io.BufferedReader) else io.BytesIO(file.read())


def _not_whole(name: str, kind: str, error: Exception) -> RecipeError:
    return RecipeError(f"{name}: is not a whole {kind} file ({first_line(error)}). Fetch or write it again.")
