"""Recipes are found by a path or an installed name, and what is wrong with one is told."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hf_finetune import LocalFile, Recipe, RecipeError, load_recipe, register
from hf_finetune.recipe import installed_recipe, is_path, recipe_file

SOURCE = """
from collections.abc import Sequence
from dataclasses import dataclass
from hf_finetune import LocalFile, Recipe, register

@dataclass(frozen=True)
class Row:
    text: str

class Shared(Recipe[Row]):
    base_model = "acme/base"
    dataset = LocalFile("rows.jsonl")
    license = "mit"
    primary_metric = "accuracy"

    def prompt(self, row: Row) -> str:
        return row.text

    def completion(self, row: Row) -> str:
        return "yes"

    def parse(self, text: str) -> str | None:
        return text or None

    def score(self, rows: Sequence[Row], predictions: Sequence[str | None]) -> dict[str, float]:
        return {"accuracy": 1.0}

"""
ONE = SOURCE + '@register("one")\nclass One(Shared):\n    """One."""\n'
OTHER = SOURCE + '@register("other")\nclass Other(Shared):\n    """The other."""\n'


@dataclass(frozen=True)
class Row:
    text: str
    label: str


class Small(Recipe[Row]):
    """The least that a recipe is."""

    base_model = "acme/base"
    dataset = LocalFile("rows.jsonl")
    license = "mit"
    primary_metric = "accuracy"

    def prompt(self, row: Row) -> str:
        return row.text

    def completion(self, row: Row) -> str:
        return row.label

    def parse(self, text: str) -> str | None:
        return text.strip() or None

    def score(self, rows: Sequence[Row], predictions: Sequence[Any]) -> dict[str, float]:
        return {"accuracy": 1.0}


def write(folder: Path, name: str, source: str) -> str:
    (folder / name).write_text(source, encoding="utf-8")
    return str(folder / name)


def install(site: Path, package: str, entries: str, version: str = "1.0") -> None:
    """Puts the metadata of an installed package, without any code, into a folder."""
    folder = site / f"{package.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (folder / "entry_points.txt").write_text(f"[hf_finetune.recipes]\n{entries}\n")


def told(site: Path, script: str) -> str:
    """What a process prints that has the packages in `site` installed; a RecipeError is printed too."""
    lines = "".join(f"    {line}\n" for line in script.splitlines())
    code = (
        "from hf_finetune.errors import RecipeError\n"
        "from hf_finetune.recipe import installed_recipes, load_recipe\n"
        f"try:\n{lines}except RecipeError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=site, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# By a path


def test_a_recipe_is_loaded_by_its_path(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "one.py", ONE))
    assert (recipe.name, type(recipe).__name__, type(recipe).__doc__) == ("one", "One", "One.")


def test_a_relative_path_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "relative.py", ONE)
    monkeypatch.chdir(tmp_path)
    assert load_recipe("relative.py").name == "one"


@pytest.mark.parametrize(
    ("given", "expected"), [("finsent", False), ("finsent.py", True), ("./finsent", True), ("recipes/finsent", True)]
)
def test_what_ends_in_py_or_holds_a_slash_is_a_path(given: str, expected: bool) -> None:
    assert is_path(given) == expected


def test_a_file_is_found_even_where_an_installed_recipe_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "finsent.py", ONE)
    monkeypatch.chdir(tmp_path)
    assert load_recipe("finsent.py").name == "one"


def test_a_missing_file_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    path = write(tmp_path, "finance.py", ONE)
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(tmp_path / "finence.py"))
    assert str(caught.value) == f"{tmp_path}/finence.py: there is no such recipe file. Did you mean {path!r}?"


def test_a_path_without_its_suffix_is_told_with_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "finance.py", ONE)
    with pytest.raises(RecipeError, match="Did you mean") as caught:
        load_recipe(str(tmp_path / "finance"))
    assert path in str(caught.value)


def test_a_file_that_is_no_python_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.txt: is not a Python file\."):
        load_recipe(write(tmp_path, "recipe.txt", ONE))


def test_a_folder_is_no_recipe_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no such recipe file"):
        load_recipe(f"{tmp_path}/")


def test_a_syntax_error_in_a_recipe_stays_a_syntax_error(tmp_path: Path) -> None:
    with pytest.raises(SyntaxError) as caught:
        load_recipe(write(tmp_path, "broken.py", "class One(:\n    pass\n"))
    assert (Path(caught.value.filename or "").name, caught.value.lineno) == ("broken.py", 1)


def test_a_fault_in_a_recipes_own_code_keeps_its_exception(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        load_recipe(write(tmp_path, "faulty.py", ONE + "\n1 / 0\n"))


def test_a_file_that_registers_no_recipe_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"must register one recipe class .*; it registers none\."):
        load_recipe(write(tmp_path, "none.py", SOURCE))


def test_a_file_that_registers_two_recipes_is_told(tmp_path: Path) -> None:
    source = ONE + '\n@register("two")\nclass Two(Shared):\n    """Two."""\n'
    with pytest.raises(RecipeError, match=r"two\.py: must register one recipe class .*; it registers one, two\."):
        load_recipe(write(tmp_path, "two.py", source))


def test_a_recipe_that_a_file_only_imports_is_not_the_files_own(tmp_path: Path) -> None:
    source = "from hf_finetune_recipes.finsent import FinancialSentiment\n" + ONE
    assert load_recipe(write(tmp_path, "imports.py", source)).name == "one"


def test_a_recipe_can_be_an_installed_one_with_changes(tmp_path: Path) -> None:
    source = (
        "from hf_finetune import register\nfrom hf_finetune_recipes.finsent import FinancialSentiment\n"
        '@register("mine")\nclass Mine(FinancialSentiment):\n    """Mine."""\n    base_model = "acme/base"\n'
    )
    recipe = load_recipe(write(tmp_path, "mine.py", source))
    assert (recipe.name, recipe.base_model, recipe.row_type().__name__) == ("mine", "acme/base", "Sentence")


def test_a_second_name_for_the_class_is_no_second_recipe(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, "alias.py", ONE + "\nDefault = One\n")).name == "one"


class RowByRow(Small):
    """Marks each row, some with a mark of their own."""

    score = Recipe.score

    def mark(self, row: Row, prediction: Any) -> dict[str, float]:
        right = float(prediction == row.label)
        return {"accuracy": right} | ({"accuracy_short": right} if len(row.text) < 3 else {})


def test_metrics_are_the_means_of_the_marks_over_the_rows_that_have_them() -> None:
    rows = [Row("a", "yes"), Row("b", "no"), Row("long", "no"), Row("longer", "no")]
    scores = RowByRow().score(rows, ["yes", None, "no", "no"])
    assert scores == {"accuracy": 0.75, "accuracy_short": 0.5}


def test_an_answer_is_right_where_its_mark_is_full() -> None:
    assert RowByRow().correct(Row("a", "yes"), "yes")
    assert not RowByRow().correct(Row("a", "yes"), None)


def test_missing_attributes_are_all_named(tmp_path: Path) -> None:
    source = (
        "from hf_finetune import Recipe, register\n"
        '@register("bare")\nclass Bare(Recipe[dict]):\n    license = "mit"\n'
        "    def prompt(self, row):\n        return ''\n"
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, "bare.py", source))
    assert str(caught.value).endswith(
        "bare.py: Bare does not define completion, parse, base_model, dataset, primary_metric, mark (or score). "
        "Add them."
    )


def test_two_files_of_one_name_are_two_recipes(tmp_path: Path) -> None:
    paths = []
    for name, source in (("left", ONE), ("right", OTHER)):
        (tmp_path / name).mkdir()
        paths.append(write(tmp_path / name, "same.py", source))
    assert [recipe.name for recipe in map(load_recipe, paths)] == ["one", "other"]


def test_the_file_of_a_recipe_is_found_after_another_of_the_same_name_was_loaded(tmp_path: Path) -> None:
    paths = []
    for name, source in (("left", ONE), ("right", OTHER)):
        (tmp_path / name).mkdir()
        paths.append(write(tmp_path / name, "twin.py", source))
    recipes = [load_recipe(path) for path in paths]
    assert [str(recipe_file(recipe)) for recipe in recipes] == paths


def test_the_file_of_a_recipe_is_known(tmp_path: Path) -> None:
    path = write(tmp_path, "known.py", ONE)
    assert recipe_file(load_recipe(path)) == Path(path)


# By an installed name


def test_an_installed_recipe_is_loaded_by_its_name() -> None:
    recipe = load_recipe("finsent")
    assert (recipe.name, recipe_file(recipe).name) == ("finsent", "finsent.py")


def test_an_unknown_name_is_told_with_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match=r"recipe 'finsnt': is not installed\. Did you mean 'finsent'\? A file"):
        load_recipe("finsnt")


def test_two_packages_that_claim_one_name_are_both_named(tmp_path: Path) -> None:
    install(tmp_path, "alpha-recipes", "summary = alpha:Summary")
    install(tmp_path, "beta-recipes", "summary = beta:Summary")
    answer = told(tmp_path, "print(load_recipe('summary'))")
    assert answer.startswith("recipe 'summary': is registered by several packages, ")
    assert "alpha-recipes" in answer
    assert "beta-recipes" in answer


def test_a_file_can_still_be_run_when_two_packages_claim_its_name(tmp_path: Path) -> None:
    install(tmp_path, "alpha-recipes", "one = alpha:One")
    install(tmp_path, "beta-recipes", "one = beta:One")
    write(tmp_path, "one.py", ONE)
    assert told(tmp_path, "print(load_recipe('one.py').name)") == "one"


def test_a_clash_of_two_names_does_not_touch_a_third(tmp_path: Path) -> None:
    install(tmp_path, "alpha-recipes", "summary = alpha:Summary")
    install(tmp_path, "beta-recipes", "summary = beta:Summary")
    assert told(tmp_path, "print(load_recipe('finsent').name)") == "finsent"


def test_recipes_are_listed_by_name_without_importing_them(tmp_path: Path) -> None:
    install(tmp_path, "zeta-recipes", "zz = no_such_module:Recipe\naa = zeta_recipes:Recipe")
    write(tmp_path, "zeta_recipes.py", "raise RuntimeError('imported')")
    assert told(tmp_path, "print(*installed_recipes())") == "aa credit_memo finsent text2sql zz"


def test_only_the_recipe_that_is_asked_for_is_imported(tmp_path: Path) -> None:
    install(tmp_path, "zeta-recipes", "broken = zeta_recipes:Recipe")
    write(tmp_path, "zeta_recipes.py", "raise RuntimeError('imported')")
    assert told(tmp_path, "print(load_recipe('finsent').name)") == "finsent"


def test_an_installed_thing_that_is_no_recipe_is_told_with_its_package(tmp_path: Path) -> None:
    install(tmp_path, "zeta-recipes", "loads = json:loads")
    answer = told(tmp_path, "load_recipe('loads')")
    assert answer == "recipe 'loads': json:loads of zeta-recipes 1.0 is not a Recipe class."


def test_the_recipes_of_this_package_are_installed() -> None:
    assert installed_recipe("finsent").value == "hf_finetune_recipes.finsent:FinancialSentiment"


# The contract's defaults


def test_register_gives_the_name_and_leaves_the_class() -> None:
    @register("other")
    class Other(Small):
        """Another."""

    assert Other.name == "other"
    assert Small.name == ""


def test_answers_are_open_and_rows_stand_alone_unless_a_recipe_says_otherwise() -> None:
    row = Row("text", "label")
    assert Small().choices(row) is None
    assert Small().group(row) is None


def test_an_answer_is_correct_when_it_is_the_parsed_completion() -> None:
    row = Row("text", " yes ")
    assert Small().correct(row, "yes")
    assert not Small().correct(row, " yes ")


def test_an_unreadable_answer_is_never_correct() -> None:
    assert not Small().correct(Row("text", " "), None)  # parse reads nothing in this completion either


def test_the_row_type_is_that_in_brackets_also_for_a_subclass() -> None:
    class Further(Small):
        """Further."""

    assert Small.row_type() is Further.row_type() is Row


def test_a_row_type_that_is_not_named_is_told() -> None:
    class Nameless(Recipe):  # type: ignore[type-arg]
        """Nameless."""

    with pytest.raises(RecipeError, match=r"Nameless: its row type is not named\. Write class Nameless\(Recipe"):
        Nameless.row_type()
