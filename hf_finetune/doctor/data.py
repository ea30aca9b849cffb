"""The rows: whether they can be read and learnt from, split by split."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hf_finetune.data.checks import alike_in_words
from hf_finetune.data.sources import HubDataset
from hf_finetune.data.splits import SPLITS, tokens, varying_parts
from hf_finetune.doctor.downloads import missing_bytes
from hf_finetune.doctor.line import Line, fault, ok, warning
from hf_finetune.doctor.subject import Subject
from hf_finetune.errors import SHOWN_FAULTS, plural
from hf_finetune.licences import read_license
from hf_finetune.prepare import prepare_read, read_source
from hf_finetune.resolve import find_card, resolve_commit
from hf_finetune.scoring import check_evaluation

SMALL_BYTES = 64 * 2**20
"""Data sets up to here are downloaded without being asked."""
MARKED = 100
"""Test rows whose gold answers are marked: those of a query take milliseconds each."""
EVALUATED = 30
"""Test rows that an evaluation is made of here, as if models had answered them right."""
ONE_SIDED = 0.9
"""The share of one answer from which a model may learn to give nothing else."""
FEW_OF_A_CLASS = 10
OFTEN = 0.5


def rows(subject: Subject) -> Iterator[Line]:
    """The rows in their splits; each that is broken, and each column that is not used."""
    if subject.recipe is None or subject.source is None:
        return
    large = bytes_to_fetch(subject.source) if not subject.may_download else 0
    if large > SMALL_BYTES:
        yield warning(f"the data set has {large / 2**20:,.0f} MiB, which are not downloaded to look", "--download")
        return
    values, most = subject.settings, min(subject.settings.max_test_rows or MARKED, MARKED)
    lenient = values.model_copy(update={"leave_out_faulty_rows": True, "max_test_rows": most})
    subject.read = read_source(subject.recipe, subject.source, lenient)
    broken = alike_in_words(subject.read.faults)
    yield from _faulty(broken, len(broken), "more fault", "in other rows", values.leave_out_faulty_rows)
    subject.prepared = prepare_read(subject.recipe, subject.source, lenient, subject.read)
    facts = subject.prepared.facts
    subject.num_train_rows = facts["rows"]["train"]
    whole = whole_splits(facts)
    counts = ", ".join(f"{whole[name]:,} {name}" for name in SPLITS)
    yield ok(f"{plural(facts['rows_read'], 'row')} from {facts['source']['name']}: {counts}")
    unmarkable = facts.get("unmarkable", {"first": [], "rows": 0})
    how = "of the test split cannot be marked"
    yield from _faulty(unmarkable["first"], unmarkable["rows"], "more row", how, values.leave_out_faulty_rows)


def columns(subject: Subject) -> Iterator[Line]:
    """Columns that no field takes, above all those that may be misspelt."""
    facts = subject.prepared.facts if subject.prepared else {}
    meant = facts.get("columns_meant", {})
    for column, field in meant.items():
        yield warning(f"the column {column!r} is not used, and {field!r} has none", f"rename {column!r} to {field!r}")
    rest = [column for column in facts.get("columns_not_used", ()) if column not in meant]
    if rest:
        yield ok(f"columns that are not used: {', '.join(rest)}")


def shares(subject: Subject) -> Iterator[Line]:
    """Sizes of splits that were asked for, where the data come split."""
    if subject.read is None or not subject.read.splits:
        return
    for name in ("test_size", "validation_size"):
        if subject.is_asked(name) and name.removesuffix("_size") in subject.read.splits:
            yield warning(f"{name} has no effect: the files are named after their splits", f"leave {name} out")


def duplicates(subject: Subject) -> Iterator[Line]:
    """Rows that stand there twice, with one answer or with two."""
    facts = subject.prepared.facts if subject.prepared else {}
    twice, contradictory = facts.get("exact_duplicates_dropped", 0), facts.get("contradictory_dropped", 0)
    if contradictory:
        yield warning(
            f"{plural(contradictory, 'row')} ask the same and answer otherwise: all of them are left out",
            "keep the right one of each, and take the others out",
        )
    if twice:
        yield warning(
            f"{plural(twice, 'row')} with the question and the answer of an earlier one: left out",
            "nothing, or take them out of the file",
        )
    if near_others := facts.get("near_other_splits_dropped"):
        yield warning(
            f"{plural(near_others, 'row')} are nearly the same as rows of the test or validation files: left out",
            "nothing, or take them out of the files",
        )
    if facts.get("near_duplicates"):
        yield ok(f"{plural(facts['near_duplicates'], 'near-duplicate')} kept on one side of the split")


def balance(subject: Subject) -> Iterator[Line]:
    """How often each of the answers comes, in each split."""
    if subject.prepared is None or subject.recipe is None or not subject.prepared.facts["answers"]:
        return
    answers, first = subject.prepared.facts["answers"], subject.prepared.rows["train"][0]
    choices = subject.recipe.choices(first) or ()
    for split in SPLITS:
        missing = [label for label in choices if label not in answers[split]]
        if missing:
            yield warning(f"no row of the {split} split is {', '.join(missing)}", "give more rows of it")
    train: Mapping[str, int] = answers["train"]
    total, most = sum(train.values()), max(train, key=lambda label: train[label])
    if train[most] > ONE_SIDED * total:
        yield warning(
            f"{train[most] / total:.0%} of the training rows are {most!r}: always saying so does as well",
            "give more rows of the others",
        )
    else:
        yield ok("training rows: " + ", ".join(f"{count} {label}" for label, count in train.items()))
    for label, count in train.items():
        if count < FEW_OF_A_CLASS:
            yield warning(f"{plural(count, 'training row')} of {label!r}: too few to learn it", "give more rows of it")


def leakage(subject: Subject) -> Iterator[Line]:
    """Whether questions hold their own answers."""
    if subject.prepared is None or subject.recipe is None:
        return
    recipe, some = subject.recipe, subject.prepared.rows["train"][:1000]
    asked = varying_parts([recipe.prompt(row) for row in some])
    named = sum(
        _names(text, recipe.completion(row), recipe.choices(row)) for row, text in zip(some, asked, strict=True)
    )
    if named > OFTEN * len(some):
        yield warning(
            f"the answer stands in its own question in {named:,} of {plural(len(some), 'training row')}: "
            f"the model may learn to copy it",
            "take it out of the rows, or out of prompt()",
        )


def measured(subject: Subject) -> Iterator[Line]:
    """Whether the evaluation can be made as asked: gates, baseline, samples."""
    if subject.recipe is not None and subject.prepared is not None:
        few = {"test": subject.prepared.rows["test"][:EVALUATED]}
        check_evaluation(subject.recipe, {**subject.prepared.rows, **few}, subject.settings)
    gates = subject.settings.gates
    if gates:
        yield ok("gates: " + ", ".join(f"{name} {value:g}" for name, value in gates.items()))


def data_licence(subject: Subject) -> Iterator[Line]:
    """The licence on the data set's card, which the adapter's is held against with that of the base."""
    source = subject.prepared.facts["source"] if subject.prepared else {}
    if source.get("is_on_hub"):
        card = find_card(source["name"], source["commit"], "data set")
        subject.data_license = {"name": source["name"]} | read_license(card)
        if subject.data_license["license"]:
            yield ok(f"its licence is {subject.data_license['license']}")


def whole_splits(facts: Mapping[str, Any]) -> dict[str, int]:
    """The rows of each split of a run; here no more than `MARKED` rows of the test split are marked and kept."""
    own: dict[str, int] = facts["rows"]
    return own | {"test": own["test"] + facts.get("test_rows_left_out", 0)}


def bytes_to_fetch(source: Any) -> int:
    """How much a source has to download; 0 for files that are here, and where the Hub does not tell."""
    import httpx2
    from huggingface_hub import constants

    if not isinstance(source, HubDataset) or constants.HF_HUB_OFFLINE:
        return 0
    commit = resolve_commit(source.id, source.revision, "data set")
    try:
        names = source.file_names(commit)
    except (httpx2.HTTPError, OSError):
        return 0
    return missing_bytes(source.id, commit, names, "dataset") or 0


def _faulty(told: Sequence[str], count: int, more: str, how: str, are_left_out: bool) -> Iterator[Line]:
    """A line for each fault in rows, as many as fit, and one for the others of so many."""
    line = warning if are_left_out else fault
    advice = "mend the row" if are_left_out else "mend the row; leave_out_faulty_rows=true goes on without it"
    first = told[:SHOWN_FAULTS]
    yield from (line(own.rstrip("."), advice) for own in first)
    if count > len(first):
        yield line(f"{plural(count - len(first), more)} {how}", "prepare the rows: see the others")


def _names(text: str, answer: str, choices: Sequence[str] | None) -> bool:
    """Whether a question holds its answer: as a word, and no other choice; or the whole of an open one."""
    if choices is None:
        return len(answer) > 3 and answer.strip() in text
    words = tokens(text)
    return tokens(answer) <= words and not any(tokens(other) <= words for other in choices if other != answer)
