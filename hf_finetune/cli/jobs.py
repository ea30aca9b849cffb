"""`hf-finetune jobs`: a run on Hugging Face's own GPUs."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import click

from hf_finetune.cli.run import settle_run
from hf_finetune.errors import RecipeError, nearest
from hf_finetune.recipe import load_recipe


@click.command()
@click.argument("recipe", required=False)
@click.argument("settings", nargs=-1, metavar="[NAME=VALUE]...")
@click.option(
    "--flavor", metavar="MACHINE", help="Where to run it. Without it the machines and their prices are listed."
)
@click.option(
    "--push-to-hub", metavar="ID", help="The repo that the run is pushed to: a job's own disk is thrown away."
)
@click.option("--private", is_flag=True, help="Make that repo private, where it is not there yet.")
@click.option("--timeout", default="2h", show_default=True, metavar="TIME", help="Stop it after that, such as 90m.")
@click.option("--namespace", help="The organisation that pays.")
@click.option("--install", metavar="SPEC", help="What pip installs there: this version of hf_finetune.")
@click.option("--image", default="python:3.12", show_default=True, help="The Docker image.")
@click.option("--detach", is_flag=True, help="Do not wait for its end.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def jobs(
    recipe: str | None, settings: Sequence[str], flavor: str | None, push_to_hub: str | None, private: bool,
    timeout: str, namespace: str | None, install: str | None, image: str, detach: bool, yes: bool,
) -> None:  # fmt: skip
    """Run RECIPE, a name or a single file, as a job on Hugging Face's GPUs, and push what comes out.

    What it will cost at most is told first, at the price of the day, and asked.
    """
    from hf_finetune.hub.jobs import Order, follow, in_seconds, machines, start

    known = {machine.name: machine for machine in machines()}
    if not recipe or not flavor:
        for machine in known.values():
            click.echo(f"{machine.name:16} {machine.usd_an_hour:6.2f} USD an hour  {machine.description}")
        return
    if flavor not in known:
        raise RecipeError(f"--flavor {flavor}: there is no such machine. {nearest(flavor, known)}")
    words = _words(recipe, settings, push_to_hub, private, known[flavor].usd_an_hour)
    spec = install or f"hf_finetune=={version('hf_finetune')}"
    order = Order(known[flavor], recipe, words, in_seconds(timeout), spec, image, namespace)
    click.echo(
        f"job       {recipe} on {flavor}, {order.machine.usd_an_hour:.2f} USD an hour: "
        f"at most {order.most_usd:.2f} USD, if it is stopped after {timeout}"
    )
    if not yes:
        click.confirm("start it?", abort=True)
    job = start(order)
    click.echo(f"started   {job.url}")
    if not detach:
        for line in follow(job):
            click.echo(line)
        click.echo(f"ended     {job.url}")


def _words(
    recipe: str, settings: Sequence[str], repo_id: str | None, is_private: bool, usd_an_hour: float
) -> list[str]:
    """What the run there is told, once all that can be looked at here is.

    Raises:
        RecipeError: a wrong setting, a file of this machine, no repo to push to, or no right to push there.
    """
    from hf_finetune.data.sources import HubDataset
    from hf_finetune.hub.rights import Target, check_target

    loaded = load_recipe(recipe)
    told = [f"hub_model_id={repo_id}"] if repo_id else []
    words = [*settings, *told, *(["hub_private_repo=true"] if is_private else [])]
    values = settle_run(loaded, words, None, demo=False).values
    if not values.hub_model_id:
        raise RecipeError("jobs: what a job leaves on its disk is thrown away. Name a repo with --push-to-hub ID.")
    if Path(str(values.model_name_or_path)).exists():
        raise RecipeError(f"jobs: the base {values.model_name_or_path} is a folder of this machine. Push it first.")
    if not isinstance(loaded.dataset, HubDataset):
        raise RecipeError("jobs: the recipe's rows are a file of this machine. Make them a data set on the Hub first.")
    check_target(Target(values.hub_model_id, private=values.hub_private_repo))
    priced = any(word.startswith("price_per_hour=") for word in settings)
    return words if priced else [*words, f"price_per_hour={usd_an_hour:g}"]
