"""`hf-finetune list, cat, check, new, pin`, as they are typed."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hf_finetune.cli import commands
from hf_finetune.errors import RecipeError
from hf_finetune.testing import CHECKS
from loopback_hub import LoopbackHub

ROOT = Path(__file__).parent.parent
FINSENT = ROOT / "recipes" / "finsent.py"

PINNABLE = '''
from dataclasses import dataclass
from hf_finetune import HubDataset, Recipe, register

@dataclass(frozen=True)
class Row:
    text: str

@register("pinnable")
class Pinnable(Recipe[Row]):
    """Echoes."""

    base_model = "acme/base"
    dataset = HubDataset("acme/rows", file="rows.jsonl")
    license = "mit"
    primary_metric = "accuracy"

    def prompt(self, row):
        return row.text

    def completion(self, row):
        return row.text

    def parse(self, text):
        return text or None

    def score(self, rows, predictions):
        return {"accuracy": 1.0}
'''


def typed(*words: str) -> Result:
    """What a command prints; its exception, if it has one, is raised."""
    return CliRunner().invoke(commands, words, catch_exceptions=False)


def refusal(*words: str) -> str:
    with pytest.raises(RecipeError) as caught:
        typed(*words)
    return str(caught.value)


def in_a_process(
    *words: str, folder: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, away from the user's settings and token."""
    own = {name: text for name, text in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
    return subprocess.run(
        [sys.executable, "-c", "from hf_finetune.cli import main; main()", *words],
        env={**own, "HF_HOME": str(folder / "home"), **(environment or {})},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


def path_with(site: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}


def install(site: Path, entries: str) -> None:
    """Puts the metadata of an installed package, without any code, into a folder."""
    folder = site / "package-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: package\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[hf_finetune.recipes]\n{entries}\n")


def pytest_in(folder: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120)


# list and cat


def test_list_shows_each_installed_recipe_with_its_package() -> None:
    lines = typed("list").output.splitlines()
    assert [
        line for line in lines if re.fullmatch(r"finsent +hf_finetune_recipes\.finsent:.* \(hf_finetune .*\)", line)
    ]


def test_cat_prints_the_source_as_it_is() -> None:
    assert typed("cat", "finsent").output == FINSENT.read_text(encoding="utf-8")


def test_cat_of_an_unknown_name_is_told_with_the_nearest_one() -> None:
    assert (
        refusal("cat", "finsnt")
        == "recipe 'finsnt': is not installed. Did you mean 'finsent'? A file is named by its path."
    )


def test_cat_does_not_import_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text("raise RuntimeError('imported')\n")
    install(tmp_path, "faulty = faulty:Recipe")
    done = in_a_process("cat", "faulty", folder=tmp_path, environment=path_with(tmp_path))
    assert (done.returncode, done.stdout) == (0, "raise RuntimeError('imported')\n"), done.stderr


@pytest.mark.parametrize(
    "module",
    [
        "gone",
        pytest.param("gone.inner"),
    ],
)
def test_cat_of_a_recipe_whose_file_is_gone_is_told(tmp_path: Path, module: str) -> None:
    install(tmp_path, f"gone = {module}:Recipe")
    done = in_a_process("cat", "gone", folder=tmp_path, environment=path_with(tmp_path))
    assert done.stderr == f"error: recipe 'gone': its file {module} is gone. Install its package again.\n"
    assert done.returncode == 1


# check


def test_check_shows_each_check_and_the_number_of_rows() -> None:
    lines = typed("check", str(FINSENT)).output.splitlines()
    assert lines[:-1] == [f"ok    {check.__name__.replace('_', ' ')}" for check in CHECKS]
    assert lines[-1] == f"{FINSENT}: keeps the contract on 15 rows of finsent.jsonl."


def test_check_takes_the_rows_it_is_given(tmp_path: Path) -> None:
    rows = tmp_path / "two.jsonl"
    rows.write_text('{"sentence": "Up.", "label": "positive"}\n{"sentence": "Down.", "label": "negative"}\n')
    assert typed("check", str(FINSENT), "--rows", str(rows)).output.endswith("on 2 rows of two.jsonl.\n")


def test_check_of_an_installed_recipe_falls_back_on_the_sample_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "finsent: keeps the contract on " in typed("check", "finsent").output


def test_check_of_a_faulty_recipe_marks_the_checks_and_tells_the_faults(tmp_path: Path) -> None:
    source = FINSENT.read_text(encoding="utf-8").replace('"cc-by-nc-sa-3.0"', '"cc-by-nc-sa-3"')
    (tmp_path / "faulty.py").write_text(source, encoding="utf-8")
    rows = str(ROOT / "tests" / "data" / "finsent.jsonl")
    done = in_a_process("check", "faulty.py", "--rows", rows, folder=tmp_path)
    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if line.startswith("FAULT")] == ["FAULT has a known license"]
    assert done.stderr.startswith("error: has a known license: license 'cc-by-nc-sa-3' is not one the Hub knows.")


def test_check_without_rows_says_where_to_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pinnable.py").write_text(PINNABLE)
    assert refusal("check", "pinnable.py") == (
        "pinnable.py: no rows to check with. Write 10-20 into tests/data/pinnable.jsonl, or name a file by --rows."
    )


def test_check_of_missing_rows_is_told(tmp_path: Path) -> None:
    assert "none.jsonl: there is no such file" in refusal("check", str(FINSENT), "--rows", str(tmp_path / "none.jsonl"))


def test_a_mistake_has_no_traceback_and_exits_with_1(tmp_path: Path) -> None:
    done = in_a_process("check", "finsnt", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: recipe 'finsnt': is not installed.")
    assert "Traceback" not in done.stderr


def test_a_fault_in_a_recipes_own_code_keeps_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text("1 / 0\n")
    done = in_a_process("check", "faulty.py", folder=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_a_missing_argument_exits_with_2(tmp_path: Path) -> None:
    done = in_a_process("check", folder=tmp_path)
    assert done.returncode == 2
    assert "Missing argument 'RECIPE'" in done.stderr


# new


def test_new_writes_a_recipe_its_test_and_its_rows(tmp_path: Path) -> None:
    lines = typed("new", "my_task", "--directory", str(tmp_path)).output.splitlines()
    written = [
        tmp_path / "recipes/my_task.py",
        tmp_path / "tests/test_my_task.py",
        tmp_path / "tests/data/my_task.jsonl",
    ]
    assert lines == [*(f"wrote {path}" for path in written), f"next: hf-finetune check {written[0]}"]
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(written)
    leftovers = [path for path in written if re.search("@[A-Z]+@", path.read_text(encoding="utf-8"))]
    assert leftovers == []


def test_a_new_recipe_keeps_the_contract(tmp_path: Path) -> None:
    typed("new", "my_task", "--directory", str(tmp_path))
    output = typed("check", str(tmp_path / "recipes" / "my_task.py")).output
    assert output.endswith("recipes/my_task.py: keeps the contract on 12 rows of my_task.jsonl.\n")


def test_the_test_of_a_new_recipe_passes_as_it_is_and_fails_once_the_recipe_is_broken(tmp_path: Path) -> None:
    typed("new", "my_task", "--directory", str(tmp_path))
    whole = pytest_in(tmp_path)
    assert (whole.returncode, "1 passed" in whole.stdout) == (0, True), whole.stdout + whole.stderr
    recipe = tmp_path / "recipes" / "my_task.py"
    recipe.write_text(recipe.read_text().replace("float(prediction == ", "0.5 * (prediction == "))
    broken = pytest_in(tmp_path)
    assert broken.returncode == 1
    assert "row 1: correct() calls the gold completion 'yellow' wrong" in broken.stdout


@pytest.mark.parametrize("name", ["recipe", "row", "local_file", "a1", "class"])
def test_a_new_recipe_may_have_the_name_of_something_in_the_template(tmp_path: Path, name: str) -> None:
    typed("new", name, "--directory", str(tmp_path))
    assert "keeps the contract" in typed("check", str(tmp_path / "recipes" / f"{name}.py")).output


@pytest.mark.parametrize("name", ["My-Task", "1st", "a.b", "../a", "_a", ""])
def test_new_refuses_what_is_no_name(tmp_path: Path, name: str) -> None:
    assert refusal("new", name, "--directory", str(tmp_path)).startswith(f"recipe {name!r}: is no name.")
    assert list(tmp_path.iterdir()) == []


def test_new_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_my_task.py").write_text("mine")
    told = refusal("new", "my_task", "--directory", str(tmp_path))
    assert told.startswith(f"{tmp_path}/tests/test_my_task.py: exists already.")
    assert [path.name for path in tmp_path.rglob("*")] == ["tests", "test_my_task.py"]
    assert (tmp_path / "tests" / "test_my_task.py").read_text() == "mine"


# pin


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


def test_pin_refuses_an_installed_recipe_and_says_how_to_copy_it() -> None:
    assert refusal("pin", "finsent") == (
        "finsent: is an installed recipe. Copy it first: hf-finetune cat finsent > finsent.py"
    )


def test_pin_writes_the_commits_that_model_and_data_set_are_at(hub: LoopbackHub, tmp_path: Path) -> None:
    base = hub.add_repo("acme/base", {"config.json": b"{}"})
    rows = hub.add_repo("acme/rows", {"rows.jsonl": b"{}"}, "dataset")
    (tmp_path / "pinnable.py").write_text(PINNABLE)
    done = in_a_process("pin", "pinnable.py", folder=tmp_path, environment=hub.environment(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"pinnable.py: base_model_revision = {base}",
        f"pinnable.py: revision = {rows}",
    ]
    model_line, data_line = '    base_model = "acme/base"\n', 'HubDataset("acme/rows", file'
    assert (tmp_path / "pinnable.py").read_text() == PINNABLE.replace(
        model_line, f'{model_line}    base_model_revision = "{base}"\n'
    ).replace(data_line, f'HubDataset("acme/rows", revision="{rows}", file')


def test_pin_leaves_windows_line_ends_and_permissions_as_they_were(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add_repo("acme/base", {"config.json": b"{}"})
    hub.add_repo("acme/rows", {"rows.jsonl": b"{}"}, "dataset")
    (tmp_path / "pinnable.py").write_text(PINNABLE, newline="\r\n")
    (tmp_path / "pinnable.py").chmod(0o755)
    done = in_a_process("pin", "pinnable.py", folder=tmp_path, environment=hub.environment(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "pinnable.py").read_bytes().split(b"\n")
    assert len(lines) == len(PINNABLE.split("\n")) + 1
    assert [line for line in lines[:-1] if not line.endswith(b"\r") or line.endswith(b"\r\r")] == []
    assert (tmp_path / "pinnable.py").stat().st_mode & 0o777 == 0o755


def test_pin_downloads_no_file(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add_repo("acme/base", {"config.json": b"{}"})
    hub.add_repo("acme/rows", {"rows.jsonl": b"{}"}, "dataset")
    (tmp_path / "pinnable.py").write_text(PINNABLE)
    in_a_process("pin", "pinnable.py", folder=tmp_path, environment=hub.environment(tmp_path / "home"))
    assert len(hub.requests) == 2
    assert [request for request in hub.requests if "/resolve/" in request] == []


def test_pin_leaves_a_file_whose_data_set_is_not_found_as_it_was(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add_repo("acme/base", {"config.json": b"{}"})
    (tmp_path / "pinnable.py").write_text(PINNABLE)
    done = in_a_process("pin", "pinnable.py", folder=tmp_path, environment=hub.environment(tmp_path / "home"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: data set 'acme/rows': ")
    assert (tmp_path / "pinnable.py").read_text() == PINNABLE
