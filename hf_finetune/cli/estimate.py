"""`hf-finetune estimate`: what a run takes and costs, on which GPU, before anything large is downloaded."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from hf_finetune.cli.run import prepare_libraries, rows_source, says_what_to_run, settle_run
from hf_finetune.errors import RecipeError
from hf_finetune.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from hf_finetune.data.sources import Source
    from hf_finetune.estimate import Lengths
    from hf_finetune.model import BaseModel
    from hf_finetune.settings import Settings

COUNT = click.IntRange(min=1)


@click.command()
@says_what_to_run
@click.option("--gpu", metavar="NAMES", help="GPUs to look at, such as T4,A100-80; all that are known if not given.")
@click.option("--gpus", type=COUNT, default=1, show_default=True, metavar="N", help="How many of them together.")
@click.option(
    "--method", metavar="NAMES", help="Of qlora, lora8, lora and full; the recipe's, lora, full if not given."
)
@click.option("--download", is_flag=True, help="Read the recipe's data set from the Hub to count its tokens.")
@click.option("--rows", type=COUNT, metavar="N", help="Rows there are, where they are not counted.")
@click.option("--tokens", type=click.IntRange(min=4), metavar="N", help="Tokens of a row, where they are not counted.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def estimate(recipe: str, settings: Sequence[str], demo: bool, data: str | None, config: str | None, gpu: str | None,
             gpus: int, method: str | None, download: bool, rows: int | None, tokens: int | None,
             as_json: bool) -> None:  # fmt: skip
    """Say what a run of RECIPE takes: memory, time and money, on which GPU, and with which batch.

    Only the base's config and tokenizer are downloaded. Tokens are counted where the rows are on this machine, else
    assumed, which is said. Prices are today's from the Hub where it can be reached, else those of a dated file.
    """
    loaded = load_recipe(recipe)
    settled = settle_run(loaded, settings, config, demo)
    prepare_libraries()
    from hf_finetune.estimate import find_gpus, shape_of
    from hf_finetune.estimate.fit import Estimator
    from hf_finetune.estimate.gpus import with_prices_of_today
    from hf_finetune.estimate.methods import adapter_parameters, method_of
    from hf_finetune.estimate.words import about, best, parts, suggestion, table
    from hf_finetune.model import find_base_model

    values = settled.values
    chosen = find_gpus(_names(gpu))
    methods = _methods(method, values)
    base = find_base_model(values)
    shape = shape_of(base)
    trainable = adapter_parameters(shape, values)
    lengths = _lengths(loaded, rows_source(loaded, demo, data), values, base, download, (rows, tokens))
    priced, told = with_prices_of_today(chosen)
    estimator, own = Estimator(shape, values, lengths), method_of(values)
    found = [estimator.estimate(one, gpus, name) for one in priced for name in methods]
    cheapest, line = best(found, own), suggestion(found, values, own)
    by_formula = sorted(set(estimator.counter.untraceable.values()))
    if as_json:
        click.echo(json.dumps({
            "recipe": loaded.name, "base_model": shape.name, "architecture": shape.architecture,
            "parameters": shape.num_parameters, "adapter_parameters": trainable, "lengths": lengths.told,
            "train_tokens": lengths.train_tokens, "prices": told, "by_formula": by_formula,
            "estimates": [one.as_json() for one in found], "best": cheapest and cheapest.as_json(), "suggestion": line,
        }, indent=2))  # fmt: skip
        return
    click.echo(f"base      {shape.name}: {about(shape, trainable, values)}")
    click.echo(f"lengths   {lengths.told}")
    click.echo(f"prices    {told}")
    for why in by_formula:
        click.echo(f"note      activations are by formula, as the model cannot be traced ({why[:120]})")
    click.echo(f"\n{table(found)}\n")
    if cheapest:
        click.echo(f"memory    {parts(cheapest)}")
    click.echo(f"suggest   {line}")


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _methods(text: str | None, settings: "Settings") -> list[str]:
    """The methods that are compared.

    Raises:
        RecipeError: for one that is none.
    """
    from hf_finetune.errors import nearest
    from hf_finetune.estimate import METHODS, method_of

    given = [name.lower() for name in _names(text)]
    for name in given:
        if name not in METHODS:
            raise RecipeError(f"--method {name}: there is no such method. {nearest(name, METHODS)}")
    return given or list(dict.fromkeys([method_of(settings), "lora", "full"]))


def _lengths(
    recipe: Recipe[Any], source: "Source", settings: "Settings", base: "BaseModel", download: bool,
    assumed: tuple[int | None, int | None],
) -> "Lengths":  # fmt: skip
    """The rows' tokens: counted if they are here or may be fetched, else those of sample rows, else assumed."""
    from hf_finetune.data.sources import LocalFile, is_here
    from hf_finetune.demo import find_rows
    from hf_finetune.estimate import assumed_lengths
    from hf_finetune.estimate.lengths import ASSUMED_ROWS, of_samples, read_lengths

    rows, tokens = assumed
    if not rows and not tokens and (download or is_here(source)):
        return read_lengths(recipe, source, settings, base)
    why = "" if rows or tokens else "the data set is not on this machine: --download reads it, --rows N says how many"
    samples = find_rows(recipe.name) if tokens is None else None
    if samples:
        own = read_lengths(recipe, LocalFile(str(samples)), settings, base)
        return of_samples(own, rows or ASSUMED_ROWS, settings, why)
    return assumed_lengths(settings, rows or ASSUMED_ROWS, tokens, why)
