"""`hf-finetune learning-curve`: would more training rows help?"""

from collections.abc import Sequence

import click

from hf_finetune.cli.run import prepare_libraries, request_of, says_what_to_run, settle_run
from hf_finetune.recipe import load_recipe

LEFT_OUT = {"few_shot": 0, "measure_forgetting": False}
"""What a point of the curve is made without, unless the user asks for it."""


class Sizes(click.ParamType[Sequence[int]]):
    """Numbers separated by commas."""

    name = "sizes"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Sequence[int]:
        """The numbers; a usage error where one is none."""
        if not isinstance(value, str):
            return value  # type: ignore[return-value]  # click passes what is converted already
        try:
            return [int(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} is not of the form 100,300,1000.", param, ctx)


@click.command("learning-curve")
@says_what_to_run
@click.option("--sizes", type=Sizes(), metavar="N,N,...", help="Numbers of rows; 1/8, 1/4, 1/2 and all.")
@click.option("--overwrite", is_flag=True, help="Make the runs again.")
def learning_curve(recipe: str, settings: Sequence[str], demo: bool, data: str | None, config: str | None,
                   sizes: Sequence[int] | None, overwrite: bool) -> None:  # fmt: skip
    """Train RECIPE on fewer and more rows, and show what each number of them reaches on the same test rows.

    Each number of rows is a run of its own, in a folder below the curve's; the same command goes on after a stop.
    """
    from hf_finetune.layers import Layer

    loaded = load_recipe(recipe)
    settled = settle_run(loaded, settings, config, demo, more=[Layer("learning-curve", LEFT_OUT)])
    prepare_libraries()
    from hf_finetune.learning_curve import learning_curve as make

    request = request_of(loaded, recipe, settled, demo, data, f"learning_curves/{loaded.name}", overwrite)
    make(request, sizes or (), click.echo)
    folder = request.folder
    click.echo("\n" + (folder / "learning_curve.md").read_text(encoding="utf-8"))
    click.echo(f"curve     {folder}: learning_curve.png, learning_curve.md, learning_curve.json, rows-N/")
