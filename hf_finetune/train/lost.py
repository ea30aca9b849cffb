"""A training that is lost: how it shows, and what there is to do."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hf_finetune.errors import RecipeError

if TYPE_CHECKING:
    from trl import SFTConfig


def fault_in(logs: Mapping[str, float], lowest_loss: float, vocabulary: int, is_float16: bool) -> str | None:
    """What in a log line says that a training is lost, after losses that once were as low as `lowest_loss`."""
    # Under float16 a gradient that overflows is normal: its step is left out and the scale lowered.
    watched = ("loss", "eval_loss") if is_float16 else ("loss", "eval_loss", "grad_norm")
    for name in watched:
        if not math.isfinite(logs.get(name, 0.0)):
            return f"{name} is {logs[name]}"
    blind = math.log(vocabulary)  # the loss of guessing each token blindly
    if logs.get("loss", 0.0) > blind and lowest_loss < blind / 2:
        return f"the loss is {logs['loss']:.2f}, worse than blind guessing, and was {lowest_loss:.2f}"
    return None


def lost_training(what: str, step: int, lines: Sequence[int], saved_step: int, arguments: "SFTConfig") -> RecipeError:
    """The error that says when, with which lines of splits/train.jsonl, what is left (0: nothing), and what to do."""
    shown = ", ".join(map(str, lines[:20])) + (", ..." if len(lines) > 20 else "")
    kept = f"checkpoint-{saved_step} is from before that. " if saved_step else ""
    clipped = f"{arguments.max_grad_norm:g}" if arguments.max_grad_norm else "0, which is off"
    return RecipeError(
        f"training: {what} at step {step} (lines {shown} of splits/train.jsonl), so the model is lost. {kept}"
        f"Start another run (output_dir=FOLDER or --overwrite) with a lower learning_rate "
        f"(now {arguments.learning_rate:g}) or with gradients clipped lower (max_grad_norm is now {clipped})."
    )
