"""What a user gets wrong: one clear message, code 1 or 2, no traceback, nothing half-written."""

import json
from pathlib import Path

import pytest

from conftest import imported, run_cli, sample_rows, write_rows
from hf_finetune.cli.run import request_of, settle_run
from hf_finetune.interruption import interruption
from hf_finetune.recipe import load_recipe

RECIPE = Path(__file__).parent.parent / "recipes" / "finsent.py"


def refused(*words: str, cwd: Path, **environment: str) -> str:
    """What was said on standard error, after checking what holds for every refusal."""
    done = run_cli(*words, cwd=cwd, module=True, **environment)
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    assert not (cwd / "runs").exists()
    return done.stderr


def recipe_with(tmp_path: Path, old: str, new: str) -> str:
    text = RECIPE.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "recipe.py"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return str(path)


def test_an_unknown_recipe_gets_the_nearest_name(tmp_path: Path) -> None:
    assert refused("finset", "--demo", cwd=tmp_path) == (
        "error: recipe 'finset': is not installed. Did you mean 'finsent'? A file is named by its path.\n"
    )


def test_a_misspelt_setting_gets_the_nearest_name_and_imports_no_torch(tmp_path: Path) -> None:
    said = refused("finsent", "--demo", "learning_rte=1", cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert said.endswith("error: command line: no setting is called 'learning_rte'. Did you mean 'learning_rate'?\n")
    assert "click" in imported(said)
    assert imported(said).isdisjoint({"torch", "transformers", "trl", "datasets", "peft", "accelerate"})


def test_a_word_for_a_number_is_refused(tmp_path: Path) -> None:
    assert "learning_rate is 'fast'; it should be a valid number" in refused(
        "finsent", "learning_rate=fast", cwd=tmp_path
    )


def test_a_tab_in_yaml_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("lora_r: 8\n\tlearning_rate: 1e-4\n")
    said = refused("finsent", "--config", "my.yaml", cwd=tmp_path)
    assert "my.yaml: line 2: is not YAML" in said
    assert "tab" in said


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "rows.csv: there is no such file" in refused("finsent", "--demo", "--data", "rows.csv", cwd=tmp_path)
    assert "none.yaml: cannot be read" in refused("finsent", "--config", "none.yaml", cwd=tmp_path)


def test_every_broken_row_is_named_at_once(tmp_path: Path) -> None:
    rows = [
        *sample_rows(4),
        {"label": "neutral"},
        {"sentence": "x", "label": "positiv"},
        {"sentence": " ", "label": "neutral"},
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    said = refused("finsent", "--demo", "--data", "rows.jsonl", cwd=tmp_path)
    assert "rows.jsonl: 3 faults in 15 rows." in said
    assert "row 13: 'sentence' is missing" in said
    assert "row 14: 'label' is 'positiv'; it should be 'negative', 'neutral' or 'positive'" in said
    assert "row 15: 'sentence' is empty" in said


def test_empty_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("")
    assert "rows.jsonl: holds no rows" in refused("finsent", "--demo", "--data", "rows.jsonl", cwd=tmp_path)


def test_too_few_rows_for_three_splits_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", sample_rows(1))
    assert "Give more rows" in refused("finsent", "--demo", "--data", "rows.jsonl", cwd=tmp_path)


def test_rows_that_are_all_too_long_are_refused(tmp_path: Path, tiny_base: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", sample_rows(8))
    words = ("finsent", "--data", "rows.jsonl", f"model_name_or_path={tiny_base}", "max_length=9")
    assert "longer than max_length=9 tokens" in refused(*words, cwd=tmp_path)


def test_a_base_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", sample_rows(8))
    data = ("--data", "rows.jsonl")
    said = refused("finsent", *data, "model_name_or_path=ns/none", cwd=tmp_path, HF_HOME=str(tmp_path / "home"))
    assert "base model 'ns/none': HF_HUB_OFFLINE is set" in said
    assert "no such folder" in refused("finsent", *data, "model_name_or_path=./none", cwd=tmp_path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, tiny_base: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", sample_rows(8))
    (tmp_path / "file").write_text("in the way")
    words = ("finsent", "--data", "rows.jsonl", f"model_name_or_path={tiny_base}", "output_dir=file/run")
    assert "file/run: cannot be made in" in refused(*words, cwd=tmp_path)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, tiny_base: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", sample_rows(8))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    words = ("finsent", "--data", "rows.jsonl", f"model_name_or_path={tiny_base}", "output_dir=mine")
    assert "is there already and is not empty" in refused(*words, cwd=tmp_path)
    assert "holds no run, so --overwrite leaves it alone" in refused(*words, "--overwrite", cwd=tmp_path)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_world_without_the_way_to_it_is_refused(tmp_path: Path) -> None:
    said = refused("finsent", "--demo", cwd=tmp_path, WORLD_SIZE="2", RANK="0")
    assert "WORLD_SIZE is 2, but MASTER_ADDR and MASTER_PORT is not set. Start the run with accelerate launch" in said


def test_an_option_that_is_none_shows_the_usage(tmp_path: Path) -> None:
    said = refused("finsent", "--dem", cwd=tmp_path)
    assert "No such option" in said


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("def prompt(self", "def prompt(self,,", "SyntaxError"),
        ("return row.label", "return row.lable", "AttributeError"),
    ],
)
def test_a_defect_in_a_recipe_keeps_its_traceback(tmp_path: Path, old: str, new: str, name: str) -> None:
    recipe = recipe_with(tmp_path, old, new)
    done = run_cli(recipe, "--demo", cwd=tmp_path, module=True)
    assert done.returncode == 1
    assert name in done.stderr
    assert "recipe.py" in done.stderr


def test_a_dry_run_shows_each_setting_with_its_origin(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("lora_r: 8\nlearning_rate: 3e-4\n")
    done = run_cli("finsent", "--dry-run", "--config", "my.yaml", "lora_r=4", cwd=tmp_path, module=True)
    lines = {line.split()[0]: line.split(maxsplit=2)[1:] for line in done.stdout.splitlines()}
    assert lines["lora_r"] == ["4", "command line"]
    assert lines["learning_rate"] == ["0.0003", "my.yaml"]
    assert lines["max_length"] == ["256", "recipe"]
    assert lines["seed"] == ["42", "default"]
    assert not (tmp_path / "runs").exists()


def test_help_is_fast_and_light(tmp_path: Path) -> None:
    done = run_cli("--help", cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert "click" in imported(done.stderr)
    assert imported(done.stderr).isdisjoint({"torch", "transformers", "trl", "datasets", "peft", "pydantic", "numpy"})
    assert json.dumps(sorted(line.split()[0] for line in done.stdout.split("Commands:")[1].splitlines() if line)) == (
        '["advise", "bench", "card", "cat", "check", "compare", "doctor", "estimate", "evaluate", "jobs", "launch", '
        '"learning-curve", "list", "merge", "new", "pin", "prepare", "push", "run", "status", "verify"]'
    )


def test_another_base_starts_from_its_own_main_branch_not_from_the_pinned_commit(tmp_path: Path) -> None:
    pinned = recipe_with(tmp_path, "    dataset = Hub", '    base_model_revision = "0123abc"\n    dataset = Hub')
    words = [(), ("model_name_or_path=ns/other",), ("model_name_or_path=ns/other", "model_revision=v2")]
    shown = [run_cli(pinned, "--dry-run", *some, cwd=tmp_path, module=True).stdout.splitlines() for some in words]
    revisions = [line.split()[1] for lines in shown for line in lines if line.startswith("model_revision")]
    assert revisions == ["0123abc", "main", "v2"]


def test_a_tracker_that_is_not_installed_is_named_with_its_extra(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", sample_rows(8))
    said = refused("finsent", "--demo", "--data", "rows.jsonl", "report_to=mlflow", cwd=tmp_path)
    assert "pip install 'hf_finetune[mlflow]'" in said


def test_a_score_that_would_fail_after_the_training_fails_before_it(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, 'primary_metric = "macro_f1"', 'primary_metric = "macro_f2"')
    assert "score() has no 'macro_f2'. Did you mean 'macro_f1'?" in refused(recipe, "--demo", cwd=tmp_path)


def test_a_run_a_curve_and_an_evaluation_ask_for_the_same_things(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the demonstration the licence is known; of an adapter that is only evaluated it is not."""
    monkeypatch.setattr(interruption, "listen", lambda: None)
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("finsent")
    settled = settle_run(recipe, ["lora_r=4"], None, demo=True, baseline="tfidf")
    assert (settled.values.lora_r, settled.values.baseline, settled.origins["baseline"]) == (4, "tfidf", "command line")
    asked = request_of(recipe, "finsent", settled, True, None, "somewhere", False)
    assert (asked.is_demo, asked.license, asked.folder) == (True, "apache-2.0", Path("somewhere"))
    own_rows = write_rows(tmp_path / "rows.jsonl", sample_rows(2))
    assert request_of(recipe, "finsent", settled, True, str(own_rows), "somewhere", False).license is None
    assert request_of(recipe, "finsent", settled, True, None, "x", False, {"name": "theirs"}).license is None
    published = settle_run(recipe, [], None, demo=False)
    assert request_of(recipe, "finsent", published, False, None, "x", False).license == recipe.license
