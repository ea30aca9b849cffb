"""Runs that are stopped at a chosen moment and started again, against one that was never stopped.

`python tests/interrupted_runs.py [KIND ...] [--processes N] [--moments MOMENT ...]` prints the table;
test_interruption.py takes some of its lines. Everything is imported once and each run is forked from there, so that a
case takes seconds; the runs themselves are real: NF4, dropout, gradient accumulation, early stopping, and two processes
over gloo.
"""

import argparse
import atexit
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOMENTS: dict[str, tuple[str, int]] = {
    "reading the rows": ("begin:prepare", 1),
    "before the first file": ("pipeline:_write_first_files", 1),
    "between the first files": ("pipeline:write_splits", 1),
    "the first step": ("train.trainer:RecipeTrainer.training_step", 1),
    "inside a step, between its batches": ("train.trainer:RecipeTrainer.training_step", 6),
    "between two steps": ("train.callbacks:ProgressReport.on_step_end", 2),
    "the last step of an epoch": ("train.callbacks:ProgressReport.on_step_end", 4),
    "validation": ("train.trainer:RecipeTrainer.evaluation_loop", 2),
    "after validation, before saving": ("train.trainer:RecipeTrainer._save_checkpoint", 2),
    "saving, half of it written": ("train.trainer:RecipeTrainer._save_scaler", 1),
    "saving, before the seal": ("train.trainer:seal", 2),
    "saving, after the seal": ("train.trainer:keep_newest", 2),
    "between two epochs": ("train.callbacks:SaveWhenAsked.on_epoch_begin", 3),
    "drawing the first rows of an epoch": ("train.batches:ShardedBatches.set_epoch", 2),
    "after the last step": ("pipeline:_keep_best", 1),
    "writing the adapter": ("model:write_json", 1),
    "asking the base model": ("generate:_choice_scores", 1),
    "asking with examples": ("asking:log_likelihoods", 2),
    "keeping what was given with examples": ("evaluate:write_json", 2),
    "asking general questions": ("evaluate:log_likelihoods", 1),
    "asking the fine-tuned model": ("asking:log_likelihoods", 5),
    "writing the report": ("report:write_json", 1),
    "writing the page": ("pipeline:write_page", 1),
    "writing the card": ("pipeline:write_card", 1),
    "after the card": ("pipeline:now", 1),
}
"""What happens then, and before which call of which function of this package that is."""

MAIN_ONLY = (
    "reading the rows", "before the first file", "between the first files", "saving, before the seal",
    "saving, after the seal", "after the last step", "writing the adapter", "writing the report", "writing the page",
    "writing the card", "after the card", "keeping what was given with examples",
)  # fmt: skip

KINDS = ("kill", "term", "int", "disk", "rank")
"""SIGKILL, SIGTERM, SIGINT to the main process, a full disk, SIGKILL to the second process alone."""

SETTINGS = (
    "per_device_train_batch_size=3 gradient_accumulation_steps=2 num_train_epochs=8 learning_rate=0.02 "
    "lora_dropout=0.1 early_stopping_patience=2 logging_steps=3 lora_r=4"
).split()


@dataclass(frozen=True)
class Outcome:
    """How a case ended."""

    fault: str
    """Empty when the run came out as the one that was never stopped."""
    seconds: float


class Bench:
    """A folder with rows and a base model, and the uninterrupted runs to compare with."""

    def __init__(self, folder: Path, further: Sequence[str] = ()) -> None:
        from conftest import sample_rows, write_rows

        self.folder = folder
        self.further = further
        """Settings besides SETTINGS."""
        script = f"import conftest, pathlib; conftest.make_base(pathlib.Path({str(folder / 'base')!r}))"
        # In a process of its own: threads that torch starts would not survive the forks.
        subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parent, check=True, capture_output=True)
        write_rows(folder / "rows.jsonl", sample_rows(10))
        self.whole: dict[int, dict[str, bytes]] = {}

    def uninterrupted(self, processes: int) -> dict[str, bytes]:
        """The files of a run that nobody stopped."""
        if processes not in self.whole:
            cwd = self.folder / f"whole-{processes}"
            cwd.mkdir()
            codes, said = self.run(cwd, processes)
            assert codes == [0] * processes, said
            self.whole[processes] = results(cwd)
        return self.whole[processes]

    def case(self, kind: str, moment: str, processes: int) -> Outcome:
        """Stops a run at the moment, starts it again, and compares."""
        started = time.monotonic()
        whole = self.uninterrupted(processes)
        with tempfile.TemporaryDirectory(dir=self.folder) as name, small_disk(Path(name), kind) as cwd:
            fault = self._fault(kind, moment, processes, cwd, whole)
        return Outcome(fault, time.monotonic() - started)

    def _fault(self, kind: str, moment: str, processes: int, cwd: Path, whole: dict[str, bytes]) -> str:
        codes, said = self.run(cwd, processes, kind, moment)
        if not (cwd / "came").exists():
            return "the moment never came"
        if codes[kind == "rank"] == 0 and kind != "disk":
            return f"exit codes {codes}: {said}"
        if "Traceback" in said:
            return f"a traceback: {said}"
        (cwd / "filler").unlink(missing_ok=True)
        codes, said = self.run(cwd, processes)
        if codes != [0] * processes:
            return f"did not go on, exit codes {codes}: {said}"
        again = results(cwd)
        differing = [name for name in whole if whole[name] != again[name]]
        return f"differs in {', '.join(differing)}" if differing else ""

    def run(self, cwd: Path, processes: int, kind: str = "", moment: str = "") -> tuple[list[int], str]:
        """Exit codes of the processes and what they said; as the launcher does, one's failure ends the others."""
        words = ["finsent", "--data", str(self.folder / "rows.jsonl"), f"model_name_or_path={self.folder / 'base'}"]
        words += [*SETTINGS, *self.further, "output_dir=run"]
        port = str(free_port())
        pids = []
        for rank in range(processes):
            hit = rank == (1 if kind == "rank" else 0)
            pid = os.fork()
            if pid == 0:
                in_child(cwd, words, rank, processes, port, kind if hit else "", moment)
            pids.append(pid)
        codes = watch(pids)
        return codes, "".join((cwd / f"said-{rank}").read_text() for rank in range(processes))


def in_child(cwd: Path, words: list[str], rank: int, processes: int, port: str, kind: str, moment: str) -> None:
    """One process of a run; never returns."""
    code = 99
    try:
        atexit._clear()  # what the parent cleans up at its end is still needed
        os.chdir(cwd)
        output = os.open(f"said-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = ["hf_finetune", *words]
        if processes > 1:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_RANK": str(rank)}
            os.environ |= {"LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        if kind:
            strike_at(moment, kind)
        from hf_finetune.cli import main_module

        main_module()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001  # the parent reads it
        import traceback

        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def strike_at(moment: str, kind: str) -> None:
    """Makes the function of the moment strike before its n-th call."""
    target, number = MOMENTS[moment]
    module_name, path = target.split(":")
    owner: Any = importlib.import_module(f"hf_finetune.{module_name}")
    *classes, name = path.split(".")
    for part in classes:
        owner = getattr(owner, part)
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def striking(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            Path("came").touch()
            strike(kind)
        return original(*args, **kwargs)

    setattr(owner, name, striking)


def strike(kind: str) -> None:
    """What happens at the moment."""
    if kind == "disk":
        fill_disk(Path("filler"))
    else:
        number = {"kill": signal.SIGKILL, "rank": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}[kind]
        os.kill(os.getpid(), number)


def fill_disk(file: Path) -> None:
    """Writes until not a byte is free."""
    with file.open("wb", buffering=0) as filler:
        for size in (2**16, 2**9, 1):
            with suppress(OSError):
                while True:
                    filler.write(b"\0" * size)


@contextmanager
def small_disk(folder: Path, kind: str) -> Iterator[Path]:
    """A disk of 16 MiB for the case of a full one; else the folder itself."""
    if kind != "disk":
        yield folder
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def can_mount() -> bool:
    """Whether a small disk can be made here: that needs rights that few have."""
    with tempfile.TemporaryDirectory() as name:
        try:
            with small_disk(Path(name), "disk"):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def watch(pids: Sequence[int], grace: float = 30.0) -> list[int]:
    """Waits for the processes; when one has failed, SIGTERM and later SIGKILL go to the others, as torchrun does."""
    codes: dict[int, int] = {}
    deadline = None
    while len(codes) < len(pids):
        for pid in set(pids) - set(codes):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
        if any(codes.values()) and deadline is None:
            deadline = time.monotonic() + grace
            send(set(pids) - set(codes), signal.SIGTERM)
        if deadline is not None and time.monotonic() > deadline:
            send(set(pids) - set(codes), signal.SIGKILL)
        time.sleep(0.02)
    return [codes[pid] for pid in pids]


def send(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def results(cwd: Path) -> dict[str, bytes]:
    """The files that must come out the same."""
    names = ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "training_log.jsonl", "report.json")
    return {name: (cwd / "run" / name).read_bytes() for name in names}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def import_everything() -> None:
    """What a run imports, so that a fork of this process starts at once."""
    from hf_finetune.cli.run import quieten_libraries

    quieten_libraries()
    for name in "torch transformers trl peft bitsandbytes datasets evaluate matplotlib.figure accelerate".split():
        importlib.import_module(name)
    for name in ("hf_finetune.pipeline", "hf_finetune.train", "hf_finetune.train.curve", "hf_finetune.cli"):
        importlib.import_module(name)


def main() -> None:
    """Prints a line a case, and at the end how many came out otherwise than the run that was never stopped."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts this with & has it ignored
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", default=KINDS)
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--moments", nargs="*", default=list(MOMENTS))
    parser.add_argument("--settings", nargs="*", default=[])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    import_everything()
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), asked.settings)
        for processes in asked.processes:
            for kind in asked.kinds:
                for moment in asked.moments:
                    if kind == "rank" and (processes == 1 or moment in MAIN_ONLY):
                        continue
                    outcome = bench.case(kind, moment, processes)
                    faults += bool(outcome.fault)
                    line = {"processes": processes, "kind": kind, "moment": moment, "fault": outcome.fault}
                    text = f"{processes}  {kind:5} {moment:36} {outcome.seconds:5.1f} s  {outcome.fault or 'the same'}"
                    print(json.dumps(line) if asked.json else text, flush=True)  # noqa: T201
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
