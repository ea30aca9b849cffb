"""Files appear whole or not at all, and what is written is what is read."""

import hashlib
import json
import math
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from hf_finetune.errors import RecipeError
from hf_finetune.files import (
    existing,
    read_json,
    read_jsonl,
    sha256,
    whole_file,
    whole_folder,
    write_json,
    write_jsonl,
    write_text,
)

LINE_BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
"""All characters at which str.splitlines() breaks."""


def write_half_a_file(path: Path) -> None:
    with whole_file(path) as temporary:
        temporary.write_text("half")
        raise ValueError("stopped")


def write_half_a_folder(path: Path) -> None:
    with whole_folder(path) as temporary:
        (temporary / "one.txt").write_text("new")
        raise ValueError("stopped")


def names_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_writer_that_fails_midway_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    path.write_text("old")
    with pytest.raises(ValueError, match="stopped"):
        write_half_a_file(path)
    assert path.read_text() == "old"
    assert names_below(tmp_path) == ["report.txt"]


def test_a_writer_that_fails_midway_leaves_no_file_where_there_was_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stopped"):
        write_half_a_file(tmp_path / "report.txt")
    assert names_below(tmp_path) == []


def test_a_writer_that_is_killed_leaves_the_old_file_and_the_next_one_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    path.write_text("old")
    script = """
import os, sys
from pathlib import Path
from hf_finetune.files import whole_file
with whole_file(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os._exit(9)  # as a kill: no clean-up runs
"""
    assert subprocess.run([sys.executable, "-c", script, str(path)], timeout=60).returncode == 9
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"
    assert names_below(tmp_path) == ["report.txt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows files have no such permissions")
@pytest.mark.parametrize("mode", [0o755, 0o600, 0o444])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "recipe.py"
    path.write_text("old")
    path.chmod(mode)
    write_text(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    path.write_text("old")
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_text_that_cannot_be_encoded_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "begins well \ud800")
    assert path.read_text() == "old"
    assert names_below(tmp_path) == ["report.txt"]


def test_rows_that_stop_coming_leave_the_old_file(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, int]]:
        yield {"a": 1}
        raise ValueError("stopped")

    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    with pytest.raises(ValueError, match="stopped"):
        write_jsonl(path, rows())
    assert path.read_text() == "{}\n"


def test_line_ends_are_written_as_they_are_given(tmp_path: Path) -> None:
    write_text(tmp_path / "recipe.py", "one\r\ntwo\nthree\r")
    assert (tmp_path / "recipe.py").read_bytes() == b"one\r\ntwo\nthree\r"


def test_folders_on_the_way_to_a_file_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "runs" / "first" / "report.txt", "text")
    assert (tmp_path / "runs" / "first" / "report.txt").read_text() == "text"


def test_a_file_below_a_regular_file_is_a_mistake_that_can_be_mended(tmp_path: Path) -> None:
    (tmp_path / "regular").write_text("a file, not a folder")  # stands for missing rights, which root always has
    with pytest.raises(RecipeError, match=r"report\.txt: cannot be written: .*or name another place"):
        write_text(tmp_path / "regular" / "report.txt", "text")


def test_a_folder_in_the_place_of_a_file_is_a_mistake_that_can_be_mended(tmp_path: Path) -> None:
    (tmp_path / "report.txt" / "inner").mkdir(parents=True)
    with pytest.raises(RecipeError, match=r"report\.txt: cannot be written: .*MiB free.*or name another place"):
        write_text(tmp_path / "report.txt", "text")
    assert names_below(tmp_path) == ["report.txt", "report.txt/inner"]


def test_a_whole_folder_replaces_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "old.txt").write_text("old")
    with whole_folder(folder) as temporary:
        (temporary / "new.txt").write_text("new")
        assert (folder / "old.txt").is_file()
    assert names_below(tmp_path) == ["adapter", "adapter/new.txt"]


def test_a_folder_whose_writer_fails_midway_stays_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "one.txt").write_text("old")
    with pytest.raises(ValueError, match="stopped"):
        write_half_a_folder(folder)
    assert (folder / "one.txt").read_text() == "old"
    assert names_below(tmp_path) == ["adapter", "adapter/one.txt"]


def test_what_a_killed_writer_left_does_not_get_into_the_new_folder(tmp_path: Path) -> None:
    (tmp_path / ".adapter.partial").mkdir()
    (tmp_path / ".adapter.partial" / "stale.txt").write_text("from a killed run")
    with whole_folder(tmp_path / "adapter") as temporary:
        (temporary / "new.txt").write_text("new")
    assert names_below(tmp_path) == ["adapter", "adapter/new.txt"]


def test_a_folder_below_a_regular_file_is_a_mistake_that_can_be_mended(tmp_path: Path) -> None:
    (tmp_path / "regular").write_text("a file, not a folder")

    def write() -> None:
        with whole_folder(tmp_path / "regular" / "adapter"):
            pass

    with pytest.raises(RecipeError, match="adapter: cannot be written"):
        write()


@pytest.mark.parametrize("sign", LINE_BREAKS, ids=ascii)
def test_a_line_break_inside_a_text_survives_jsonl(tmp_path: Path, sign: str) -> None:
    rows = [{"text": f"before{sign}after"}, {"text": "next"}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == rows


def test_no_rows_are_an_empty_file(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [])
    assert (tmp_path / "rows.jsonl").read_bytes() == b""
    assert read_jsonl(tmp_path / "rows.jsonl") == []


def test_dates_become_text_in_jsonl(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"day": date(2024, 2, 29)}])
    assert read_jsonl(tmp_path / "rows.jsonl") == [{"day": "2024-02-29"}]


def test_json_is_read_back_as_it_was_and_stays_readable_to_people(tmp_path: Path) -> None:
    value = {"name": "Łódź 🙂", "numbers": [1, 2.5, None, True]}
    write_json(tmp_path / "run.json", value)
    assert read_json(tmp_path / "run.json") == value
    assert "Łódź 🙂" in (tmp_path / "run.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("write", [write_json, write_jsonl])
def test_numbers_that_json_does_not_know_are_refused(tmp_path: Path, write: Any, number: float) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="JSON compliant"):
        write(path, [{"loss": number}])
    assert path.read_text() == "old"


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "weights.bin").write_bytes(content)
    assert sha256(tmp_path / "weights.bin") == hashlib.sha256(content).hexdigest()
    (tmp_path / "abc.txt").write_bytes(b"abc")  # the example of FIPS 180-2, appendix B.1
    assert sha256(tmp_path / "abc.txt") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_each_row_is_one_line(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "a\nb"}, {"text": "c"}])
    lines = (tmp_path / "rows.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line) for line in lines if line] == [{"text": "a\nb"}, {"text": "c"}]


def test_all_files_of_a_folder_may_be_read_by_the_same(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x")
    with whole_folder(tmp_path / "out") as temporary:
        (temporary / "weights").write_text("x")
        (temporary / "weights").chmod(0o600)
    assert (tmp_path / "out" / "weights").stat().st_mode == (tmp_path / "text").stat().st_mode


def test_the_nearest_folder_above_what_is_not_there_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    found = [existing(Path(name)) for name in ("a/b/c", "file/below", ".")]
    assert found == [tmp_path, tmp_path / "file", tmp_path]
