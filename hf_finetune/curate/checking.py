"""One record -> the row that stays of it, cleaned, or the reasons why it leaves; and the counts of what was met."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hf_finetune.curate.plan import Plan
from hf_finetune.curate.rows import as_json
from hf_finetune.curate.shapes import shape_of
from hf_finetune.data.cleaning import cleaned
from hf_finetune.data.findings import Expected, findings
from hf_finetune.data.layouts import Layout
from hf_finetune.data.personal import masked
from hf_finetune.data.records import Broken, Record
from hf_finetune.data.samples import Finding, Sample

SHOWN = 5
"""Examples of each check that are kept."""
MOST_LABELS = 1_000
"""Of more different ones they are no labels, but texts."""
MOST_NOTES = 100
"""What is found of files that are kept; a folder may have thousands of the same kind."""
NOTHING = Sample(())
"""What stands in the place of a row that could not be read."""
MASKED = "personal data masked"
COUNTERS = ("rejected", "rejected_by", "found", "changed", "shapes", "labels")
"""The parts of a tally that are counters."""


@dataclass(frozen=True)
class Source:
    """How records of one source are read."""

    layout: Layout
    expected: Expected
    """What is usual among its first rows."""
    forms: Sequence[str] = ()
    """How its files are written, in words."""


@dataclass(frozen=True)
class Checked:
    """What came of a record."""

    record: Record | Broken
    sample: Sample = NOTHING
    before: Sample = NOTHING
    """As it was read, before it was cleaned."""
    found: Sequence[Finding] = ()
    changes: Sequence[str] = ()
    reasons: Sequence[Finding] = ()
    """Why it leaves, if it does."""

    def as_rejected(self) -> dict[str, Any]:
        """Its line of rejected.jsonl."""
        values = {"text": self.record.text} if isinstance(self.record, Broken) else self.record.values
        return rejected_line(self.record.file, self.record.number, self.reasons, values)

    def as_changed(self) -> dict[str, Any]:
        """Its line of changed.jsonl."""
        both = {"before": as_json(self.before), "after": as_json(self.sample)}
        return {"file": self.record.file, "row": self.record.number, "changes": list(self.changes), **both}

    def as_row(self) -> dict[str, Any]:
        """Its line of a chunk's rows."""
        return {"file": self.record.file, "row": self.record.number, **as_json(self.sample)}


def check(record: Record | Broken, plan: Plan, source: Source) -> Checked:
    """A record as a sample, cleaned and checked."""
    if isinstance(record, Broken):
        return Checked(record, found=_to_show([record.finding], plan), reasons=[record.finding])
    sample, found = source.layout.sample(record)
    if sample is None:
        return Checked(record, found=_to_show(found, plan), reasons=found)
    clean, changes = cleaned(sample, plan.fix)
    if plan.mask_personal:
        plain, clean = clean, clean.with_texts(lambda text: masked(text, plan.region))
        changes = changes if clean == plain else [*changes, MASKED]
    found = [*found, *findings(clean, source.expected)]
    return Checked(record, clean, sample, found, changes, [one for one in found if leaves(one, plan)])


def _to_show(found: Sequence[Finding], plan: Plan) -> Sequence[Finding]:
    """What the card may say of a row that could not be read, and therefore not be masked: the findings quote it."""
    if not plan.mask_personal:
        return found
    return [replace(one, message="what is wrong stands in rejected.jsonl, as it quotes the row.") for one in found]


def checked_length(checked: Checked, tokens: int, plan: Plan) -> Checked:
    """The same with a finding where it has more tokens than are wanted, which says what would be cut."""
    if not plan.max_tokens or tokens <= plan.max_tokens:
        return checked
    more = tokens - plan.max_tokens
    message = f"it has {tokens:,} tokens, so {more:,} ({more / tokens:.0%}) would be cut at {plan.max_tokens:,}."
    advice = "Shorten it, raise --max-tokens, or leave it out with --drop too_long."
    finding = Finding("too_long", False, message, advice)
    reasons = [finding] if leaves(finding, plan) else []
    return replace(checked, found=[*checked.found, finding], reasons=reasons)


def leaves(finding: Finding, plan: Plan) -> bool:
    """Whether a row with this finding has to go."""
    return finding.check in plan.drop or (finding.is_fault and finding.check not in plan.keep)


def rejected_line(file: str, row: int, reasons: Sequence[Finding], values: Mapping[str, Any]) -> dict[str, Any]:
    """What rejected.jsonl says of a row."""
    told = [{"check": one.check, "message": one.message, "advice": one.advice} for one in reasons]
    return {"file": file, "row": row, "reasons": told, "values": values}


def add_example(examples: dict[str, list[dict[str, Any]]], file: str, row: int, finding: Finding) -> None:
    """Keeps a finding in a row, if it is among the first of its check."""
    shown = examples.setdefault(finding.check, [])
    if len(shown) < SHOWN:
        told = {"message": finding.message, "advice": finding.advice, "is_fault": finding.is_fault}
        shown.append({"file": file, "row": row, **told})


@dataclass
class Tally:
    """What was met in some rows; those of several chunks add up."""

    read: int = 0
    kept: int = 0
    changed_rows: int = 0
    weighted: int = 0
    """Rows that say how much a turn counts."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Rows by the first fault for which they left."""
    rejected_by: Counter[str] = field(default_factory=Counter)
    """Rows that left by each check that found something in them."""
    found: Counter[str] = field(default_factory=Counter)
    """Rows by each check that found something, whether they left or not."""
    changed: Counter[str] = field(default_factory=Counter)
    """Rows by each change."""
    shapes: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """The first findings of each check."""
    notes: list[dict[str, str]] = field(default_factory=list)
    """What was found of files, and not of single rows of them."""

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> "Tally":
        """The one that `as_json` gave."""
        values: dict[str, Any] = {name: Counter(value) if name in COUNTERS else value for name, value in given.items()}
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return dict(vars(self))

    def add(self, other: "Tally") -> None:
        """Adds what was met in other rows, which come after these."""
        for name in ("read", "kept", "changed_rows", "weighted"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in COUNTERS:
            getattr(self, name).update(getattr(other, name))
        for name, shown in other.examples.items():
            self.examples[name] = [*self.examples.get(name, []), *shown][:SHOWN]
        self.notes = [*self.notes, *other.notes][:MOST_NOTES]

    def note(self, one: Broken, plan: Plan) -> None:
        """Adds what was found of a file."""
        message = masked(one.message, plan.region) if plan.mask_personal else one.message
        self.notes.append({"file": one.file, "check": one.check, "message": message, "advice": one.advice})

    def count(self, one: Checked) -> None:
        """Adds what came of a record."""
        self.read += 1
        found = {finding.check: finding for finding in (*one.found, *one.reasons, *one.found)}  # as they may be shown
        self.found.update(found.keys())
        for finding in found.values():
            add_example(self.examples, one.record.file, one.record.number, finding)
        if one.reasons:
            self.rejected[one.reasons[0].check] += 1
            self.rejected_by.update(found.keys())
            return
        self.kept += 1
        self.changed_rows += bool(one.changes)
        self.changed.update(set(one.changes))
        self.weighted += any(turn.weight is not None for turn in one.sample.messages)
        self.shapes[shape_of(one.sample)] += 1
        if one.sample.label is not None and len(self.labels) <= MOST_LABELS:
            self.labels[one.sample.label] += 1
