"""What is installed: the wheel's contents, and a third party's package that needs no change here."""

import subprocess
import sys
import textwrap
import venv
import zipfile
from pathlib import Path

import pytest

from conftest import sample_rows, write_rows

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
TEMPLATES = ROOT / "hf_finetune" / "templates"
DEMO_BASE = ROOT / "hf_finetune" / "demo" / "demo-base"

PLUGIN = """
    [build-system]
    requires = ["setuptools"]
    build-backend = "setuptools.build_meta"
    [project]
    name = "{name}"
    version = "1.0"
    [project.entry-points."hf_finetune.recipes"]
    loudness = "{name}:Loudness"
    [tool.setuptools]
    py-modules = ["{name}"]
"""

RECIPE = '''
    from dataclasses import dataclass
    from typing import Literal

    from hf_finetune import LocalFile, Recipe, register
    from hf_finetune.metrics import accuracy


    @dataclass(frozen=True)
    class Shout:
        sentence: str
        label: Literal["negative", "neutral", "positive"]


    @register("loudness")
    class Loudness(Recipe[Shout]):
        """Says how a sentence sounds."""

        base_model = "ns/none"
        dataset = LocalFile("rows.jsonl")
        license = "mit"
        primary_metric = "accuracy"
        hyperparameters = {"max_steps": 2}

        def prompt(self, row):
            return row.sentence

        def completion(self, row):
            return row.label

        def choices(self, row):
            return ("negative", "neutral", "positive")

        def parse(self, text):
            return text.strip() or None

        def score(self, rows, predictions):
            return {"accuracy": accuracy([row.label for row in rows], predictions)}
'''


def build_wheel(source: Path, out: Path) -> Path:
    """The wheel of a source folder, built with the setuptools that is installed."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This package's wheel, built from the files that git knows."""
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    return build_wheel(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, and the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=True, symlinks=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "libraries.pth").write_text(f"import sys; sys.path.append({libraries!r})\n")
    install(folder, wheel)
    return folder


def install(environment: Path, *wheels: Path) -> None:
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    done = subprocess.run([*pip, "--force-reinstall", *map(str, wheels)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def plugin(folder: Path, name: str) -> Path:
    """The wheel of a third party's package `name`, which registers the recipe `loudness`."""
    source = folder / name
    source.mkdir()
    (source / "pyproject.toml").write_text(textwrap.dedent(PLUGIN.format(name=name)))
    (source / f"{name}.py").write_text(textwrap.dedent(RECIPE))
    return build_wheel(source, folder / f"{name}-wheel")


def call(environment: Path, *words: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    command = [str(environment / "bin" / words[0]), *words[1:]]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_wheel_holds_the_recipes_the_demo_and_the_templates(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        "hf_finetune/py.typed",
        "hf_finetune/demo/credit_memo.jsonl",
        "hf_finetune/demo/finsent.jsonl",
        "hf_finetune/metrics/modules/macro_f1/macro_f1.py",
        "hf_finetune_recipes/credit_memo.py",
        "hf_finetune_recipes/finsent.py",
        *(f"hf_finetune/{path.relative_to(ROOT / 'hf_finetune')}" for path in (ROOT / "hf_finetune").rglob("*.py")),
        *(f"hf_finetune/{path.relative_to(ROOT / 'hf_finetune')}" for path in TEMPLATES.rglob("*") if path.is_file()),
        *(f"hf_finetune/demo/demo-base/{path.name}" for path in DEMO_BASE.iterdir()),
    }
    assert wanted - names == set()
    assert not any(name.startswith(("tests/", "recipes/")) for name in names)


def test_the_demonstration_model_is_small() -> None:
    files = list(DEMO_BASE.iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {file.name for file in files}
    assert sum(file.stat().st_size for file in files) <= 12_000_000


def test_a_recipe_of_a_third_party_is_listed_and_runs(environment: Path, tmp_path: Path, tiny_base: Path) -> None:
    install(environment, plugin(tmp_path, "third_party"))
    write_rows(tmp_path / "rows.jsonl", sample_rows(8))
    assert "third_party" in call(environment, "hf-finetune", "list", cwd=tmp_path).stdout
    done = call(environment, "hf-finetune", "run", "loudness", f"model_name_or_path={tiny_base}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "loudness" / "adapter" / "README.md").is_file()


def test_two_packages_that_claim_one_name_are_both_named(environment: Path, tmp_path: Path) -> None:
    install(environment, plugin(tmp_path, "third_party"), plugin(tmp_path, "rival"))
    done = call(environment, "hf-finetune", "run", "loudness", cwd=tmp_path)
    assert done.returncode == 1
    assert "third_party" in done.stderr
    assert "rival" in done.stderr
    assert "Traceback" not in done.stderr
