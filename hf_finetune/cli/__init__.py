"""The command line: the only place that prints and exits. Nothing heavy is imported before a command needs it."""

import os
import sys
from collections.abc import Callable, Sequence

import click

from hf_finetune.cli.launch import launch
from hf_finetune.cli.recipes import cat, check, list_recipes, new, pin
from hf_finetune.cli.run import run
from hf_finetune.errors import RecipeError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hf_finetune")
def commands() -> None:
    """QLoRA recipes for the Accelerate launcher and the Hugging Face Hub.

    Train with `accelerate launch -m hf_finetune RECIPE`, or `hf-finetune run RECIPE` for one process; `launch`
    writes what several GPUs and machines need.
    """


for command in (run, launch, list_recipes, cat, check, new, pin):
    commands.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """`hf-finetune`: runs a command and exits."""
    guarded(lambda: commands.main(args=arguments, prog_name="hf-finetune", standalone_mode=False))


def main_module() -> None:
    """`python -m hf_finetune`: what the Accelerate launcher starts in every process."""
    guarded(lambda: run.main(prog_name="accelerate launch -m hf_finetune", standalone_mode=False))


def guarded(work: Callable[[], object]) -> None:
    """Runs `work` and exits: a user's mistake gives a message and code 1 (usage: 2), a recipe's defect a traceback."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # TRL reports every trainer that is built
    try:
        work()
    except RecipeError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as exit_request:
        sys.exit(exit_request.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted.", err=True)
        sys.exit(130)
