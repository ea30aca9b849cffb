"""A row on the disk between two passes: its sample as JSON, and a line of numbers that says all but its text."""

import json
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_finetune.data.records import Broken, Record
from hf_finetune.data.samples import Message, Sample

INDEX = np.dtype(
    [("file", "u4"), ("number", "u4"), ("good", "i1"), ("prompt", "u8"), ("question", "u8"), ("row", "u8"),
     ("group", "u8"), ("label", "u8"), ("characters", "u4"), ("words", "u4"), ("tokens", "u4")]
)  # fmt: skip
"""What is known of a row without its text. Hashes are 0 for what it does not have."""
INDEX_FILE, ROWS_FILE = "index.npy", "rows.jsonl"


def entry(sample: Sample, record: Record | Broken, group: str | None, file: int, tokens: int) -> tuple[Any, ...]:
    """The row's line of the index; `group` is the column that holds rows together."""
    text = "".join(message.content for message in (*sample.messages, *sample.rejected))
    good = -1 if sample.is_good is None else int(sample.is_good)
    value = record.values.get(group) if group and isinstance(record, Record) else None
    turns = [part for one in sample.messages for part in (one.role, one.content)]
    worse = [part for one in sample.rejected for part in (one.role, one.content)]
    return (
        file, record.number, good, hashed(sample.prompt), _question(sample),
        hashed(*turns, "rejected", *worse, good, sample.label),
        hashed("group", value) if value not in (None, "") else 0,
        hashed("label", sample.label) if sample.label is not None else 0,
        len(text), len(text.split()), tokens,
    )  # fmt: skip


def _question(sample: Sample) -> int:
    """What can have one answer alone: the label of a text, the better one of two answers, the rating of one; else 0."""
    if sample.rejected:
        both = sorted("\0".join(one.content for one in turns) for turns in (sample.messages[-1:], sample.rejected))
        return hashed("pair", sample.prompt, *both)
    if sample.label is not None:
        return hashed("label of", sample.prompt or sample.completion)
    return hashed("good", sample.prompt, sample.completion) if sample.is_good is not None else 0


def hashed(*parts: Any) -> int:
    """64 bits of some texts, never 0."""
    content = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little") or 1


def as_json(sample: Sample) -> dict[str, Any]:
    """A sample as JSON, less what it does not have."""
    told = {
        "messages": [_turn(one) for one in sample.messages],
        "rejected": [_turn(one) for one in sample.rejected],
        "label": sample.label,
        "is_good": sample.is_good,
    }
    return {name: value for name, value in told.items() if value not in (None, [])}


def _turn(message: Message) -> list[Any]:
    return [message.role, message.content, *([message.weight] if message.weight is not None else [])]


def from_json(row: dict[str, Any]) -> Sample:
    """The sample that `as_json` has written."""
    return Sample(
        tuple(Message(*turn) for turn in row["messages"]),
        tuple(Message(*turn) for turn in row.get("rejected", [])),
        row.get("label"),
        row.get("is_good"),
    )


def json_line(row: Any) -> str:
    """A row as a line of JSON."""
    return json.dumps(row, ensure_ascii=False, default=str) + "\n"


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of a chunk that have stayed, one after the other."""
    with (folder / ROWS_FILE).open(encoding="utf-8", errors="surrogatepass", newline="\n") as file:
        yield from map(json.loads, file)


def column(folders: Sequence[Path], name: str) -> NDArray[Any]:
    """One column of the index of all chunks; no file stays open, as there may be more chunks than files that may be."""
    return np.concatenate([np.array(np.load(folder / INDEX_FILE, mmap_mode="r")[name]) for folder in folders])
