"""Records -> chunks on disk: each a folder that is there whole or not at all, and the same whoever makes it."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from heapq import nsmallest
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_finetune.curate.lengths import token_counter
from hf_finetune.curate.plan import Plan
from hf_finetune.curate.shapes import shape_of
from hf_finetune.data.cleaning import cleaned
from hf_finetune.data.findings import findings
from hf_finetune.data.layouts import Layout
from hf_finetune.data.personal import masked
from hf_finetune.data.records import Broken, Record
from hf_finetune.data.samples import Finding, Message, Sample
from hf_finetune.files import read_json, read_jsonl, whole_folder, write_json

ROWS = 10_000
"""Rows of a chunk,"""
CHARACTERS = 2**25
"""or fewer, once they have so many characters: memory is bounded whatever the rows are."""
SHOWN = 5
"""Examples of each finding that are kept of a chunk, and in the end of all."""
PROMPTS = 1_000
"""Prompts from which it is learnt what all of them share: those with the smallest hashes, so a fair draw."""
MOST_LABELS = 1_000
"""Of more different ones they are no labels, but texts."""
COUNTERS = ("rejected", "rejected_by", "found", "changed", "shapes", "labels")
INDEX = np.dtype(
    [("file", "u2"), ("number", "u4"), ("good", "i1"), ("prompt", "u8"), ("question", "u8"), ("row", "u8"),
     ("group", "u8"), ("label", "u8"), ("characters", "u4"), ("words", "u4"), ("tokens", "u4")]
)  # fmt: skip
"""What is known of a row without its text. Hashes are 0 for what it does not have."""


@dataclass(frozen=True)
class Batch:
    """The records of one chunk."""

    number: int
    feed: int
    """Of which of the plan's sources."""
    records: Sequence[Record | Broken]
    folder: Path
    """Where the chunk goes."""


@dataclass
class ChunkFacts:
    """What was met in a chunk; those of several add up."""

    read: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """Rows by the first fault for which they left."""
    rejected_by: Counter[str] = field(default_factory=Counter)
    """Rows that left by each check that found something in them."""
    found: Counter[str] = field(default_factory=Counter)
    """Rows by each check that found something, whether they left or not."""
    changed: Counter[str] = field(default_factory=Counter)
    """Rows by each change."""
    changed_rows: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """The first findings of each check."""
    kept: int = 0
    weighted: int = 0
    """Rows that say how much a turn counts."""

    def __iadd__(self, other: "ChunkFacts") -> "ChunkFacts":
        self.read, self.kept = self.read + other.read, self.kept + other.kept
        self.changed_rows, self.weighted = self.changed_rows + other.changed_rows, self.weighted + other.weighted
        for name in COUNTERS:
            getattr(self, name).update(getattr(other, name))
        for check, shown in other.examples.items():
            self.examples[check] = [*self.examples.get(check, []), *shown][:SHOWN]
        return self

    def tell(self, where: Record | Broken, finding: Finding) -> None:
        """Counts a finding, and keeps it where it is among the first of its check."""
        shown = self.examples.setdefault(finding.check, [])
        if len(shown) < SHOWN:
            told = {"message": finding.message, "advice": finding.advice, "is_fault": finding.is_fault}
            shown.append({"file": where.file, "row": where.number, **told})


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
                number = next(numbers)
                yield Batch(number, feed, held, chunk_folder(folder, number))
                held, size = [], 0
        if held:
            number = next(numbers)
            yield Batch(number, feed, held, chunk_folder(folder, number))


def chunk_folder(folder: Path, number: int) -> Path:
    """Where a chunk lies."""
    return folder / f"chunk-{number:06}"


def write_chunk(batch: Batch, plan: Plan, layout: Layout, files: Sequence[str]) -> None:
    """Reads, cleans and checks the rows of a chunk, and leaves them in its folder, unless they are there already."""
    if batch.folder.is_dir():
        return
    facts, count_tokens = ChunkFacts(read=len(batch.records)), token_counter(plan.base, plan.base_commit)
    prompts: dict[int, str] = {}
    index: list[tuple[Any, ...]] = []
    numbers = {name: number for number, name in enumerate(files)}
    with whole_folder(batch.folder) as folder:
        with _lines(folder / "rows.jsonl") as rows, _lines(folder / "rejected.jsonl") as rejected, \
                _lines(folder / "changed.jsonl") as changed:  # fmt: skip
            kept = []
            for record in batch.records:
                read = _read(record, plan, layout)
                _count(facts, record, read)
                if read.reasons:
                    rejected.add(_as_rejected(record, read.reasons))
                    continue
                if read.changes and read.before:
                    changed.add({"file": record.file, "row": record.number, "changes": read.changes,
                                 "before": as_json(read.before), "after": as_json(read.sample)})  # fmt: skip
                kept.append((record, read))
            lengths = count_tokens([read.sample for _, read in kept])
            for (record, read), length in zip(kept, lengths, strict=True):
                too_long = _too_long(length, plan)
                if too_long:
                    _tell(facts, record, too_long)
                if too_long and _leaves(too_long, plan):
                    facts.rejected[too_long.check] += 1
                    facts.rejected_by.update({too_long.check, *(one.check for one in read.found)})
                    rejected.add(_as_rejected(record, [too_long]))
                    continue
                checks = [one.check for one in read.found] + ([too_long.check] if too_long else [])
                rows.add({"file": record.file, "row": record.number, "checks": checks, **as_json(read.sample)})
                entry = _entry(read.sample, record, plan, numbers[record.file], length)
                index.append(entry)
                prompts[entry[INDEX.names.index("prompt")]] = read.sample.prompt  # type: ignore[union-attr]
                facts.kept += 1
                facts.weighted += any(turn.weight is not None for turn in read.sample.messages)
                facts.shapes[shape_of(read.sample)] += 1
                if read.sample.label is not None and len(facts.labels) <= MOST_LABELS:
                    facts.labels[read.sample.label] += 1
        np.save(folder / "index.npy", np.array(index, dtype=INDEX))
        write_json(folder / "prompts.json", nsmallest(PROMPTS, prompts.items()))
        write_json(folder / "facts.json", {"feed": batch.feed, **facts.__dict__})


@dataclass(frozen=True)
class _Reading:
    """What came of a record."""

    sample: Sample
    before: Sample | None = None
    """As it was read, before it was cleaned."""
    found: Sequence[Finding] = ()
    changes: Sequence[str] = ()
    reasons: Sequence[Finding] = ()
    """Why it leaves, if it does."""


def _read(record: Record | Broken, plan: Plan, layout: Layout) -> _Reading:
    """A record as a sample, cleaned and checked."""
    if isinstance(record, Broken):
        return _Reading(Sample(()), reasons=[record.finding])
    sample, found = layout.sample(record)
    if sample is None:
        return _Reading(Sample(()), found=found, reasons=found)
    clean, changes = cleaned(sample, plan.fix)
    if plan.mask_personal:
        unmasked, clean = clean, clean.with_texts(masked)
        changes = [*changes, *(["personal data masked"] if clean != unmasked else [])]
    found = [*found, *findings(clean)]
    return _Reading(clean, sample, found, changes, [one for one in found if _leaves(one, plan)])


def _leaves(finding: Finding, plan: Plan) -> bool:
    """Whether a row with this finding has to go."""
    return finding.check in plan.drop or (finding.is_fault and finding.check not in plan.keep)


def _count(facts: ChunkFacts, record: Record | Broken, read: _Reading) -> None:
    findings_of = {one.check: one for one in [*read.reasons, *read.found]}
    for finding in findings_of.values():
        _tell(facts, record, finding)
    if read.reasons:
        facts.rejected_by.update(findings_of.keys())
        facts.rejected[read.reasons[0].check] += 1
    elif read.changes:
        facts.changed_rows += 1
        facts.changed.update(set(read.changes))


def _tell(facts: ChunkFacts, record: Record | Broken, finding: Finding) -> None:
    facts.found[finding.check] += 1
    facts.tell(record, finding)


def _too_long(tokens: int, plan: Plan) -> Finding | None:
    """A row of more tokens than are wanted, with what would be cut."""
    if not plan.max_tokens or tokens <= plan.max_tokens:
        return None
    more = tokens - plan.max_tokens
    message = f"it has {tokens:,} tokens, so {more:,} ({more / tokens:.0%}) would be cut at {plan.max_tokens:,}."
    return Finding("too_long", False, message, "Shorten it, raise --max-tokens, or leave such rows out: --drop too_long.")


def _as_rejected(record: Record | Broken, reasons: Sequence[Finding]) -> dict[str, Any]:
    row = {"text": record.text} if isinstance(record, Broken) else record.values
    told = [{"check": one.check, "message": one.message, "advice": one.advice} for one in reasons]
    return {"file": record.file, "row": record.number, "reasons": told, "values": row}


def _entry(sample: Sample, record: Record | Broken, plan: Plan, file: int, tokens: int) -> tuple[Any, ...]:
    """The row's line of the index."""
    text = "".join(message.content for message in (*sample.messages, *sample.rejected))
    good = -1 if sample.is_good is None else int(sample.is_good)
    value = record.values.get(plan.group) if plan.group and isinstance(record, Record) else None
    group = hashed("group", value) if value not in (None, "") else 0
    label = hashed("label", sample.label) if sample.label is not None else 0
    parts = [part for one in sample.messages for part in (one.role, one.content)]
    worse = [part for one in sample.rejected for part in (one.role, one.content)]
    return (
        file, record.number, good, hashed(sample.prompt), _question(sample),
        hashed(*parts, "rejected", *worse, good, sample.label), group, label, len(text), len(text.split()), tokens,
    )  # fmt: skip


def _question(sample: Sample) -> int:
    """What can have one answer alone: a text, the label of which is asked for; of a pair, which of the two is better."""
    if sample.rejected:
        both = sorted(("\0".join(one.content for one in turns)) for turns in (sample.messages[-1:], sample.rejected))
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


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of a chunk that have stayed, one after the other."""
    with (folder / "rows.jsonl").open(encoding="utf-8", errors="surrogatepass", newline="\n") as file:
        yield from map(json.loads, file)


def read_facts(folder: Path) -> ChunkFacts:
    """What was met in a chunk."""
    given = {name: value for name, value in read_json(folder / "facts.json").items() if name != "feed"}
    counters = {name: Counter(given[name]) for name in COUNTERS}
    return replace(ChunkFacts(**given), **counters)


def column(folders: Sequence[Path], name: str) -> NDArray[Any]:
    """One column of the index of all chunks."""
    return np.concatenate([np.load(folder / "index.npy", mmap_mode="r")[name] for folder in folders])


class _lines:
    """A file of JSON lines that is being written."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", errors="surrogatepass", newline="\n")

    def __enter__(self) -> "_lines":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, row: Any) -> None:
        """Adds a line."""
        self._file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def _size(value: Any) -> int:
    """About how many characters a value holds."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list | tuple) else 8
