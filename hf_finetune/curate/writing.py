"""Settled rows -> the files of the data set, and the lists of what was dropped and changed."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_finetune.curate.checking import add_example, rejected_line
from hf_finetune.curate.chunks import CHANGED, REJECTED
from hf_finetune.curate.plan import Format, Plan
from hf_finetune.curate.rows import INDEX_FILE, column, from_json, json_line, read_rows
from hf_finetune.curate.settling import Fate, Settled
from hf_finetune.curate.shapes import Shape, as_row, schema
from hf_finetune.data.samples import Finding
from hf_finetune.data.splits import SPLITS

SHARD_CHARACTERS = 500_000_000
"""A file of a split has about so many characters, so that none grows too large for the Hub."""


@dataclass
class Written:
    """What was written."""

    labels: dict[str, Counter[str]] = field(default_factory=dict)
    """By split."""
    sources: dict[str, Counter[str]] = field(default_factory=dict)
    """By split."""
    dropped: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """The first rows that left for the sake of others, by the reason."""
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Of each split the first rows, as they are in the files."""
    files: list[str] = field(default_factory=list)


class Splits:
    """The files of all splits while they are written."""

    def __init__(self, folder: Path, format: Format, rows: Sequence[int], shards: Sequence[int], columns: Any) -> None:
        (folder / "data").mkdir()
        self._format, self._schema = format, columns
        self.names: list[str] = []
        self._writers: list[list[Any]] = []
        self._rows_of_shard = [-(-count // number) if number else 0 for count, number in zip(rows, shards, strict=True)]
        self._done = [0] * len(SPLITS)
        for split, number in zip(SPLITS, shards, strict=True):
            names = [f"data/{split}-{shard:05}-of-{number:05}.{format}" for shard in range(number)]
            self.names += names
            self._writers.append([self._open(folder / name) for name in names])

    def __enter__(self) -> "Splits":
        return self

    def __exit__(self, *error: object) -> None:
        for writers in self._writers:
            for writer in writers:
                writer.close()

    def add(self, code: int, rows: Sequence[dict[str, Any]]) -> None:
        """Adds rows to a split."""
        while rows:
            size, done = self._rows_of_shard[code], self._done[code]
            room = size - done % size
            self._write(self._writers[code][done // size], rows[:room])
            self._done[code] += len(rows[:room])
            rows = rows[room:]

    def _open(self, path: Path) -> Any:
        if self._format == "jsonl":
            return path.open("w", encoding="utf-8", newline="\n")
        import pyarrow.parquet as pq

        return pq.ParquetWriter(path, self._schema, compression="zstd")

    def _write(self, writer: Any, rows: Sequence[dict[str, Any]]) -> None:
        if self._format == "jsonl":
            writer.writelines(map(json_line, rows))
            return
        import pyarrow as pa

        writer.write_table(pa.Table.from_pylist(list(rows), schema=self._schema))


def write_rows(
    folder: Path, folders: Sequence[Path], settled: Settled, feeds: NDArray[np.uint16], files: Sequence[str],
    shape: Shape, weighted: bool, plan: Plan, advance: Callable[[int], None],
) -> Written:  # fmt: skip
    """Leaves data/, rejected.jsonl and changed.jsonl in the folder."""
    kept = settled.kept
    rows = [int(settled.of(name).sum()) for name in SPLITS]
    characters = column(folders, "characters").astype(np.int64)
    totals = [int(characters[settled.of(name)].sum()) for name in SPLITS]
    shards = [-(-max(total, 1) // SHARD_CHARACTERS) if count else 0 for total, count in zip(totals, rows, strict=True)]
    written, done = Written(), 0
    file_of, number_of = column(folders, "file"), column(folders, "number")
    with ExitStack() as stack:
        splits = stack.enter_context(Splits(folder, plan.format, rows, shards, schema(shape, weighted)))
        lists = {name: stack.enter_context((folder / name).open("wb")) for name in (REJECTED, CHANGED)}
        for number, chunk in enumerate(folders, 1):
            for name, into in lists.items():
                with (chunk / name).open("rb") as given:
                    shutil.copyfileobj(given, into)
            out: list[list[dict[str, Any]]] = [[] for _ in SPLITS]
            for place, row in enumerate(read_rows(chunk), done):
                if kept[place]:
                    code, source = int(settled.split[place]), plan.feeds[feeds[place]].name
                    sample = from_json(row)
                    out[code].append(as_row(sample, shape, weighted) | {"source": source})
                    _count(written, SPLITS[code], sample.label, source)
                elif settled.fate[place] != Fate.NOT_DRAWN:
                    twin = settled.twin[place]
                    where = f"row {number_of[twin]:,} of {files[file_of[twin]]}"
                    reason = _reason(Fate(settled.fate[place]), where)
                    values = {name: value for name, value in row.items() if name not in ("file", "row")}
                    line = json_line(rejected_line(row["file"], row["row"], [reason], values))
                    lists[REJECTED].write(line.encode("utf-8", "surrogatepass"))
                    add_example(written.dropped, row["file"], row["row"], reason)
            done += len(np.load(chunk / INDEX_FILE, mmap_mode="r"))
            for code, own in enumerate(out):
                splits.add(code, own)
                shown = written.examples.setdefault(SPLITS[code], [])
                shown += own[: 3 - len(shown)]
            advance(number)
        written.files = splits.names
    return written


_REASONS = {
    Fate.EXACT_DUPLICATE: "the same as {}.",
    Fate.CONTRADICTORY: "asks the same as {}, and has another answer.",
    Fate.NEAR_DUPLICATE: "nearly the same as {}, or connected to it by others that are.",
    Fate.NEAR_TEST: "general data that is nearly the same as a row that is validated or tested with.",
}
_ADVICE = {
    Fate.EXACT_DUPLICATE: "Nothing is lost; --keep exact_duplicate keeps it.",
    Fate.CONTRADICTORY: "Decide which answer is right, and take the other row out.",
    Fate.NEAR_DUPLICATE: "Leave --drop near_duplicate out to keep them, on one side of the split.",
    Fate.NEAR_TEST: "Nothing has to be done: the test would have been on what was learnt.",
}


def _reason(fate: Fate, where: str) -> Finding:
    """Why a row has left for the sake of the one that is there."""
    return Finding(fate.check, True, _REASONS[fate].format(where), _ADVICE[fate])


def _count(written: Written, split: str, label: str | None, source: str) -> None:
    written.sources.setdefault(split, Counter())[source] += 1
    if label is not None:
        written.labels.setdefault(split, Counter())[label] += 1


def lengths(folders: Sequence[Path], settled: Settled, unit: str) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Of each split that has rows the lengths of these, in `characters`, `words` or `tokens`."""
    all_lengths = column(folders, unit).astype(np.int64)
    for name in SPLITS:
        own = all_lengths[settled.of(name)]
        if len(own):
            yield name, own
