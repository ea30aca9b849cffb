"""A run's folder: made where nothing is, replaced only when asked, and never when it is something else."""

from pathlib import Path

import pytest

from hf_finetune.errors import RecipeError
from hf_finetune.run import Run, check_folder, start_folder


def leave_a_run(folder: Path) -> None:
    (folder / "run.json").write_text("{}")


def make(folder: Path, overwrite: bool = False) -> None:
    """Checks and makes the folder, as the pipeline does."""
    check_folder(folder, overwrite)
    start_folder(folder)


def test_a_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    make(tmp_path / "runs" / "task")
    assert list((tmp_path / "runs" / "task").iterdir()) == []


def test_checking_writes_nothing(tmp_path: Path) -> None:
    check_folder(tmp_path / "runs" / "task", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    make(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_a_run_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    leave_a_run(tmp_path)
    with pytest.raises(RecipeError, match=r"holds a run already\. .*output_dir=FOLDER, or replace it with --overwrite"):
        check_folder(tmp_path, overwrite=False)
    assert (tmp_path / "run.json").read_text() == "{}"


def test_checking_a_folder_that_is_to_be_replaced_leaves_it_as_it_is(tmp_path: Path) -> None:
    leave_a_run(tmp_path)
    check_folder(tmp_path, overwrite=True)
    assert (tmp_path / "run.json").read_text() == "{}"


def test_a_folder_with_a_run_is_emptied_when_that_is_asked_for(tmp_path: Path) -> None:
    leave_a_run(tmp_path)
    (tmp_path / "adapter").mkdir()
    make(tmp_path, overwrite=True)
    assert list(tmp_path.iterdir()) == []


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
        start_folder(tmp_path / "regular" / "runs")


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
    with pytest.raises(RecipeError, match=r"holds no run\. Name the folder"):
        Run.read(tmp_path)
