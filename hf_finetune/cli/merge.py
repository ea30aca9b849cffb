"""`hf-finetune merge`: a run's adapter and its base as plain weights."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hf_finetune.cli.run import prepare_libraries
from hf_finetune.errors import RecipeError
from hf_finetune.interruption import interruption

if TYPE_CHECKING:
    from hf_finetune.ship.merged_weights import Way

BEGINS_AGAIN = "the same command begins again"
"""What is told of a command that was interrupted and has left nothing."""
MAX_KL = 0.01
"""Nats a token. Merges that went wrong have more than 0.1, those into a full-precision base 0.001 to 0.03."""
takes_recipe = click.option("--recipe", metavar="FILE", help="The run's recipe, where it is not where it was.")


def refuse_nan(context: click.Context, parameter: click.Parameter, value: float) -> float:
    """The value, where it is a number: nothing would ever be refused, or everything."""
    if math.isnan(value):
        raise click.BadParameter("nan is no number.")
    return value


@click.command()
@click.argument("run")
@click.option(
    "--full-precision", is_flag=True, help="Merge into the base as it is saved, not into what the run computed with."
)
@click.option("--dtype", type=click.Choice(["bfloat16", "float16", "float32"]), default="bfloat16", show_default=True)
@click.option("--max-shard-size", default="5GB", show_default=True, metavar="SIZE", help="Of each weights file.")
@click.option(
    "--max-kl", type=click.FloatRange(min=0), default=MAX_KL, show_default=True, metavar="NATS", callback=refuse_nan,
    help="KL divergence from the adapter, a token, past which the merged weights are refused.",
)  # fmt: skip
@takes_recipe
def merge(run: str, full_precision: bool, dtype: str, max_shard_size: str, max_kl: float, recipe: str | None) -> None:
    """Merge the adapter of a finished RUN into its base, and compare the two.

    The weights are merged into the numbers that the quantised base computes with: that is the model which was
    evaluated. They go into RUN/merged; what the comparison found goes into the report and the card.
    """
    interruption.listen(BEGINS_AGAIN)
    prepare_libraries()
    from hf_finetune.card import write_card
    from hf_finetune.folder import held
    from hf_finetune.report import Report
    from hf_finetune.ship.finished import read_finished
    from hf_finetune.ship.merge import merge as merge_run

    folder, size = Path(run), in_bytes(max_shard_size)
    way: Way = "full precision" if full_precision else "dequantised"
    finished = read_finished(folder, recipe)
    with held(folder):
        merge_run(finished, way, dtype, size, max_kl, click.echo)
        write_card(folder)
    found = Report.read(folder).merged
    click.echo(f"merged    {folder / 'merged'}")
    for part, like in found["likeness"].items():
        same = f"{like['top1_agreement']:.2%} of {like['tokens']:,} next tokens the same"
        click.echo(f"          {part}: KL {like['kl_per_token']:.2g} nats a token, {same}")
    for metric, value in found["scores"].items():
        click.echo(f"          {metric} {value:.3f}")


def in_bytes(size: str) -> int:
    """A size such as `5GB` or `500MB` in bytes.

    Raises:
        RecipeError: when it is none.
    """
    from accelerate.utils import convert_file_size_to_int

    try:
        count: int = convert_file_size_to_int(size.upper())
    except (ValueError, OverflowError):
        count = 0
    if not count:
        raise RecipeError(f"--max-shard-size {size}: is no size. Write it as 500MB or 5GB.")
    if count < 10**6:
        raise RecipeError(f"--max-shard-size {size}: would make a file of each tensor. Write it as 500MB or 5GB.")
    return count
