"""`hf-finetune card`: the card again, and one clear error where there is nothing to write it from."""

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_card import a_folder, a_report, a_run, data, merged, own_rows

from hf_finetune.cli.card import card
from hf_finetune.errors import RecipeError
from hf_finetune.files import write_json
from hf_finetune.folder import held


def written(*words: str) -> str:
    done = CliRunner().invoke(card, words, catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_the_card_is_written_again_and_named(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "run", a_run(), data(), a_report())
    readme = folder / "adapter" / "README.md"
    readme.write_text("PEFT's own")
    assert written(str(folder)) == f"card      {readme}\n"
    assert readme.read_text().startswith("---\nbase_model: ns/base\n")


def test_rows_are_shown_when_that_is_asked_for(tmp_path: Path) -> None:
    run, given, found = own_rows()
    folder = a_folder(tmp_path / "run", run, given, found)
    for words, is_shown in (((), False), (("--show-rows",), True), ((), True), (("--hide-rows",), False)):
        written(str(folder), *words)
        assert ("which is not public:**" in (folder / "adapter" / "README.md").read_text()) == is_shown


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("run.json", None, "holds no run"), ("run.json", "{", r"run\.json: is damaged"),
        ("run.json", "[]", r"run\.json: is damaged"),
        ("data.json", None, r"data\.json: is missing"), ("data.json", "{", r"data\.json: cannot be read"),
        ("data.json", "3", r"data\.json: cannot be read"), ("report.json", None, "has no report"),
        ("report.json", "{", r"report\.json: is damaged"),
        ("data.json", "{}", r"data\.json: is damaged: it lacks 'source'\. Remove it and start the run's command"),
        ("data.json", "[]", r"data\.json: is damaged"),
        ("verified.json", "{", r"verified\.json: cannot be read .*Remove it: hf-finetune verify \S+ makes it again"),
        ("run.json", "FOLDER", r"run\.json: is damaged"), ("report.json", "FOLDER", r"report\.json: is damaged"),
        ("data.json", "FOLDER", r"data\.json: cannot be read"),
        ("report.json", '{"accuracy": null', r"report\.json: is damaged.*must be real number, not NoneType"),
    ],
)  # fmt: skip
def test_files_that_are_not_there_or_damaged_are_told(name: str, text: str | None, error: str, tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "run", a_run(), data(), a_report())
    whole = (folder / name).read_text() if (folder / name).exists() else ""
    (folder / name).unlink(missing_ok=True)
    if text == "FOLDER":
        (folder / name).mkdir()
    elif text is not None:
        (folder / name).write_text(re.sub(r'\{\s*"accuracy": [\d.]+', text, whole) if "null" in text else text)
    with pytest.raises(RecipeError, match=error):
        CliRunner().invoke(card, [str(folder)], catch_exceptions=False)
    assert not (folder / "adapter" / "README.md").exists()


def test_a_run_that_is_not_finished_or_is_held_gets_no_card(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "run", a_run(finished=""), data(), a_report())
    with pytest.raises(RecipeError, match=r"run: the run is not finished\. Start its command again, so that it ends\."):
        CliRunner().invoke(card, [str(folder)], catch_exceptions=False)
    a_run().write(folder)
    with held(folder), pytest.raises(RecipeError, match="is running in it"):
        CliRunner().invoke(card, [str(folder)], catch_exceptions=False)
    assert not (folder / "adapter" / "README.md").exists()


def test_merged_weights_that_were_removed_are_left_out(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "run", a_run(), data(), merged(a_report()))
    for is_there in (True, False):
        (folder / "merged").mkdir() if is_there else shutil.rmtree(folder / "merged")
        written(str(folder))
        text = (folder / "adapter" / "README.md").read_text()
        assert ("### The merged weights" in text) == is_there
        assert ("The merged weights are rounded otherwise" in text) == is_there


def test_the_advice_on_a_path_in_a_finished_runs_docstring_can_be_followed(tmp_path: Path) -> None:
    run = a_run()
    run.recipe["docstring"] = "Its rows are in /content/rows."
    folder = a_folder(tmp_path / "run", run, data(), a_report())
    with pytest.raises(
        RecipeError, match=r"names the path /content/rows\. Take that out of its docstring in \S+run.json"
    ):
        CliRunner().invoke(card, [str(folder)], catch_exceptions=False)
    run.recipe["docstring"] = "Its rows are public."
    run.write(folder)
    written(str(folder))


def test_a_verified_json_of_another_kind_verifies_nothing(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "run", a_run(), data(), a_report())
    write_json(folder / "verified.json", {"adapter": {"files": []}, "merged": 3})
    written(str(folder))
    assert "It printed" not in (folder / "adapter" / "README.md").read_text()


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(RecipeError, match="holds no run"):
            CliRunner().invoke(card, [str(folder)], catch_exceptions=False)


def test_an_adapter_that_is_gone_gets_no_card(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "run", a_run(), data(), a_report())
    shutil.rmtree(folder / "adapter")
    with pytest.raises(RecipeError, match=r"run/adapter: holds no weights. Start the run's command again, which"):
        CliRunner().invoke(card, [str(folder)], catch_exceptions=False)
    assert not (folder / "adapter").exists()


def test_an_evaluation_has_no_card(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "run", a_run(training={}), data(), a_report())
    with pytest.raises(RecipeError, match="trained no adapter"):
        CliRunner().invoke(card, [str(folder)], catch_exceptions=False)


def test_a_card_that_could_not_be_published_is_not_written(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "run", a_run(), data(), a_report())
    run = a_run().__dict__ | {"license": "apache-9.0"}
    write_json(folder / "run.json", run)
    with pytest.raises(RecipeError, match=r"card: it cannot be published: license is 'apache-9\.0'"):
        CliRunner().invoke(card, [str(folder)], catch_exceptions=False)
    assert not (folder / "adapter" / "README.md").exists()
