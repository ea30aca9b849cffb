"""Pinning writes commits into a recipe's source and leaves all else as it was."""

import ast
from pathlib import Path
from typing import Any

import pytest

from hf_finetune import HubDataset, RecipeError, load_recipe
from hf_finetune.pinning import pinned_source

ROOT = Path(__file__).parent.parent
BASE = "b" * 40
DATA = "d" * 40
COMMITS = {"base_model_revision": BASE, "revision": DATA}


def class_with(*lines: str, before: str = "") -> str:
    return f"{before}class Task:\n" + "".join(f"    {line}\n" for line in lines)


def pinned(*lines: str, before: str = "") -> str:
    return pinned_source(class_with(*lines, before=before), "Task", COMMITS)


def values_in(source: str) -> dict[str, Any]:
    """What the class holds when the source runs; HubDataset is a dict of its arguments."""

    def arguments(id: str = "", revision: str = "main", file: str = "", **more: str) -> dict[str, str]:
        return {"id": id, "revision": revision, "file": file, **more}

    names: dict[str, Any] = {"HubDataset": arguments, "ClassVar": list, "Any": object}
    exec(compile(source, "recipe.py", "exec"), names)
    return dict(vars(names["Task"]))


def test_commits_are_added_where_there_were_none() -> None:
    assert pinned('base_model = "acme/base"', 'dataset = HubDataset("acme/rows")', 'license = "mit"') == class_with(
        'base_model = "acme/base"',
        f'base_model_revision = "{BASE}"',
        f'dataset = HubDataset("acme/rows", revision="{DATA}")',
        'license = "mit"',
    )


def test_commits_replace_branches() -> None:
    lines = ('base_model_revision = "main"', 'base_model = "acme/base"', 'dataset = HubDataset("r", revision="v1")')
    assert pinned(*lines) == class_with(
        f'base_model_revision = "{BASE}"', 'base_model = "acme/base"', f'dataset = HubDataset("r", revision="{DATA}")'
    )


def test_pinning_twice_changes_nothing_more() -> None:
    once = pinned('base_model = "acme/base"', 'dataset = HubDataset("acme/rows", file="rows.csv")')
    assert pinned_source(once, "Task", COMMITS) == once


def test_later_commits_replace_earlier_ones() -> None:
    once = pinned('base_model = "acme/base"', 'dataset = HubDataset("acme/rows")')
    twice = pinned_source(once, "Task", {"base_model_revision": "0" * 40, "revision": "1" * 40})
    assert twice == once.replace(BASE, "0" * 40).replace(DATA, "1" * 40)


@pytest.mark.parametrize(
    "dataset",
    [
        'HubDataset("acme/rows")',
        'HubDataset("acme/rows", "main")',
        'HubDataset("acme/rows", "main", "rows.csv")',
        'HubDataset("acme/rows", file="rows.csv")',
        'HubDataset(id="acme/rows", file="rows.csv")',
        'HubDataset(file="rows.csv", revision="main", id="acme/rows")',
        'HubDataset("acme/rows", file="rows.csv",)',
        'HubDataset("acme/rows", **{"member": "rows.csv"})',
        'HubDataset("acme/" "rows", revision=("main"))',
    ],
)
def test_the_commit_arrives_however_the_data_set_is_written(dataset: str) -> None:
    before = values_in(class_with('base_model = "acme/base"', f"dataset = {dataset}"))["dataset"]
    after = values_in(pinned('base_model = "acme/base"', f"dataset = {dataset}"))["dataset"]
    assert after == {**before, "revision": DATA}


def test_a_data_set_over_several_lines_keeps_them() -> None:
    source = pinned('base_model = "b"', "dataset = HubDataset(", '    "acme/rows",  # at the Hub', '    file="a",', ")")
    assert f'        "acme/rows", revision="{DATA}",  # at the Hub\n        file="a",\n    )\n' in source
    assert values_in(source)["dataset"] == {"id": "acme/rows", "revision": DATA, "file": "a"}


def test_annotated_attributes_are_pinned() -> None:
    source = pinned(
        'base_model: ClassVar[str] = "acme/base"',
        'base_model_revision: ClassVar[str] = "main"',
        'dataset: ClassVar[Any] = HubDataset("acme/rows")',
    )
    assert values_in(source)["base_model_revision"] == BASE
    assert values_in(source)["dataset"]["revision"] == DATA


def test_a_base_model_over_several_lines_is_pinned() -> None:
    source = pinned("base_model = (", '    "acme/"', '    "base"', ")", 'dataset = HubDataset("acme/rows")')
    assert (values_in(source)["base_model"], values_in(source)["base_model_revision"]) == ("acme/base", BASE)


def test_letters_beyond_ascii_in_front_do_not_shift_the_place() -> None:
    source = pinned('base_model = "acme/bäse"', 'title = "Łódź 🙂"; dataset = HubDataset("äcme/röws")')
    assert f'title = "Łódź 🙂"; dataset = HubDataset("äcme/röws", revision="{DATA}")' in source


@pytest.mark.parametrize("sign", ["\x0c", "\x1c", "\x85", "\u2028"], ids=ascii)
def test_signs_at_which_only_splitlines_breaks_do_not_shift_the_place(sign: str) -> None:
    lines = ('base_model = "acme/base"', 'dataset = HubDataset("acme/rows")')
    source = pinned(*lines, before=f'"""One{sign}two."""\n')
    assert source == f'"""One{sign}two."""\n{pinned(*lines)}'


def test_windows_line_ends_stay_and_the_new_line_has_one() -> None:
    lines = ('base_model = "acme/base"', "dataset = HubDataset(", '    "acme/rows",', ")")
    before = '"""One.\n\nTwo."""\n'
    source = class_with(*lines, before=before).replace("\n", "\r\n")
    assert pinned_source(source, "Task", COMMITS) == pinned(*lines, before=before).replace("\n", "\r\n")


def test_only_the_recipes_own_class_is_changed() -> None:
    other = class_with('base_model = "other/base"', 'dataset = HubDataset("other/rows")').replace("Task", "Other")
    source = pinned('base_model = "acme/base"', 'dataset = HubDataset("acme/rows")', before=f"{other}\n\n")
    assert source.startswith(other)
    assert source.count(DATA) == source.count(BASE) == 1


def test_only_the_commits_that_are_given_are_written() -> None:
    source = class_with('base_model = "acme/base"', 'dataset = LocalFile("rows.jsonl")')
    assert pinned_source(source, "Task", {"base_model_revision": BASE}) == class_with(
        'base_model = "acme/base"', f'base_model_revision = "{BASE}"', 'dataset = LocalFile("rows.jsonl")'
    )


def test_a_comment_stays_on_its_line() -> None:
    source = pinned('base_model = "acme/base"  # small', 'dataset = HubDataset("acme/rows")')
    assert '    base_model = "acme/base"  # small\n' in source


def test_an_edit_that_would_break_the_file_is_refused() -> None:
    with pytest.raises(RecipeError, match="cannot be edited"):
        pinned('base_model = "acme/base"', 'dataset = HubDataset(("acme/rows"))')


@pytest.mark.parametrize("line", ["dataset = ROWS", "dataset: ClassVar[Any]", "", "dataset = ROWS[0]"])
def test_a_data_set_that_is_not_written_in_the_class_is_told(line: str) -> None:
    with pytest.raises(RecipeError, match=r"pin: the class has no line dataset = HubDataset\(...\) to pin"):
        pinned('base_model = "acme/base"', line)


def test_a_base_model_that_is_not_written_in_the_class_is_told() -> None:
    with pytest.raises(RecipeError, match=r"pin: the class has no line base_model = ... to pin"):
        pinned('dataset = HubDataset("acme/rows")')


def test_finsent_can_be_pinned_and_differs_in_nothing_else(tmp_path: Path) -> None:
    source = (ROOT / "recipes" / "finsent.py").read_text(encoding="utf-8")
    (tmp_path / "finsent_pinned.py").write_text(pinned_source(source, "FinancialSentiment", COMMITS), encoding="utf-8")
    recipe = load_recipe(str(tmp_path / "finsent_pinned.py"))
    assert isinstance(recipe.dataset, HubDataset)
    assert (recipe.base_model_revision, recipe.dataset.revision) == (BASE, DATA)
    changed = (tmp_path / "finsent_pinned.py").read_text(encoding="utf-8")
    for commit in (f'\n    base_model_revision = "{BASE}"', f', revision="{DATA}"'):
        changed = changed.replace(commit, "")
    assert ast.dump(ast.parse(changed)) == ast.dump(ast.parse(source))
