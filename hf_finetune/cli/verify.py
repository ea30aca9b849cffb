"""`hf-finetune verify`: what a run would push, loaded as a user loads it."""

from pathlib import Path

import click

from hf_finetune.cli.merge import BEGINS_AGAIN, takes_recipe
from hf_finetune.cli.run import prepare_libraries
from hf_finetune.interruption import interruption


@click.command()
@click.argument("run")
@click.option("--rows", type=click.IntRange(min=1), default=32, show_default=True, help="Test rows to ask again.")
@click.option("--python", metavar="FILE", help="Another interpreter, with transformers and peft of other versions.")
@takes_recipe
def verify(run: str, rows: int, python: str | None, recipe: str | None) -> None:
    """Load what a finished RUN would push as its card says, and see whether it gives the run's figures again.

    That is done in a new process that has no hf_finetune, on test rows of the run. What was found goes into
    verified.json and onto the card. Each fault is named, and then there is no verified.json.
    """
    if python == "":
        raise click.BadParameter("is empty. Name an interpreter, or leave it out.", param_hint="--python")
    interruption.listen(BEGINS_AGAIN)
    prepare_libraries()
    from hf_finetune.card import write_card
    from hf_finetune.folder import held
    from hf_finetune.ship.finished import read_finished
    from hf_finetune.ship.verify import verify as verify_run

    folder = Path(run)
    finished = read_finished(folder, recipe)
    with held(folder):
        verify_run(finished, rows, python, click.echo)
        if not python:
            write_card(folder)
    if not python:
        click.echo(f"verified  {folder / 'verified.json'}")
