"""A run can be watched: a line at fixed times, progress.json, and `hf-finetune status`."""

import os
import platform
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from conftest import imported, run_cli
from hf_finetune import progress as module
from hf_finetune.cli.status import is_running, lines
from hf_finetune.errors import RecipeError
from hf_finetune.files import write_json
from hf_finetune.layers import Layer, settle
from hf_finetune.progress import Progress, Session, duration, in_one_line, read_session, tracked
from hf_finetune.run import Run, now


def a_progress(folder: Path) -> tuple[Progress, list[str]]:
    said: list[str] = []
    return Progress(Session(now()), folder, said.append), said


def a_run(**changes: Any) -> Run:
    settings = settle([Layer("command line", {"price_per_hour": "3600"})]).as_json()
    return Run([], {"name": "x", "loaded_from": "x.py", "sha256": ""}, settings, {}, {}, {}, None, False, **changes)


def test_without_a_terminal_a_line_is_said_at_fixed_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    progress, said = a_progress(tmp_path)
    progress.begin("train", 100, "steps", done=40)
    progress.advance(50, loss="0.5")
    assert said == []
    monkeypatch.setattr(module, "LINE_SECONDS", 0.0)
    progress.session.shown["last checkpoint"] = "checkpoint-40"
    progress.advance(60)
    (line,) = said
    assert line.startswith("train     60 of 100 steps, loss 0.5, last checkpoint checkpoint-40, ")
    assert " left, " in line
    assert line.endswith(" GiB")


def test_another_process_can_read_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.0)
    progress, _ = a_progress(tmp_path)
    progress.begin("train", 100, "steps")
    progress.advance(7, loss="0.5")
    read = read_session(tmp_path)
    assert read is not None
    assert (read.stage, read.done, read.total, read.shown, read.pid) == ("train", 7, 100, {"loss": "0.5"}, os.getpid())
    assert read.peak_memory_gib > 0


def test_time_left_counts_the_steps_of_this_session_alone(tmp_path: Path) -> None:
    progress, _ = a_progress(tmp_path)
    progress.begin("train", 1000, "steps", done=900)
    progress._stage_started -= 10
    progress.advance(910)
    assert progress.session.seconds_left == pytest.approx(90, rel=0.05)


def test_a_full_disk_does_not_stop_what_is_only_to_be_watched(tmp_path: Path) -> None:
    progress, _ = a_progress(tmp_path)
    (tmp_path / ".progress.json.partial").mkdir()  # stands for a disk that refuses
    progress.begin("train", 100, "steps")
    assert read_session(tmp_path) is None


def test_tracked_items_come_as_they_are(tmp_path: Path) -> None:
    progress, _ = a_progress(tmp_path)
    assert list(tracked(["a", "b"], progress, "tokenise", "rows")) == ["a", "b"]
    assert (progress.session.stage, progress.session.done) == ("tokenise", 2)
    assert list(tracked([], None, "tokenise", "rows")) == []


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (7500, "2 h 5 min")])
def test_durations_are_told_in_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def leave(folder: Path, session: Session, run: Run | None = None) -> dict[str, str]:
    """What status shows of a folder with them."""
    progress = Progress(session, folder, print)
    progress.session.total, progress.session.stage, progress.session.unit = 10, "train", "steps"
    write_json(folder / "progress.json", vars(session))
    if run:
        run.write(folder)
    return dict(lines(folder))


def test_status_of_a_run_that_goes_on(tmp_path: Path) -> None:
    shown = leave(tmp_path, Session(now(), seconds=60, updated=time.time()), a_run())
    assert shown["run"].endswith(f": running, process {os.getpid()} on {platform.node()}")
    assert shown["stage"].startswith("train     0 of 10 steps")
    assert (shown["time"], shown["cost"]) == ("1 min 0 s in 1 session", "60.00 USD")


def test_status_before_the_first_step(tmp_path: Path) -> None:
    assert set(leave(tmp_path, Session(now()))) == {"run", "stage", "time"}


def test_status_of_a_run_that_was_killed(tmp_path: Path) -> None:
    run = a_run()
    run.add_session(Session("2026-01-01T00:00:00+00:00", seconds=40.0))
    shown = leave(tmp_path, Session(now(), pid=2**22 + 1, seconds=20), run)
    assert shown["run"].endswith("was killed; the same command goes on")
    assert shown["time"] == "1 min 0 s in 2 sessions"


def test_status_of_a_run_that_was_stopped_or_has_finished(tmp_path: Path) -> None:
    stopped = leave(tmp_path, Session(now(), ended="was stopped by SIGTERM"), a_run())
    assert stopped["run"].endswith(": was stopped by SIGTERM; the same command goes on")
    finished = leave(tmp_path, Session(now(), ended="finished"), a_run(finished="2026-11-22T10:00:00+00:00"))
    assert finished["run"].endswith(": finished at 2026-11-22T10:00:00+00:00")
    assert (set(finished) - set(stopped), Path(finished["report"])) == ({"report"}, tmp_path / "report.md")


def test_status_of_a_run_on_another_machine_says_when_it_was_heard_of(tmp_path: Path) -> None:
    shown = leave(tmp_path, Session(now(), host="gpu-3", pid=7, updated=time.time() - 90), a_run())
    assert ": process 7 on gpu-3, last heard of 1 min 30 s ago" in shown["run"]


def test_a_process_that_took_over_the_number_of_a_dead_one_is_not_it() -> None:
    long_ago = (datetime.now(UTC) - timedelta(days=400)).isoformat()
    assert not is_running(Session(long_ago))
    assert is_running(Session(now()))


def test_status_of_a_run_without_a_session_says_whether_it_is_finished(tmp_path: Path) -> None:
    a_run(finished="2026-11-22T10:00:00+00:00").write(tmp_path)
    assert lines(tmp_path) == [("run", f"{tmp_path}: finished at 2026-11-22T10:00:00+00:00")]


def test_status_of_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "none"):
        with pytest.raises(RecipeError, match="holds no run"):
            lines(path)


def test_status_of_a_run_that_failed_says_why(tmp_path: Path) -> None:
    shown = leave(tmp_path, Session(now(), ended="failed", reason="training: the loss is nan"), a_run())
    assert shown["run"].endswith(": failed: training: the loss is nan")


def test_status_imports_nothing_heavy(tmp_path: Path) -> None:
    leave(tmp_path, Session(now()), a_run())
    done = run_cli("status", str(tmp_path), cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    assert "click" in imported(done.stderr)
    assert imported(done.stderr).isdisjoint({"torch", "transformers", "trl", "datasets", "peft", "accelerate"})
    assert in_one_line(Session(now(), stage="train", total=10, unit="steps")).split(",")[0] in done.stdout


def test_a_session_without_a_stage_yet_begins() -> None:
    assert in_one_line(Session(now())) == "begins, 0.0 GiB"
    assert in_one_line(Session(now(), stage="train", total=10, unit="steps")) == "train     0 of 10 steps, 0.0 GiB"
