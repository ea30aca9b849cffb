"""Rows that were read -> three splits, and what was found on the way (`splits/`, `data.json`)."""

import dataclasses
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_finetune.data.checks import Fault, columns_not_used, faults_in_words, faulty_rows
from hf_finetune.data.sources import Located, Source
from hf_finetune.data.splits import SPLITS, Example, keep_splits, split_examples
from hf_finetune.errors import RecipeError
from hf_finetune.files import sha256, write_json, write_jsonl
from hf_finetune.prepare.reading import Read, read_source, with_advice
from hf_finetune.progress import Progress, tracked
from hf_finetune.recipe import Recipe, marks_each_row, shares_choices
from hf_finetune.settings import Settings
from hf_finetune.testing import marks_the_gold_completion_full, scores_lie_in_0_to_1

NAMED = 100
"""Rows that were left out and are named in data.json."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Rows of the recipe's type by split, and the facts for data.json."""

    rows: Mapping[str, Sequence[Any]]
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


def _split(read: Read, settings: Settings) -> tuple[dict[str, list[int]], dict[str, int]]:
    """The rows' numbers by split: of the split that they came in, or else as the settings share them out."""
    similarity, seed = settings.near_duplicate_similarity, settings.seed
    if read.splits:
        return keep_splits(read.examples, read.splits, settings.validation_size, similarity, seed)
    shares = {"validation": settings.validation_size, "test": settings.test_size}
    return split_examples(read.examples, shares, similarity, seed)


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
        raise with_advice(faulty_rows(faults, len(kept) + len(faults)), settings)
    return sorted(kept), faults


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


def write_splits(prepared: Prepared, facts: Mapping[str, Any], folder: Path) -> None:
    """Leaves `splits/*.jsonl` and `data.json` in the run's folder."""
    for name in SPLITS:
        write_jsonl(folder / "splits" / f"{name}.jsonl", [dataclasses.asdict(row) for row in prepared.rows[name]])
    write_json(folder / "data.json", facts)


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
