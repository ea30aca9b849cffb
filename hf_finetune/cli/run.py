"""`hf-finetune run`, which is also what `accelerate launch -m hf_finetune` starts."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hf_finetune.errors import RecipeError
from hf_finetune.interruption import interruption
from hf_finetune.processes import cores, is_main, refuse_a_missing_process, tell_launcher, was_launched
from hf_finetune.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from hf_finetune.begin import Request
    from hf_finetune.data.sources import Source
    from hf_finetune.layers import Layer, Settled

Result = TypeVar("Result")

GATES_MISSED = 3
"""The exit code of a run that has missed a gate."""


def says_what_to_run(command: Callable[..., Result]) -> Callable[..., Result]:
    """The words of a command line that name a recipe, its rows and its settings: the same in all that take them."""
    for parameter in (
        click.option("--config", metavar="FILE", help="Settings from a YAML file; NAME=VALUE wins over it."),
        click.option("--data", metavar="PATH", help="A file or folder of your own instead of the recipe's data set."),
        click.option(
            "--demo", is_flag=True, help="Use the base model and the sample rows that ship with this package."
        ),
        click.argument("settings", nargs=-1, metavar="[NAME=VALUE]..."),
        click.argument("recipe"),
    ):
        command = parameter(command)
    return command


takes_baseline = click.option(
    "--baseline", type=click.Choice(["tfidf"]), help="A column that needs no GPU beside the models."
)


@click.command()
@says_what_to_run
@click.option("--dry-run", is_flag=True, help="Print the settings with the origin of each, and stop.")
@click.option("--overwrite", is_flag=True, help="Replace the run in the output folder instead of going on with it.")
@takes_baseline
@click.option("--push-to-hub", metavar="ID", help="Push the finished run to this repo, such as acme/finsent.")
def run(recipe: str, settings: Sequence[str], demo: bool, data: str | None, config: str | None, dry_run: bool,
        overwrite: bool, baseline: str | None, push_to_hub: str | None) -> int:  # fmt: skip
    """Fine-tune with RECIPE (a file or an installed name), evaluate, and write the model card.

    Settings have TRL's names and are written NAME=VALUE, for example learning_rate=1e-4; --dry-run lists them all.
    Exit codes: 0 done, 1 a mistake that can be mended, 2 a wrong command line, 3 a gate was missed.
    """
    loaded = load_recipe(recipe)
    words = [*settings, *([f"hub_model_id={push_to_hub}"] if push_to_hub else [])]
    settled = settle_run(loaded, words, config, demo, baseline)
    if dry_run:
        click.echo(settings_table(settled))
        return 0
    refuse_a_missing_process()
    prepare_libraries()
    from hf_finetune.pipeline import run_recipe

    request = request_of(loaded, recipe, settled, demo, data, default_folder(loaded.name, demo, data), overwrite)
    folder, say = request.folder, click.echo if is_main() else lambda line: None
    say(f"recipe    {loaded.name}: {type(loaded).__name__} of {recipe}")
    if request.is_demo:
        say("demo      the base is a demonstration model of a few million parameters, of no other use")
    run_recipe(request, say)
    if not is_main():
        return 0
    say("\n" + (folder / "report.md").read_text(encoding="utf-8"))
    say(f"run       {folder}: report.html, report.md, answers.jsonl, run.json")
    say(f"adapter   {folder / 'adapter'}: load it as its README.md shows")
    code, values = exit_code(folder), settled.values
    if values.hub_model_id and not code:
        _push(folder, values.hub_model_id, values.hub_private_repo, recipe)
    return code


def _push(folder: Path, repo_id: str, is_private: bool, recipe: str) -> None:
    """Pushes the run that has just ended; where that fails, the error says how to try again."""
    from hf_finetune.cli.push import push_run
    from hf_finetune.hub.rights import Target

    try:
        push_run(folder, repo_id, merged=False, order=Target("", private=is_private), recipe=recipe)
    except RecipeError as error:
        private = " --private" if is_private else ""
        raise RecipeError(
            f"{error} The run is whole; only the push is left: hf-finetune push {folder} {repo_id}{private}"
        ) from error


def exit_code(folder: Path) -> int:
    """0, or 3 when the report in the folder has missed a gate, which is told."""
    from hf_finetune.report import Report

    missed = Report.read(folder).missed
    if missed:
        each = [f"{gate.name} is {gate.shown}, not {gate.bound} {gate.required:g}" for gate in missed]
        reason = f"gates missed: {'; '.join(each)}."
        tell_launcher(reason)
        click.echo(f"{reason} The run itself is whole; exit code {GATES_MISSED}.", err=True)
    return GATES_MISSED if missed else 0


def request_of(
    recipe: Recipe[Any], path_or_name: str, settled: "Settled", demo: bool, data: str | None, default_folder: str,
    overwrite: bool, evaluated: dict[str, Any] | None = None,
) -> "Request":  # fmt: skip
    """What the words of the command line ask for; from here on signals are listened to."""
    from hf_finetune.begin import Request
    from hf_finetune.demo import BASE_MODEL

    source, is_demo = rows_source(recipe, demo, data), settled.values.model_name_or_path == str(BASE_MODEL)
    license = None if evaluated else license_of(recipe, source, is_demo, data)  # somebody else's adapter has its own
    folder = Path(settled.values.output_dir or default_folder).expanduser()
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    interruption.listen()
    return Request(recipe, path_or_name, source, settled, folder, license, command, is_demo, overwrite, evaluated or {})


def default_folder(name: str, demo: bool, data: str | None) -> str:
    """The folder of a run that names none."""
    parts = [name, *(["demo"] if demo else []), *([name_of_rows(data)] if data else [])]
    return f"runs/{'-'.join(parts)}"


def name_of_rows(data: str) -> str:
    """What a file or folder is called, without its suffix."""
    return Path(data).expanduser().resolve().stem


def license_of(recipe: Recipe[Any], source: "Source", is_demo: bool, data: str | None) -> str | None:
    """The licence of an adapter that is trained on these rows; None where nothing is known of them."""
    from hf_finetune.demo import LICENSE

    return recipe.license if source == recipe.dataset else LICENSE if is_demo and not data else None


def rows_source(recipe: Recipe[Any], demo: bool, data: str | None) -> "Source":
    """Where the rows of a run come from: the user's file, the demonstration's, or what the recipe names."""
    from hf_finetune.data.sources import LocalFile, LocalFolder
    from hf_finetune.demo import rows_file

    if data and Path(data).expanduser().is_dir():
        return LocalFolder(data)
    own_rows = data or (str(rows_file(recipe.name)) if demo else None)
    return LocalFile(own_rows) if own_rows else recipe.dataset


def settle_run(
    recipe: Recipe[Any], words: Sequence[str], config: str | None, demo: bool, baseline: str | None = None,
    more: "Sequence[Layer]" = (),
) -> "Settled":  # fmt: skip
    """The settings of a run, from all layers; `more` lie between the demo's and the user's own."""
    from hf_finetune.layers import settle

    return settle(layers_of(recipe, [*words, *([f"baseline={baseline}"] if baseline else [])], config, demo, more))


def layers_of(
    recipe: Recipe[Any] | None, words: Sequence[str], config: str | None, demo: bool, more: "Sequence[Layer]" = ()
) -> "list[Layer]":
    """The layers that the settings of a run come from; `more` lie between the demo's and the user's own."""
    from hf_finetune.demo import SETTINGS
    from hf_finetune.layers import Layer, parse_assignments, read_yaml

    layers = [Layer("recipe", _recipe_values(recipe) if recipe else {})]
    layers += [Layer("demo", SETTINGS)] if demo else []
    layers += more
    layers += [read_yaml(Path(config))] if config else []
    layers.append(parse_assignments(words))
    named = max((i for i, layer in enumerate(layers) if "model_name_or_path" in layer.values), default=0)
    if named and not any("model_revision" in layer.values for layer in layers[named:]):
        # The recipe's revision is a commit of the recipe's base: another base starts from its own main branch.
        layers[named] = Layer(layers[named].origin, {**layers[named].values, "model_revision": "main"})
    return layers


def _recipe_values(recipe: Recipe[Any]) -> dict[str, Any]:
    """What a recipe says of the settings."""
    base = {"model_name_or_path": recipe.base_model, "model_revision": recipe.base_model_revision}
    return base | dict(recipe.hyperparameters) | ({"gates": dict(recipe.gates)} if recipe.gates else {})


def settings_table(settled: "Settled") -> str:
    """Name, value and origin of each setting, a line each."""
    from hf_finetune.settings import written

    rows = [(name, written(entry["value"]), entry["origin"]) for name, entry in settled.as_json().items()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:{widths[0]}}  {value:{widths[1]}}  {origin}" for name, value, origin in rows)


def prepare_libraries() -> None:
    """What has to be set before torch and the others are imported."""
    use_all_cores()
    round_alike()
    quieten_libraries()


def quieten_libraries() -> None:
    """Silences what the libraries say at import that a user can neither use nor mend."""
    import logging

    # It asks for the optional package kernels, for a CPU kernel that guard_cpu_4bit_layers() keeps out of use.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it warns when a process forks


def use_all_cores() -> None:
    """Undoes OMP_NUM_THREADS=1, which `accelerate launch` sets on a machine without a GPU; torch reads it at import."""
    if was_launched() and os.environ.get("OMP_NUM_THREADS") == "1" and hasattr(os, "sched_getaffinity"):
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        os.environ["OMP_NUM_THREADS"] = str(max(1, cores() // here))
    # Threads that spin while they wait make a run many times slower on a machine that does something else as well.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def round_alike() -> None:
    """Has MKL sum in one order with all its threads: it promises the same bits in every run only then."""
    os.environ.setdefault("MKL_CBWR", "AUTO")
    os.environ.setdefault("MKL_DYNAMIC", "FALSE")
