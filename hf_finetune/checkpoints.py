"""Checkpoints that are whole: sealed with the hashes of their files, and gone on from only when these still hold."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hf_finetune.errors import RecipeError, first_line
from hf_finetune.files import read_json, sha256, sync, write_json

SEAL = "sealed.json"
"""Written last; a checkpoint without it was cut off while it was saved."""


def seal(checkpoint: Path, expected: Sequence[str] = ()) -> None:
    """Leaves the seal: from now on the checkpoint counts. All its bytes are on the disk, not only in its cache.

    Raises:
        RecipeError: when one of the expected files is not there: other machines write theirs elsewhere.
    """
    files = _files(checkpoint)
    missing = sorted(set(expected) - set(files))
    if missing:
        raise RecipeError(
            f"{checkpoint}: {missing[0]} has not been written there. The run's folder must lie on a disk that all "
            f"machines share: name one with output_dir=FOLDER."
        )
    for name in files:
        sync(checkpoint / name)
    write_json(checkpoint / SEAL, {name: sha256(checkpoint / name) for name in files})
    sync(checkpoint.parent)


def fault_of(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or with the best one that it points to; None when it can be gone on from."""
    fault = _own_fault(checkpoint)
    if fault is None and best_of(checkpoint) != checkpoint and (best := _own_fault(best_of(checkpoint))):
        return f"the best one before it, {best_of(checkpoint).name}, {best}"
    return fault


def last_whole(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that can be gone on from; those after it are removed, and it is said what was wrong.

    Raises:
        RecipeError: when one cannot be read for another reason than damage.
    """
    for checkpoint in reversed(steps_of(folder)):
        fault = fault_of(checkpoint)
        if fault is None:
            return checkpoint
        say(f"resume    {checkpoint}: {fault}; going back to the one before")
        discard(checkpoint)
    return None


def steps_of(folder: Path) -> list[Path]:
    """The checkpoints in a folder, whole or not, the oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The number of steps that were made before a checkpoint was saved."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def state_of(checkpoint: Path) -> dict[str, Any]:
    """What the trainer kept of itself: step, epoch, best step and its loss."""
    state: dict[str, Any] = read_json(checkpoint / "trainer_state.json")
    return state


def best_of(checkpoint: Path) -> Path:
    """The checkpoint with the lowest validation loss up to this one; itself when none was taken."""
    best = state_of(checkpoint)["best_global_step"]
    return checkpoint.with_name(f"checkpoint-{best}") if best else checkpoint


def is_over(checkpoint: Path) -> bool:
    """Whether training has ended with this checkpoint: all steps are made, or it was stopped early."""
    state = state_of(checkpoint)
    control = state["stateful_callbacks"]["TrainerControl"]["args"]
    return bool(state["global_step"] >= state["max_steps"] or control["should_training_stop"])


def keep_newest(folder: Path, count: int) -> None:
    """Removes all checkpoints but the newest `count` and the best one of each, which going on from them needs."""
    checkpoints = steps_of(folder)
    newest = checkpoints[-count:]
    kept = {*newest, *map(best_of, newest)}
    for checkpoint in checkpoints:
        if checkpoint not in kept:
            discard(checkpoint)


def discard(checkpoint: Path) -> None:
    """Removes a checkpoint, as far as the disk lets; a kill on the way leaves none that looks whole."""
    with suppress(OSError):
        (checkpoint / SEAL).unlink()
    shutil.rmtree(checkpoint, ignore_errors=True)


def _own_fault(checkpoint: Path) -> str | None:
    if not (checkpoint / SEAL).is_file():
        return "was not saved to its end" if checkpoint.is_dir() else "is gone"
    try:
        hashes = read_json(checkpoint / SEAL)
        damaged = [name for name, digest in hashes.items() if sha256(checkpoint / name) != digest]
    except (FileNotFoundError, ValueError, AttributeError) as error:
        return f"is damaged ({first_line(error)})"
    except OSError as error:  # a disk that is away for a moment is no damage
        raise RecipeError(f"{checkpoint}: cannot be read: {error}. Mend that, then start the same command.") from error
    return f"is damaged ({', '.join(damaged)})" if damaged else None


def _files(checkpoint: Path) -> list[str]:
    found = [path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file()]
    return sorted(name for name in found if name != SEAL)
