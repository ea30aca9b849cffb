"""Room for a training: on the disk for its checkpoints, in memory for what a forward pass keeps."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hf_finetune.checkpoints import discard, steps_of
from hf_finetune.errors import RecipeError, first_line, plural
from hf_finetune.memory import overflow
from hf_finetune.processes import is_main, is_others_failure


def check_room(folder: Path, checkpoint_bytes: int, count: int) -> None:
    """Whether the disk has room for the newest checkpoints that are kept, the best one, and the one being written.

    Raises:
        RecipeError: when it has not.
    """
    missing = count + 2 - len(steps_of(folder / "checkpoints"))
    needed, free = checkpoint_bytes * missing, shutil.disk_usage(folder).free
    if free < needed:
        raise RecipeError(
            f"{folder}: {needed / 2**20:,.0f} MiB are needed for {plural(missing, 'checkpoint')}, and "
            f"{free / 2**20:,.0f} MiB are free. Make room there, or name another folder with output_dir=FOLDER."
        )


@contextmanager
def removed_if_refused(checkpoint: Path, needed: int) -> Iterator[None]:
    """Removes a checkpoint that the disk refused half-way, and says so in one sentence; the ones before stay."""
    try:
        yield
    except (OSError, RuntimeError, RecipeError) as error:
        free = shutil.disk_usage(checkpoint.parent).free
        is_read_only = not os.access(checkpoint.parent, os.W_OK)
        # torch.save has a word of its own for each moment at which a disk can be full, so the disk itself is asked.
        refused = isinstance(error, OSError) or isinstance(error.__cause__, OSError) or free < needed or is_read_only
        if not refused or is_others_failure(error):
            raise
        if is_main():
            discard(checkpoint)
        why = "the folder may not be written to" if is_read_only else first_line(error.__cause__ or error)
        raise RecipeError(
            f"{checkpoint}: cannot be written: {why}. It needs about {needed / 2**20:,.0f} MiB, "
            f"{free / 2**20:,.0f} MiB are free. Make room there and start the same command again: it goes on from the "
            f"checkpoint before."
        ) from error


def keeps_at_most(room: int, model: torch.nn.Module, forward: Callable[[], torch.Tensor]) -> bool:
    """Whether a forward pass keeps no more bytes than `room` for its backward pass, besides the model's parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        if sum(kept.values()) > room:
            raise MemoryError("before the memory is full")
        return tensor.detach()  # not itself: a tensor that holds its own graph is never freed

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        return overflow(forward) is None
