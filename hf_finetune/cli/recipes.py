"""`hf-finetune list, cat, check, new, pin`: finding recipes and writing one's own."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import click

from hf_finetune.errors import RecipeError, plural
from hf_finetune.files import write_text
from hf_finetune.recipe import Recipe, installed_recipe, installed_recipes, is_path, load_recipe, owner
from hf_finetune.rendering import TEMPLATES


@click.command("list")
def list_recipes() -> None:
    """Show the installed recipes and the packages they come from."""
    for name, entries in installed_recipes().items():
        for entry in entries:
            clash = "  claimed by several packages: uninstall one" if len(entries) > 1 else ""
            click.echo(f"{name:20} {entry.value}  ({owner(entry)}){clash}")


@click.command()
@click.argument("name")
def cat(name: str) -> None:
    """Print the source of the installed recipe NAME, to start one's own from."""
    click.echo(installed_file(name).read_text(encoding="utf-8"), nl=False)


@click.command()
@click.argument("recipe")
@click.option("--rows", metavar="FILE", help="Odd rows to check with; tests/data/NAME.jsonl if it is there.")
def check(recipe: str, rows: str | None) -> None:
    """Check that RECIPE (a file or a name) keeps the contract; needs no model and no network."""
    from hf_finetune.testing import each_check, in_lines, read_rows

    loaded = load_recipe(recipe)
    file = Path(rows) if rows else rows_to_check_with(loaded, recipe)
    samples = read_rows(loaded, file)
    faults: dict[str, str] = {}
    for name, fault in each_check(loaded, samples):
        words = name.replace("_", " ")
        click.echo(f"{'FAULT' if fault else 'ok':5} {words}")
        faults |= {words: fault} if fault else {}
    if faults:
        raise RecipeError(in_lines(faults))
    click.echo(f"{recipe}: keeps the contract on {plural(len(samples), 'row')} of {file.name}.")


@click.command()
@click.argument("name")
@click.option("--directory", default=".", metavar="FOLDER", help="Where recipes/ and tests/ are, or will be.")
def new(name: str, directory: str) -> None:
    """Write a recipe NAME with its test and odd rows, to be filled in."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise RecipeError(f"recipe {name!r}: is no name. Use small letters, digits and _, beginning with a letter.")
    folder = Path(directory)
    files = {
        folder / "recipes" / f"{name}.py": "new_recipe.py.txt",
        folder / "tests" / f"test_{name}.py": "new_test.py.txt",
        folder / "tests" / "data" / f"{name}.jsonl": "new_rows.jsonl",
    }
    present = [str(path) for path in files if path.exists()]
    if present:
        raise RecipeError(f"{', '.join(present)}: exists already. Choose another name, or remove it.")
    class_name = "".join(part.capitalize() for part in name.split("_"))
    for path, template in files.items():
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        write_text(path, text.replace("@NAME@", name).replace("@CLASS@", class_name))
        click.echo(f"wrote {path}")
    click.echo(f"next: hf-finetune check {folder / 'recipes' / f'{name}.py'}")


@click.command()
@click.argument("recipe")
def pin(recipe: str) -> None:
    """Write the commits that RECIPE's base model and data set are at now into its file."""
    from hf_finetune.data.sources import HubDataset
    from hf_finetune.pinning import pinned_source
    from hf_finetune.resolve import resolve_commit

    if not is_path(recipe):
        raise RecipeError(f"{recipe}: is an installed recipe. Copy it first: hf-finetune cat {recipe} > {recipe}.py")
    loaded = load_recipe(recipe)
    commits = {"base_model_revision": resolve_commit(loaded.base_model, loaded.base_model_revision)}
    if isinstance(loaded.dataset, HubDataset):
        commits["revision"] = resolve_commit(loaded.dataset.id, loaded.dataset.revision, "data set")
    file = Path(recipe)
    source = file.read_bytes().decode("utf-8")  # read_text() would turn Windows' line ends into \n
    write_text(file, pinned_source(source, type(loaded).__name__, commits))
    for name, commit in commits.items():
        click.echo(f"{recipe}: {name} = {commit}")


def installed_file(name: str) -> Path:
    """The source file of an installed recipe, found without importing it."""
    entry = installed_recipe(name)
    try:
        spec = importlib.util.find_spec(entry.module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise RecipeError(f"recipe {name!r}: its file {entry.module} is gone. Install its package again.")
    return Path(spec.origin)


def rows_to_check_with(recipe: Recipe[Any], path_or_name: str) -> Path:
    """tests/data/NAME.jsonl beside the recipe or here, else the sample rows of the package."""
    from hf_finetune.demo import FOLDER

    root = Path(path_or_name).resolve().parent.parent if is_path(path_or_name) else Path.cwd()
    name = f"{recipe.name}.jsonl"
    candidates = [root / "tests" / "data" / name, Path("tests/data") / name, FOLDER / name]
    found = next((file for file in candidates if file.is_file()), None)
    if found is None:
        raise RecipeError(
            f"{path_or_name}: no rows to check with. Write 10-20 into tests/data/{name}, or name a file by --rows."
        )
    return found
