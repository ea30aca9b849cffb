"""What happens beside the steps of a training: the log file, the progress, and a stop that loses nothing."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.files import append_jsonl, write_text
from hf_finetune.interruption import Interrupted, interruption
from hf_finetune.processes import highest
from hf_finetune.progress import Progress

LOGGED = ("loss", "eval_loss", "learning_rate", "grad_norm")


class LogFile(TrainerCallback):  # type: ignore[misc]  # transformers exports it untyped
    """Writes a JSON object a log line: step, epoch, and what there is of loss, eval_loss, learning_rate, grad_norm.

    A run that goes on from `last_step` loses the lines after it: they will be written again.
    """

    def __init__(self, path: Path, last_step: int) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        write_text(path, "".join(f"{line}\n" for line in lines if _is_up_to(line, last_step)))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        values = {name: float(logs[name]) for name in LOGGED if logs and name in logs}
        values = {name: value for name, value in values.items() if abs(value) != float("inf")}  # float16's grad_norm
        if values:
            line = {"step": state.global_step, "epoch": round(state.epoch or 0, 3), **values}
            append_jsonl(self.path, line)


class ProgressReport(TrainerCallback):  # type: ignore[misc]
    """Tells the run's progress how many steps are made, and the last losses."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.started = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.started = time.monotonic()
        self.progress.session.first_step = self.progress.session.last_step = state.global_step
        self.progress.begin("train", state.max_steps, "steps", done=state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        session = self.progress.session
        session.last_step, session.training_seconds = state.global_step, round(time.monotonic() - self.started, 1)
        self.progress.advance(state.global_step)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.progress.advance(state.global_step)  # a validation may be long too

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        names = {"loss": "loss", "eval_loss": "validation loss"}
        losses = {names[name]: f"{value:.3f}" for name, value in (logs or {}).items() if name in names}
        self.progress.advance(state.global_step, **losses)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.progress.session.shown["last checkpoint"] = f"checkpoint-{state.global_step}"
        self.progress.write()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.progress.close()


class EarlyStopping(EarlyStoppingCallback):  # type: ignore[misc]
    """Ends a training whose validation loss no longer falls; its count is kept in the checkpoints."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Nothing: transformers warns here that the best model is not loaded. It is taken from its checkpoint."""


class SaveWhenAsked(TrainerCallback):  # type: ignore[misc]
    """Saves and stops when a signal asked any of the processes to, at a place where going on repeats nothing.

    That is before a step inside an epoch, or before an epoch: there all that belongs to the step before is done
    (log, evaluation, checkpoint), and no random number has been drawn for the next. Stopping the trainer by its own
    flag would evaluate once more, in the middle of an epoch.
    """

    def __init__(self, save: Callable[[int], None]) -> None:
        self.save = save
        """Saves a checkpoint of the step, if there is none yet."""
        self.steps_in_epoch = 0

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._stop_if_asked(state)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step % self.steps_in_epoch:
            self._stop_if_asked(state)

    def _stop_if_asked(self, state: TrainerState) -> None:
        asked = highest(interruption.requested or 0)
        if asked:
            self.save(state.global_step)
            raise Interrupted(signal.Signals(int(asked)))


def _is_up_to(line: str, last_step: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= last_step)
    except ValueError:  # cut off when the run was killed
        return False
