"""A recipe and its source -> typed rows in three splits, and what was found on the way (`splits/`, `data.json`)."""

import dataclasses
import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from hf_finetune.chat import ChatFormat
from hf_finetune.data.checks import Fault, columns_not_used, faults_in_words, faulty_rows, rows_and_faults
from hf_finetune.data.reading import Record, read_records
from hf_finetune.data.sources import Located, Source
from hf_finetune.data.splits import SPLITS, Example, keep_splits, split_examples
from hf_finetune.errors import SHOWN_FAULTS, RecipeError, plural
from hf_finetune.files import sha256, write_json, write_jsonl
from hf_finetune.progress import Progress, tracked
from hf_finetune.recipe import Recipe, marks_each_row, shares_choices
from hf_finetune.settings import Settings
from hf_finetune.testing import marks_the_gold_completion_full, scores_lie_in_0_to_1
from hf_finetune.tokens import tokenize

NAMED = 100
"""Rows that were left out and are named in data.json."""


@dataclasses.dataclass(frozen=True)
class Read:
    """What a source holds: its records, and of each the row and what splitting needs of it; and those left out."""

    located: Located
    records: list[Record]
    rows: list[Any]
    examples: list[Example]
    faults: list[Fault]

    @cached_property
    def splits(self) -> list[str]:
        """The split that each row came in; none where the files are not those of a training and a test split.

        Raises:
            RecipeError: naming the file that is of neither, where others are; a split of which no row can be used.
        """
        if not self.located.comes_split:
            return []
        for path, name in self.located.file_names.items():
            if path not in self.located.splits:
                raise RecipeError(
                    f"{self.located.name}: {name} is of no split, and other files are: their names have train, "
                    f"validation or test in them. Rename it, or name the file to read."
                )
        splits = [record.split for record in self.records if record.split]
        if unused := set(self.located.splits.values()) - set(splits):
            raise RecipeError(f"{self.located.name}: no row of the {min(unused)} files can be used. Mend them.")
        return splits


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Rows of the recipe's type by split, and the facts for data.json."""

    rows: Mapping[str, Sequence[Any]]
    facts: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Encoded:
    """`input_ids` and `labels` of the rows that are trained on and validated with, and the facts for data.json."""

    train: list[dict[str, list[int]]]
    validation: list[dict[str, list[int]]]
    train_lines: list[int]
    """The line of splits/train.jsonl that each training row stands in."""
    facts: dict[str, Any]


def prepare(
    recipe: Recipe[Any], source: Source, settings: Settings, commit: str | None = None, progress: Progress | None = None
) -> Prepared:
    """The source's rows, checked, without duplicates, split; at a commit that a run read them at before, if given.

    Raises:
        RecipeError: an unreadable source; every broken row with its number; too few rows.
    """
    return prepare_read(recipe, source, settings, read_source(recipe, source, settings, commit, progress), progress)


def prepare_read(
    recipe: Recipe[Any], source: Source, settings: Settings, read: Read, progress: Progress | None = None
) -> Prepared:
    """The rows that were read of the source, without duplicates, split.

    Raises:
        RecipeError: too few rows; every test row to which no answer can be marked.
    """
    splits, dropped = _split(read, settings)
    whole = {name: len(splits[name]) for name in SPLITS}
    splits["train"] = _some(splits["train"], settings.max_train_rows, settings.seed)
    facts = {
        "source": _source_facts(source, read.located),
        "rows_read": len(read.rows) + len(read.faults),
        "exact_duplicates_dropped": dropped["exact_duplicates"],
        "contradictory_dropped": dropped["contradictory"],
        "near_duplicates": dropped["near_duplicates"],
        "near_duplicate_similarity": settings.near_duplicate_similarity,
    }
    if read.splits:
        facts |= {"splits_given": True, "near_other_splits_dropped": dropped["near_other_splits"]}
        facts |= {"train_rows_of_test_groups": dropped["train_rows_of_test_groups"]}
    splits["test"], unmarkable = _markable(recipe, read, splits["test"], settings, progress)
    for name, others in (("train", 0), ("test", len(unmarkable))):
        if len(splits[name]) + others < whole[name]:
            facts[f"{name}_rows_left_out"] = whole[name] - others - len(splits[name])
    facts |= _counts(recipe, read.rows, read.examples, splits) | _oddities(recipe, read, unmarkable)
    return _checked(recipe, {name: [read.rows[i] for i in splits[name]] for name in SPLITS}, facts)


def prepare_unsplit(
    recipe: Recipe[Any], source: Source, settings: Settings, commit: str | None = None, progress: Progress | None = None
) -> Prepared:
    """All rows of the source, checked, as the split `test`: rows that were kept apart from any training.

    Raises:
        RecipeError: an unreadable source; every broken row with its number.
    """
    read = read_source(recipe, source, settings, commit, progress)
    if read.splits:
        raise RecipeError(
            f"{read.located.name}: --all-rows asks all rows, and training rows are among these. Name the file of the "
            f"test rows with --data."
        )
    test, unmarkable = _markable(recipe, read, list(range(len(read.rows))), settings, progress)
    facts = {"source": _source_facts(source, read.located), "rows_read": len(read.rows) + len(read.faults)}
    facts |= _counts(recipe, read.rows, read.examples, {"test": test}) | _oddities(recipe, read, unmarkable)
    return _checked(recipe, {"test": [read.rows[i] for i in test]}, facts)


def read_source(
    recipe: Recipe[Any], source: Source, settings: Settings, commit: str | None = None, progress: Progress | None = None
) -> Read:
    """The source's rows, checked one by one; at a commit that a run read them at before, if given.

    Raises:
        RecipeError: an unreadable source; every broken row with its number.
    """
    located = source.at(commit).locate()
    fields = [field.name for field in dataclasses.fields(recipe.row_type())]
    records = read_records(located, fields)
    typed, faults = rows_and_faults(records, recipe.row_type())
    kept: list[tuple[Record, Any, Example]] = []
    for record, row in tracked(typed, progress, "read", "rows"):
        try:
            kept.append((record, row, _example(recipe, row)))
        except RecipeError as error:
            faults.append((record, str(error)))
    faults.sort(key=lambda fault: (fault[0].file, fault[0].number))
    if faults and (not settings.leave_out_faulty_rows or not kept):
        raise _with_advice(faulty_rows(faults, len(records)), settings)
    return Read(located, [one for one, _, _ in kept], [row for _, row, _ in kept], [e for _, _, e in kept], faults)


def _split(read: Read, settings: Settings) -> tuple[dict[str, list[int]], dict[str, int]]:
    """The rows' numbers by split: of the split that they came in, or else as the settings share them out."""
    similarity, seed = settings.near_duplicate_similarity, settings.seed
    if read.splits:
        return keep_splits(read.examples, read.splits, settings.validation_size, similarity, seed)
    shares = {"validation": settings.validation_size, "test": settings.test_size}
    return split_examples(read.examples, shares, similarity, seed)


def _example(recipe: Recipe[Any], row: Any) -> Example:
    """What splitting needs to know of a row.

    Raises:
        RecipeError: when the recipe cannot make a question and an answer of it.
    """
    choices, completion = recipe.choices(row), recipe.completion(row)
    faults = []
    if choices is not None and completion not in choices:
        faults.append(f"the answer {completion!r} is not one of {', '.join(choices)}.")
    if choices is not None and len({repr(recipe.parse(choice)) for choice in choices}) < len(choices):
        faults.append(f"the choices {', '.join(choices)} are not read as so many different answers.")
    if not completion.strip():
        faults.append("the answer is empty.")
    if faults:
        raise RecipeError(" ".join(faults))
    return Example(recipe.prompt(row), completion, choices is not None, recipe.group(row))


def _markable(
    recipe: Recipe[Any], read: Read, test: list[int], settings: Settings, progress: Progress | None
) -> tuple[list[int], list[Fault]]:
    """At most `max_test_rows` test rows to which answers can be marked, and the others that were met on the way."""
    most = settings.max_test_rows or len(test)
    if not marks_each_row(recipe):
        return _some(test, most, settings.seed), []
    kept: list[int] = []
    faults: list[Fault] = []
    order = random.Random(settings.seed).sample(test, len(test)) if most < len(test) else test
    for number in tracked(order, progress, "mark gold answers", "rows"):
        row = read.rows[number]
        if len(kept) == most:
            continue
        try:
            recipe.mark(row, recipe.parse(recipe.completion(row)))
            kept.append(number)
        except RecipeError as error:
            faults.append((read.records[number], str(error)))
    if faults and (not settings.leave_out_faulty_rows or not kept):
        raise _with_advice(faulty_rows(faults, len(kept) + len(faults)), settings)
    return sorted(kept), faults


def _with_advice(error: RecipeError, settings: Settings) -> RecipeError:
    """The error on broken rows, and how to go on without them where that was not asked for."""
    advice = "\n  leave_out_faulty_rows=true goes on without them."
    return error if settings.leave_out_faulty_rows else RecipeError(f"{error}{advice}")


def _oddities(recipe: Recipe[Any], read: Read, unmarkable: Sequence[Fault]) -> dict[str, Any]:
    """What is to be told of rows that were left out, and of all the others; nothing where there is nothing."""
    found = {
        "faulty": {"rows": len(read.faults), "first": faults_in_words(read.faults[:NAMED])},
        "unmarkable": {"rows": len(unmarkable), "first": faults_in_words(unmarkable[:NAMED])},
    }
    remarks = list(recipe.remarks(read.rows))
    unused = columns_not_used(read.records, recipe.row_type())
    meant = {column: field for column, field in unused.items() if field}
    return (
        {name: own for name, own in found.items() if own["rows"]}
        | ({"remarks": remarks} if remarks else {})
        | ({"columns_not_used": list(unused)} if unused else {})
        | ({"columns_meant": meant} if meant else {})
    )


def _source_facts(source: Source, located: Located) -> dict[str, Any]:
    return {
        "name": located.name,
        "is_on_hub": located.commit is not None,
        "revision": getattr(source, "revision", located.revision),
        "commit": located.commit,
        "files": {name: sha256(path) for path, name in located.file_names.items()},
    }


def _counts(
    recipe: Recipe[Any], rows: Sequence[Any], examples: Sequence[Example], splits: Mapping[str, Sequence[int]]
) -> dict[str, Any]:
    """The rows of each split and, where all rows share their choices, the answers."""
    answers = {name: Counter(examples[i].completion for i in own) for name, own in splits.items()}
    return {
        "rows": {name: len(own) for name, own in splits.items()},
        "answers": {name: dict(sorted(own.items())) for name, own in answers.items() if shares_choices(recipe, rows)},
    }


def _some(numbers: list[int], most: int | None, seed: int) -> list[int]:
    """At most so many of the numbers, in their order; fewer ones are always among more."""
    drawn = random.Random(seed).sample(numbers, len(numbers))
    kept = set(drawn[:most])
    return [number for number in numbers if number in kept]


def encode(
    recipe: Recipe[Any], prepared: Prepared, chat: ChatFormat, settings: Settings, progress: Progress | None = None
) -> Encoded:
    """The rows to train on and to validate with as tokens, less those longer than `settings.max_length` tokens.

    Raises:
        RecipeError: when no row of a split is short enough.
    """
    rows = [row for name in SPLITS for row in prepared.rows[name]]
    texts = [(recipe.prompt(row), recipe.completion(row)) for row in rows]
    given = iter(tokenize(chat, texts, settings.keep_tokens, progress))
    max_length = settings.max_length
    examples = {name: list(islice(given, len(prepared.rows[name]))) for name in SPLITS}
    lengths = {name: [len(example["input_ids"]) for example in examples[name]] for name in SPLITS}
    fitting = {name: [e for e in examples[name] if len(e["input_ids"]) <= max_length] for name in SPLITS}
    for name in ("train", "validation"):
        if not fitting[name]:
            raise RecipeError(
                f"data: all {plural(len(lengths[name]), 'row')} of the {name} split are longer than "
                f"max_length={max_length} tokens (the shortest has {min(lengths[name])}). "
                f"Raise it: max_length={max(lengths[name])}."
            )
    facts = {
        "tokens": {
            name: {
                "median": int(median(lengths[name])),
                "longest": max(lengths[name]),
                "sum": sum(lengths[name]),
                "sha256": hashlib.sha256(json.dumps(examples[name]).encode()).hexdigest(),
            }
            for name in SPLITS
        },
        "max_length": max_length,
        "rows_trained_on": len(fitting["train"]),
        "longer_than_max_length": {name: len(examples[name]) - len(fitting[name]) for name in SPLITS},
    }
    train_lines = [line for line, length in enumerate(lengths["train"], 1) if length <= max_length]
    return Encoded(fitting["train"], fitting["validation"], train_lines, facts)


def write_splits(prepared: Prepared, facts: Mapping[str, Any], folder: Path) -> None:
    """Leaves `splits/*.jsonl` and `data.json` in the run's folder."""
    for name in SPLITS:
        write_jsonl(folder / "splits" / f"{name}.jsonl", [dataclasses.asdict(row) for row in prepared.rows[name]])
    write_json(folder / "data.json", facts)


def in_words(facts: Mapping[str, Any]) -> list[str]:
    """What data.json says, in lines for the screen: how many rows, which left and why."""
    rows = facts["rows"]
    lines = [f"{plural(facts['rows_read'], 'row')} from {facts['source']['name']}: " + ", ".join(
        f"{rows[name]:,} {name}" for name in SPLITS
    ) + (", as its files are named" if "splits_given" in facts else "")]  # fmt: skip
    left = {
        "exact duplicates": facts["exact_duplicates_dropped"],
        "with contradictory answers": facts["contradictory_dropped"],
        "near-duplicates of rows in another split": facts.get("near_other_splits_dropped", 0),
        f"longer than {facts['max_length']} tokens": sum(facts["longer_than_max_length"].values())
        - facts["longer_than_max_length"]["test"],
    }
    if any(left.values()):
        lines.append("left out: " + ", ".join(f"{count:,} {why}" for why, count in left.items() if count))
    lines += oddities_in_words(facts)
    if facts.get("train_rows_of_test_groups"):
        shared = plural(facts["train_rows_of_test_groups"], "training row")
        lines.append(f"test rows share their group with {shared}")
    if facts["near_duplicates"]:
        lines.append(
            f"{facts['near_duplicates']:,} near-duplicates (token Jaccard >= "
            f"{facts['near_duplicate_similarity']:g}) kept on one side of the split"
        )
    return lines


def oddities_in_words(facts: Mapping[str, Any]) -> list[str]:
    """Which rows were left out as they are broken or cannot be marked, and the recipe's remarks."""
    meant = {column: f" (did you mean {field}?)" for column, field in facts.get("columns_meant", {}).items()}
    unused = [f"{column}{meant.get(column, '')}" for column in facts.get("columns_not_used", ())]
    lines = [f"columns not used: {', '.join(unused)}"] if unused else []
    for name, what in (("faulty", "left out as they are broken"), ("unmarkable", "left out of the test split")):
        if name in facts:
            lines += [f"{plural(facts[name]['rows'], 'row')} {what}:", *(f"  {one}" for one in _first(facts[name]))]
    return [*lines, *facts.get("remarks", ())]


def notes_on_rows(facts: Mapping[str, Any]) -> list[str]:
    """What a reader of the report must know of rows that are not in it."""
    broken, unmarkable = (facts[name]["rows"] if name in facts else 0 for name in ("faulty", "unmarkable"))
    told = [f"{plural(broken, 'row')} that are broken"] if broken else []
    told += [f"{plural(unmarkable, 'test row')} to which no answer can be marked"] if unmarkable else []
    return [f"Left out: {' and '.join(told)}; data.json names them."] if told else []


def _first(faults: Mapping[str, Any]) -> list[str]:
    """The first faults, and how many more there are."""
    shown = faults["first"][:SHOWN_FAULTS]
    more = faults["rows"] - len(shown)
    return [*shown, *([f"(and {more:,} more; see data.json)"] if more else [])]


def _checked(recipe: Recipe[Any], rows: Mapping[str, Sequence[Any]], facts: dict[str, Any]) -> Prepared:
    """The rows, after marking the gold answers as the evaluation will: a fault in score() is told before the training.

    Raises:
        RecipeError: when the gold answers do not get full marks.
    """
    for check in (scores_lie_in_0_to_1, marks_the_gold_completion_full):
        try:
            check(recipe, rows["test"])
        except RecipeError as error:
            raise RecipeError(f"recipe {recipe.name!r}: {error} Run hf-finetune check.") from error
    return Prepared(rows, facts)
