"""A finished run is merged and verified by the commands, and several runs' adapters answer on one base."""

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from conftest import make_base, run_cli, sample_rows, write_rows
from hf_finetune.files import read_json, read_jsonl
from hf_finetune.report import Report

pytestmark = pytest.mark.slow

WORDS = (
    "few_shot=0",
    "lora_r=4",
    "learning_rate=0.01",
    "report_to=none",
    "num_train_epochs=4",
    "measure_forgetting=no",
)


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, rows, and two finished runs with other adapters, `run` and `other`."""
    folder = tmp_path_factory.mktemp("shipped")
    make_base(folder / "tiny-base")
    write_rows(folder / "rows.jsonl", sample_rows(20))
    for name, seed in (("run", 1), ("other", 2)):
        words = (*WORDS, "model_name_or_path=tiny-base", f"output_dir={name}", f"seed={seed}")
        done = run_cli("run", "finsent", "--data", "rows.jsonl", *words, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def test_a_run_is_merged_and_the_report_says_how_like_the_adapter_it_is(cwd: Path) -> None:
    measured = Report.read(cwd / "run")
    done = run_cli("merge", "run", "--dtype", "float32", "--max-shard-size", "1MB", cwd=cwd)
    assert done.returncode == 0, done.stderr
    report = Report.read(cwd / "run")
    assert (report.merged["way"], report.merged["dtype"]) == ("dequantised", "float32")
    for like in report.merged["likeness"].values():
        assert 0 <= like["kl_per_token"] < 1e-7
        assert like["top1_agreement"] == 1.0
    assert report.merged["rows"] == report.rows
    assert report.merged["scores"]["macro_f1"] == measured.scores["tuned"]["macro_f1"]
    assert set(report.merged["files"]) == {path.name for path in (cwd / "run" / "merged").glob("*.safetensors")}
    assert done.stdout.count("nats a token, 100.00% of") == 2
    answers = zip(*(read_jsonl(cwd / "run" / name) for name in ("merged_answers.jsonl", "answers.jsonl")), strict=True)
    assert all(own["text"] == line["tuned"]["text"] for own, line in answers)


def test_whatever_was_merged_is_verified_against_itself_and_what_was_verified_before_is_gone(cwd: Path) -> None:
    for words in (("--dtype", "float32"), ("--full-precision", "--max-kl", "1")):
        done = run_cli("merge", "run", *words, cwd=cwd)
        assert done.returncode == 0, done.stderr
        assert not (cwd / "run" / "verified.json").exists()
        done = run_cli("verify", "run", "--rows", "4", cwd=cwd)
        assert done.returncode == 0, done.stderr
        assert set(read_json(cwd / "run" / "verified.json")) == {"adapter", "several", "merged"}
    done = run_cli("merge", "run", "--dtype", "float32", cwd=cwd)
    assert done.returncode == 0, done.stderr


def test_merged_weights_that_are_another_model_are_refused_and_what_was_there_stays(cwd: Path) -> None:
    before = {path.name: path.read_bytes() for path in (cwd / "run" / "merged").iterdir()}
    report = (cwd / "run" / "report.json").read_bytes()
    done = run_cli("merge", "run", "--full-precision", "--max-kl", "1e-6", cwd=cwd)
    assert done.returncode == 1
    assert "are another model than the adapter: KL divergence" in done.stderr
    assert "nats a token in prompts, not at most 1e-06" in done.stderr
    assert "What was merged before stays. Ship the adapter" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name: path.read_bytes() for path in (cwd / "run" / "merged").iterdir()} == before
    assert (cwd / "run" / "report.json").read_bytes() == report
    assert not list((cwd / "run").glob(".merged*"))


def test_the_full_precision_base_is_merged_by_choice(cwd: Path) -> None:
    done = run_cli("merge", "other", "--full-precision", "--max-kl", "1", cwd=cwd)
    assert done.returncode == 0, done.stderr
    found = Report.read(cwd / "other").merged
    assert found["way"] == "full precision"
    assert min(like["kl_per_token"] for like in found["likeness"].values()) > 1e-7
    assert read_json(cwd / "other" / "merged" / "config.json")["dtype"] == "bfloat16"


@pytest.mark.parametrize("command", ["merge", "verify"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere",), "nowhere: holds no run. Name a folder such as those in runs/."),
        (("run", "--recipe", "absent.py"), "absent.py: there is no such recipe file. Check its path."),
        (("tiny-base",), "tiny-base: holds no run."),
    ],
)
def test_what_is_no_finished_run_is_refused(cwd: Path, command: str, words: tuple[str, ...], message: str) -> None:
    done = run_cli(command, *words, cwd=cwd)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert message in done.stderr


def test_a_damaged_base_is_told(cwd: Path) -> None:
    weights = cwd / "tiny-base" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    try:
        done = run_cli("merge", "run", cwd=cwd)
    finally:
        weights.write_bytes(whole)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "model.safetensors in its folder is not the file that the run was begun with" in done.stderr


SEVERAL = """
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("tiny-base", padding_side="left")
base = AutoModelForCausalLM.from_pretrained("tiny-base")
question = tokenizer("profit rose", return_tensors="pt")["input_ids"]

def own(name):
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("tiny-base"), f"{name}/adapter").eval()
    with torch.no_grad():
        return model(question).logits[0]

model = PeftModel.from_pretrained(base, "run/adapter", adapter_name="run").eval()
model.load_adapter("other/adapter", adapter_name="other")
with torch.no_grad():
    for name in ("run", "other"):
        model.set_adapter(name)
        assert torch.allclose(model(question).logits[0], own(name), atol=1e-5)
    both = model(question.repeat(2, 1), adapter_names=["run", "other"]).logits
assert torch.allclose(both[0], own("run"), atol=1e-5)
assert torch.allclose(both[1], own("other"), atol=1e-5)
assert not torch.allclose(both[0], both[1], atol=1e-3)
print("both")
"""


def test_two_runs_adapters_answer_on_one_base_in_one_batch(cwd: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SEVERAL], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.stdout == "both\n", done.stderr
    held = [load_file(cwd / name / "adapter" / "adapter_model.safetensors") for name in ("run", "other")]
    assert held[0].keys() == held[1].keys()
