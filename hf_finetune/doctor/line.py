"""What doctor says: a line on one thing that was looked at, and what mends it."""

import re
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hf_finetune.errors import RecipeError, first_line

Level = Literal["ok", "warning", "fault"]
DEFECT = "this is a defect of hf-finetune doctor: please report it"
SHOWN = 3
"""Rows of many broken ones that a line names."""


@dataclass(frozen=True)
class Line:
    """One thing that was looked at."""

    level: Level
    """`fault`: the run would fail, or be worth nothing; `warning`: it would go, and not as may be meant."""
    text: str
    """What was found, with its value."""
    fix: str = ""
    """The command or the edit that mends it."""
    area: str = ""
    check: str = ""
    """The name of what has looked, such as `eval_steps`: for machines."""


def ok(text: str) -> Line:
    """A line on what is as it should be."""
    return Line("ok", text)


def warning(text: str, fix: str) -> Line:
    """A line on what a run goes on with, although it is hardly meant."""
    return Line("warning", text, fix)


def fault(text: str, fix: str) -> Line:
    """A line on what ends a run, or makes it worth nothing."""
    return Line("fault", text, fix)


def told(error: RecipeError) -> Line:
    """The fault that an error tells: its first sentence, and the others as what mends it."""
    what, fix = parted(str(error))
    return fault(what, fix)


def parted(message: str) -> tuple[str, str]:
    """The first sentence of a message, and the rest, which says what to do; of several lines the first says what."""
    head, *below = message.split("\n")
    if below:
        advice = next((line.strip() for line in below if "=true" in line), "")
        rows = [line for line in below if "=true" not in line]
        fix = advice or parted(rows[0].strip())[1] or "mend these rows"
        return "\n".join([head, *rows[:SHOWN], *(rows[-1:] if len(rows) > SHOWN else [])]), fix
    end = re.search(r"(?<=[.?!)])\s+(?=[A-Z`])", message)
    return (message[: end.start()], message[end.end() :]) if end else (message, "")


def defect(error: Exception, own: str) -> Line:
    """The fault that an unforeseen error is: in the recipe's file `own` when it went through that, else in doctor."""
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        frames.append((error.filename or "", error.lineno or 0))
    in_recipe = [(file, line) for file, line in frames if own and Path(file).resolve() == Path(own).resolve()]
    file, number = (in_recipe or frames)[-1]
    what = f"{file}: line {number}: {type(error).__name__}: {first_line(error)}"
    return fault(what, "mend that line" if in_recipe else DEFECT)
