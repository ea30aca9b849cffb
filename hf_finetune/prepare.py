"""A recipe and its source -> typed rows in three splits, and what was found on the way (`splits/`, `data.json`)."""

import dataclasses
import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from hf_finetune.chat import ChatFormat
from hf_finetune.data.checks import faulty_rows, typed_rows
from hf_finetune.data.reading import Record, read_records
from hf_finetune.data.sources import Located, Source
from hf_finetune.data.splits import SPLITS, Example, split_examples
from hf_finetune.errors import RecipeError, plural
from hf_finetune.files import sha256, write_json, write_jsonl
from hf_finetune.progress import Progress
from hf_finetune.recipe import Recipe, shares_choices
from hf_finetune.settings import Settings
from hf_finetune.testing import marks_the_gold_completion_full, scores_lie_in_0_to_1
from hf_finetune.tokens import tokenize


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


def prepare(recipe: Recipe[Any], source: Source, settings: Settings, commit: str | None = None) -> Prepared:
    """The source's rows, checked, without duplicates, split; at a commit that a run read them at before, if given.

    Raises:
        RecipeError: an unreadable source; every broken row with its number; too few rows.
    """
    located, rows, examples = _read(recipe, source, commit)
    shares = {"validation": settings.validation_size, "test": settings.test_size}
    splits, dropped = split_examples(examples, shares, settings.near_duplicate_similarity, settings.seed)
    fewer = _some(splits["train"], settings)
    left_out, splits["train"] = len(splits["train"]) - len(fewer), fewer
    facts = {
        "source": _source_facts(source, located),
        "rows_read": len(rows),
        "exact_duplicates_dropped": dropped["exact_duplicates"],
        "contradictory_dropped": dropped["contradictory"],
        "near_duplicates": dropped["near_duplicates"],
        "near_duplicate_similarity": settings.near_duplicate_similarity,
        **_counts(recipe, rows, examples, splits),
    }
    if left_out:
        facts["train_rows_left_out"] = left_out
    _check_marks(recipe, [rows[i] for i in splits["test"]])
    return Prepared({name: [rows[i] for i in splits[name]] for name in SPLITS}, facts)


def prepare_unsplit(recipe: Recipe[Any], source: Source, commit: str | None = None) -> Prepared:
    """All rows of the source, checked, as the split `test`: rows that were kept apart from any training.

    Raises:
        RecipeError: an unreadable source; every broken row with its number.
    """
    located, rows, examples = _read(recipe, source, commit)
    _check_marks(recipe, rows)
    counts = _counts(recipe, rows, examples, {"test": list(range(len(rows)))})
    return Prepared({"test": rows}, {"source": _source_facts(source, located), "rows_read": len(rows)} | counts)


def _read(recipe: Recipe[Any], source: Source, commit: str | None) -> tuple[Located, list[Any], list[Example]]:
    located = source.at(commit).locate()
    fields = [field.name for field in dataclasses.fields(recipe.row_type())]
    records = read_records(located, fields)
    rows = typed_rows(records, recipe.row_type())
    return located, rows, _examples(recipe, records, rows)


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


def _some(numbers: list[int], settings: Settings) -> list[int]:
    """At most `max_train_rows` of the numbers, in their order; fewer ones are always among more."""
    drawn = random.Random(settings.seed).sample(numbers, len(numbers))
    kept = set(drawn[: settings.max_train_rows])
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
    )]  # fmt: skip
    left = {
        "exact duplicates": facts["exact_duplicates_dropped"],
        "with contradictory answers": facts["contradictory_dropped"],
        f"longer than {facts['max_length']} tokens": sum(facts["longer_than_max_length"].values())
        - facts["longer_than_max_length"]["test"],
    }
    if any(left.values()):
        lines.append("left out: " + ", ".join(f"{count:,} {why}" for why, count in left.items() if count))
    if facts["near_duplicates"]:
        lines.append(
            f"{facts['near_duplicates']:,} near-duplicates (token Jaccard >= "
            f"{facts['near_duplicate_similarity']:g}) kept on one side of the split"
        )
    return lines


def _check_marks(recipe: Recipe[Any], rows: Sequence[Any]) -> None:
    """Marks the gold answers as the evaluation will, so that a fault in score() is told before the training."""
    for check in (scores_lie_in_0_to_1, marks_the_gold_completion_full):
        try:
            check(recipe, rows)
        except RecipeError as error:
            raise RecipeError(f"recipe {recipe.name!r}: {error} Run hf-finetune check.") from error


def _examples(recipe: Recipe[Any], records: Sequence[Record], rows: Sequence[Any]) -> list[Example]:
    examples: list[Example] = []
    faults: list[tuple[Record, str]] = []
    for record, row in zip(records, rows, strict=True):
        choices = recipe.choices(row)
        completion = recipe.completion(row)
        if choices is not None and completion not in choices:
            faults.append((record, f"the answer {completion!r} is not one of {', '.join(choices)}."))
        if choices is not None and len({repr(recipe.parse(choice)) for choice in choices}) < len(choices):
            faults.append((record, f"the choices {', '.join(choices)} are not read as so many different answers."))
        if not completion.strip():
            faults.append((record, "the answer is empty."))
        examples.append(Example(recipe.prompt(row), completion, choices is not None, recipe.group(row)))
    if faults:
        raise faulty_rows(faults, len(records))
    return examples
