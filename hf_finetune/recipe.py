"""The contract of a recipe, and how recipes are found: by a path, or by the name an installed package registered."""

import dataclasses
import importlib.util
import inspect
import sys
import types
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, get_args

from hf_finetune.data.sources import Source
from hf_finetune.errors import RecipeError, nearest

ENTRY_POINT_GROUP = "hf_finetune.recipes"

Row = TypeVar("Row")
RecipeClass = TypeVar("RecipeClass", bound="type[Recipe[Any]]")


class Recipe(ABC, Generic[Row]):
    """One task: where its rows come from, how a row is asked and answered, how answers are marked.

    It has no model, no device and no state. `Row` is a frozen dataclass: `class MyTask(Recipe[MyRow])`.
    The docstring says what the task is, where its data are from and what its limits are; it opens the model card.
    """

    name: ClassVar[str] = ""
    """Set by `@register`."""
    base_model: ClassVar[str]
    """The Hub id of the model that is fine-tuned."""
    base_model_revision: ClassVar[str] = "main"
    """Its branch, tag or commit; `hf-finetune pin` writes the commit here."""
    dataset: ClassVar[Source]
    license: ClassVar[str]
    """The adapter's licence, as the Hub spells it; the data's licence binds it."""
    language: ClassVar[str] = "en"
    primary_metric: ClassVar[str]
    """A key of `score()`; higher is better."""
    hyperparameters: ClassVar[Mapping[str, Any]] = {}
    """What differs from the defaults, in TRL's own names."""
    gates: ClassVar[Mapping[str, float]] = {}
    """What a run must reach, such as `{"macro_f1": 0.80, "gain": 0.02, "forgetting": 0.05}`."""

    @abstractmethod
    def prompt(self, row: Row) -> str:
        """The user's message; it must not contain the answer."""

    @abstractmethod
    def completion(self, row: Row) -> str:
        """The assistant's message: what the loss is taken over."""

    @abstractmethod
    def parse(self, text: str) -> Any | None:
        """What an answer says, or None when it cannot be read; never raises."""

    def mark(self, row: Row, prediction: Any) -> dict[str, float]:
        """One row's marks in 0-1, the primary metric among them; another that does not apply to the row is left out.

        A prediction of None is an answer that could not be read.

        Either this is defined, and the metrics are the means of the marks, or `score()` itself.

        Raises:
            RecipeError: when no answer to this row can be marked, as its gold answer fails: it is no test row then.
        """
        raise NotImplementedError

    def score(self, rows: Sequence[Row], predictions: Sequence[Any]) -> dict[str, float]:
        """Metrics in 0-1 for one parsed answer a row; None is an answer that could not be read."""
        return mean_marks([self.mark(row, prediction) for row, prediction in zip(rows, predictions, strict=True)])

    def choices(self, row: Row) -> Sequence[str] | None:
        """The closed set of answers, then scored by likelihood, with probabilities; None: open answers."""
        return None

    def correct(self, row: Row, prediction: Any) -> bool:
        """Whether an answer is right."""
        if marks_each_row(self):
            return as_marks(self.mark(row, prediction), "mark()").get(self.primary_metric) == 1.0
        return prediction is not None and bool(prediction == self.parse(self.completion(row)))

    def group(self, row: Row) -> Hashable | None:
        """What must stay on one side of the split: rows of one company, or of one query template."""
        return None

    def remarks(self, rows: Sequence[Row]) -> Sequence[str]:
        """What a reader should know of the rows, a sentence each, such as figures that cannot be: shown and kept."""
        return ()

    @classmethod
    def row_type(cls) -> type[Any]:
        """The dataclass named in `Recipe[...]`."""
        for base in (base for ancestor in cls.__mro__ for base in getattr(ancestor, "__orig_bases__", ())):
            arguments = get_args(base)
            if arguments and isinstance(arguments[0], type):
                if not dataclasses.is_dataclass(arguments[0]):
                    raise RecipeError(
                        f"{arguments[0].__name__} is no frozen dataclass. Put @dataclass(frozen=True) above it."
                    )
                return arguments[0]
        raise RecipeError(f"{cls.__name__}: its row type is not named. Write class {cls.__name__}(Recipe[YourRow]).")


def marks_each_row(recipe: Recipe[Any]) -> bool:
    """Whether the metrics are the means of the rows' own marks."""
    return type(recipe).score is Recipe.score


def as_marks(given: Any, whence: str) -> dict[str, float]:
    """What mark() or score() gave.

    Raises:
        RecipeError: when it is no dict of numbers.
    """
    if not isinstance(given, Mapping) or not all(isinstance(mark, int | float) for mark in given.values()):
        raise RecipeError(f"{whence} gives {given!r}. Give back a dict of numbers, such as {{'accuracy': 1.0}}.")
    return dict(given)


def mean_marks(marks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each mark over the rows that have it."""
    names = dict.fromkeys(name for own in marks for name in own)
    found = {name: [own[name] for own in marks if name in own] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}


def shares_choices(recipe: Recipe[Any], rows: Sequence[Any]) -> bool:
    """Whether all rows have the same closed set of answers, so that answers can be counted and compared over rows."""
    sets = {None if choices is None else tuple(choices) for choices in map(recipe.choices, rows)}
    return len(sets) == 1 and None not in sets


def register(name: str) -> Callable[[RecipeClass], RecipeClass]:
    """A class decorator that gives a recipe the name it is run by."""

    def with_name(recipe_class: RecipeClass) -> RecipeClass:
        recipe_class.name = name
        return recipe_class

    return with_name


def installed_recipes() -> dict[str, list[EntryPoint]]:
    """The recipes of all installed packages by name, read from metadata alone: nothing is imported.

    A name has several entries when several packages claim it; `installed_recipe` then refuses it.
    """
    found: dict[str, dict[str, EntryPoint]] = {}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        found.setdefault(entry.name, {}).setdefault(owner(entry), entry)
    return {name: list(found[name].values()) for name in sorted(found)}


def installed_recipe(name: str) -> EntryPoint:
    """The one installed recipe of that name.

    Raises:
        RecipeError: when there is none (with the nearest name), or two packages claim it.
    """
    recipes = installed_recipes()
    if name not in recipes:
        raise RecipeError(f"recipe {name!r}: is not installed. {nearest(name, recipes)} A file is named by its path.")
    if len(recipes[name]) > 1:
        raise RecipeError(
            f"recipe {name!r}: is registered by several packages, {' and '.join(map(owner, recipes[name]))}. "
            f"Uninstall one, or run a recipe by its file's path."
        )
    return recipes[name][0]


def load_recipe(path_or_name: str) -> Recipe[Any]:
    """The recipe of a file (anything that ends in `.py` or holds a `/`), or the installed one of that name.

    Raises:
        RecipeError: when there is none, or a file registers none or several. A fault inside a recipe's own code
            keeps its exception.
    """
    recipe_class = _from_file(path_or_name) if is_path(path_or_name) else _from_entry_point(path_or_name)
    abstract = sorted(getattr(recipe_class, "__abstractmethods__", ()))
    wanted = ("base_model", "dataset", "license", "primary_metric")
    missing = [*abstract, *(name for name in wanted if not hasattr(recipe_class, name))]
    if recipe_class.score is Recipe.score and recipe_class.mark is Recipe.mark:
        missing.append("mark (or score)")
    if missing:
        raise RecipeError(f"{path_or_name}: {recipe_class.__name__} does not define {', '.join(missing)}. Add them.")
    return recipe_class()


def is_path(path_or_name: str) -> bool:
    """Whether a recipe was named by its file: an explicit path always wins over an installed name."""
    return path_or_name.endswith(".py") or "/" in path_or_name


def recipe_file(recipe: Recipe[Any]) -> Path:
    """The source file of a recipe."""
    return Path(inspect.getfile(type(recipe)))


def _from_file(path: str) -> type[Recipe[Any]]:
    file = Path(path)
    if not file.is_file():
        siblings = [str(other) for other in file.parent.glob("*.py")] if file.parent.is_dir() else []
        hint = nearest(path, siblings) if siblings else "Check its path."
        raise RecipeError(f"{path}: there is no such recipe file. {hint}")
    # Two files of one name must not take each other's place in sys.modules, where dataclasses look their module up.
    name = f"hf_finetune_recipe_{file.stem}_{zlib.crc32(bytes(file.resolve())):08x}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise RecipeError(f"{path}: is not a Python file. A recipe's file name ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return _registered(module, path)


def _registered(module: types.ModuleType, path: str) -> type[Recipe[Any]]:
    found = [
        value
        for value in dict.fromkeys(v for v in vars(module).values() if isinstance(v, type))
        if issubclass(value, Recipe) and value.__module__ == module.__name__ and "name" in vars(value)
    ]
    if len(found) != 1:
        names = ", ".join(recipe.name for recipe in found) or "none"
        raise RecipeError(f"{path}: must register one recipe class with @register('NAME'); it registers {names}.")
    return found[0]


def _from_entry_point(name: str) -> type[Recipe[Any]]:
    entry = installed_recipe(name)
    loaded = entry.load()
    if not (isinstance(loaded, type) and issubclass(loaded, Recipe)):
        raise RecipeError(f"recipe {name!r}: {entry.value} of {owner(entry)} is not a Recipe class.")
    if loaded.name != name:
        raise RecipeError(
            f"recipe {name!r}: {entry.value} of {owner(entry)} is registered as {loaded.name!r}. Use one name."
        )
    return loaded


def owner(entry: EntryPoint) -> str:
    """The package that registered a recipe, with its version."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unnamed package"
