"""Imports point one way, and the command line starts without the heavy libraries."""

import ast
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hf_finetune"
ORDER = (
    "errors files rendering launch metrics memo resolve data recipe marks sql settings layers licences testing energy "
    "processes interruption progress folder checkpoints memory model packing packed_model lora run chat tokens "
    "intervals report gates baseline scoring prepare snippets card_check card_metadata hub train estimate doctor begin "
    "generate asking evaluate pictures browsing page card pipeline tuned evaluate_tuned ship learning_curve compare "
    "bench advise curate "
    "demo pinning cli __main__"
).split()
"""Each module or package imports only those before it."""

HEAVY = ("torch", "transformers", "trl", "datasets", "peft")


def modules_of(package: Path) -> set[str]:
    """The modules and packages at the top of a package, less its `__init__`."""
    files = {path.stem for path in package.glob("*.py")} - {"__init__"}
    return files | {path.parent.name for path in package.glob("*/__init__.py")}


def imported_by(source: str, package: str, inside: Sequence[str] = ()) -> set[str]:
    """Names right below `package` that a source imports anywhere, also in a function or for type checking alone.

    `inside` is the path of packages from `package` down to the module's own, which relative imports start from.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            here = [package, *inside]
            start = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (start, node.module) if part)
            names |= {f"{module}.{alias.name}" for alias in node.names} if module == package else {module}
    return {name.split(".")[1] if "." in name else "" for name in names if name.split(".")[0] == package}


def violations(package: Path, order: Sequence[str]) -> list[str]:
    """`a.py imports b` for each import of a module that does not stand before the importing one."""
    found = []
    for path in sorted(package.rglob("*.py")):
        *folders, file = path.relative_to(package).parts
        own = folders[0] if folders else path.stem
        if not folders and file == "__init__.py":
            continue
        allowed = {own, *order[: order.index(own)]} if own in order else {own}
        imported = imported_by(path.read_text(encoding="utf-8"), package.name, folders)
        found += [f"{'/'.join([*folders, file])} imports {name or package.name}" for name in sorted(imported - allowed)]
    return found


def test_each_module_imports_only_modules_above_it() -> None:
    assert violations(PACKAGE, ORDER) == []


def test_every_module_is_listed_and_every_listed_module_exists() -> None:
    assert len(ORDER) == len(set(ORDER))
    assert modules_of(PACKAGE) == set(ORDER)


def test_the_rule_sees_the_imports_that_there_are() -> None:
    imported = imported_by((PACKAGE / "pipeline.py").read_text(encoding="utf-8"), "hf_finetune")
    assert {"begin", "card", "evaluate", "model", "train"} <= imported


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("from pack.upper import name", "upper"),
        ("import pack.upper", "upper"),
        ("import pack.upper.inner as other", "upper"),
        ("from pack import upper", "upper"),
        ("from pack.upper.inner import name", "upper"),
        ("from .upper import name", "upper"),
        ("from . import upper", "upper"),
        ("def function():\n    from pack.upper import name", "upper"),
        ("if TYPE_CHECKING:\n    from pack.upper import name", "upper"),
        ("import pack", "pack"),
    ],
)
def test_an_import_of_a_module_further_down_is_found(tmp_path: Path, statement: str, expected: str) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "lower.py").write_text(statement)
    assert violations(tmp_path / "pack", ["lower", "upper"]) == [f"lower.py imports {expected}"]


@pytest.mark.parametrize(
    "statement", ["from pack.upper import name", "from ..upper import name", "from .. import upper"]
)
def test_an_import_out_of_a_package_to_a_module_further_down_is_found(tmp_path: Path, statement: str) -> None:
    (tmp_path / "pack" / "lower").mkdir(parents=True)
    (tmp_path / "pack" / "lower" / "inner.py").write_text(statement)
    assert violations(tmp_path / "pack", ["lower", "upper"]) == ["lower/inner.py imports upper"]


@pytest.mark.parametrize("statement", ["from pack.lower import name", "from pack.own.inner import name", "import json"])
def test_imports_of_modules_above_of_ones_own_package_and_from_elsewhere_are_free(
    tmp_path: Path, statement: str
) -> None:
    (tmp_path / "pack" / "own").mkdir(parents=True)
    (tmp_path / "pack" / "own" / "__init__.py").write_text(statement)
    assert violations(tmp_path / "pack", ["lower", "own"]) == []


def test_the_packages_own_init_may_import_everything(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("from pack.upper import name")
    assert violations(tmp_path / "pack", ["lower", "upper"]) == []


@pytest.mark.parametrize("module", ["hf_finetune", "hf_finetune.cli", "hf_finetune.__main__"])
def test_nothing_heavy_is_imported_before_it_is_needed(module: str) -> None:
    script = f"import json, sys, {module}; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    imported = json.loads(done.stdout)
    assert "hf_finetune" in imported
    assert [name for name in HEAVY if name in imported] == []


@pytest.mark.parametrize("words", [["--help"], ["list"], ["check", "finsent"], ["run", "finsent", "--dry-run"]])
def test_commands_that_train_nothing_import_nothing_heavy(words: list[str]) -> None:
    script = (
        "import json, sys\nfrom hf_finetune.cli import main\ntry:\n    main(json.loads(sys.argv[1]))\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", script, json.dumps(words)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [name for name in HEAVY if name in json.loads(done.stdout.splitlines()[-1])] == []
