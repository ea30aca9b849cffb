"""A run that is stopped, at whatever moment, and started again ends as one that was never stopped: bit for bit."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from interrupted_runs import MOMENTS, can_mount

from conftest import run_cli, sample_rows, write_rows
from hf_finetune.files import read_json, sha256
from hf_finetune.interruption import Interrupted, Interruption

SOME = (
    "between the first files", "inside a step, between its batches", "validation", "saving, half of it written",
    "saving, after the seal", "between two epochs", "writing the adapter", "asking the fine-tuned model",
)  # fmt: skip
"""The whole table, all kinds at all moments, is `python tests/interrupted_runs.py`: a quarter of an hour."""


def table(kinds: Sequence[str], processes: int, moments: Sequence[str], *settings: str) -> list[dict[str, Any]]:
    """The lines of the table that did not come out the same."""
    script = Path(__file__).parent / "interrupted_runs.py"
    words = [sys.executable, str(script), *kinds, "--processes", str(processes), "--json"]
    words += ["--moments", *moments, "--settings", *settings]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(kinds) * len(moments), done.stderr
    return [line for line in lines if line["fault"]]


@pytest.mark.slow
def test_a_killed_run_goes_on_at_every_moment() -> None:
    assert table(["kill"], 1, list(MOMENTS)) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["term", "int"])
def test_a_run_that_was_asked_to_stop_goes_on(kind: str) -> None:
    assert table([kind], 1, SOME) == []


@pytest.mark.slow
def test_a_run_that_was_asked_to_stop_where_no_checkpoint_was_due_goes_on() -> None:
    moments = ["the last step of an epoch", "drawing the first rows of an epoch", "between two epochs"]
    assert table(["term"], 1, moments, "eval_strategy=steps", "eval_steps=5", "save_total_limit=1") == []


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="a small disk cannot be mounted here")
def test_a_run_whose_disk_was_full_goes_on() -> None:
    assert table(["disk"], 1, SOME) == []


@pytest.mark.slow
def test_two_processes_go_on_when_the_main_one_was_killed_or_asked_to_stop() -> None:
    assert table(["kill", "term"], 2, SOME[1:6]) == []


@pytest.mark.slow
def test_two_processes_go_on_when_the_other_was_killed_alone() -> None:
    assert table(["rank"], 2, ["between two steps", "validation", "saving, half of it written"]) == []


WORDS = (
    "finsent --data rows.jsonl per_device_train_batch_size=2 num_train_epochs=40 learning_rate=0.002 lora_dropout=0.1 "
    "early_stopping_patience=0 eval_strategy=steps eval_steps=150 output_dir=run max_steps=300"
).split()


def launched(cwd: Path, base: Path, *settings: str) -> "subprocess.Popen[str]":
    """A run of 300 steps under the real launcher, in a process group of its own."""
    words = ["launch", "--quiet", "-m", "hf_finetune", *WORDS, f"model_name_or_path={base}", *settings]
    with (cwd / "said").open("a") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "accelerate.commands.accelerate_cli", *words],
            cwd=cwd, stdout=said, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )  # fmt: skip


def wait_for_step(cwd: Path, step: int) -> dict[str, Any]:
    """The run's progress once it has made so many steps."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if (cwd / "run" / "progress.json").exists():
            progress: dict[str, Any] = read_json(cwd / "run" / "progress.json")
            if progress["stage"] == "train" and progress["done"] >= step:
                return progress
        time.sleep(0.1)
    raise AssertionError((cwd / "said").read_text())


def wait_for_end_of(pid: int) -> None:
    until = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()


@pytest.fixture(scope="module")
def whole(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stopped."""
    cwd = tmp_path_factory.mktemp("whole")
    write_rows(cwd / "rows.jsonl", sample_rows(10))
    assert launched(cwd, tiny_base).wait() == 0, (cwd / "said").read_text()
    return cwd / "run"


def hit_launcher(launcher: "subprocess.Popen[str]") -> None:
    launcher.kill()


def press_ctrl_c(launcher: "subprocess.Popen[str]") -> None:
    os.killpg(launcher.pid, signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "workers"), [(press_ctrl_c, 1), (hit_launcher, 0)])
def test_under_the_launcher_a_stopped_run_saves_and_the_same_command_goes_on(
    tiny_base: Path, tmp_path: Path, whole: Path, stop: Any, workers: int
) -> None:
    write_rows(tmp_path / "rows.jsonl", sample_rows(10))
    further = f"dataloader_num_workers={workers}"  # Ctrl-C reaches them too
    launcher = launched(tmp_path, tiny_base, further)
    progress = wait_for_step(tmp_path, 5)
    watched = run_cli("status", "run", cwd=tmp_path).stdout
    assert f"run: running, process {progress['pid']}" in watched
    assert re.search(r"stage +train +\d+ of 300 steps, loss [\d.]+, .* left, ", watched)
    second = run_cli(*WORDS, f"model_name_or_path={tiny_base}", further, cwd=tmp_path, module=True)
    assert second.returncode == 1
    assert f"error: run: process {progress['pid']} on {platform.node()} is running in it." in second.stderr
    stop(launcher)
    launcher.wait()
    wait_for_end_of(progress["pid"])
    said = (tmp_path / "said").read_text()
    assert "interrupted by SIG" in said
    saved = (tmp_path / "run" / "checkpoints").iterdir()  # on a busy machine the first evaluation's as well
    checkpoint = max(saved, key=lambda path: int(path.name.removeprefix("checkpoint-")))
    assert int(checkpoint.name.removeprefix("checkpoint-")) >= 5
    assert launched(tmp_path, tiny_base, further).wait() == 0, (tmp_path / "said").read_text()
    assert (
        f"resume    goes on from {checkpoint.name} of 300 steps (session 2; the last was stopped by SIG"
        in (tmp_path / "said").read_text()
    )
    for name in ("adapter/adapter_model.safetensors", "training_log.jsonl", "report.json"):
        assert sha256(tmp_path / "run" / name) == sha256(whole / name)
    totals, sessions = (read_json(tmp_path / "run" / "run.json")[name] for name in ("totals", "sessions"))
    assert (totals["sessions"], totals["steps"]) == (2, 300)
    assert totals["seconds"] == pytest.approx(sum(session["seconds"] for session in sessions), abs=0.11)


def press(interruption: Interruption, *numbers: int) -> None:
    """Sends signals inside a deferred block."""
    with interruption.deferred():
        for number in numbers:
            interruption._handle(number, None)


def test_a_signal_stops_at_once_what_is_not_deferred() -> None:
    interruption = Interruption()
    with pytest.raises(Interrupted, match="SIGTERM") as stopped:
        interruption._handle(signal.SIGTERM, None)
    assert stopped.value.exit_code == 143


def test_a_deferred_signal_is_answered_at_the_end_of_the_block() -> None:
    interruption = Interruption()
    with pytest.raises(Interrupted, match="SIGINT"):
        press(interruption, signal.SIGINT, signal.SIGTERM)  # launchers pass on what they got themselves
    assert interruption.requested == signal.SIGINT


def test_a_second_ctrl_c_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    interruption = Interruption()
    interruption._deferred = True
    interruption._handle(signal.SIGINT, None)
    interruption._handle(signal.SIGINT, None)  # the same key press, passed on by the launcher
    monkeypatch.setattr(time, "monotonic", lambda: interruption._first + 1.5)
    with pytest.raises(Interrupted):
        interruption._handle(signal.SIGINT, None)


def test_a_signal_that_was_to_be_ignored_stays_ignored() -> None:
    script = """
import signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
from hf_finetune.interruption import interruption
interruption.listen()
assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
assert signal.getsignal(signal.SIGTERM) == interruption._handle
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_signal_that_comes_in_a_destructor_is_answered_later_without_a_traceback() -> None:
    script = """
import os, signal
from hf_finetune.interruption import Interrupted, interruption
interruption.listen()
class Dying:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        sum(range(10))
class Broken:
    def __del__(self):
        raise ValueError("seen")
Dying(), Broken()
try:
    interruption.stop_if_requested()
except Interrupted as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.stdout == "SIGTERM\n"
    assert "seen" in done.stderr
    assert "Interrupted" not in done.stderr


TOLD_TO_STOP_WHILE_IT_TELLS = """
import os, signal
import hf_finetune.cli as cli
from hf_finetune.errors import RecipeError
from hf_finetune.interruption import interruption

def work():
    raise RecipeError("a fault")

interruption.listen()
cli.tell_launcher = lambda words: os.kill(os.getpid(), signal.SIGTERM)
cli.guarded(work)
"""


def test_a_signal_while_the_end_is_told_changes_nothing() -> None:
    """As a launcher sends it, which ends the other processes when one has failed."""
    command = [sys.executable, "-c", TOLD_TO_STOP_WHILE_IT_TELLS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: a fault\n")
