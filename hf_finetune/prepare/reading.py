"""A recipe and its source -> typed rows, each that is broken with what is wrong."""

import dataclasses
from functools import cached_property
from typing import Any

from hf_finetune.data.checks import Fault, faulty_rows, rows_and_faults
from hf_finetune.data.reading import Record, read_records
from hf_finetune.data.sources import Located, Source
from hf_finetune.data.splits import Example
from hf_finetune.errors import RecipeError
from hf_finetune.progress import Progress, tracked
from hf_finetune.recipe import Recipe
from hf_finetune.settings import Settings


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
        raise with_advice(faulty_rows(faults, len(records)), settings)
    return Read(located, [one for one, _, _ in kept], [row for _, row, _ in kept], [e for _, _, e in kept], faults)


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


def with_advice(error: RecipeError, settings: Settings) -> RecipeError:
    """The error on broken rows, and how to go on without them where that was not asked for."""
    advice = "\n  leave_out_faulty_rows=true goes on without them."
    return error if settings.leave_out_faulty_rows else RecipeError(f"{error}{advice}")
