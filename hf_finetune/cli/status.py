"""`hf-finetune status`: how far a run is, from another terminal."""

import platform
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hf_finetune.errors import plural
from hf_finetune.folder import holds_run
from hf_finetune.progress import Session, duration, in_one_line, read_session

if TYPE_CHECKING:
    from hf_finetune.run import Run


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
def status(folder: Path) -> None:
    """Show how far the run in the folder RUN is: stage, losses, time left, last checkpoint, memory."""
    for title, text in lines(folder):
        click.echo(f"{title:11} {text}")


def lines(folder: Path) -> list[tuple[str, str]]:
    """What is shown, a title and a text a line.

    Raises:
        RecipeError: when the folder holds no run.
    """
    from hf_finetune.run import Run

    session = read_session(folder)
    run = Run.read(folder) if holds_run(folder) or session is None else None
    if session is None:
        return [("run", f"{folder}: {f'finished at {run.finished}' if run and run.finished else 'not running'}")]
    shown = [("run", f"{folder}: {state(run, session)}"), ("stage", in_one_line(session))]
    if run is None:  # it reads its rows still
        return [*shown, ("time", duration(session.seconds))]
    if run.finished:
        shown.append(("report", str(folder / "report.md")))
    run.add_session(session)
    shown.append(("time", f"{duration(run.totals['seconds'])} in {plural(run.totals['sessions'], 'session')}"))
    if run.totals["cost_usd"] is not None:
        shown.append(("cost", f"{run.totals['cost_usd']:.2f} USD"))
    return shown


def state(run: "Run | None", session: Session) -> str:
    """Whether a run goes on, and in which process."""
    if run and run.finished:
        return f"finished at {run.finished}"
    if session.reason:
        return f"failed: {session.reason}"
    if session.ended != "was killed":
        return f"{session.ended}; the same command goes on"
    process, heard = f"process {session.pid} on {session.host}", f"{duration(time.time() - session.updated)} ago"
    if session.host != platform.node():
        return f"{process}, last heard of {heard}"
    return f"running, {process}" if is_running(session) else f"{process} was killed; the same command goes on"


def is_running(session: Session) -> bool:
    """Whether the session's process is still there, and not another one of its number."""
    import psutil

    try:
        born = psutil.Process(session.pid).create_time()
    except psutil.NoSuchProcess:
        return False
    return born <= datetime.fromisoformat(session.started).timestamp() + 1
