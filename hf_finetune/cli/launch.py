"""`hf-finetune launch`: an accelerate config and a Slurm script for several GPUs and machines."""

import importlib.util
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from hf_finetune.cli.run import rows_source, says_what_to_run, settle_run
from hf_finetune.errors import RecipeError
from hf_finetune.files import write_text
from hf_finetune.launch import (
    CONFIGS,
    MARK,
    Launch,
    choose_config,
    config_text,
    directives,
    plain_command,
    slurm_script,
)
from hf_finetune.recipe import load_recipe

COUNT = click.IntRange(min=1)


@click.command()
@says_what_to_run
@click.option("--nodes", type=COUNT, default=1, show_default=True, metavar="N", help="Machines.")
@click.option("--gpus", type=COUNT, default=1, show_default=True, metavar="G", help="GPUs in each machine.")
@click.option(
    "--accelerate-config", type=click.Choice(CONFIGS), help="How GPUs work together; ddp, or one_gpu for one."
)
@click.option("--output", metavar="FOLDER", help="Where the two files go; launch/NAME if not given.")
@click.option("--partition", metavar="NAME", help="Slurm's partition.")
@click.option("--time", "time_limit", metavar="LIMIT", help="Slurm's time limit, for example 8:00:00.")
@click.option("--account", metavar="NAME", help="Slurm's account.")
@click.option("--sbatch", multiple=True, metavar="OPTION", help="A further option of sbatch, such as qos=high.")
@click.option("--submit", is_flag=True, help="Hand the script to sbatch.")
def launch(recipe: str, settings: Sequence[str], nodes: int, gpus: int, accelerate_config: str | None, demo: bool,
           data: str | None, config: str | None, output: str | None, partition: str | None, time_limit: str | None,
           account: str | None, sbatch: Sequence[str], submit: bool) -> None:  # fmt: skip
    """Write what starts RECIPE on several GPUs or machines: an accelerate config and a Slurm script.

    RECIPE, NAME=VALUE, --demo, --data and --config are those of the run, and are checked now.
    """
    loaded = load_recipe(recipe)
    settle_run(loaded, settings, config, demo)
    if demo or data:  # a job may wait for days to find that a file is not there
        rows_source(loaded, demo, data).locate()
    chosen = choose_config(accelerate_config, nodes, gpus)
    check_installed(chosen, submit)
    slurm = {"partition": partition, "time": time_limit, "account": account}
    named = [f"{name}={one_word(name, value)}" for name, value in slurm.items() if value is not None]
    options = [("--demo",) if demo else (), ("--data", data) if data else (), ("--config", config) if config else ()]
    words = (recipe, *(word for option in options for word in option), *settings)
    plan = Launch(loaded.name, words, chosen, nodes, gpus, directives([*named, *sbatch]))
    config_file, script = write(plan, Path(output or f"launch/{loaded.name}"))
    click.echo(f"{'with Slurm':15} {shlex.join(['sbatch', str(script)])}")
    place = "without Slurm" if nodes == 1 else "on each machine"
    click.echo(f"{place:15} {plain_command(plan, config_file)}")
    if submit:
        click.echo(submitted(script))


def check_installed(config: str, submit: bool) -> None:
    """Whether what the launch needs is here; the script uses this environment.

    Raises:
        RecipeError: DeepSpeed is not installed, or there is no Slurm to submit to.
    """
    if config == "zero3" and importlib.util.find_spec("deepspeed") is None:
        raise RecipeError("--accelerate-config: zero3 needs DeepSpeed. Install it with: pip install deepspeed")
    if submit and shutil.which("sbatch") is None:
        raise RecipeError("--submit: there is no sbatch on this machine. Leave --submit out, or use a login node.")


def one_word(option: str, value: str) -> str:
    """The value of an option of Slurm.

    Raises:
        RecipeError: when it is empty or holds what would begin another one.
    """
    if not value or not value.isprintable() or " " in value:
        raise RecipeError(f"--{option}: {value!r} is not one word. Give it as sbatch takes it.")
    return value


def write(plan: Launch, folder: Path) -> tuple[Path, Path]:
    """The accelerate config and the Slurm script that were written in `folder`.

    Raises:
        RecipeError: when there are other files in their place, or the folder cannot be written.
    """
    config_file, script = folder / f"{plan.title}.yaml", folder / f"{plan.title}.sh"
    texts = {config_file: config_text(plan), script: slurm_script(plan, config_file, Path.cwd(), sys.executable)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = [path for path in texts if path.exists() and MARK not in path.read_text(encoding="utf-8")]
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{folder}: cannot be used: {error}. Name another folder with --output.") from error
    if others:
        raise RecipeError(f"{others[0]}: is not a file of this command. Name another folder with --output.")
    there = [path for path in texts if path.exists()]
    for path, text in texts.items():
        write_text(path, text)
        click.echo(f"{'replaced' if path in there else 'wrote':15} {path}")
    return config_file, script


def submitted(script: Path) -> str:
    """What sbatch says of the script that it took.

    Raises:
        RecipeError: when it does not take it.
    """
    done = subprocess.run(["sbatch", str(script)], capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise RecipeError(f"sbatch: does not take {script}: {said}. Mend the options, or ask who runs the cluster.")
    return done.stdout.strip()
