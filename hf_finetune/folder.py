"""A run's folder: held by one run at a time, begun, gone on with, or replaced when that is asked for."""

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hf_finetune.errors import RecipeError
from hf_finetune.files import existing

LOCK = "run.lock"
HOLDER = "run.lock.holder"
"""Who holds the lock, in words. The lock is filelock's alone: where there is no flock, it keeps a record in it."""
RUN_FILES = (
    "report.json report.md report.html answers.jsonl evaluation adapter loss_curve.png training_log.jsonl checkpoints "
    "splits data.json progress.json run.json"
).split()
"""What a run leaves in its folder, and so what --overwrite removes; run.json last, so that a kill leaves a run."""
SHIPPED_FILES = ("verified.json", "merged_answers.jsonl", "merged", ".merged.partial")
"""What merging and verifying a run leave there: of another run they are wrong."""


def holds_run(folder: Path) -> bool:
    """Whether a run was begun in the folder."""
    return (folder / "run.json").is_file()


def check_folder(folder: Path, overwrite: bool) -> None:
    """Whether a run can be begun or gone on with in the folder; nothing is written yet.

    Raises:
        RecipeError: when it holds something else than a run, or cannot be written.
    """
    if folder.exists() and not holds_run(folder) and (not folder.is_dir() or _foreign(folder)):
        if overwrite:
            raise RecipeError(
                f"{folder}: holds no run, so --overwrite leaves it alone. Name another with output_dir=FOLDER."
            )
        raise RecipeError(f"{folder}: is there already and is not empty. Name another with output_dir=FOLDER.")
    nearest = folder if folder.exists() else existing(folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        reason = "no right to write there" if nearest.is_dir() else "that is a file"
        raise RecipeError(f"{folder}: cannot be made in {nearest}: {reason}. Name another with output_dir=FOLDER.")


@contextmanager
def held(folder: Path, naming: str = "output_dir=FOLDER") -> Iterator[None]:
    """Makes the folder and holds it; another run in it is refused. A lock that a dead process left is taken over.

    `naming` is how the user names another folder.

    When nothing was written inside, the folder and those made above it are gone afterwards.

    Raises:
        RecipeError: when another run holds it, or the disk refuses.
    """
    from filelock import FileLock, Timeout

    made = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        (folder / HOLDER).write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
    except Timeout as error:
        raise RecipeError(f"{folder}: {_holder(folder)} is running in it. Wait for it, or stop it first.") from error
    except OSError as error:
        reason = error.strerror or error
        raise RecipeError(
            f"{folder}: cannot be made: {reason}. Name another with {naming}."
            if made
            else f"{folder}: cannot be written: {reason}. Make room or rights there, or work on a copy of the folder."
        ) from error
    try:
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        (folder / LOCK).unlink(missing_ok=True)  # while it is held: afterwards it may be another run's
        lock.release()
        if not holds_run(folder):
            for path in (folder / "progress.json", *made):
                _remove_if_empty(path)


def start_folder(folder: Path) -> None:
    """Removes what an earlier run left in the folder; files that no run writes stay.

    Raises:
        RecipeError: when the disk refuses.
    """
    try:
        for path in (folder / name for name in (*SHIPPED_FILES, *RUN_FILES)):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    except OSError as error:
        raise RecipeError(
            f"{folder}: cannot be emptied: {error.strerror}. Name another with output_dir=FOLDER."
        ) from error


def _holder(folder: Path) -> str:
    """Who holds the folder, or held it when it was killed: `process 4711 on gpu-3`."""
    try:
        return (folder / HOLDER).read_text(encoding="utf-8") or "another process"
    except OSError:
        return "another process"


def _foreign(folder: Path) -> list[str]:
    """What is in a folder besides the traces of a run that was killed before it was begun."""
    return [
        path.name for path in folder.iterdir() if not path.name.lstrip(".").startswith((LOCK, "run.json", "progress"))
    ]


def _remove_if_empty(path: Path) -> None:
    try:
        path.rmdir() if path.is_dir() else path.unlink()
    except OSError:
        return
