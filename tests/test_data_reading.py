"""Rows are read from every format, a record at a time; what is broken is told and stops nothing."""

import bz2
import csv
import gzip
import io
import json
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from hf_finetune.data import HubDataset, LocalFile, LocalFolder, source_of
from hf_finetune.data.opening import HEAD, encoding_of
from hf_finetune.data.reading import Broken, Record, forms_of, read_records, stream_located, stream_records
from hf_finetune.errors import RecipeError

ROWS: list[dict[str, Any]] = [
    {"prompt": "Wie hoch?", "completion": "Drei Meter — „ungefähr“."},
    {"prompt": "One\ntwo, three", "completion": 'He said "no".'},
    {"prompt": "Où?", "completion": "Là-bas; à côté."},
]


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]], row_group_size: int = 2) -> bytes:
    content = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), content, row_group_size=row_group_size)
    return content.getvalue()


def as_arrow(rows: list[dict[str, Any]], write: Callable[..., Any] = pyarrow.ipc.new_stream) -> bytes:
    content, table = io.BytesIO(), pyarrow.Table.from_pylist(rows)
    with write(content, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return content.getvalue()


def as_xlsx(rows: list[dict[str, Any]], *sheets: str) -> bytes:
    book = openpyxl.Workbook()
    for number, title in enumerate(sheets or ("Rows",)):
        sheet = book.active if number == 0 else book.create_sheet()
        sheet.title = title
        sheet.append(list(rows[0]))
        for row in rows:
            sheet.append(list(row.values()))
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def zstd(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    compressed: bytes = sink.getvalue().to_pybytes()
    return compressed


def zipped(name: str, content: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as file:
        file.writestr(name, content)
    return archive.getvalue()


def read(folder: Path, name: str, content: bytes | str) -> list[Record | Broken]:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(stream_records(folder / name, name))


def values(folder: Path, name: str, content: bytes | str) -> list[dict[str, Any]]:
    found = read(folder, name, content)
    assert not [one for one in found if isinstance(one, Broken)]
    return [one.values for one in found if isinstance(one, Record)]


FORMS: dict[str, bytes] = {
    "rows.jsonl": as_jsonl(ROWS),
    "rows.ndjson": as_jsonl(ROWS),
    "rows.json": json.dumps(ROWS).encode(),
    "pretty.json": json.dumps(ROWS, indent=2).encode(),
    "in an object.json": json.dumps({"version": 1, "data": ROWS}).encode(),
    "one after the other.json": "\n".join(json.dumps(row, indent=4) for row in ROWS).encode(),
    "one after the other.jsonl": "\n".join(json.dumps(row, indent=4) for row in ROWS).encode(),
    "a list.jsonl": json.dumps(ROWS).encode(),
    "a pretty list.jsonl": json.dumps(ROWS, indent=1).encode(),
    "rows.csv": as_csv(ROWS),
    "semicolons.csv": as_csv(ROWS, ";"),
    "pipes.csv": as_csv(ROWS, "|"),
    "rows.tsv": as_csv(ROWS, "\t"),
    "rows.parquet": as_parquet(ROWS),
    "rows.arrow": as_arrow(ROWS),
    "file.arrow": as_arrow(ROWS, pyarrow.ipc.new_file),
    "rows.feather": as_arrow(ROWS, pyarrow.ipc.new_file),
    "rows.xlsx": as_xlsx(ROWS),
    "rows.jsonl.gz": gzip.compress(as_jsonl(ROWS)),
    "rows.csv.bz2": bz2.compress(as_csv(ROWS)),
    "rows.json.zst": zstd(json.dumps(ROWS).encode()),
    "two parts.jsonl.gz": gzip.compress(as_jsonl(ROWS[:1])) + gzip.compress(as_jsonl(ROWS[1:])),
    "two parts.jsonl.bz2": bz2.compress(as_jsonl(ROWS[:1])) + bz2.compress(as_jsonl(ROWS[1:])),
    "ROWS.JSONL.GZ": gzip.compress(as_jsonl(ROWS)),
    "rows.zip": zipped("deep/rows.parquet", as_parquet(ROWS)),
    "table.zip": zipped("rows.xlsx", as_xlsx(ROWS)),
    "squeezed.zip": zipped("rows.jsonl.gz", gzip.compress(as_jsonl(ROWS))),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_same_rows_are_read_from_every_format(tmp_path: Path, name: str) -> None:
    assert values(tmp_path, name, FORMS[name]) == ROWS
    located = LocalFile(str(tmp_path / name)).locate()
    assert [record.values for record in read_records(located, ["prompt", "completion"])] == ROWS  # as recipes do


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.csv.gz"])
def test_the_encoding_of_a_text_is_found(tmp_path: Path, name: str, encoding: str) -> None:
    plain = name.removesuffix(".gz")
    content = FORMS[plain].decode() if plain != "rows.json" else json.dumps(ROWS, ensure_ascii=False)
    encoded = content.encode(encoding)
    assert values(tmp_path, name, gzip.compress(encoded) if name.endswith("gz") else encoded) == ROWS


def test_a_character_of_another_encoding_far_down_spoils_no_other(tmp_path: Path) -> None:
    filler = json.dumps({"prompt": "é" * 100}, ensure_ascii=False).encode() + b"\n"
    content = filler * (HEAD // len(filler) + 10) + '{"prompt": "café – “là”"}\n'.encode("cp1252") + filler
    read_values = values(tmp_path, "rows.jsonl", content)
    assert read_values[-2:] == [{"prompt": "café – “là”"}, {"prompt": "é" * 100}]


def test_a_text_whose_head_ends_within_a_character_is_utf_8(tmp_path: Path) -> None:
    text = "x" + "é" * (HEAD // 2 + 10)
    assert values(tmp_path, "rows.txt", text) == [{"text": text}]


def test_a_character_cut_in_two_at_the_end_of_the_head_is_still_utf_8() -> None:
    assert encoding_of("é".encode()[:1], is_whole=False) == "utf-8"
    assert encoding_of("é".encode()[:1], is_whole=True) == "cp1252"


def test_rows_that_are_broken_do_not_stop_the_reading(tmp_path: Path) -> None:
    content = '# rows\n{"text": "a"}\n{"text": \n[1]\n\n{"text": "b"}\n{\'text\': 1}\n'
    found = read(tmp_path, "rows.jsonl", content)
    assert [(one.number, one.check if isinstance(one, Broken) else one.values["text"]) for one in found] == [
        (1, "comment_line"), (2, "a"), (3, "broken_json"), (4, "not_an_object"), (6, "b"), (7, "broken_json"),
    ]  # fmt: skip


def nested(levels: int) -> str:
    """A JSON object with a text in so many lists and objects."""
    return '{"text": ' + '[{"a": ' * ((levels - 1) // 2) + '"deep"' + "}]" * ((levels - 1) // 2) + "}"


@pytest.mark.parametrize("levels", [103, 5_001, 200_001])
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("rows.jsonl", '{{"text": "a"}}\n{}\n{{"text": "b"}}\n'),
        ("rows.json", '[{{"text": "a"}}, {}, {{"text": "b"}}]'),
        ("after.json", '{{"text":\n "a"}}\n{}\n{{"text":\n "b"}}'),
    ],
)
def test_a_value_of_too_many_levels_costs_no_other(tmp_path: Path, name: str, form: str, levels: int) -> None:
    found = read(tmp_path, name, form.format(nested(levels)))
    assert [one.values["text"] for one in found if isinstance(one, Record)] == ["a", "b"]
    (broken,) = (one for one in found if isinstance(one, Broken))
    assert (broken.check, broken.number) == ("broken_json", 2)
    assert "Lists or objects lie more than 100 deep in each other at line" in broken.message


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_a_value_of_too_many_levels_may_come_first_or_be_alone(tmp_path: Path, name: str) -> None:
    assert [one.check for one in read(tmp_path, name, nested(5_001)) if isinstance(one, Broken)] == ["broken_json"]
    found = read(tmp_path, "rows.jsonl", f'{nested(5_001)}\n{{"text": "a"}}\n')
    assert [one.check if isinstance(one, Broken) else one.values["text"] for one in found] == ["broken_json", "a"]


def test_a_hundred_levels_are_read(tmp_path: Path) -> None:
    assert len(values(tmp_path, "rows.jsonl", f"{nested(99)}\n" * 2)) == 2


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("broken", [0, 1, 3])
def test_a_broken_object_in_a_list_costs_no_other(tmp_path: Path, indent: int | None, broken: int) -> None:
    rows = [{"id": n, "messages": [{"role": "user", "content": f"{{row}} {n}"}, {"role": "assistant", "content": "A"}]}
            for n in range(4)]  # fmt: skip
    text = json.dumps(rows, indent=indent).replace(f'"id": {broken}', f'"id" {broken}')
    found = read(tmp_path, "rows.json", text)
    numbers = [one.number for one in found if isinstance(one, Broken)]
    assert numbers == [broken + 1]
    kept = [one.values["id"] for one in found if isinstance(one, Record)]
    assert kept == [n for n in range(4) if n != broken]


def test_a_broken_place_far_down_in_a_list_is_told_with_its_line_and_column(tmp_path: Path) -> None:
    rows = json.dumps([{"id": n, "text": "é" * 50} for n in range(30_000)], indent=1, ensure_ascii=False)
    text = rows.replace('"id": 29000,', '"id": 29000')
    broken = [one for one in read(tmp_path, "rows.json", text) if isinstance(one, Broken)]
    assert [(one.number, one.line, one.column) for one in broken] == [(29_001, 29_000 * 4 + 4, 3)]


def test_several_lists_in_an_object_are_not_mixed_and_the_second_is_told(tmp_path: Path) -> None:
    found = read(tmp_path, "rows.json", json.dumps({"train": ROWS, "test": ROWS}))
    assert [one.values for one in found if isinstance(one, Record)] == ROWS
    told = [one for one in found if isinstance(one, Broken)]
    assert [(one.check, one.number) for one in told] == [("not_read", 0)]
    assert "'test' is not read" in told[0].message


def test_a_list_in_an_object_too_large_to_be_read_at_once_is_read(tmp_path: Path) -> None:
    rows = [{"text": f"{n} " + "word " * 40} for n in range(25_000)]
    content = json.dumps({"about": {"n": [1]}, "columns": ["text"], "data": rows, "more": [{"a": 1}]})
    assert len(content) > HEAD
    found = read(tmp_path, "rows.json", content)
    assert [one.values for one in found if isinstance(one, Record)] == rows
    assert [one.check for one in found if isinstance(one, Broken)] == ["not_read"]


def test_one_conversation_alone_in_a_file_is_one_row(tmp_path: Path) -> None:
    talk = {"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Me."}]}
    assert values(tmp_path, "talk.json", json.dumps(talk, indent=2)) == [talk]
    assert values(tmp_path, "row.json", json.dumps(ROWS[0], indent=2)) == [ROWS[0]]


def test_an_open_quote_costs_one_row_of_a_csv(tmp_path: Path) -> None:
    content = 'a,b\n1,"two\n3,four\n5,"six"\n7,eight\n'
    found = read(tmp_path, "rows.csv", content)
    assert [one.values for one in found if isinstance(one, Record)] == [
        {"a": "3", "b": "four"}, {"a": "5", "b": "six"}, {"a": "7", "b": "eight"}]  # fmt: skip
    broken = [one for one in found if isinstance(one, Broken)]
    assert [(one.check, one.line, one.text) for one in broken] == [("broken_csv", 2, '1,"two')]


def test_the_line_that_tells_excel_the_delimiter_is_no_header(tmp_path: Path) -> None:
    assert values(tmp_path, "rows.csv", "sep=|\na, b|c\n1|2\n") == [{"a, b": "1", "c": "2"}]


def test_the_delimiter_is_the_one_that_parts_all_rows_alike(tmp_path: Path) -> None:
    content = "Frage;Antwort\nEins, zwei;drei, vier, fünf\nsechs;sieben, acht\n"
    assert values(tmp_path, "rows.csv", content)[0] == {"Frage": "Eins, zwei", "Antwort": "drei, vier, fünf"}


def test_lines_of_text_are_rows_and_those_that_end_with_a_label_have_two_columns(tmp_path: Path) -> None:
    assert values(tmp_path, "a.txt", "One.\n\nTwo @ noon.\n") == [{"text": "One."}, {"text": "Two @ noon."}]
    labelled = "".join(f"Row {n} is a@b.example@{'up' if n % 2 else 'down'}\n" for n in range(20))
    assert values(tmp_path, "b.txt", labelled)[1] == {"text": "Row 1 is a@b.example", "label": "up"}


def test_a_workbook_is_read_with_its_types_and_other_sheets_are_told(tmp_path: Path) -> None:
    found = read(tmp_path, "rows.xlsx", as_xlsx([{"text": "a", "count": 2, "share": 0.5, "none": None}], "One", "Two"))
    assert isinstance(found[0], Record)
    assert found[0].values == {"text": "a", "count": 2, "share": 0.5, "none": None}
    assert isinstance(found[1], Broken)
    assert "the sheet 'Two' is not read, only 'One'" in found[1].message


def test_a_cell_beyond_the_header_of_a_workbook_is_told(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (["text", None], ["a", None], [None, None], ["b", "c"]):
        book.active.append(row)
    book.save(tmp_path / "rows.xlsx")
    found = list(stream_records(tmp_path / "rows.xlsx", "rows.xlsx"))
    assert [(one.number, isinstance(one, Broken)) for one in found] == [(1, False), (3, True)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.xlsx", b"x", "r.xlsx: is not a whole xlsx file"),
        ("r.arrow", as_arrow(ROWS)[:-300], "r.arrow: is not a whole Arrow file"),
        ("r.arrow", b"x", "r.arrow: is not a whole Arrow file"),
        ("r.parquet", as_parquet(ROWS)[:-9], "r.parquet: is not a whole parquet file"),
        ("r.jsonl.gz", b"x", "r.jsonl.gz: cannot be unpacked"),
        ("r.jsonl.gz", gzip.compress(as_jsonl(ROWS))[:-20], "r.jsonl.gz: cannot be unpacked"),
        ("r.jsonl.zst", b"x" * 30, "r.jsonl.zst: cannot be unpacked"),
        ("r.jsonl.bz2", bz2.compress(as_jsonl(ROWS))[:-9], "r.jsonl.bz2: cannot be unpacked"),
        ("r.parquet.gz", b"x", r"r.parquet.gz: .parquet.gz is not a format read here\. Known: "),
        ("r.gz", b"x", r"r.gz: .gz is not a format read here"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_whole_is_told(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read(tmp_path, name, content)


def with_sheet(change: Callable[[bytes], bytes]) -> bytes:
    """A workbook with its sheet's XML changed."""
    content = io.BytesIO()
    whole = as_xlsx([{"text": "a", "count": 2}] * 50)
    with zipfile.ZipFile(io.BytesIO(whole)) as given, zipfile.ZipFile(content, "w") as made:
        for name in given.namelist():
            made.writestr(name, change(given.read(name)) if "sheet1" in name else given.read(name))
    return content.getvalue()


def replaced(content: bytes, old: bytes, new: bytes) -> bytes:
    """Bytes with others in one place, which is there."""
    assert old in content
    return content.replace(old, new, 1)


def spoilt(method: int, *, encrypted: bool = False, known: bool = True, cut: bool = False) -> bytes:
    """A zip archive whose list of files is whole, and whose file is not."""
    content = bytearray(zipped("rows.jsonl", as_jsonl(ROWS) * 200, method))
    middle = content.index(b"rows.jsonl") + 60
    entry = content.index(b"PK\x01\x02")
    if encrypted:
        content[6], content[entry + 8] = 1, 1
    elif not known:
        content[8], content[entry + 10] = 77, 77
    elif cut:
        content[middle:entry] = bytes(entry - middle) if method == zipfile.ZIP_STORED else b""
    else:
        content[middle : middle + 40] = b"\x5a" * 40
    return bytes(content)


PACKINGS = {"stored": zipfile.ZIP_STORED, "deflate": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2,
            "lzma": zipfile.ZIP_LZMA}  # fmt: skip


@pytest.mark.parametrize("method", PACKINGS)
def test_an_archive_whose_file_is_spoilt_is_told(tmp_path: Path, method: str) -> None:
    for content in (spoilt(PACKINGS[method]), spoilt(PACKINGS[method], cut=True)):
        with pytest.raises(RecipeError, match=r"r\.zip: (is not a whole zip archive|cannot be unpacked .*)\. Fetch"):
            read(tmp_path, "r.zip", content)


@pytest.mark.parametrize("content", [spoilt(8, encrypted=True), spoilt(8, known=False)], ids=["password", "unknown"])
def test_an_archive_that_is_packed_otherwise_is_told_with_how_to_pack_it(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(RecipeError, match=r"r\.zip: cannot be unpacked \(.*\)\. Pack it again with deflate .*password"):
        read(tmp_path, "r.zip", content)


SHORT: list[dict[str, Any]] = [{"text": "1st"}, {"text": "another"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.xlsx", with_sheet(lambda xml: xml[:-700]), "r.xlsx: is not a whole xlsx file"),
        ("r.xlsx", with_sheet(lambda xml: replaced(xml, b'r="A30"', b'r="30"')), "r.xlsx: is not a whole xlsx file"),
        ("r.xlsx", with_sheet(lambda xml: replaced(xml, b"<v>2<", b"<v>2.x<")), "r.xlsx: is not a whole xlsx file"),
        ("r.parquet", replaced(as_parquet(SHORT), b"1st", b"\xff\xfe1"), "r.parquet: is not a whole parquet .*utf-8"),
        ("r.arrow", replaced(as_arrow(SHORT), b"1st", b"\xff\xfe1"), r"r.arrow: is not a whole Arrow file .*UTF-?8"),
        (  # that was a segmentation fault
            "r.arrow", replaced(as_arrow(SHORT), struct.pack("<3i", 0, 3, 10), struct.pack("<3i", 0, 2**30, 10)),
            "r.arrow: is not a whole Arrow file",
        ),
    ],
)  # fmt: skip
def test_a_table_that_is_spoilt_after_its_head_is_told(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read(tmp_path, name, content)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet", "rows.arrow", "rows.jsonl.gz"])
def test_reading_three_times_the_rows_takes_no_more_memory(tmp_path: Path, name: str) -> None:
    small, large = peak_of_reading(tmp_path / name, 1_000), peak_of_reading(tmp_path / name, 3_000)
    assert large < 1.5 * small + 2**20


def peak_of_reading(path: Path, count: int) -> int:
    """Bytes that Python and Arrow held at most while a file of rows of 6 kB was read."""
    rows = [{"prompt": f"{n}" + "?" * 3_000, "completion": "!" * 3_000} for n in range(count)]
    plain = path.name.removesuffix(".gz")
    write = {"rows.jsonl": as_jsonl, "rows.csv": as_csv, "rows.arrow": as_arrow}
    if plain == "rows.parquet":
        content = as_parquet(rows, 500)
    else:
        content = json.dumps(rows).encode() if plain == "rows.json" else write[plain](rows)
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    del rows, content
    allocated = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    held: int = max(pyarrow.total_allocated_bytes() - allocated for _ in stream_records(path, path.name))
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return used + held


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("r.csv", as_csv(ROWS, ";").decode().encode("utf-16"), "csv with ';' between cells, UTF-16"),
        (
            "r.csv.gz",
            gzip.compress(as_csv(ROWS).decode().encode("cp1252")),
            "csv with ',' between cells, Windows-1252, gzip",
        ),
        ("r.csv", b"sep=|\r\na, b|c\r\n1|2\r\n", "csv with '|' between cells, UTF-8"),
        ("r.jsonl", as_jsonl(ROWS), "jsonl, UTF-8"),
        ("r.parquet", as_parquet(ROWS), "parquet"),
        ("r.zip", zipped("a.json.bz2", bz2.compress(b"[]")), "json, UTF-8, bz2"),
    ],
)
def test_how_a_file_is_written_is_told(tmp_path: Path, name: str, content: bytes, form: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert forms_of(LocalFile(str(tmp_path / name)).locate()) == [form]


def test_a_line_longer_than_the_head_is_one_row(tmp_path: Path) -> None:
    rows = [{"text": "word " * 1_000_000}, {"text": "b"}]
    assert values(tmp_path, "rows.jsonl", as_jsonl(rows)) == rows
    assert values(tmp_path, "rows.json", as_jsonl(rows)) == rows
    assert values(tmp_path, "list.json", json.dumps(rows)) == rows


def sheet(*rows: list[Any]) -> bytes:
    """A workbook of these rows of cells."""
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


TWICE = {"rows.csv": b"a,b,a\n1,2,3\n", "rows.xlsx": sheet(["a", "b", " a"], ["1", "2", "3"])}


@pytest.mark.parametrize("name", TWICE)
def test_a_column_name_that_comes_twice_is_told(tmp_path: Path, name: str) -> None:
    broken = [one for one in read(tmp_path, name, TWICE[name]) if isinstance(one, Broken)]
    assert [(one.check, one.message) for one in broken] == [
        ("duplicate_column", "two columns are called 'a': only the last is read.")]  # fmt: skip


@pytest.mark.parametrize("name", TWICE)
def test_a_recipe_reads_a_table_with_a_name_twice_unless_it_is_one_of_its_fields(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(TWICE[name])
    located = LocalFile(str(tmp_path / name)).locate()
    assert [one.values["b"] for one in read_records(located, ["b"])] == ["2"]
    for field in ("A", "_a"):  # as a column is found for a field
        with pytest.raises(RecipeError, match=rf"{name}: two columns are called 'a': .*\. Rename one\."):
            read_records(located, [field, "b"])


def test_a_table_of_nothing_but_a_name_twice_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,a,b\n")
    with pytest.raises(RecipeError, match=r"rows\.csv: holds no rows\."):
        read_records(LocalFile(str(tmp_path / "rows.csv")).locate(), ["b"])


def test_rows_of_two_archives_bear_the_names_of_these(tmp_path: Path) -> None:
    for name in ("train.zip", "test.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("rows.jsonl", '{"b": 1}\n')
    found = read_records(LocalFolder(str(tmp_path)).locate(), ["b"])
    assert [(one.file, one.split) for one in found] == [("test.zip", "test"), ("train.zip", "train")]


def test_of_two_cells_without_a_column_name_none_is_lost(tmp_path: Path) -> None:
    found = read(tmp_path, "rows.xlsx", sheet(["a", None, None, "b"], [1, "lost", None, 2]))
    assert [(one.check, "'lost'" in one.message) for one in found if isinstance(one, Broken)] == [("ragged_row", True)]


# Sources


def test_a_folder_is_read_in_the_order_of_its_files(tmp_path: Path) -> None:
    for name, text in {"b/2.jsonl": "second", "a/1.jsonl": "first", ".cache/0.jsonl": "hidden"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"text": text}))
    for beside in ("dataset_info.json", "README.txt", "notes.docx"):
        (tmp_path / beside).write_text("{}")
    located = LocalFolder(str(tmp_path)).locate()
    assert [one.values["text"] for one in stream_located(located) if isinstance(one, Record)] == ["first", "second"]
    assert [one.folder for one in stream_located(located) if isinstance(one, Record)] == [
        tmp_path / "a",
        tmp_path / "b",
    ]


def test_a_folder_of_several_kinds_or_of_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="holds no readable file"):
        LocalFolder(str(tmp_path)).locate()
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "b.csv.gz").touch()
    with pytest.raises(RecipeError, match=r"several kinds \(\.csv\.gz, \.jsonl\)\. Name the file"):
        LocalFolder(str(tmp_path)).locate()


def test_what_a_folder_is_known_by_does_not_say_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    assert str(tmp_path) not in json.dumps(LocalFolder(str(tmp_path)).identity())


def test_a_source_is_a_file_a_folder_or_an_id_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.csv").touch()
    assert source_of("data") == LocalFolder("data")
    assert source_of("data/rows.csv") == LocalFile("data/rows.csv")
    assert source_of("data/row.csv") == LocalFile("data/row.csv")  # which tells that it is not there, and the nearest
    assert source_of("acme/rows") == HubDataset("acme/rows")
    assert source_of("acme/rows@v1.0") == HubDataset("acme/rows", "v1.0")
    assert source_of("acme/rows/data/train-*.parquet") == HubDataset("acme/rows", file="data/train-*.parquet")
    with pytest.raises(RecipeError, match="is no file, no folder and no Hub id"):
        source_of("rows")
