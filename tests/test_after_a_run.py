"""What is done with runs and adapters that are there: evaluate them again, draw a learning curve, compare them."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import imported, run_cli, sample_rows, write_rows
from hf_finetune.compare import compare_runs
from hf_finetune.errors import RecipeError
from hf_finetune.files import read_json, read_jsonl
from hf_finetune.model import find_base_model, load_adapter, load_base_model
from hf_finetune.report import Report
from hf_finetune.settings import Settings
from hf_finetune.tuned import find_tuned
from loopback_hub import LoopbackHub

pytestmark = pytest.mark.slow

SMALL = ("few_shot=1", "few_shot_draws=1", "lora_r=4", "learning_rate=0.01", "report_to=none")


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A folder with rows and a finished run on them in `run`."""
    folder = tmp_path_factory.mktemp("after")
    write_rows(folder / "rows.jsonl", sample_rows(20))
    done = finsent(folder, "run", tiny_base, "num_train_epochs=4", "output_dir=run")
    assert done.returncode == 0, done.stderr
    return folder


def finsent(cwd: Path, command: str, base: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """The finished process of a command on the recipe, the rows and the tiny base."""
    return run_cli(command, "finsent", "--data", "rows.jsonl", *SMALL, *words, f"model_name_or_path={base}", cwd=cwd)


def test_an_adapter_that_is_evaluated_again_gets_the_report_of_its_run(cwd: Path, tiny_base: Path) -> None:
    words = ("--adapter", "run", "num_train_epochs=4", "output_dir=again")
    done = finsent(cwd, "evaluate", tiny_base, *words)
    assert done.returncode == 0, done.stderr
    assert (cwd / "again" / "report.json").read_bytes() == (cwd / "run" / "report.json").read_bytes()
    assert (cwd / "again" / "answers.jsonl").read_bytes() == (cwd / "run" / "answers.jsonl").read_bytes()
    assert (cwd / "again" / "report.html").exists()
    record = read_json(cwd / "again" / "run.json")
    assert (record["evaluated"]["name"], record["evaluated"]["rows"], record["training"]) == ("run", "test", {})
    repeated = finsent(cwd, "evaluate", tiny_base, *words)
    assert "again: is finished, there is nothing to do." in repeated.stdout
    gated = finsent(cwd, "evaluate", tiny_base, *words, "gates=macro_f1=1.0,unreadable=0")
    assert gated.returncode == (0 if Report.read(cwd / "run").scores["tuned"]["macro_f1"] == 1 else 3)
    assert "| unreadable | at most 0 | 0.0000 | held |" in gated.stdout


def test_an_evaluation_that_was_stopped_goes_on(cwd: Path, tiny_base: Path) -> None:
    words = ("--adapter", "run", "num_train_epochs=4", "output_dir=stopped")
    script = (
        "import hf_finetune.asking as asking, os, signal\n"
        "ask, calls = asking.log_likelihoods, []\n"
        "def stop(*arguments):\n"
        "    calls.append(1)\n"
        "    os.kill(os.getpid(), signal.SIGTERM) if len(calls) == 3 else None\n"
        "    return ask(*arguments)\n"
        "asking.log_likelihoods = stop\n"
    )
    command = ["evaluate", "finsent", "--data", "rows.jsonl", *SMALL, *words, f"model_name_or_path={tiny_base}"]
    stopped = subprocess.run(
        [sys.executable, "-c", script + "from hf_finetune.cli import main\nmain()\n", *command], cwd=cwd,
        capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}, check=False,
    )  # fmt: skip
    assert stopped.returncode == 143, stopped.stderr
    assert "interrupted by SIGTERM: the same command goes on from here." in stopped.stderr
    assert {path.name.split()[0] for path in (cwd / "stopped" / "evaluation").iterdir()} == {
        "base",
        "few-shot",
        "general",
    }
    done = finsent(cwd, "evaluate", tiny_base, *words)
    assert done.returncode == 0, done.stderr
    assert (cwd / "stopped" / "report.json").read_bytes() == (cwd / "run" / "report.json").read_bytes()
    assert not (cwd / "stopped" / "evaluation").exists()
    assert len(read_json(cwd / "stopped" / "run.json")["sessions"]) == 2


def test_rows_kept_apart_are_all_asked(cwd: Path, tiny_base: Path) -> None:
    write_rows(cwd / "apart.jsonl", [row | {"sentence": f"Now {row['sentence']}"} for row in sample_rows(5)])
    words = ("evaluate", "finsent", "--data", "apart.jsonl", "--adapter", "run", "--all-rows", *SMALL)
    done = run_cli(*words, f"model_name_or_path={tiny_base}", "output_dir=apart", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert Report.read(cwd / "apart").rows == 15
    assert read_json(cwd / "apart" / "data.json")["rows"] == {"test": 15}
    assert list(Report.read(cwd / "apart").scores) == ["base", "tuned"]


def test_merged_weights_are_evaluated_as_they_were_saved(cwd: Path, tiny_base: Path) -> None:
    settings = Settings(model_name_or_path=str(tiny_base), load_in_4bit=False)
    model = load_adapter(load_base_model(find_base_model(settings), settings), cwd / "run" / "adapter")
    model.merge_and_unload().save_pretrained(cwd / "merged")
    done = finsent(cwd, "evaluate", tiny_base, "--adapter", "merged", "load_in_4bit=false", "output_dir=of-merged")
    assert done.returncode == 0, done.stderr
    words = ("--adapter", "run", "load_in_4bit=false", "output_dir=of-adapter")
    assert finsent(cwd, "evaluate", tiny_base, *words).returncode == 0
    merged_lines, adapter_lines = (read_jsonl(cwd / name / "answers.jsonl") for name in ("of-merged", "of-adapter"))
    for line, other in zip(merged_lines, adapter_lines, strict=True):
        assert line["tuned"]["probabilities"] == pytest.approx(other["tuned"]["probabilities"], rel=1e-3)


def test_an_adapter_on_another_base_is_told(cwd: Path, tiny_base: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_base, tmp_path / "other-base")
    done = finsent(cwd, "evaluate", other, "--adapter", "run", "output_dir=other")
    assert (done.returncode, done.stderr) == (
        1,
        "error: run: was trained on the base 'tiny-base', not on 'other-base'. "
        "Name that one with model_name_or_path=ID_OR_FOLDER.\n",
    )
    assert not (cwd / "other").exists()


def test_a_run_without_an_adapter_yet_is_told(cwd: Path, tmp_path: Path) -> None:
    shutil.copy(cwd / "run" / "run.json", tmp_path)
    with pytest.raises(RecipeError, match="the run has no adapter yet"):
        find_tuned(str(tmp_path))


def test_what_is_no_adapter_is_told(cwd: Path, tmp_path: Path) -> None:
    shutil.copy(cwd / "run" / "adapter" / "adapter_config.json", tmp_path)
    for name, words in (
        (str(tmp_path), r"has no adapter_model.safetensors. Save it with save_pretrained"),
        (str(cwd), "holds neither an adapter nor a model"),
        ("./nowhere", r"\./nowhere: there is no such folder"),
    ):
        with pytest.raises(RecipeError, match=words):
            find_tuned(name)


def test_what_is_evaluated_is_never_overwritten(cwd: Path, tiny_base: Path) -> None:
    before = sorted(path.name for path in (cwd / "run").rglob("*"))
    for adapter, words in (("run", "holds what is to be evaluated"), ("run/adapter", "holds what is to be evaluated")):
        done = finsent(cwd, "evaluate", tiny_base, "--adapter", adapter, "output_dir=run", "--overwrite")
        assert (done.returncode, done.stderr) == (
            1, f"error: run: {words}. Name another folder with output_dir=FOLDER.\n"
        )  # fmt: skip
    other = shutil.copytree(cwd / "run", cwd / "trained")
    done = finsent(cwd, "evaluate", tiny_base, "--adapter", "run", "output_dir=trained", "--overwrite")
    assert "error: trained: holds a run with a training." in done.stderr
    assert sorted(path.name for path in (cwd / "run").rglob("*")) == before
    assert (other / "adapter" / "adapter_model.safetensors").exists()


def test_rows_that_a_run_was_trained_on_are_refused(cwd: Path, tiny_base: Path) -> None:
    done = finsent(cwd, "evaluate", tiny_base, "--adapter", "run", "seed=1", "output_dir=seen")
    assert done.returncode == 1
    assert re.search(r"error: run: was trained on \d+ of the 6 test rows \(run/splits/train.jsonl\)", done.stderr)
    assert not (cwd / "seen").exists()


def test_of_an_adapter_alone_the_report_says_what_nobody_knows(cwd: Path, tiny_base: Path) -> None:
    done = finsent(cwd, "evaluate", tiny_base, "--adapter", "run/adapter", "num_train_epochs=4", "output_dir=alone")
    assert done.returncode == 0, done.stderr
    unknown = "Whether the fine-tuned model was trained on some of these test rows is not known."
    assert Report.read(cwd / "alone").notes == [unknown]
    assert unknown in (cwd / "alone" / "report.html").read_text()
    assert unknown in done.stdout
    assert Report.read(cwd / "run").notes == []


def test_a_model_with_other_tokens_than_its_base_is_told(cwd: Path, tiny_base: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_base, tmp_path / "other")
    tokenizer = read_json(other / "tokenizer.json")
    words = tokenizer["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    done = finsent(cwd, "evaluate", tiny_base, "--adapter", str(other), "output_dir=other-tokens")
    assert done.returncode == 1
    assert "error: other: its tokenizer is not the base's." in done.stderr
    small = make_small(tiny_base, tmp_path / "small")
    done = finsent(cwd, "evaluate", tiny_base, "--adapter", str(small), "load_in_4bit=false", "output_dir=fewer-tokens")
    assert done.returncode == 1
    assert "error: small: knows 300 tokens, and the base's tokenizer has 433." in done.stderr


def make_small(base: Path, folder: Path) -> Path:
    """The base's shape with 300 tokens, and without a tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    LlamaForCausalLM(LlamaConfig.from_pretrained(base, vocab_size=300)).save_pretrained(folder)
    return folder


def test_a_damaged_adapter_config_is_told(cwd: Path, tmp_path: Path) -> None:
    shutil.copytree(cwd / "run" / "adapter", tmp_path, dirs_exist_ok=True)
    config = read_json(tmp_path / "adapter_config.json")
    nameless = json.dumps(config | {"base_model_name_or_path": None})
    for text, words in (("{}", "is damaged"), ("{", "is damaged"), (nameless, "names no base")):
        (tmp_path / "adapter_config.json").write_text(text)
        with pytest.raises(RecipeError, match=f"its adapter_config.json {words}"):
            find_tuned(str(tmp_path))


def test_a_kept_answer_that_is_damaged_is_asked_for_again(cwd: Path, tiny_base: Path) -> None:
    again = shutil.copytree(cwd / "run", cwd / "damaged")
    (again / "report.json").unlink()
    (again / "evaluation").mkdir()
    (again / "evaluation" / "base 5.json").write_text("[{")
    record = read_json(again / "run.json")
    (again / "run.json").write_text(json.dumps(record | {"finished": ""}))
    done = finsent(cwd, "run", tiny_base, "num_train_epochs=4", "output_dir=damaged")
    assert done.returncode == 0, done.stderr
    assert (again / "report.json").read_bytes() == (cwd / "run" / "report.json").read_bytes()


def test_a_gate_that_could_not_be_measured_after_all_is_missed_and_the_report_is_there(
    cwd: Path, tiny_base: Path
) -> None:
    """No example fits into the base's context of 512 tokens beside a question of 300, which only the base tells."""
    words = "one two three four five six seven eight nine ten".split()
    rows = [
        row | {"sentence": f"{row['sentence']} {' '.join(reversed(words * 6))} {n}"}
        for n, row in enumerate(sample_rows(12))
    ]
    write_rows(cwd / "long.jsonl", rows)
    settings = (
        "few_shot=1",
        "max_steps=1",
        "max_length=512",
        "near_duplicate_similarity=1",
        "gates=gain_over_few_shot=0",
    )
    command = (
        "run",
        "finsent",
        "--data",
        "long.jsonl",
        *settings,
        f"model_name_or_path={tiny_base}",
        "output_dir=long",
    )
    for _ in range(2):
        done = run_cli(*command, cwd=cwd)
        assert "Traceback" not in done.stderr
        assert "gates missed: gain_over_few_shot is not measured, not at least 0." in done.stderr
        assert done.returncode == 3
    assert "| gain_over_few_shot | at least 0 | not measured | **missed** |" in (cwd / "long" / "report.md").read_text()


def test_gates_that_changed_while_a_run_was_stopped_are_held_to(cwd: Path, tiny_base: Path) -> None:
    again = shutil.copytree(cwd / "run", cwd / "stopped-late")
    (again / "report.html").unlink()
    record = read_json(again / "run.json")
    (again / "run.json").write_text(json.dumps(record | {"finished": ""}))
    done = finsent(cwd, "run", tiny_base, "num_train_epochs=4", "output_dir=stopped-late", "gates=forgetting=-1")
    assert done.returncode == 3, done.stderr
    assert [gate.held for gate in Report.read(again).gates] == [False]
    assert "✗ missed" in (again / "report.html").read_text()


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        yield running


def test_an_adapter_and_a_model_from_the_hub_are_evaluated_at_their_commits(
    hub: LoopbackHub, cwd: Path, tiny_base: Path, tmp_path: Path
) -> None:
    base = hub.add_repo("owner/tiny-base", files=tiny_base)
    config = read_json(cwd / "run" / "adapter" / "adapter_config.json")
    config |= {"base_model_name_or_path": "owner/tiny-base", "revision": base}
    weights = (cwd / "run" / "adapter" / "adapter_model.safetensors").read_bytes()
    files = {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": weights}
    adapter = hub.add_repo("owner/tuned", files=files)
    environment: dict[str, Any] = hub.environment(tmp_path / "home") | {"HF_HUB_OFFLINE": "0"}
    # Without model_name_or_path the base is the one that the adapter names.
    words = ("evaluate", "finsent", "--data", "rows.jsonl", *SMALL, "num_train_epochs=4")
    done = run_cli(*words, "--adapter", "owner/tuned", "output_dir=hub", cwd=cwd, **environment)
    assert done.returncode == 0, done.stderr
    record = read_json(cwd / "hub" / "run.json")
    assert (record["evaluated"]["name"], record["evaluated"]["commit"]) == ("owner/tuned", adapter)
    assert (record["base_model"]["name"], record["base_model"]["commit"]) == ("owner/tiny-base", base)
    assert replace(Report.read(cwd / "hub"), notes=[]) == Report.read(cwd / "run")
    whole = ("--adapter", "owner/tiny-base@main", "model_name_or_path=owner/tiny-base", "load_in_4bit=false")
    done = run_cli(*words, *whole, "output_dir=whole", cwd=cwd, **environment)
    assert done.returncode == 0, done.stderr
    assert Report.read(cwd / "whole").forgetting == 0  # it is its own base
    missing = run_cli(*words, "--adapter", "owner/none", "output_dir=none", cwd=cwd, **environment)
    assert (
        "error: owner/none: there is no such folder here; on the Hub: adapter 'owner/none': the Hub" in missing.stderr
    )


def test_a_learning_curve_asks_the_base_once_and_goes_on_where_it_was(cwd: Path, tiny_base: Path) -> None:
    words = ("--sizes", "12,6,24", "num_train_epochs=1", "output_dir=curve")
    first = finsent(cwd, "learning-curve", tiny_base, "--sizes", "6,12", "num_train_epochs=1", "output_dir=curve")
    assert first.returncode == 0, first.stderr
    (kept,) = (cwd / "curve" / "base").glob("*/base *.json")
    before = kept.stat().st_mtime_ns
    done = finsent(cwd, "learning-curve", tiny_base, *words)
    assert done.returncode == 0, done.stderr
    assert kept.stat().st_mtime_ns == before
    assert done.stdout.count("is finished, there is nothing to do") == 2
    curve = read_json(cwd / "curve" / "learning_curve.json")
    assert [point["rows"] for point in curve["points"]] == [6, 12, 24]
    splits = {
        size: (cwd / "curve" / f"rows-{size}" / "splits" / "train.jsonl").read_text().splitlines()
        for size in (6, 12, 24)
    }
    assert [len(lines) for lines in splits.values()] == [6, 12, 24]
    assert set(splits[6]) < set(splits[12]) < set(splits[24])
    tests = {(cwd / "curve" / f"rows-{size}" / "splits" / "test.jsonl").read_bytes() for size in splits}
    assert len(tests) == 1
    assert (cwd / "curve" / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert "| 24 |" in done.stdout
    for point, size in zip(curve["points"], splits, strict=True):
        report = Report.read(cwd / "curve" / f"rows-{size}")
        assert (point["score"], [point["low"], point["high"]]) == (
            report.scores["tuned"]["macro_f1"],
            report.intervals["tuned"],
        )


def test_a_curve_of_a_changed_recipe_asks_the_base_again(cwd: Path, tiny_base: Path) -> None:
    recipe = cwd / "changing.py"
    text = (Path(__file__).parent.parent / "recipes" / "finsent.py").read_text()
    words = (
        "--data",
        "rows.jsonl",
        *SMALL,
        "num_train_epochs=1",
        "output_dir=changed",
        f"model_name_or_path={tiny_base}",
    )
    for wording, sizes in (("Is this news", "4,8"), ("Is the news below", "6,10")):
        recipe.write_text(text.replace("Is this news", wording))
        done = run_cli("learning-curve", str(recipe), "--sizes", sizes, *words, cwd=cwd)
        assert done.returncode == 0, done.stderr
    assert len(list((cwd / "changed" / "base").iterdir())) == 2


def test_a_curve_has_sizes_of_its_own_and_no_gates(cwd: Path, tiny_base: Path) -> None:
    refused = finsent(cwd, "learning-curve", tiny_base, "gates=gain=0.1", "output_dir=gated")
    assert (refused.returncode, "error: learning-curve: gates are for runs" in refused.stderr) == (1, True)
    recipe = cwd / "gated.py"
    text = (Path(__file__).parent.parent / "recipes" / "finsent.py").read_text()
    recipe.write_text(text.replace("    primary_metric =", '    gates = {"forgetting": 0.05}\n    primary_metric ='))
    words = ("--data", "rows.jsonl", *SMALL, "max_steps=1", "output_dir=own", f"model_name_or_path={tiny_base}")
    done = run_cli("learning-curve", str(recipe), *words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    rows = [point["rows"] for point in read_json(cwd / "own" / "learning_curve.json")["points"]]
    assert rows == [6, 12, 24, 48]


@pytest.mark.parametrize(
    ("sizes", "told"),
    [("5", "one number of rows makes no curve"), ("5,99999", "must lie in 1 to"), ("0,5", "must lie in 1 to")],
)
def test_numbers_of_rows_that_make_no_curve_are_told(cwd: Path, tiny_base: Path, sizes: str, told: str) -> None:
    done = finsent(cwd, "learning-curve", tiny_base, "--sizes", sizes, "output_dir=wrong")
    assert done.returncode == 1
    assert done.stderr.startswith("error: learning-curve: ")
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not (cwd / "wrong").exists()


def test_runs_stand_side_by_side(cwd: Path, tiny_base: Path) -> None:
    other = finsent(cwd, "run", tiny_base, "num_train_epochs=1", "price_per_hour=360", "output_dir=shorter")
    assert other.returncode == 0, other.stderr
    done = run_cli("compare", "run", "shorter", "--html", "compared.html", cwd=cwd, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert imported(done.stderr).isdisjoint({"torch", "transformers"})
    comparison = compare_runs([cwd / "run", cwd / "shorter"])
    assert comparison.as_markdown() in done.stdout
    assert comparison.differing["num_train_epochs"] == ["4.0", "1.0"]
    assert {"output_dir", "lora_r"}.isdisjoint(comparison.differing)
    reports = [Report.read(cwd / name) for name in ("run", "shorter")]
    assert [cell.split()[0] for cell in comparison.reached["macro_f1"]] == [
        f"{report.scores['tuned']['macro_f1']:.3f}" for report in reports
    ]
    cost = read_json(cwd / "shorter" / "run.json")["totals"]["cost_usd"]
    assert comparison.reached["cost"] == ["", f"{cost:.2f} USD"]
    (pair,) = comparison.pairs
    lines = [read_jsonl(cwd / name / "answers.jsonl") for name in ("run", "shorter")]
    marks = [[line["tuned"]["correct"] for line in own] for own in lines]
    assert pair.rows == len(marks[0])
    assert pair.only_first == sum(one and not two for one, two in zip(*marks, strict=True))
    assert pair.only_second == sum(two and not one for one, two in zip(*marks, strict=True))
    again = run_cli("compare", "run", "shorter", "--html", "compared.html", cwd=cwd)
    assert again.returncode == 0
    (cwd / "notes.txt").write_text("mine")
    for place in ("notes.txt", "run"):
        refused = run_cli("compare", "run", "shorter", "--html", place, cwd=cwd)
        assert refused.returncode == 1
        assert f"error: {place}: is there already, and is no page of hf_finetune." in refused.stderr
    assert (cwd / "notes.txt").read_text() == "mine"
    page = (cwd / "compared.html").read_text()
    assert "num_train_epochs" in page
    assert "://" not in page


def test_runs_on_other_test_rows_are_not_compared_in_pairs(cwd: Path, tmp_path: Path) -> None:
    other = shutil.copytree(cwd / "run", tmp_path / "other")
    write_rows(other / "answers.jsonl", [row | {"prompt": "another"} for row in read_jsonl(other / "answers.jsonl")])
    (pair,) = compare_runs([cwd / "run", other]).pairs
    assert pair.rows == 0
    assert "were not asked the same test rows" in pair.verdict


def test_what_cannot_be_compared_is_told(cwd: Path, tmp_path: Path) -> None:
    shutil.copytree(cwd / "run", tmp_path / "unfinished")
    (tmp_path / "unfinished" / "report.json").unlink()
    for folders, words in (
        ([cwd / "run"], "needs two runs or more"),
        ([cwd / "run", cwd / "run" / "adapter" / ".."], "a run is named twice"),
        ([cwd / "run", tmp_path], "holds no run"),
        ([cwd / "run", tmp_path / "unfinished"], "unfinished: has no report. Start"),
    ):
        with pytest.raises(RecipeError, match=words):
            compare_runs(folders)
