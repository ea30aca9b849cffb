"""A prepared data set -> a private data set repo on the Hub, by one commit."""

from collections.abc import Callable
from pathlib import Path

from hf_finetune.curate.chunks import CHANGED, REJECTED
from hf_finetune.errors import plural
from hf_finetune.hub.publish import LocalFile, publish
from hf_finetune.hub.rights import Target, check_target

STAYS = (REJECTED, CHANGED)
"""What does not go along: it holds what was masked or left out on purpose."""


def check_push(repo_id: str) -> None:
    """Whether a data set may be pushed to the repo, which is not there yet or private.

    Raises:
        RecipeError: when it may not.
    """
    check_target(_target(repo_id))


def push_data(folder: Path, repo_id: str, say: Callable[[str], None] = print) -> str:
    """Leaves the files of a prepared data set in the repo, and gives back the commit; the same call finishes it.

    Raises:
        RecipeError: when the Hub or the network refuses.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in STAYS)
    files = {path.relative_to(folder).as_posix(): LocalFile(path) for path in paths}
    size = sum(file.size for file in files.values()) / 1e6
    say(f"push      {plural(len(files), 'file')}, {size:,.1f} MB, to {repo_id}; {' and '.join(STAYS)} stay here")
    done = publish(files, _target(repo_id), "A data set that was prepared by hf_finetune.", say)
    say(f"{'pushed' if done.is_new else 'is there':9} {done.url}")
    return done.commit


def _target(repo_id: str) -> Target:
    return Target(repo_id, "data", private=True)
