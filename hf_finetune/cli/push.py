"""`hf-finetune push`: a finished run to the Hub."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hf_finetune.cli.merge import BEGINS_AGAIN, takes_recipe
from hf_finetune.cli.run import prepare_libraries
from hf_finetune.errors import RecipeError
from hf_finetune.interruption import interruption

if TYPE_CHECKING:
    from hf_finetune.hub.rights import Form, Target
    from hf_finetune.ship.finished import Finished


@click.command()
@click.argument("run")
@click.argument("repo_id", metavar="[ID]", required=False)
@click.option("--merged", is_flag=True, help="Also push the merged weights, to ID-merged.")
@click.option("--private", is_flag=True, help="Make a repo that is not there yet private.")
@click.option("--gated", is_flag=True, help="Have readers ask for access; the Hub grants it.")
@click.option("--revision", default="main", metavar="BRANCH", help="Commit to another branch than main.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing to the branch.")
@click.option("--tag", help="Tag the commit.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and stop.")
@click.option("--bundle", metavar="DIR", help="Write it to a folder instead, for another machine to push.")
@takes_recipe
def push(
    run: str, repo_id: str | None, merged: bool, private: bool, gated: bool, revision: str, create_pr: bool,
    tag: str | None, dry_run: bool, bundle: str | None, recipe: str | None,
) -> None:  # fmt: skip
    """Push the adapter of a finished RUN to the repo ID of the Hub, such as acme/finsent, by one commit.

    Whether that may be done is asked first. Then what is sent is loaded in a clean process as its card says, unless
    verified.json has that already. After any failure the repo holds either what it held or all of this, and the same
    command finishes it. RUN may also be a folder that --bundle wrote; ID may be left out once the run has one.
    """
    from hf_finetune.hub.rights import Target

    interruption.listen(BEGINS_AGAIN)
    if bundle and (private or gated or create_pr or tag or dry_run or revision != "main"):
        raise click.UsageError("--bundle only writes a folder: say how it is pushed when that is pushed.")
    if create_pr and (revision != "main" or tag):
        raise click.UsageError("--create-pr opens a pull request on main: leave --revision and --tag out.")
    order = Target("", private=private, gated=gated, branch=revision, as_pull_request=create_pr, tag=tag)
    push_run(Path(run), repo_id, merged, order, dry_run, bundle, recipe)


def push_run(
    folder: Path, repo_id: str | None, merged: bool, order: "Target", dry_run: bool = False, bundle: str | None = None,
    recipe: str | None = None,
) -> None:  # fmt: skip
    """Pushes a run or a bundle; or tells what that would do, or writes it to a folder.

    Raises:
        RecipeError: when it cannot be done; the same command again finishes it.
    """
    from hf_finetune.ship.push import (
        BUNDLE,
        check_place,
        check_rights,
        names_of,
        push,
        ready,
        refuse_unfit,
        write_bundle,
    )

    if (folder / BUNDLE).is_file():
        if bundle:
            raise RecipeError(f"{folder}: was written by --bundle already. Copy it, or name the run it is of.")
        _push_bundle(folder, repo_id, merged, order, dry_run)
        return
    prepare_libraries()
    from hf_finetune.folder import held
    from hf_finetune.hub.rights import check_names
    from hf_finetune.run import Run
    from hf_finetune.ship.finished import read_finished

    finished = read_finished(folder, recipe)
    name = repo_id or finished.run.published.get("adapter")
    if name is None:
        raise RecipeError(f"{folder}: was not pushed yet. Name a repo: hf-finetune push {folder} OWNER/NAME.")
    names = names_of(name, merged)
    refuse_unfit(finished, merged)
    if bundle:
        for own in names.values():
            check_names(replace(order, repo_id=own))
        check_place(Path(bundle))
    else:
        check_rights(names, order)
    with held(folder):
        if dry_run:
            _tell_changes(finished, names, order)
            return
        checked = ready(finished, names, say=click.echo)
        if bundle:
            write_bundle(checked, Path(bundle))
            click.echo(f"bundle    {bundle}: push it where there is a network with hf-finetune push {bundle}")
            return
        done = push(checked, order, click.echo)
        run = Run.read(folder)
        replace(run, pushed=run.pushed | done).write(folder)


def _push_bundle(folder: Path, repo_id: str | None, merged: bool, order: "Target", dry_run: bool) -> None:
    """Pushes what `--bundle` has left in a folder, or tells what that would do."""
    from hf_finetune.ship.push import push, read_bundle, tell_changes

    carried = read_bundle(folder)
    if repo_id not in (None, carried.names["adapter"]):
        raise RecipeError(f"{folder}: its cards name {carried.names['adapter']}. Leave {repo_id} out.")
    if merged and "merged" not in carried.names:
        raise RecipeError(f"{folder}: holds no merged weights. Write it again with --merged.")
    (tell_changes if dry_run else push)(carried, order, click.echo)


def _tell_changes(finished: "Finished", names: "Mapping[Form, str]", order: "Target") -> None:
    """Tells what a push would do; the run's record and its cards are then as they were."""
    from hf_finetune.card import write_card
    from hf_finetune.ship.push import ready, tell_changes

    try:
        tell_changes(ready(finished, names, verifies=False), order, click.echo)
    finally:
        finished.run.write(finished.folder)
        write_card(finished.folder)
