"""What is wrong inside single rows: placeholders, mis-decoded text, personal data, answers that break off."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from hf_finetune.data.checks import rows_and_faults
from hf_finetune.data.findings import expected_of, findings
from hf_finetune.data.reading import read_records
from hf_finetune.data.samples import Finding, Message, Sample
from hf_finetune.data.sources import Source
from hf_finetune.doctor.line import Line, fault, warning
from hf_finetune.doctor.subject import Subject
from hf_finetune.errors import plural
from hf_finetune.recipe import Recipe

MOST = 20_000
"""Rows that are looked at one by one here."""
NAMED = 5
"""Row numbers that stand in a line."""


def single_rows(subject: Subject) -> Iterator[Line]:
    """A line for each thing that is wrong with rows: the numbers of the first ones, and what it is in the first."""
    recipe, source, prepared = subject.recipe, subject.source, subject.prepared
    if recipe is None or source is None or prepared is None:
        return
    found: dict[tuple[str, bool], list[tuple[str, Finding]]] = {}
    for where, finding in each_finding(recipe, source.at(prepared.facts["source"]["commit"])):
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


def each_finding(recipe: Recipe[Any], source: Source) -> Iterator[tuple[str, Finding]]:
    """The row, by its number, and its file where there are several; and what was found in it."""
    fields = [field.name for field in dataclasses.fields(recipe.row_type())]
    records = read_records(source.locate(), fields)
    rows, _ = rows_and_faults(records[:: max(1, len(records) // MOST)], recipe.row_type())
    samples = [sample_of(recipe, row) for _, row in rows]
    several = len({record.file for record, _ in rows}) > 1
    expected = expected_of(samples[:1000])
    for (record, _), sample in zip(rows, samples, strict=True):
        where = f"{record.file}, row {record.number}" if several else str(record.number)
        yield from ((where, finding) for finding in findings(sample, expected))


def sample_of(recipe: Recipe[Any], row: Any) -> Sample:
    """A row as the conversation that the recipe makes of it."""
    answer = recipe.completion(row)
    label = None if recipe.choices(row) is None else answer
    return Sample((Message("user", recipe.prompt(row)), Message("assistant", answer)), label=label)
