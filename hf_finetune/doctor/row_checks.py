"""What is wrong inside single rows: placeholders, mis-decoded text, personal data, answers that break off."""

from collections.abc import Iterator

from hf_finetune.data.findings import expected_of, findings
from hf_finetune.data.samples import Finding, Message, Sample
from hf_finetune.data.splits import Example
from hf_finetune.doctor.line import Line, fault, warning
from hf_finetune.doctor.subject import Subject
from hf_finetune.errors import plural
from hf_finetune.prepare import Read

MOST = 20_000
"""Rows that are looked at one by one here."""
NAMED = 5
"""Row numbers that stand in a line."""


def single_rows(subject: Subject) -> Iterator[Line]:
    """A line for each thing that is wrong with rows: the numbers of the first ones, and what it is in the first."""
    if subject.read is None:
        return
    found: dict[tuple[str, bool], list[tuple[str, Finding]]] = {}
    for where, finding in each_finding(subject.read):
        found.setdefault((finding.check, finding.is_fault), []).append((where, finding))
    for (check, is_fault), own in found.items():
        numbers = ", ".join(where for where, _ in own[:NAMED]) + (", ..." if len(own) > NAMED else "")
        first = own[0][1]
        line = fault if is_fault else warning
        name = check.replace("mis_", "mis-").replace("_", " ")
        advice = f"{first.advice[:1].lower()}{first.advice[1:]}".rstrip(".")
        yield line(
            f"{name} in {plural(len(own), 'row')} ({numbers}): {first.message.rstrip('.')}",
            f"{advice} (hf-finetune prepare)" if "--" in advice else advice,
        )


def each_finding(read: Read) -> Iterator[tuple[str, Finding]]:
    """The row, by its number, and its file where there are several; and what was found in it."""
    step = max(1, len(read.records) // MOST)
    records, samples = read.records[::step], [_sample(example) for example in read.examples[::step]]
    several = len({record.file for record in records}) > 1
    expected = expected_of(samples[:1000])
    for record, sample in zip(records, samples, strict=True):
        where = f"{record.file}, row {record.number}" if several else str(record.number)
        yield from ((where, finding) for finding in findings(sample, expected))


def _sample(example: Example) -> Sample:
    """A row as the conversation that the recipe makes of it."""
    label = example.completion if example.is_closed else None
    return Sample((Message("user", example.prompt), Message("assistant", example.completion)), label=label)
