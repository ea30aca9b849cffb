"""A run as a job on the Hub's machines: its price first, and a command that really trains and pushes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_hub_run import phrasebank

from conftest import make_base, sample_rows
from hf_finetune.errors import RecipeError
from hf_finetune.hub.jobs import in_seconds
from loopback_hub import LoopbackHub

RECIPE = Path(__file__).parent.parent / "recipes" / "finsent.py"
SECRET = "hf_" + "x7Q9" * 8
ORDERED = ("--flavor", "a10g-small", "--push-to-hub", "acme/finsent", "--timeout", "90m")


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        running.tokens = {SECRET: "acme"}
        yield running


def environment(hub: LoopbackHub, home: Path, token: str | None) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
    return inherited | hub.environment(home, token)


def jobs(
    hub: LoopbackHub, cwd: Path, *words: str, answer: str = "", token: str | None = SECRET
) -> "subprocess.CompletedProcess[str]":
    start = "from hf_finetune.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", start, "jobs", *words], cwd=cwd, env=environment(hub, cwd / "home", token),
        input=answer, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_the_machines_are_listed_with_the_prices_of_the_day(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.hardware[1]["unitCostUSD"] = 0.02
    done = jobs(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "t4-small           1.20 USD an hour  Nvidia T4 - small: 4 vCPU, 15 GB, 16 GB of GPU memory" in done.stdout
    assert done.stdout.startswith("cpu-basic ")


def test_what_it_costs_is_told_and_asked_before_anything_starts(hub: LoopbackHub, tmp_path: Path) -> None:
    done = jobs(hub, tmp_path, str(RECIPE), *ORDERED, answer="n\n")
    assert "on a10g-small, 1.00 USD an hour: at most 1.50 USD, if it is stopped after 90m" in done.stdout
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert hub.jobs == []


def test_a_job_is_started_followed_and_told_to_its_end(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.job_logs = ["step 1", "step 2"]
    done = jobs(hub, tmp_path, str(RECIPE), "lora_r=8", *ORDERED, answer="y\n")
    assert done.returncode == 0, done.stderr
    (job,) = hub.jobs
    assert done.stdout.index("step 1") < done.stdout.index("step 2") < done.stdout.index("ended ")
    assert (job.payload["flavor"], job.payload["timeoutSeconds"]) == ("a10g-small", 5400)
    assert job.payload["secrets"] == {"HF_TOKEN": SECRET}
    assert SECRET not in str({key: value for key, value in job.payload.items() if key != "secrets"})
    assert SECRET not in done.stdout + done.stderr
    script = job.payload["command"][-1]
    assert "--multi_gpu" not in script
    assert script.endswith("finsent.py lora_r=8 hub_model_id=acme/finsent price_per_hour=1.00002")


def test_several_gpus_get_a_process_each(hub: LoopbackHub, tmp_path: Path) -> None:
    words = ("finsent", "--flavor", "a10g-largex2", "--push-to-hub", "acme/finsent", "--yes", "--detach")
    done = jobs(hub, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    script = hub.jobs[0].payload["command"][-1]
    assert "accelerate launch --multi_gpu --num_processes 2 -m hf_finetune finsent " in script


def test_a_job_that_fails_is_told(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.job_stages = ["RUNNING", "ERROR"]
    done = jobs(hub, tmp_path, "finsent", *ORDERED, "--yes")
    assert done.returncode == 1
    assert "has ended as ERROR" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("finsent", "--flavor", "a10g-smal"), "there is no such machine. Did you mean 'a10g-small'?"),
        (("finsent", "--flavor", "a10g-small"), "Name a repo with --push-to-hub ID."),
        (("finsent", *ORDERED[:-1], "soon"), "--timeout soon: is no duration"),
        (("finsent", "lora_rr=8", *ORDERED), "Did you mean 'lora_r'?"),
        (("finsent", "model_name_or_path=home", *ORDERED), "is a folder of this machine"),
        (("finsent", "hub_model_id=bank/x", "--flavor", "a10g-small"), "cannot create a repo of 'bank'"),
        (("finsent", *ORDERED, "--namespace", "bank", "--yes"), "You don't have the rights to run jobs"),
        (("nothing.py", *ORDERED), "nothing.py"),
    ],
)
def test_what_would_fail_there_is_told_here(
    hub: LoopbackHub, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    (tmp_path / "home").mkdir()
    done = jobs(hub, tmp_path, *words)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert hub.jobs == []


def test_without_a_token_there_is_no_job(hub: LoopbackHub, tmp_path: Path) -> None:
    done = jobs(hub, tmp_path, "finsent", *ORDERED, "--yes", token=None)
    assert done.returncode == 1
    assert "there is no token" in done.stderr


@pytest.mark.parametrize(("duration", "seconds"), [("90m", 5400), ("2h", 7200), ("1.5h", 5400), ("30s", 30)])
def test_durations_are_read(duration: str, seconds: int) -> None:
    assert in_seconds(duration) == seconds


@pytest.mark.parametrize("duration", ["90", "h", "0m", "-1h", "2 h"])
def test_what_is_no_duration_is_refused(duration: str) -> None:
    with pytest.raises(RecipeError, match="Write it as 90m or 2h"):
        in_seconds(duration)


@pytest.mark.slow
def test_the_jobs_own_command_trains_and_pushes(hub: LoopbackHub, tmp_path: Path) -> None:
    """It is executed here as the machine there would: with its environment and its secrets alone."""
    hub.add_repo("acme/base", make_base(tmp_path / "made"), lfs=True)
    archive = {"data/FinancialPhraseBank-v1.0.zip": phrasebank(sample_rows(20))}
    archive["README.md"] = b"---\nlicense: cc-by-nc-sa-3.0\n---\n"
    hub.add_repo("takala/financial_phrasebank", repo_type="dataset", files=archive)
    settings = ("model_name_or_path=acme/base", "max_steps=2", "max_length=512", "few_shot=0")
    done = jobs(hub, tmp_path, str(RECIPE), *settings, *ORDERED, "--yes", "--detach", "--install", "pip")
    assert done.returncode == 0, done.stderr
    payload = hub.jobs[0].payload
    there = tmp_path / "there"
    there.mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = environment(hub, tmp_path / "there-home", None) | payload["environment"] | payload["secrets"]
    done = subprocess.run(
        payload["command"],
        cwd=there,
        env=own | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    repo = hub.repos["model", "acme/finsent"]
    card = hub.read("acme/finsent", "README.md").decode()
    assert "adapter_model.safetensors" in repo.commits[repo.branches["main"]]
    assert "US dollars" in card
