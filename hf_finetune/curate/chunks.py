"""Records -> chunks on disk: each a folder that is there whole or not at all, and the same whoever makes it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from hf_finetune.curate.checking import Checked, Source, Tally, check, checked_length
from hf_finetune.curate.lengths import token_counter
from hf_finetune.curate.plan import Plan
from hf_finetune.curate.rows import INDEX, INDEX_FILE, ROWS_FILE, entry, hashed, json_line
from hf_finetune.data.records import Broken, Record
from hf_finetune.files import read_json, whole_folder, write_json

ROWS = 10_000
"""Rows of a chunk,"""
CHARACTERS = 2**25
"""or fewer, once they have so many characters: memory is bounded whatever the rows are."""
PROMPTS = 1_000
"""Prompts from which it is learnt what all of them share: those with the smallest hashes, so a fair draw."""
REJECTED, CHANGED = "rejected.jsonl", "changed.jsonl"


@dataclass(frozen=True)
class Batch:
    """The records of one chunk."""

    feed: int
    """Of which of the plan's sources."""
    records: Sequence[Record | Broken]
    folder: Path
    """Where the chunk goes."""


def batches(feeds: Iterable[Iterable[Record | Broken]], folder: Path) -> Iterator[Batch]:
    """The records of all sources cut into chunks, which depends on nothing but the records."""
    numbers = count()
    for feed, records in enumerate(feeds):
        held: list[Record | Broken] = []
        size = 0
        for record in records:
            held.append(record)
            size += _size(record.values) if isinstance(record, Record) else len(record.text)
            if len(held) == ROWS or size >= CHARACTERS:
                yield Batch(feed, held, chunk_folder(folder, next(numbers)))
                held, size = [], 0
        if held:
            yield Batch(feed, held, chunk_folder(folder, next(numbers)))


def chunk_folder(folder: Path, number: int) -> Path:
    """Where a chunk lies."""
    return folder / f"chunk-{number:06}"


def write_chunk(batch: Batch, plan: Plan, source: Source, files: Sequence[str]) -> None:
    """Reads, cleans and checks the rows of a chunk, and leaves them in its folder.

    `files` are the names of the files of all sources: rows name theirs by its number among them.
    """
    tally, index, prompts = Tally(), [], {}
    numbers = {name: number for number, name in enumerate(files)}
    with whole_folder(batch.folder) as folder:
        with _Lines(folder / ROWS_FILE) as rows, _Lines(folder / REJECTED) as rejected, \
                _Lines(folder / CHANGED) as changed:  # fmt: skip
            for record in batch.records:
                if isinstance(record, Broken) and not record.is_row:
                    tally.note(record, plan)
            for one, tokens in _checked(batch, plan, source):
                tally.count(one)
                if one.reasons:
                    rejected.add(one.as_rejected())
                    continue
                if one.changes:
                    changed.add(one.as_changed())
                rows.add(one.as_row())
                index.append(entry(one.sample, one.record, plan.group, numbers[one.record.file], tokens))
                prompts[hashed(one.sample.prompt)] = one.sample.prompt
        np.save(folder / INDEX_FILE, np.array(index, dtype=INDEX))
        write_json(folder / "prompts.json", nsmallest(PROMPTS, prompts.items()))
        write_json(folder / "tally.json", {"feed": batch.feed, **tally.as_json()})


def _checked(batch: Batch, plan: Plan, source: Source) -> Iterator[tuple[Checked, int]]:
    """What came of each record, with its number of tokens."""
    checked = [check(one, plan, source) for one in batch.records if isinstance(one, Record) or one.is_row]
    count_tokens = token_counter(plan.base, plan.base_commit)
    lengths = iter(count_tokens([one.sample for one in checked if not one.reasons]))
    for one in checked:
        tokens = 0 if one.reasons else next(lengths)
        yield checked_length(one, tokens, plan), tokens


def read_tally(folder: Path) -> tuple[int, Tally]:
    """The source of a chunk, and what was met in it."""
    given = read_json(folder / "tally.json")
    return int(given.pop("feed")), Tally.from_json(given)


def read_prompts(folder: Path) -> dict[int, str]:
    """Some prompts of a chunk by their hashes, the smallest first."""
    return {int(key): prompt for key, prompt in read_json(folder / "prompts.json")}


class _Lines:
    """A file of JSON lines that is being written."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", errors="surrogatepass", newline="\n")

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, row: Any) -> None:
        """Adds a line."""
        self._file.write(json_line(row))


def _size(value: Any) -> int:
    """About how many characters a value holds."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list | tuple) else 8
