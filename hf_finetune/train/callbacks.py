"""What is seen of a training while it goes on: a progress bar, a log file, and a stop when the loss is no number."""

import json
import math
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.errors import RecipeError

LOGGED = ("loss", "eval_loss", "learning_rate", "grad_norm")


class LogFile(TrainerCallback):  # type: ignore[misc]  # transformers exports it untyped
    """Writes a JSON object a log line: step, epoch, and what there is of loss, eval_loss, learning_rate, grad_norm."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        values = {name: float(logs[name]) for name in LOGGED if logs and name in logs}
        # Under float16 a gradient that overflows is normal: its step is left out and the scale lowered.
        watched = ("loss", "eval_loss") if args.fp16 else ("loss", "eval_loss", "grad_norm")
        broken = [name for name in watched if not math.isfinite(values.get(name, 0.0))]
        if broken:
            raise RecipeError(
                f"training: {broken[0]} is {values[broken[0]]} at step {state.global_step}, so the model is lost. "
                f"Lower learning_rate (now {args.learning_rate:g}) or max_grad_norm (now {args.max_grad_norm:g})."
            )
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        if values and state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(
                    json.dumps({"step": state.global_step, "epoch": round(state.epoch or 0, 3), **values}) + "\n"
                )


class ProgressBar(TrainerCallback):  # type: ignore[misc]
    """A bar over the steps with the time left and the last losses."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.losses: dict[str, str] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        hidden = not state.is_world_process_zero
        self.bar = tqdm(total=state.max_steps, desc="train", unit="step", dynamic_ncols=True, disable=hidden)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        names = {"loss": "loss", "eval_loss": "validation loss"}
        self.losses |= {names[name]: f"{value:.3f}" for name, value in (logs or {}).items() if name in names}
        self.bar.set_postfix(self.losses)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.bar.close()
