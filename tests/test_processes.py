"""Several processes: what one launcher starts is one run, told once, written once, the same as one process makes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from interrupted_runs import free_port
from safetensors.torch import load_file

from conftest import sample_rows, write_rows
from hf_finetune.errors import RecipeError
from hf_finetune.files import read_json, read_jsonl
from hf_finetune.processes import check_environment, cores, own_share, together

ACCELERATE = (sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--num_machines", "1")
CONFIGS = Path(__file__).parent.parent / "hf_finetune" / "templates" / "accelerate"
TWO = ("--config_file", str(CONFIGS / "ddp.yaml"), "--num_processes", "2")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no process is kept from cores here")
def test_cores_are_those_that_this_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    assert cores() == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def launch(*words: str, cwd: Path, options: tuple[str, ...] = TWO) -> "subprocess.CompletedProcess[str]":
    """The finished processes of `accelerate launch OPTIONS -m hf_finetune WORDS`."""
    port = ("--main_process_port", str(free_port())) if options == TWO else ()
    command = [*ACCELERATE, *options, *port, "-m", "hf_finetune", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=600)


def each_of_two(script: str, cwd: Path) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of a script in two processes that can find each other."""
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    world |= {"OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=cwd, env=os.environ | world | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=120) for process in started]  # a process group's own patience is half an hour
    return [(process.returncode, *words) for process, words in zip(started, said, strict=True)]


@pytest.mark.parametrize("count", [0, 1, 5, 8])
def test_shares_come_together_in_order(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    shares = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        shares.append(own_share(range(count)))
    assert together(shares) == list(range(count))


def test_processes_tell_each_other_values(tmp_path: Path) -> None:
    script = """
from hf_finetune.processes import end, everyones, highest, is_main, join, rank, release_others, share
from hf_finetune.processes import wait_for_main
if is_main():
    release_others()
else:
    assert wait_for_main()
join()
print(share("of the main one" if is_main() else None), everyones(rank() * 10), highest(rank() - 3.5))
end(0)
"""
    for code, said, errors in each_of_two(script, tmp_path):
        assert (code, said) == (0, "of the main one [0, 10] -2.5\n"), errors


@pytest.mark.parametrize("name", ["FSDP_STATE_DICT_TYPE", "FSDP_CPU_RAM_EFFICIENT_LOADING"])
def test_options_of_fsdp_that_lose_the_adapter_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    good = {"FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT", "FSDP_CPU_RAM_EFFICIENT_LOADING": "false"}
    bad = {"FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
    for variable, value in ({"ACCELERATE_USE_FSDP": "true"} | good).items():
        monkeypatch.setenv(variable, value)
    check_environment()
    monkeypatch.setenv(name, bad[name])
    with pytest.raises(RecipeError, match=f"{name.lower()} is {bad[name]}, .* Set it to {good[name]}"):
        check_environment()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    check_environment()


def test_the_console_command_waits_for_the_main_process_too(tmp_path: Path) -> None:
    script = "import sys; from hf_finetune.cli import main; main('run finsent --demo learning_rte=1'.split())"
    (main, _, told), (other, nothing, errors) = each_of_two(script, tmp_path)
    assert (main, told.count("error: ")) == (1, 1)
    assert (nothing, errors.count("no setting is called")) == ("", 0)
    assert other == 0


def test_where_the_main_process_needs_no_others_they_end_too(tmp_path: Path) -> None:
    script = "import sys; from hf_finetune.cli import main_module; sys.argv = 'x finsent --demo --dry-run'.split()\n"
    (main, table, _), (other, nothing, _) = each_of_two(script + "main_module()", tmp_path)
    assert (main, other, nothing) == (0, 0, "")
    assert "learning_rate" in table


FAILING = """
from hf_finetune.cli import guarded
from hf_finetune.errors import RecipeError
from hf_finetune.processes import is_main, join, release_others, share, wait_for_main
def work():
    release_others() if is_main() else wait_for_main()
    join()
    share("both are here")
    if not is_main():
        raise RecipeError("this machine: has no such file. Copy it there.")
    share("never reached by the other")
guarded(work)
"""


def test_a_process_that_fails_alone_is_named_and_ends_the_others(tmp_path: Path) -> None:
    (main, _, from_main), (other, _, from_other) = each_of_two(FAILING, tmp_path)
    assert (main, other) == (1, 1)
    assert from_other == "error: process 1: this machine: has no such file. Copy it there.\n"
    assert from_main.startswith("error: another process of this run is gone")
    assert "Traceback" not in from_main


def test_a_process_that_was_asked_for_and_not_started_is_missed(tmp_path: Path) -> None:
    done = launch(
        "finsent", "--demo", "run_name=a b", cwd=tmp_path, options=("--cpu", "--num_processes", "2", "--quiet")
    )
    assert done.returncode == 1
    (command,) = re.findall(r"this starts them: accelerate (launch .*)\n", done.stderr)
    assert "--multi_gpu" in command
    assert "--cpu" not in command
    assert "-m hf_finetune finsent --demo 'run_name=a b'" in command
    assert not (tmp_path / "runs").exists()


def test_a_mistake_is_told_once_and_ends_all_processes(tmp_path: Path) -> None:
    done = launch("finsent", "--demo", "learning_rte=1", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("error: command line: no setting is called 'learning_rte'.") == 1
    # torch's summary gives it as the reason of the process that failed first.
    assert re.search(r"Root Cause.*rank +: 0.*traceback : command line: no setting is called", done.stderr, re.S)
    assert not (tmp_path / "runs").exists()


LIKE_ONE = (
    "finsent --data rows.jsonl num_train_epochs=4 learning_rate=0.01 lora_dropout=0 logging_steps=1 lora_r=4 "
    "gradient_accumulation_steps=2"
).split()


@pytest.fixture(scope="module")
def one_and_two(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of one process, and one of two with half the batch each: 27 rows, in batches of 4."""
    cwd = tmp_path_factory.mktemp("processes")
    write_rows(cwd / "rows.jsonl", sample_rows(11))
    words = (*LIKE_ONE, f"model_name_or_path={tiny_base}")
    one = launch(*words, "output_dir=one", "per_device_train_batch_size=4", cwd=cwd, options=("--quiet",))
    two = launch(*words, "output_dir=two", "per_device_train_batch_size=2", cwd=cwd)
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    (cwd / "said").write_text(two.stdout)
    return cwd


@pytest.mark.slow
def test_two_processes_make_the_steps_of_one_with_twice_the_batch(one_and_two: Path) -> None:
    one, two = (read_jsonl(one_and_two / name / "training_log.jsonl") for name in ("one", "two"))
    assert len(one) > 10
    assert read_json(one_and_two / "two" / "data.json")["rows"]["train"] % 4  # the last batch of an epoch is short
    for alone, shared in zip(one, two, strict=True):
        # The same sums in another order, in float32 (2**-24 = 6e-8 each), through some twenty steps.
        assert alone == pytest.approx(shared, rel=1e-4)


@pytest.mark.slow
def test_two_processes_leave_the_adapter_of_one_with_twice_the_batch(one_and_two: Path) -> None:
    one, two = (load_file(one_and_two / name / "adapter" / "adapter_model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    largest = max(float(tensor.abs().max()) for tensor in one.values())
    for name in one:
        # AdamW divides a gradient by its own size: where that is near zero, rounding decides the direction of a step.
        assert float((one[name] - two[name]).abs().max()) < 1e-3 * largest


@pytest.mark.slow
def test_two_processes_answer_each_row_once_in_order(one_and_two: Path) -> None:
    one, two = (read_jsonl(one_and_two / name / "answers.jsonl") for name in ("one", "two"))
    assert [row["prompt"] for row in one] == [row["prompt"] for row in two]
    for alone, shared in zip(one, two, strict=True):
        assert alone["base"]["probabilities"] == pytest.approx(shared["base"]["probabilities"], rel=1e-4)


@pytest.mark.slow
def test_two_processes_report_of_an_adapter_what_one_reports(one_and_two: Path, tiny_base: Path) -> None:
    """The adapter of the one process is evaluated again, by two."""
    again = shutil.copytree(one_and_two / "one", one_and_two / "again")
    (again / "report.json").unlink()
    run = read_json(again / "run.json")
    (again / "run.json").write_text(json.dumps(run | {"finished": "", "num_processes": 2}))
    words = (*LIKE_ONE, f"model_name_or_path={tiny_base}", "output_dir=again", "per_device_train_batch_size=4")
    done = launch(*words, cwd=one_and_two)
    assert done.returncode == 0, done.stderr
    one, two = (flat(read_json(one_and_two / name / "report.json")) for name in ("one", "again"))
    assert len(one) > 100
    assert one.keys() == two.keys()
    for name, value in one.items():
        # Float32 sums in batches of other shapes.
        assert two[name] == (pytest.approx(value, rel=1e-5, abs=1e-7) if isinstance(value, float) else value), name


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """The numbers and texts of a JSON value by their places."""
    if isinstance(value, (dict, list)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {place: own for key, inner in pairs for place, own in flat(inner, f"{name}.{key}").items()}
    return {name: value}


@pytest.mark.slow
def test_only_the_main_process_speaks(one_and_two: Path) -> None:
    said = (one_and_two / "said").read_text()
    for line in ("recipe  ", "model  ", "run  ", "adapter  "):
        assert len(re.findall(f"^{line}", said, re.M)) == 1
