"""A run's folder: made where nothing is, held by one run, replaced only when asked, never when it is something else."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hf_finetune.errors import RecipeError
from hf_finetune.folder import check_folder, held, start_folder
from hf_finetune.run import Run


def leave_a_run(folder: Path) -> None:
    (folder / "run.json").write_text("{}")


def make(folder: Path, overwrite: bool = False) -> None:
    """Checks and makes the folder and begins a run in it, as the pipeline does; then that run's record is gone."""
    check_folder(folder, overwrite)
    with held(folder):
        start_folder(folder)
        leave_a_run(folder)
    (folder / "run.json").unlink()


def test_a_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    make(tmp_path / "runs" / "task")
    assert list((tmp_path / "runs" / "task").iterdir()) == []


def test_checking_writes_nothing(tmp_path: Path) -> None:
    check_folder(tmp_path / "runs" / "task", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    make(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_a_run_is_taken_and_left_as_it_is(tmp_path: Path) -> None:
    leave_a_run(tmp_path)
    with held(tmp_path):
        check_folder(tmp_path, overwrite=False)
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_a_second_run_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    with (
        held(tmp_path / "runs"),
        pytest.raises(RecipeError, match=rf"runs: process {os.getpid()} on .* is running in it\. Wait for it, or stop"),
        held(tmp_path / "runs"),
    ):
        pytest.fail("the folder was held twice")


def test_a_run_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "run.lock.holder").mkdir()
    message = "cannot be written: Is a directory. Make room or rights there, or work on a copy of the folder"
    with pytest.raises(RecipeError, match=message), held(tmp_path):
        pytest.fail("it was held")


def test_a_folder_that_a_killed_process_held_is_taken_over(tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from hf_finetune.folder import held
with held(Path({str(tmp_path / "runs")!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert (tmp_path / "runs" / "run.lock.holder").exists()
    check_folder(tmp_path / "runs", overwrite=False)
    with held(tmp_path / "runs"):
        leave_a_run(tmp_path / "runs")
    assert [file.name for file in (tmp_path / "runs").iterdir()] == ["run.json"]


def test_nothing_is_left_where_nothing_was_begun(tmp_path: Path) -> None:
    with held(tmp_path / "runs" / "task"):
        (tmp_path / "runs" / "task" / "progress.json").write_text("{}")
    assert list(tmp_path.iterdir()) == []


def test_what_others_put_into_a_folder_stays(tmp_path: Path) -> None:
    with held(tmp_path / "runs" / "task"):
        (tmp_path / "runs" / "notes.txt").write_text("mine")
    assert [file.name for file in (tmp_path / "runs").iterdir()] == ["notes.txt"]


def test_checking_a_folder_that_is_to_be_replaced_leaves_it_as_it_is(tmp_path: Path) -> None:
    leave_a_run(tmp_path)
    check_folder(tmp_path, overwrite=True)
    assert (tmp_path / "run.json").read_text() == "{}"


def test_a_folder_with_a_run_is_emptied_when_that_is_asked_for(tmp_path: Path) -> None:
    leave_a_run(tmp_path)
    (tmp_path / "adapter").mkdir()
    make(tmp_path, overwrite=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_killed_while_it_is_emptied_still_holds_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_a_run(tmp_path)
    (tmp_path / "report.json").touch()
    monkeypatch.setattr("shutil.rmtree", lambda path: pytest.fail("killed here"))
    (tmp_path / "splits").mkdir()
    with pytest.raises(pytest.fail.Exception):
        start_folder(tmp_path)
    check_folder(tmp_path, overwrite=True)
    assert not (tmp_path / "report.json").exists()  # so it is not taken for finished


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_something_else_is_refused_whatever_is_asked_for(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RecipeError, match=r"is not empty\. Name another|holds no run, so --overwrite leaves it alone"):
        check_folder(tmp_path, overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_the_folders_place_is_refused_whatever_is_asked_for(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RecipeError, match="output_dir="):
        check_folder(tmp_path / "runs", overwrite)


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "regular").write_text("a file, not a folder")  # stands for missing rights, which root always has
    with pytest.raises(RecipeError, match=r"runs: cannot be made in .*regular: that is a file\. Name another"):
        check_folder(tmp_path / "regular" / "deep" / "runs", overwrite=False)


def test_a_folder_that_cannot_be_made_after_all_is_told(tmp_path: Path) -> None:
    (tmp_path / "regular").write_text("a file, not a folder")
    with pytest.raises(RecipeError, match=r"runs: cannot be made: Not a directory\. Name another with output_dir="):
        held(tmp_path / "regular" / "runs").__enter__()


@pytest.mark.parametrize("holds_a_run", [False, True])
def test_a_link_to_another_disk_is_taken_like_the_folder_it_leads_to(tmp_path: Path, holds_a_run: bool) -> None:
    # So is a mounted volume: it can be emptied, but not removed.
    (tmp_path / "disk").mkdir()
    if holds_a_run:
        leave_a_run(tmp_path / "disk")
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    make(tmp_path / "runs", overwrite=True)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"holds no run\. Name a folder such as those in runs/"):
        Run.read(tmp_path)


@pytest.mark.parametrize("record", ["{}", "{", "[]"])
def test_a_record_of_another_version_or_damaged_is_told(tmp_path: Path, record: str) -> None:
    (tmp_path / "run.json").write_text(record)
    with pytest.raises(
        RecipeError, match=r"run\.json: is damaged, or of another version of hf_finetune .*\. Name anoth"
    ):
        Run.read(tmp_path)
