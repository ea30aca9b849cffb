"""The command line: the only place that prints and exits. Nothing heavy is imported before a command needs it."""

import gc
import os
import sys
from collections.abc import Callable, Sequence

import click

from hf_finetune.cli.advise import advise
from hf_finetune.cli.bench import bench
from hf_finetune.cli.card import card
from hf_finetune.cli.compare import compare
from hf_finetune.cli.doctor import doctor
from hf_finetune.cli.estimate import estimate
from hf_finetune.cli.evaluate import evaluate
from hf_finetune.cli.jobs import jobs
from hf_finetune.cli.launch import launch
from hf_finetune.cli.learning_curve import learning_curve
from hf_finetune.cli.merge import merge
from hf_finetune.cli.prepare import prepare
from hf_finetune.cli.push import push
from hf_finetune.cli.recipes import cat, check, list_recipes, new, pin
from hf_finetune.cli.run import run
from hf_finetune.cli.status import status
from hf_finetune.cli.verify import verify
from hf_finetune.errors import RecipeError, first_line
from hf_finetune.interruption import Interrupted, interruption
from hf_finetune.processes import (
    DONE,
    check_environment,
    end,
    give_main_the_word,
    is_main,
    is_others_failure,
    meet_others,
    num_processes,
    rank,
    release_others,
    tell_launcher,
    wait_for_main,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hf_finetune")
def commands() -> None:
    """QLoRA recipes for the Accelerate launcher and the Hugging Face Hub.

    Train with `accelerate launch -m hf_finetune RECIPE`, or `hf-finetune run RECIPE` for one process; `launch`
    writes what several GPUs and machines need.
    """


for command in (
    prepare, doctor, estimate, run, evaluate, merge, verify, card, push, compare, learning_curve, status, bench, launch,
    jobs, list_recipes, cat, check, new, pin, advise,
):  # fmt: skip
    commands.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """`hf-finetune`: runs a command and exits."""
    words = list(sys.argv[1:] if arguments is None else arguments)

    def work() -> int:
        return commands.main(args=words, prog_name="hf-finetune", standalone_mode=False) or 0

    guarded((lambda: in_every_process(work)) if words[:1] == ["run"] else work)


def main_module() -> None:
    """`python -m hf_finetune`: what the Accelerate launcher starts in every process."""
    guarded(
        lambda: in_every_process(
            lambda: run.main(prog_name="accelerate launch -m hf_finetune", standalone_mode=False) or 0
        )
    )


def in_every_process(work: Callable[[], int]) -> int:
    """Runs `work` in the main process, and in the others once that has prepared what they all need; its exit code."""
    check_environment()
    if is_main():
        meet_others()
    elif not wait_for_main():
        return 0
    code = work()
    if is_main():
        release_others(DONE)
    if num_processes() > 1:
        end(code)
    return code


def guarded(work: Callable[[], int]) -> None:
    """Runs `work` and exits with its code: a user's mistake gives a message and 1 (usage: 2), a defect a traceback."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # TRL reports every trainer that is built
    try:
        try:
            code = work()
        finally:
            interruption.ignore()  # a signal while the end is told would end it with a traceback
            gc.freeze()  # Python would look for garbage in all of torch before it ends, which takes seconds
        if code:
            end(code)
    except RecipeError as error:
        give_main_the_word()
        tell_launcher(str(error))
        click.echo(f"error: {error}" if is_main() else f"error: process {rank()}: {error}", err=True)
        end(1)
    except Interrupted as signal:
        if is_main():
            click.echo(f"interrupted by {signal}: {interruption.advice}.", err=True)
        end(signal.exit_code, at_once=True)
    except click.ClickException as error:
        error.show()
        end(error.exit_code)
    except click.exceptions.Exit as exit_request:
        end(exit_request.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted.", err=True)
        end(130)
    except Exception as error:
        if not is_others_failure(error):
            raise
        give_main_the_word()
        gone = f"another process of this run is gone or cannot be reached ({first_line(error)})"
        click.echo(
            f"error: {gone}. What it said, if it was not killed, stands above. The same command goes on from the last "
            f"checkpoint.",
            err=True,
        )
        end(1)
