"""Sources, formats and typed rows: what can be read is read as it stands, and every broken row is named."""

import io
import json
import math
import os
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow
import pyarrow.parquet
import pytest

from hf_finetune.data import LocalFile, Located
from hf_finetune.data.checks import columns_not_used, typed_rows
from hf_finetune.data.opening import MEND, encoding_of
from hf_finetune.data.reading import Record, read_records
from hf_finetune.errors import RecipeError
from hf_finetune.memo.row import Borrower
from loopback_hub import LoopbackHub

FIELDS = ("text", "label")
ROWS = [{"text": "Zloty up, krona down", "label": "yes"}, {"text": "“Quoted” — naïve 🙂", "label": "no"}]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


@dataclass(frozen=True)
class Answer:
    text: str
    label: Literal["yes", "no"]


@dataclass(frozen=True)
class Question:
    text: str
    label: str


@dataclass(frozen=True)
class Labelled:
    text: str
    label: str
    labels: str = ""


@dataclass(frozen=True)
class Priced:
    text: str
    shares: int
    price: float = 1.0
    note: str = ""
    analyst: str | None = None


def records_of(
    folder: Path, name: str, content: str | bytes, fields: Sequence[str] = FIELDS, member: str | None = None
) -> list[Record]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_records(LocalFile(str(path), member).locate(), fields)


def values_of(folder: Path, name: str, content: str | bytes, member: str | None = None) -> list[dict[str, Any]]:
    return [record.values for record in records_of(folder, name, content, member=member)]


def records(*values: dict[str, Any], is_text: bool = False) -> list[Record]:
    return [Record("rows.jsonl", number, value, is_text) for number, value in enumerate(values, 1)]


def zipped(files: Mapping[str, str | bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


# Local files


def test_a_local_file_is_known_by_its_name_alone(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(JSONL)
    located = LocalFile(str(tmp_path / "rows.jsonl")).locate()
    assert located == Located((tmp_path / "rows.jsonl",), "rows.jsonl", revision=None, commit=None, member=None)


def test_a_file_in_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "rows.jsonl").write_text(JSONL)
    assert LocalFile("~/rows.jsonl").locate().paths == (tmp_path / "rows.jsonl",)


def test_a_missing_file_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    (tmp_path / "rows.docx").touch()
    with pytest.raises(RecipeError, match=r"row\.jsonl: there is no such file\. Did you mean 'rows\.jsonl'\?"):
        LocalFile(str(tmp_path / "row.jsonl")).locate()


def test_a_file_in_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"there is no such file\. Check the path\."):
        LocalFile(str(tmp_path / "nowhere" / "rows.jsonl")).locate()


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"is a folder\. Name a file of rows in it"):
        LocalFile(str(tmp_path)).locate()


def test_jsonl_is_read_with_the_numbers_of_its_lines(tmp_path: Path) -> None:
    first, second = JSONL.splitlines()
    read = records_of(tmp_path, "rows.jsonl", f"\n{first}\n\n  \n{second}")
    assert [(record.number, record.values) for record in read] == [(2, ROWS[0]), (5, ROWS[1])]
    assert {record.file for record in read} == {"rows.jsonl"}
    assert not any(record.is_text for record in read)


def test_a_line_separator_inside_a_jsonl_text_does_not_break_the_line(tmp_path: Path) -> None:
    row = {"text": "one\u2028two\x85three", "label": "yes"}
    assert values_of(tmp_path, "rows.jsonl", json.dumps(row, ensure_ascii=False)) == [row]


def test_every_broken_line_of_a_jsonl_file_is_named(tmp_path: Path) -> None:
    lines = ['{"text": "a"}', '{"text": ', "[1, 2]", '{"text": "b"}', "NaN", '"text"']
    with pytest.raises(RecipeError) as caught:
        records_of(tmp_path, "rows.jsonl", "\n".join(lines))
    message = str(caught.value)
    assert message.startswith("rows.jsonl: 4 faults in 6 rows.\n")
    assert [line.split(":")[0] for line in message.split("\n")[1:]] == ["  row 2", "  row 3", "  row 5", "  row 6"]


def test_a_json_list_is_read(tmp_path: Path) -> None:
    read = records_of(tmp_path, "rows.json", json.dumps(ROWS, indent=2))
    assert [(record.number, record.values) for record in read] == [(1, ROWS[0]), (2, ROWS[1])]


def test_the_list_inside_a_json_object_is_read(tmp_path: Path) -> None:
    assert values_of(tmp_path, "rows.json", json.dumps({"version": "1.1", "data": ROWS})) == ROWS


def test_jsonl_under_the_name_of_json_is_read(tmp_path: Path) -> None:
    assert values_of(tmp_path, "rows.json", JSONL) == ROWS


def test_broken_json_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"rows\.json: line 3: is not JSON \(.*\)\. Mend that line\."):
        records_of(tmp_path, "rows.json", '[\n{"text": "a"},\n{"text" "b"}\n]')


def test_json_without_a_list_of_rows_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"rows\.json: holds no list of rows\."):
        records_of(tmp_path, "rows.json", '{"version": "1.1"}')


def test_a_json_row_that_is_no_object_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"(?s)rows\.json: .*it is int: '5'"):
        records_of(tmp_path, "rows.json", '[{"text": "a"}, 5]')


def test_every_json_row_that_is_no_object_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        records_of(tmp_path, "rows.json", '[{"text": "a"}, 5, {"text": "b"}, 6]')
    assert "row 2" in str(caught.value)
    assert "row 4" in str(caught.value)


def test_a_list_of_column_names_before_the_rows_is_passed_over(tmp_path: Path) -> None:
    assert values_of(tmp_path, "rows.json", json.dumps({"columns": ["text", "label"], "data": ROWS})) == ROWS


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"], ids=ascii)
def test_the_delimiter_of_a_csv_file_is_found(tmp_path: Path, delimiter: str) -> None:
    # The first cell holds each of the others as text, so that counting signs would not do.
    content = f'text{delimiter}label\n"a, b; c | d"{delimiter}yes\n'
    assert values_of(tmp_path, "rows.csv", content) == [{"text": "a, b; c | d", "label": "yes"}]


def test_a_csv_header_with_other_signs_in_a_name_is_split_where_the_fields_are(tmp_path: Path) -> None:
    content = "text;label;source (name, place, date)\na;yes;b\n"
    assert values_of(tmp_path, "rows.csv", content)[0]["label"] == "yes"


def test_a_tsv_file_is_read(tmp_path: Path) -> None:
    assert values_of(tmp_path, "rows.tsv", "text\tlabel\na, b\tyes\n") == [{"text": "a, b", "label": "yes"}]


def test_a_quoted_csv_cell_may_hold_line_breaks_and_quotes(tmp_path: Path) -> None:
    read = records_of(tmp_path, "rows.csv", 'text,label\n"one\ntwo ""three""",yes\n\nfour,no\n')
    assert [(record.number, record.values["text"]) for record in read] == [(1, 'one\ntwo "three"'), (2, "four")]


def test_windows_line_ends_and_blanks_around_csv_names_are_no_part_of_the_rows(tmp_path: Path) -> None:
    assert values_of(tmp_path, "rows.csv", "text , label\r\na, yes\r\n") == [{"text": "a", "label": "yes"}]


def test_csv_cells_are_text(tmp_path: Path) -> None:
    assert [record.is_text for record in records_of(tmp_path, "rows.csv", "text,label\na,2\n")] == [True]


def test_a_csv_cell_may_hold_a_long_document(tmp_path: Path) -> None:
    document = "word " * 40_000
    assert values_of(tmp_path, "rows.csv", f"text,label\n{document},yes\n")[0]["text"] == document


@pytest.mark.parametrize("text", ["An @ at noon", "mail desk@bank.example now", "@@"])
def test_the_last_at_sign_of_a_line_divides_text_from_label(tmp_path: Path, text: str) -> None:
    assert values_of(tmp_path, "rows.txt", f"{text}@yes\n") == [{"text": text, "label": "yes"}]


def test_text_at_label_lines_take_their_names_from_the_fields(tmp_path: Path) -> None:
    read = records_of(tmp_path, "rows.txt", "Up .@yes \r\n\r\nDown .@no\r\n", fields=["sentence", "label"])
    assert [(record.number, record.values) for record in read] == [
        (1, {"sentence": "Up .", "label": "yes"}),
        (3, {"sentence": "Down .", "label": "no"}),
    ]
    assert all(record.is_text for record in read)


def test_every_line_without_an_at_sign_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        records_of(tmp_path, "rows.txt", "a@yes\nno label here\nb@no\nnor here\n")
    assert str(caught.value) == (
        "rows.txt: 2 faults in 4 rows.\n"
        "  row 2: has no '@' between text and label: 'no label here'.\n"
        "  row 4: has no '@' between text and label: 'nor here'."
    )


def test_a_parquet_file_is_read_with_its_types(tmp_path: Path) -> None:
    columns = {"text": ["a", "b"], "shares": [1, None], "price": [1.5, 2.0], "tags": [["x"], []]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    read = read_records(LocalFile(str(tmp_path / "rows.parquet")).locate(), FIELDS)
    assert [record.values for record in read] == [
        {"text": "a", "shares": 1, "price": 1.5, "tags": ["x"]},
        {"text": "b", "shares": None, "price": 2.0, "tags": []},
    ]
    assert [(record.number, record.is_text) for record in read] == [(1, False), (2, False)]


def test_a_parquet_file_that_breaks_off_is_told(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "whole.parquet")
    half = (tmp_path / "whole.parquet").read_bytes()[:-20]
    with pytest.raises(RecipeError, match=r"rows\.parquet: is not a whole parquet file"):
        records_of(tmp_path, "rows.parquet", half)


def test_the_one_readable_file_of_a_zip_archive_is_read(tmp_path: Path) -> None:
    content = zipped({"data/rows.jsonl": JSONL, "README.md": "x", "__MACOSX/data/._rows.jsonl": b"\x00\x05"})
    read = records_of(tmp_path, "rows.zip", content)
    assert [record.values for record in read] == ROWS
    assert {record.file for record in read} == {"rows.zip"}


def test_the_named_member_of_a_zip_archive_is_read(tmp_path: Path) -> None:
    content = zipped({"data/all.txt": "a@yes\n", "data/half.txt": "b@no\n"})
    assert values_of(tmp_path, "rows.zip", content, member="data/half.txt") == [{"text": "b", "label": "no"}]


def test_several_files_in_a_zip_archive_must_be_told_apart(tmp_path: Path) -> None:
    content = zipped({"all.txt": "a@yes\n", "half.txt": "b@no\n"})
    with pytest.raises(RecipeError, match=r"rows\.zip: holds several files\..* member=: all\.txt, half\.txt\."):
        records_of(tmp_path, "rows.zip", content)


def test_a_missing_member_is_told_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"rows\.zip: has no 'al\.txt'\. Name one with member=: all\.txt\."):
        records_of(tmp_path, "rows.zip", zipped({"all.txt": "a@yes\n"}), member="al.txt")


def test_a_zip_archive_that_breaks_off_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"rows\.zip: is not a whole zip archive\. Fetch it again\."):
        records_of(tmp_path, "rows.zip", zipped({"rows.jsonl": JSONL})[:-10])


def test_a_zip_archive_without_a_readable_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        records_of(tmp_path, "rows.zip", zipped({"report.pdf": "x"}))
    assert "several" not in str(caught.value)


def test_a_suffix_in_capitals_is_the_same_suffix(tmp_path: Path) -> None:
    assert values_of(tmp_path, "ROWS.CSV", "text,label\na,yes\n") == [{"text": "a", "label": "yes"}]
    assert values_of(tmp_path, "ROWS.ZIP", zipped({"ROWS.JSONL": JSONL})) == ROWS


@pytest.mark.parametrize("name", ["rows.docx", "rows"])
def test_an_unknown_suffix_is_told_with_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match=rf"{name}: .* is not a format read here\. Known: \.jsonl, \.json, \.csv"):
        records_of(tmp_path, name, "x")


@pytest.mark.parametrize(
    ("name", "content"),
    [("r.jsonl", ""), ("r.jsonl", "\n \n"), ("r.csv", ""), ("r.csv", "text,label\n"), ("r.txt", ""), ("r.json", "[]")],
)
def test_a_file_without_rows_is_told_with_the_fields_it_should_have(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(RecipeError, match=rf"{name}: holds no rows\. Give it rows with the fields text, label\."):
        records_of(tmp_path, name, content)


def test_an_empty_json_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"r\.json: line 1: is not JSON"):
        records_of(tmp_path, "r.json", "")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.txt"])
def test_unicode_files_are_read_whatever_mark_they_begin_with(tmp_path: Path, name: str, encoding: str) -> None:
    text = {"rows.jsonl": JSONL.splitlines()[1], "rows.csv": "text,label\n“Quoted” — naïve 🙂,no\n"}.get(
        name, "“Quoted” — naïve 🙂@no\n"
    )
    mark = "\ufeff" if encoding.endswith("e") else ""  # the encodings that name their order write no mark themselves
    assert values_of(tmp_path, name, (mark + text).encode(encoding)) == [ROWS[1]]


def test_bytes_that_are_not_utf_8_are_latin_1(tmp_path: Path) -> None:
    assert values_of(tmp_path, "rows.txt", "Omsättning för året @ Åbo@yes\n".encode("latin-1")) == [
        {"text": "Omsättning för året @ Åbo", "label": "yes"}
    ]


def test_any_bytes_can_be_decoded() -> None:
    content = bytes(range(256))
    assert len(content.decode(encoding_of(content), MEND)) == 256


def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").mkdir()  # stands for missing rights, which root always has
    with pytest.raises(RecipeError, match=r"rows\.jsonl: cannot be read: Is a directory\. Check its rights\."):
        read_records(Located((tmp_path / "rows.jsonl",), "rows"), FIELDS)


def test_several_files_are_read_in_their_order(tmp_path: Path) -> None:
    for name, text in (("b.txt", "first@yes"), ("a.txt", "second@no")):
        (tmp_path / name).write_text(text)
    read = read_records(Located((tmp_path / "b.txt", tmp_path / "a.txt"), "rows"), FIELDS)
    assert [(record.file, record.values["text"]) for record in read] == [("b.txt", "first"), ("a.txt", "second")]


# Typed rows


def test_records_become_rows_of_the_type_and_other_columns_are_left_out() -> None:
    assert typed_rows(records({"text": "a", "label": "yes", "id": 7}), Answer) == [Answer("a", "yes")]


def test_a_missing_field_is_told_with_the_columns_there_are() -> None:
    with pytest.raises(RecipeError) as caught:
        typed_rows(records({"text": "a", "label": "yes"}, {"text": "b", "lable": "no"}), Answer)
    assert str(caught.value) == (
        "rows.jsonl: 1 fault in 2 rows.\n  row 2: 'label' is missing (it has text, lable). "
        "Rename the column 'lable' to 'label'."
    )


def test_a_column_that_is_another_field_is_not_to_be_renamed() -> None:
    with pytest.raises(RecipeError, match=r"'label' is missing \(it has text, labels\)\.$"):
        typed_rows(records({"text": "a", "labels": "yes"}), Labelled)


def test_a_column_nearly_called_like_a_field_that_found_none_may_be_meant_for_it() -> None:
    given = {"name": "a", "sector": "b"}
    found = records(given | {"curentRatio": 1.0, "Note": "c"}, given | {"CURRENT_RATO": 1.0, "current ratio": 2.0})
    assert columns_not_used(found, Borrower) == {"curentRatio": "current_ratio", "Note": None, "CURRENT_RATO": None}


def test_a_number_written_as_text_is_a_fault_in_jsonl() -> None:
    with pytest.raises(RecipeError, match=r"row 1: 'shares' is '2'; it should be a valid integer\."):
        typed_rows(records({"text": "a", "shares": "2"}), Priced)


def test_a_number_written_as_text_is_a_number_in_csv(tmp_path: Path) -> None:
    read = records_of(tmp_path, "rows.csv", "text,shares,price\na,2,2.50\n", fields=["text", "shares", "price"])
    assert typed_rows(read, Priced) == [Priced("a", 2, 2.5)]


def test_words_for_a_number_are_a_fault_in_csv_too() -> None:
    with pytest.raises(RecipeError, match="'shares' is 'two'; it should be a valid integer"):
        typed_rows(records({"text": "a", "shares": "two"}, is_text=True), Priced)


@pytest.mark.parametrize("value", [2, 2.0, True, None, ["a"]])
def test_what_is_no_text_is_not_turned_into_text(value: object) -> None:
    with pytest.raises(RecipeError, match=r"'text' is .*; it should be a valid string"):
        typed_rows(records({"text": value, "label": "yes"}), Answer)


@pytest.mark.parametrize("is_text", [False, True])
def test_a_label_outside_the_literal_is_told_with_those_inside(is_text: bool) -> None:
    with pytest.raises(RecipeError, match="row 1: 'label' is 'maybe'; it should be 'yes' or 'no'"):
        typed_rows(records({"text": "a", "label": "maybe"}, is_text=is_text), Answer)


@pytest.mark.parametrize("blank", ["", "  ", "\n\t", "\u00a0\u2003"], ids=ascii)
def test_blank_text_is_a_fault(blank: str) -> None:
    with pytest.raises(RecipeError, match="row 1: 'text' is empty"):
        typed_rows(records({"text": blank, "label": "yes"}), Answer)


def test_a_field_with_a_default_may_be_blank_or_absent() -> None:
    rows = typed_rows(records({"text": "a", "shares": 1, "note": ""}, {"text": "b", "shares": 2}), Priced)
    assert rows == [Priced("a", 1), Priced("b", 2)]


@dataclass(frozen=True)
class Filed:
    text: str
    house_price: float | None = None
    database: Path | None = None


@pytest.mark.parametrize("column", ["housePrice", "House Price", "HOUSE_PRICE", "house_price"])
def test_a_column_is_found_where_only_case_spaces_and_underscores_differ(column: str) -> None:
    assert typed_rows(records({"Text": "a", column: 2.5}), Filed) == [Filed("a", 2.5)]


def test_two_columns_that_could_be_one_field_are_a_fault() -> None:
    with pytest.raises(RecipeError, match=r"'House Price' and 'housePrice' could both be 'house_price'\. Ren"):
        typed_rows(records({"text": "a", "House Price": 1.0, "housePrice": 2.0}), Filed)


def test_an_empty_path_is_none(tmp_path: Path) -> None:
    read = records_of(tmp_path, "rows.jsonl", '{"text": "a", "database": ""}\n')
    assert typed_rows(read, Filed) == [Filed("a")]


@pytest.mark.parametrize("path", ["/etc/passwd", "../other.sqlite", "sub/../../other.sqlite"])
def test_rows_of_somebody_elses_data_set_name_no_files_elsewhere(tmp_path: Path, path: str) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "a", "database": path}) + "\n")
    located = Located((tmp_path / "rows.jsonl",), "ns/rows", "main", "0" * 40)
    with pytest.raises(RecipeError, match="row 1: 'database' is not a file of the data set"):
        typed_rows(read_records(located, ["text"]), Filed)
    own = Located((tmp_path / "rows.jsonl",), "rows.jsonl")
    assert len(typed_rows(read_records(own, ["text"]), Filed)) == 1


def test_a_column_of_the_fields_own_name_goes_before_one_that_is_like_it() -> None:
    assert typed_rows(records({"text": "a", "Text": "b"}), Filed) == [Filed("a")]


def test_an_empty_cell_is_no_value_where_a_field_has_a_default(tmp_path: Path) -> None:
    read = records_of(tmp_path, "rows.csv", "text,house_price\na,\nb,2.5\n")
    assert typed_rows(read, Filed) == [Filed("a"), Filed("b", 2.5)]


def test_a_relative_path_is_taken_from_the_folder_of_the_file(tmp_path: Path) -> None:
    read = records_of(tmp_path, "rows.jsonl", '{"text": "a", "database": "sub/a.sqlite"}\n{"text": "b"}\n')
    assert [row.database for row in typed_rows(read, Filed)] == [tmp_path / "sub" / "a.sqlite", None]


@pytest.mark.parametrize("written", ["nan", "NaN", "inf", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_a_fault_in_csv(tmp_path: Path, written: str) -> None:
    read = records_of(tmp_path, "rows.csv", f"text,shares,price\na,2,1.5\nb,3,{written}\n")
    with pytest.raises(RecipeError) as caught:
        typed_rows(read, Priced)
    assert str(caught.value) == (
        f"rows.csv: 1 fault in 2 rows.\n  row 2: 'price' is {float(written)}, which is not a finite number. "
        f"Write one, or take the row out."
    )


@pytest.mark.parametrize("written", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_a_fault_in_jsonl(tmp_path: Path, written: str) -> None:
    read = records_of(tmp_path, "rows.jsonl", f'{{"text": "a", "shares": 2, "price": {written}}}\n')
    with pytest.raises(RecipeError, match=f"row 1: 'price' is {float(written)}, which is not a finite number"):
        typed_rows(read, Priced)


def test_an_empty_cell_of_a_parquet_column_of_floats_is_a_fault(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(
        pyarrow.table({"text": ["a", "b"], "shares": [1, 2], "price": [1.5, math.nan]}), tmp_path / "r.parquet"
    )
    with pytest.raises(RecipeError, match="row 2: 'price' is nan"):
        typed_rows(read_records(Located((tmp_path / "r.parquet",), "r"), FIELDS), Priced)


def test_numbers_that_are_not_finite_are_found_at_any_depth_and_told_with_the_rows_other_faults() -> None:
    @dataclass(frozen=True)
    class Deep:
        text: str
        best: float | None = None
        prices: list[float | None] = field(default_factory=list)
        pair: tuple[float, float] = (0.0, 0.0)
        quotes: dict[str, list[float]] = field(default_factory=dict)
        inner: Priced | None = None

    broken = records(
        {"text": "a", "best": None, "prices": [1.0, None]},
        {"text": " ", "best": math.nan},
        {"text": "c", "prices": [None, math.inf], "pair": [0.5, math.nan]},
        {"text": "d", "quotes": {"ask": [-math.inf]}, "inner": {"text": "x", "shares": 1, "price": math.nan}},
    )
    with pytest.raises(RecipeError) as caught:
        typed_rows(broken, Deep)
    no = "which is not a finite number. Write one, or take the row out."
    assert str(caught.value).split("\n") == [
        "rows.jsonl: 3 faults in 4 rows.",
        f"  row 2: 'text' is empty. 'best' is nan, {no}",
        f"  row 3: 'prices.1' is inf, {no} 'pair.1' is nan, {no}",
        f"  row 4: 'quotes.ask.0' is -inf, {no} 'inner.price' is nan, {no}",
    ]


def test_a_number_that_is_not_finite_in_a_column_that_is_left_out_is_no_fault() -> None:
    assert typed_rows(records({"text": "a", "label": "yes", "score": math.nan}), Answer) == [Answer("a", "yes")]


def test_the_word_nan_is_text_where_text_is_asked_for() -> None:
    assert typed_rows(records({"text": "nan", "label": "inf"}, is_text=True), Question) == [Question("nan", "inf")]


def test_blanks_around_text_are_kept() -> None:
    assert typed_rows(records({"text": " a ", "label": "yes"}), Answer)[0].text == " a "


def test_all_faults_are_found_at_once_and_several_of_one_row_are_one() -> None:
    broken = records({"text": "a", "label": "yes"}, {"text": 1, "label": "maybe"}, {"label": "no"}, {"text": " "})
    with pytest.raises(RecipeError) as caught:
        typed_rows(broken, Answer)
    lines = str(caught.value).split("\n")
    assert lines[0] == "rows.jsonl: 3 faults in 4 rows."
    assert [line.split(":")[0] for line in lines[1:]] == ["  row 2", "  row 3", "  row 4"]
    assert "'text' is 1" in lines[1]
    assert "'label' is 'maybe'" in lines[1]


def test_the_first_five_faults_are_shown_with_the_number_of_all() -> None:
    with pytest.raises(RecipeError) as caught:
        typed_rows(records(*[{"text": "a", "label": f"maybe {n}"} for n in range(1200)]), Answer)
    lines = str(caught.value).split("\n")
    assert lines[0] == "rows.jsonl: 1,200 faults in 1,200 rows."
    assert [line.split(":")[0] for line in lines[1:]] == [*(f"  row {n}" for n in range(1, 6)), "  (and 1195 more)"]


def test_a_column_that_is_misspelt_is_told_once() -> None:
    rows = [{"text": "a", "labels": "yes"}] * 1200 + [{"text": "a", "label": "maybe"}] * 2 + [{"text": 1}]
    with pytest.raises(RecipeError) as caught:
        typed_rows(records(*rows), Answer)
    lines = str(caught.value).split("\n")
    assert lines[0] == "rows.jsonl: 1,203 faults in 1,203 rows."
    assert lines[1].startswith("  1,200 rows (1, 2, 3, 4, 5, ...): 'label' is missing (it has text, labels). Rename ")
    assert [line.split(":")[0] for line in lines[2:]] == ["  rows 1201, 1202", "  row 1203"]


def test_a_csv_row_with_too_many_cells_is_a_fault(tmp_path: Path) -> None:
    # A delimiter inside unquoted text shifts all that follows: taken as it stands, the answer would be wrong.
    with pytest.raises(RecipeError, match="row 2: "):
        typed_rows(records_of(tmp_path, "rows.csv", "text,label\na,yes\nb, c,no\n"), Question)


def test_a_csv_row_with_too_few_cells_misses_the_last(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="row 1: 'label' is missing"):
        typed_rows(records_of(tmp_path, "rows.csv", "text,label\na\n"), Answer)


def test_a_fault_is_told_with_the_file_it_is_in(tmp_path: Path) -> None:
    (tmp_path / "part-1.txt").write_text("a@yes\n")
    (tmp_path / "part-2.txt").write_text("b@maybe\n")
    read = read_records(Located((tmp_path / "part-1.txt", tmp_path / "part-2.txt"), "rows"), FIELDS)
    with pytest.raises(RecipeError) as caught:
        typed_rows(read, Answer)
    assert "part-2.txt" in str(caught.value)
    assert "part-1.txt" not in str(caught.value)


def in_folders(folder: Path, files: Mapping[str, str | bytes]) -> Located:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return Located(tuple(folder / name for name in files), "acme/rows")


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["data/rows.txt"], ["rows.txt"]),
        (["data/a.txt", "data/b.txt"], ["a.txt", "b.txt"]),
        (["data/en/a.txt", "data/de/b.txt"], ["a.txt", "b.txt"]),
        (["data/en/rows.txt", "data/de/rows.txt"], ["en/rows.txt", "de/rows.txt"]),
        (["data/rows.txt", "data/de/rows.txt"], ["rows.txt", "de/rows.txt"]),
        (["data/en/rows.txt", "data/de/rows.txt", "data/de/b.txt"], ["en/rows.txt", "de/rows.txt", "de/b.txt"]),
    ],
)
def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path, files: list[str], names: list[str]) -> None:
    assert list(Located(tuple(tmp_path / file for file in files), "rows").file_names.values()) == names


def test_a_fault_in_one_of_two_files_of_one_name_is_told_with_its_folder(tmp_path: Path) -> None:
    located = in_folders(tmp_path, {"data/en/rows.txt": "a@yes\n", "data/de/rows.txt": "b@no\nc@maybe\n"})
    with pytest.raises(RecipeError, match=r"^de/rows\.txt: 1 fault in 3 rows\.\n  row 2: 'label' is 'maybe'"):
        typed_rows(read_records(located, FIELDS), Answer)


def test_faults_in_two_files_of_one_name_are_told_with_their_folders(tmp_path: Path) -> None:
    located = in_folders(tmp_path, {"en/rows.txt": "a@maybe\n", "de/rows.txt": "b@maybe\n"})
    with pytest.raises(RecipeError) as caught:
        typed_rows(read_records(located, FIELDS), Answer)
    lines = str(caught.value).split("\n")
    assert lines[0] == "en/rows.txt, de/rows.txt: 2 faults in 2 rows."
    assert [line.split(":")[0] for line in lines[1:]] == ["  en/rows.txt, row 1", "  de/rows.txt, row 1"]


def test_an_archive_of_the_same_name_as_another_is_told_with_its_folder(tmp_path: Path) -> None:
    located = in_folders(tmp_path, {"en/rows.zip": zipped({"a.txt": "a@yes\n"}), "de/rows.zip": b"broken"})
    with pytest.raises(RecipeError, match=r"^de/rows\.zip: is not a whole zip archive"):
        read_records(located, FIELDS)


# Data sets on the Hub, over HTTP: the client runs in a process of its own, once for all tests below


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What a client process told of each source, the commits there were, and the requests that came."""
    with LoopbackHub() as hub:
        old = hub.add_repo("acme/rows", {"data/rows.jsonl": b'{"text": "old"}\n'}, "dataset")
        hub.repos["dataset", "acme/rows"].tags["v1"] = old
        hub.add_repo("acme/rows", {"data/rows.jsonl": JSONL.encode(), "README.md": b"# Rows"}, "dataset")
        shards = {f"data/train-{n}.txt": f"row {n}@yes\n".encode() for n in (2, 0, 1)}
        mixed = {**shards, "data/test-0.txt": b"other@no\n", "rows.csv": b"text,label\n"}
        hub.add_repo("acme/mixed", mixed, "dataset")
        hub.add_repo("acme/pictures", {"cat.png": b"x"}, "dataset")
        hub.add_repo("acme/gated", {"rows.jsonl": b"{}"}, "dataset", gated=True)
        script = """
            import json
            from hf_finetune.data import HubDataset
            from hf_finetune.data.reading import read_records
            from hf_finetune.errors import RecipeError

            def told(**source):
                try:
                    located = HubDataset(**source).locate()
                except RecipeError as error:
                    return str(error)
                rows = [record.values["text"] for record in read_records(located, ["text", "label"])]
                return {"name": located.name, "revision": located.revision, "commit": located.commit, "rows": rows}

            print(json.dumps({
                "main": told(id="acme/rows"),
                "tag": told(id="acme/rows", revision="v1"),
                "pattern": told(id="acme/mixed", file="data/train-*.txt"),
                "one": told(id="acme/mixed", file="data/test-0.txt"),
                "kinds": told(id="acme/mixed"),
                "none": told(id="acme/pictures"),
                "absent": told(id="acme/rows", file="data/none.jsonl"),
                "typo": told(id="acme/rwos"),
                "revision": told(id="acme/rows", revision="v9"),
                "gated": told(id="acme/gated"),
            }))
        """
        own = {name: text for name, text in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            env={**own, **hub.environment(tmp_path_factory.mktemp("home"))},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        commits = {"main": hub.repos["dataset", "acme/rows"].branches["main"], "v1": old}
        yield {**json.loads(done.stdout.splitlines()[-1]), "commits": commits, "requests": hub.requests}


def test_a_data_set_is_read_at_the_commit_its_branch_is_at(answers: dict[str, Any]) -> None:
    assert answers["main"] == {
        "name": "acme/rows",
        "revision": "main",
        "commit": answers["commits"]["main"],
        "rows": [row["text"] for row in ROWS],
    }


def test_files_are_asked_for_by_the_commit_so_that_a_branch_that_moves_does_not_mix_two(
    answers: dict[str, Any],
) -> None:
    asked = [request.split("/resolve/")[1].split("/")[0] for request in answers["requests"] if "/resolve/" in request]
    assert set(answers["commits"].values()) <= set(asked)
    assert {len(revision) for revision in asked} == {40}


def test_a_tag_of_a_data_set_is_read_as_it_was(answers: dict[str, Any]) -> None:
    assert answers["tag"]["commit"] == answers["commits"]["v1"]
    assert answers["tag"]["rows"] == ["old"]


def test_all_files_that_match_a_pattern_are_read_in_the_order_of_their_names(answers: dict[str, Any]) -> None:
    assert answers["pattern"]["rows"] == ["row 0", "row 1", "row 2"]


def test_one_file_of_a_data_set_can_be_named(answers: dict[str, Any]) -> None:
    assert answers["one"]["rows"] == ["other"]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("kinds", ["'acme/mixed': holds files of several kinds", "rows.csv", "HubDataset(file=...)"]),
        ("none", ["'acme/pictures': no readable file matches '*'", "It holds: ", "cat.png"]),
        ("typo", ["data set 'acme/rwos': the Hub has none of that name, or it is private."]),
        ("revision", ["data set 'acme/rows': has no revision 'v9'."]),
        ("gated", ["data set 'acme/gated': is gated, and you are not logged in."]),
    ],
)
def test_a_data_set_that_cannot_be_read_is_told(answers: dict[str, Any], case: str, words: list[str]) -> None:
    assert isinstance(answers[case], str), answers[case]
    assert [word for word in words if word not in answers[case]] == []


def test_a_file_that_a_data_set_does_not_hold_is_named(answers: dict[str, Any]) -> None:
    assert answers["absent"].startswith("data set 'acme/rows': ")
    assert "data/none.jsonl" in answers["absent"]


@pytest.mark.parametrize("case", ["revision", "gated"])
def test_the_page_of_a_data_set_is_given(answers: dict[str, Any], case: str) -> None:
    assert "/datasets/acme/" in answers[case]


def test_a_csv_with_a_stray_quote_is_refused_instead_of_merging_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('text,label\nA said,yes\n"C was,no\nD,no\n')
    with pytest.raises(RecipeError, match=r"rows.csv: line \d+: is not csv"):
        records_of(tmp_path, "rows.csv", (tmp_path / "rows.csv").read_text())


def test_bytes_in_a_parquet_file_are_read_as_text(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(
        pyarrow.table({"text": [b"Umsatz f\xc3\xa4llt"], "label": ["no"]}), tmp_path / "r.parquet"
    )
    rows = typed_rows(read_records(Located((tmp_path / "r.parquet",), "r"), FIELDS), Answer)
    assert rows[0].text == "Umsatz fällt"
