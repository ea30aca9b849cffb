"""A run's folder: made where nothing is, replaced only when asked, and never when it is something else."""

from pathlib import Path

import pytest

from hf_finetune.errors import RecipeError
from hf_finetune.run import Run, start_folder


def leave_a_run(folder: Path) -> None:
    (folder / "run.json").write_text("{}")


def test_a_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    start_folder(tmp_path / "runs" / "task", overwrite=False)
    assert list((tmp_path / "runs" / "task").iterdir()) == []


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    start_folder(tmp_path, overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_a_run_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    leave_a_run(tmp_path)
    with pytest.raises(
        RecipeError, match=r"holds a run already\. .* output_dir=FOLDER, or replace it with --overwrite"
    ):
        start_folder(tmp_path, overwrite=False)
    assert (tmp_path / "run.json").read_text() == "{}"


def test_a_folder_with_a_run_is_emptied_when_that_is_asked_for(tmp_path: Path) -> None:
    leave_a_run(tmp_path)
    (tmp_path / "adapter").mkdir()
    start_folder(tmp_path, overwrite=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_something_else_is_never_touched(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(
        RecipeError, match=r"is not empty\. Name another|holds no run, so --overwrite does not touch it"
    ):
        start_folder(tmp_path, overwrite)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_the_folders_place_is_never_touched(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RecipeError, match="output_dir="):
        start_folder(tmp_path / "runs", overwrite)
    assert (tmp_path / "runs").read_text() == "a file"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "regular").write_text("a file, not a folder")  # stands for missing rights, which root always has
    with pytest.raises(RecipeError, match=r"runs: cannot be written: Not a directory\. Name another folder"):
        start_folder(tmp_path / "regular" / "runs", overwrite=False)


@pytest.mark.xfail(strict=True, raises=OSError, reason="shutil.rmtree refuses a link, outside of the try")
def test_a_link_to_a_run_can_be_overwritten_or_is_told(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    leave_a_run(tmp_path / "disk")
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    try:
        start_folder(tmp_path / "runs", overwrite=True)
    except RecipeError:
        return
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"holds no run\. Name the folder"):
        Run.read(tmp_path)
