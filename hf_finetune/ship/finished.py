"""A run that is finished, read from its folder again with all that asking its model anew takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_finetune.chat import ChatFormat
from hf_finetune.errors import RecipeError, plural
from hf_finetune.files import read_jsonl, sha256, unreadable
from hf_finetune.model import BaseModel, find_base_model, load_tokenizer
from hf_finetune.recipe import ENTRY_POINT_GROUP, Recipe, load_recipe, recipe_file
from hf_finetune.report import Report
from hf_finetune.run import Run
from hf_finetune.settings import Settings
from hf_finetune.testing import read_rows


@dataclass(frozen=True)
class Finished:
    """A run with a training and a report."""

    folder: Path
    run: Run
    report: Report
    settings: Settings
    recipe: Recipe[Any]
    rows: Sequence[Any]
    """The test rows, in the order of `answers`."""
    answers: Sequence[dict[str, Any]]
    """The lines of answers.jsonl: each row's prompt, gold completion and answers."""

    @property
    def adapter(self) -> Path:
        """The folder of the adapter."""
        return self.folder / "adapter"

    @property
    def dtype(self) -> str:
        """What the run computed in."""
        return self.run.computing["dtype"]

    def base(self) -> BaseModel:
        """The base model that the run was trained on, at its commit."""
        commit, name = self.run.base_model["commit"], self.settings.model_name_or_path
        if commit is None and not Path(name).expanduser().is_dir():
            raise RecipeError(
                f"{self.folder}: its base model is the folder {name}, and there is no {Path(name).absolute()}. "
                + (
                    "Put it back there."
                    if Path(name).expanduser().is_absolute()
                    else "Start this command in the folder where the run was started."
                )
            )
        return find_base_model(self.settings, commit)

    def chat(self) -> ChatFormat:
        """How its questions are asked."""
        return ChatFormat.of(load_tokenizer(self.base()))


def read_finished(folder: Path, recipe: str | None = None) -> Finished:
    """The finished run in a folder; `recipe` is a file or a name, where it is not found where it was.

    Raises:
        RecipeError: when the folder holds none, or one that is not finished, or the recipe is another one now.
    """
    run = Run.read(folder)
    if run.evaluated:
        raise RecipeError(f"{folder}: holds the evaluation of {run.evaluated['name']}, and no training. Name a run.")
    if not run.finished or not (folder / "adapter").is_dir():
        raise RecipeError(f"{folder}: the run is not finished. Start its command again, so that it ends.")
    report, loaded = Report.read(folder), _recipe_of(run, folder, recipe)
    settings = Settings(**{name: setting["value"] for name, setting in run.settings.items()})
    rows = _read(folder / "splits" / "test.jsonl", lambda path: read_rows(loaded, path))
    answers = _read(folder / "answers.jsonl", read_jsonl)
    if len(rows) != len(answers):
        raise RecipeError(
            f"{folder}: has {plural(len(answers), 'answer')} to {plural(len(rows), 'test row')}. Remove answers.jsonl "
            f"and splits/test.jsonl there and start the run's command again."
        )
    return Finished(folder, run, report, settings, loaded, rows, answers)


def _read(path: Path, read: Callable[[Path], list[Any]]) -> list[Any]:
    try:
        if not path.exists():
            raise FileNotFoundError(path)
        return read(path)
    except (OSError, ValueError, RecipeError) as error:
        raise unreadable(path, error) from error


def _recipe_of(run: Run, folder: Path, named: str | None) -> Recipe[Any]:
    """The recipe that the run was made with."""
    path_or_name = named or _where_it_was(run)
    if path_or_name is None:
        raise RecipeError(f"{folder}: its recipe {run.recipe['loaded_from']} is not here. Name it with --recipe FILE.")
    recipe = load_recipe(path_or_name)
    if recipe.name != run.recipe["name"]:
        raise RecipeError(
            f"{folder}: was made with the recipe {run.recipe['name']!r}, and {path_or_name} is {recipe.name!r}. "
            f"Name the run's own with --recipe FILE."
        )
    if sha256(recipe_file(recipe)) != run.recipe["sha256"]:
        raise RecipeError(
            f"{folder}: its recipe {run.recipe['name']!r} has been changed since. Name it as it was with --recipe FILE."
        )
    return recipe


def _where_it_was(run: Run) -> str | None:
    """The installed name, or the file that the run's command named; None where that is gone."""
    if run.recipe["loaded_from"].startswith(f"{ENTRY_POINT_GROUP}:"):
        return str(run.recipe["name"])
    words = [word for word in run.command if Path(word).name == run.recipe["loaded_from"] and Path(word).is_file()]
    return next(iter(words), None)
