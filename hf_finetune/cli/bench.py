"""`hf-finetune bench`: what each gain of speed is worth on the user's machine."""

from collections.abc import Sequence
from pathlib import Path

import click

from hf_finetune.cli.run import prepare_libraries, rows_source, says_what_to_run, settle_run
from hf_finetune.recipe import load_recipe


@click.command()
@says_what_to_run
@click.option("--steps", type=click.IntRange(min=2), default=5, show_default=True, help="Steps of each run.")
@click.option("--rounds", type=click.IntRange(min=1), default=2, show_default=True, help="Runs of each way, in turn.")
@click.option(
    "--seconds",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Also compare the validation loss of plain and all after the steps that fit into so many seconds.",
)
@click.option("--output", metavar="FOLDER", help="Where the results go; bench/NAME if not given.")
def bench(recipe: str, settings: Sequence[str], demo: bool, data: str | None, config: str | None, steps: int,
          rounds: int, seconds: int, output: str | None) -> None:  # fmt: skip
    """Train a few steps of RECIPE with and without each gain of speed, and show what each is worth here.

    Plain is TRL's own computation. The results are also left as bench.json, bench.md and bench.png.
    """
    loaded = load_recipe(recipe)
    settled = settle_run(loaded, settings, config, demo)
    prepare_libraries()
    from hf_finetune.bench import bench as measured

    folder = Path(output or f"bench/{loaded.name}")
    source = rows_source(loaded, demo, data)
    measured(loaded, source, settled, folder, steps, rounds, seconds, click.echo, prepare_libraries)
    click.echo(f"results   {folder}: bench.json, bench.md, bench.png")
