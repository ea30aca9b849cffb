"""A finished run is merged and verified by the commands, and several runs' adapters answer on one base."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


OTHER_RECIPE = """
from hf_finetune_recipes.finsent import FinancialSentiment
from hf_finetune import register

UP = {"negative": "down", "neutral": "level", "positive": "up"}


@register("direction")
class Direction(FinancialSentiment):
    \"""Says whether the share price will go up.\"""

    def prompt(self, row):
        return f"Up or down?\\n\\n{row.sentence}"

    def completion(self, row):
        return UP[row.label]

    def choices(self, row):
        return tuple(UP.values())

    def parse(self, text):
        return next((label for label, word in UP.items() if text.strip() == word), None)
"""


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, rows, and the finished runs of two recipes on it, `run` and `other`."""
    folder = tmp_path_factory.mktemp("shipped")
    make_base(folder / "tiny-base")
    write_rows(folder / "rows.jsonl", sample_rows(20))
    (folder / "own").mkdir()
    (folder / "own" / "direction.py").write_text(OTHER_RECIPE)
    for name, recipe in (("run", "finsent"), ("other", "own/direction.py")):
        words = (*WORDS, "model_name_or_path=tiny-base", f"output_dir={name}")
        done = run_cli("run", recipe, "--data", "rows.jsonl", *words, cwd=folder)
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


ALONE = """
from contextlib import redirect_stdout
from io import StringIO

def answer(snippet):
    said = StringIO()
    with redirect_stdout(said):
        exec(snippet, {})
    return said.getvalue().strip()
"""
SWITCHED = """
import time

logits = lambda: model(input_ids=inputs["input_ids"][:1]).logits[0]
with torch.no_grad():
    model.set_adapter("first")
    first = logits()
    model.set_adapter("second")
    second = logits()
    both = model(input_ids=inputs["input_ids"], adapter_names=["first", "second"]).logits
    for folder, own in ((first_folder, first), (second_folder, second)):
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, quantization_config=quantization)
        alone = PeftModel.from_pretrained(plain, folder).eval()
        assert torch.allclose(alone(input_ids=inputs["input_ids"][:1]).logits[0], own, atol=1e-5)
assert torch.allclose(both[0], first, atol=1e-4)
assert torch.allclose(both[1], second, atol=1e-4)
assert not torch.allclose(both[0], both[1], atol=1e-2)
began = time.perf_counter()
model.load_adapter(second_folder, adapter_name="third")
loading = time.perf_counter() - began
began = time.perf_counter()
for name in ("first", "second") * 5:
    model.set_adapter(name)
switching = (time.perf_counter() - began) / 10
print(switching, loading)
"""


def snippets(run: Path, question: str) -> dict[str, str]:
    """The Python on the card of a run's adapter, by its heading, with the question in it."""
    chapters = (run / "adapter" / "README.md").read_text().split("\n### ")
    found = {chapter.splitlines()[0]: chapter.split("```python\n")[1].split("```")[0] for chapter in chapters[1:]
             if "```python\n" in chapter}  # fmt: skip
    return {name: re.sub(r"question = .*", lambda _: f"question = {question!r}", own) for name, own in found.items()}


def test_adapters_of_two_recipes_answer_on_one_base_in_one_batch_as_the_card_shows(cwd: Path) -> None:
    """The card's own words, with the other run's folder for the second; each answers as it does alone."""
    question = read_jsonl(cwd / "run" / "answers.jsonl")[0]["prompt"]
    shown = snippets(cwd / "run", question)
    both = shown["Several adapters on one base"]
    assert 'first, second = ".", "."' in both
    both = both.replace('first, second = ".", "."', 'first, second = "run/adapter", "other/adapter"')
    single = [shown["The adapter"].replace('adapter = "."', f'adapter = "{run}/adapter"') for run in ("run", "other")]
    script = (
        f"{ALONE}\nprint([answer({single[0]!r}), answer({single[1]!r})])\n{both}\n"
        f"first_folder, second_folder = first, second\n{SWITCHED}"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    alone, together, times = done.stdout.splitlines()
    assert together == alone
    one, other = ast.literal_eval(together)
    assert one != other
    switching, loading = map(float, times.split())
    assert switching < loading / 5, (switching, loading)  # nothing is read from the disk for it
