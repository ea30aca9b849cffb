"""Where a run stands: a bar on a terminal, a line at fixed times without one, and `progress.json` for another terminal.

`progress.json` is also what is left of a session that was killed: its steps and seconds are summed from there.
"""

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tqdm.auto import tqdm

from hf_finetune.energy import counters, used_since
from hf_finetune.errors import RecipeError
from hf_finetune.files import read_json, write_json
from hf_finetune.interruption import interruption
from hf_finetune.processes import is_main

Item = TypeVar("Item")

FILE = "progress.json"
WRITE_SECONDS = 2.0
LINE_SECONDS = 30.0


@dataclass
class Session:
    """One stretch of a run in one process, from its start to its end or to the moment it was killed."""

    started: str
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=platform.node)
    seconds: float = 0.0
    training_seconds: float = 0.0
    first_step: int = 0
    """The step of the checkpoint that it went on from."""
    last_step: int = 0
    peak_memory_gib: float = 0.0
    energy_wh: float | None = None
    """What its GPUs have used; None where nobody counts that."""
    ended: str = "was killed"
    """How it ended, as a verb; it was killed until it says otherwise."""
    reason: str = ""
    """Why it failed, in the words of the error."""
    gains: dict[str, Any] = field(default_factory=dict)
    """Which gains of speed were in use, after `auto` was decided and the base was tried."""
    used: dict[str, int] = field(default_factory=dict)
    """The settings that were not used as asked for but so, since memory did not hold as much."""
    stage: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    shown: dict[str, Any] = field(default_factory=dict)
    """What else is worth seeing: the losses, the last checkpoint."""
    seconds_left: float | None = None
    updated: float = 0.0
    """When this was written, in seconds since 1970."""


class Progress:
    """Keeps a session's record while it runs, and shows it."""

    def __init__(self, session: Session, folder: Path, say: Callable[[str], None]) -> None:
        self.session = session
        self.folder = folder
        self._say = say
        self._started = time.monotonic()
        self._counters = counters() if is_main() else {}
        self._stage_started = self._said = self._written = self._started
        self._first_done = 0
        self._bar: Any = None

    def begin(self, stage: str, total: int, unit: str, done: int = 0) -> None:
        """Starts a stage of `total` units of which `done` were done before."""
        self.close()
        here = self.session
        here.stage, here.total, here.unit, here.done, here.seconds_left = stage, total, unit, done, None
        self._first_done, self._stage_started = done, time.monotonic()
        on_terminal = sys.stderr.isatty() and is_main()
        self._bar = tqdm(
            total=total, initial=done, desc=stage, unit=unit, dynamic_ncols=True, delay=1, disable=not on_terminal
        )
        self.write()

    def advance(self, done: int, **shown: Any) -> None:
        """Notes how far the stage is, and what else is worth seeing; a signal that came is answered here too."""
        interruption.stop_if_requested()
        here, now = self.session, time.monotonic()
        self._bar.update(done - here.done)
        here.done = done
        here.shown |= shown
        new = done - self._first_done
        here.seconds_left = (now - self._stage_started) / new * (here.total - done) if new > 0 else None
        if shown:
            self._bar.set_postfix(here.shown)
        if now - self._written >= WRITE_SECONDS:
            self.write()
        if self._bar.disable and is_main() and now - self._said >= LINE_SECONDS:
            self._said = now
            self._say(in_one_line(here))

    def tell(self, line: str) -> None:
        """Says, once for all processes, what a user should know of the run."""
        if is_main():
            self._say(line)

    def write(self) -> None:
        """Leaves progress.json, with the time, the memory and the energy of now."""
        self._written = time.monotonic()
        self.session.seconds = round(self._written - self._started, 1)
        self.session.peak_memory_gib = round(peak_memory_gib(), 2)
        self.session.energy_wh = used_since(self._counters)
        self.session.updated = time.time()
        if is_main() and self.folder.is_dir():
            with suppress(RecipeError):  # a full disk is told by what needs the room; this is only for who watches
                write_json(self.folder / FILE, asdict(self.session))

    def close(self) -> None:
        """Ends the bar of the stage."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def tracked(items: Sequence[Item], progress: Progress | None, stage: str, unit: str) -> Iterator[Item]:
    """The items one by one; the progress, if there is one, is told how many were done."""
    if progress:
        progress.begin(stage, len(items), unit)
    for done, item in enumerate(items, 1):
        yield item
        if progress:
            progress.advance(done)
    if progress:
        progress.close()


def read_session(folder: Path) -> Session | None:
    """The session that `progress.json` of a run's folder tells of; None when there is none, or it is damaged."""
    try:
        return Session(**read_json(folder / FILE))
    except (OSError, ValueError, TypeError):
        return None


def in_one_line(session: Session) -> str:
    """A stage in one line: how far, what is worth seeing, how long still."""
    stage = f"{session.stage:9} {session.done:,} of {session.total:,} {session.unit}"
    parts = [stage if session.stage else "begins"]
    parts += [f"{name} {value}" for name, value in session.shown.items()]
    parts += [f"{duration(session.seconds_left)} left"] if session.seconds_left is not None else []
    return ", ".join([*parts, f"{session.peak_memory_gib:.1f} GiB"])


def duration(seconds: float) -> str:
    """`50 s`, `3 min 20 s`, `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def peak_memory_gib() -> float:
    """The largest memory of this process so far: on the GPU where there is one, else resident on the CPU, in GiB."""
    torch = sys.modules.get("torch")  # where it is not imported yet, no GPU is used yet
    if torch and torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 2**30
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
