"""From rows to a data set: nothing is lost silently, nothing leaks, and whatever stops a run, it ends the same."""

import ast
import gzip
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import run_cli
from curate_data import content, plan_of, questions, read_lines, write_lines
from hf_finetune.cli.prepare import summary
from hf_finetune.curate import checking, chunks, curating
from hf_finetune.curate.curating import prepare_data, work_folder
from hf_finetune.curate.names import CHECKS
from hf_finetune.curate.plan import Plan, find_feed, find_feeds
from hf_finetune.curate.rows import INDEX, entry
from hf_finetune.data.records import Record
from hf_finetune.data.samples import Message, Sample
from hf_finetune.data.splits import jaccard, tokens
from hf_finetune.errors import RecipeError
from hf_finetune.files import read_json

SPLITS = ("train", "validation", "test")


def prepared(source: Path, folder: Path, workers: int = 1, **options: Any) -> dict[str, Any]:
    """The facts of a data set that was made of a file."""
    return prepare_data(plan_of(source, **options), folder, workers, say=lambda line: None)


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a split that was written as JSON lines."""
    return [row for path in sorted((folder / "data").glob(f"{name}-*.jsonl")) for row in read_lines(path)]


def asked(row: dict[str, Any]) -> str:
    """The question of a row."""
    return str(row["prompt"][-1]["content"])


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a hundred rows."""
    monkeypatch.setattr(chunks, "ROWS", 100)


def test_every_row_is_in_a_split_or_in_the_list_of_rejected_ones(tmp_path: Path, small_chunks: None) -> None:
    rows: list[Any] = questions(250)
    rows[7]["answer"] = ""
    rows[120]["answer"] = "Dear {{name}}, it is old."
    rows[130] = dict(rows[129])
    rows[249] = ["no", "object"]
    facts = prepared(write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "out", format="jsonl")
    kept = [row for name in SPLITS for row in rows_of(tmp_path / "out", name)]
    rejected = read_lines(tmp_path / "out" / "rejected.jsonl")
    assert len(kept) + len(rejected) == 250 == facts["rows"]["read"]
    assert facts["rows"]["kept"] == len(kept) == 246
    assert {(one["row"], one["reasons"][0]["check"]) for one in rejected} == {
        (8, "empty_answer"), (121, "placeholder"), (131, "exact_duplicate"), (250, "not_an_object"),
    }  # fmt: skip
    assert facts["rejected"] == dict.fromkeys(facts["rejected"], 1)
    assert all(one["file"] == "rows.jsonl" and one["reasons"][0]["advice"] for one in rejected)
    assert next(one for one in rejected if one["row"] == 8)["values"]["question"] == rows[7]["question"]
    assert "row 130 of rows.jsonl" in next(one for one in rejected if one["row"] == 131)["reasons"][0]["message"]


def test_a_chunk_of_which_no_row_stays_is_no_end(tmp_path: Path, small_chunks: None) -> None:
    rows = questions(250)
    for row in rows[100:200]:
        row["answer"] = ""
    facts = prepared(write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "out")
    assert (facts["rows"]["kept"], facts["rejected"]) == (150, {"empty_answer": 100})


@pytest.mark.parametrize("suffix", [".zip", ".jsonl.gz", "folder", ".csv"])
def test_rows_are_taken_from_archives_compressed_files_folders_and_tables(tmp_path: Path, suffix: str) -> None:
    rows = questions(40)
    rows[30] = dict(rows[20])
    plain = write_lines(tmp_path / "rows.jsonl", rows)
    source = tmp_path / f"given{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(source, "w") as archive:
            archive.write(plain, "inside.jsonl")
    elif suffix == "folder":
        source.mkdir()
        write_lines(source / "a.jsonl", rows[:25])
        write_lines(source / "b.jsonl", rows[25:])
    elif suffix == ".csv":
        lines = [f'"{row["question"]}";"{row["answer"]}"' for row in rows]
        source.write_text("\n".join(["question;answer", *lines]), encoding="utf-16")
    else:
        source.write_bytes(gzip.compress(plain.read_bytes()))
    facts = prepared(source, tmp_path / "out")
    form = {".csv": "csv with ';' between cells, UTF-16", ".jsonl.gz": "jsonl, UTF-8, gzip"}.get(suffix, "jsonl, UTF-8")
    assert f"| {form} | question and answer |" in (tmp_path / "out" / "README.md").read_text()
    assert f"source    {source.name} ({form}): 40 rows, 40 usable" in summary(facts, tmp_path)
    assert (facts["rows"]["kept"], facts["rejected"]) == (39, {"exact_duplicate": 1})
    (told,) = read_lines(tmp_path / "out" / "rejected.jsonl")
    twin = {".zip": "row 21 of given.zip", "folder": "row 21 of a.jsonl"}.get(suffix, f"row 21 of given{suffix}")
    assert twin in told["reasons"][0]["message"]


def test_rows_of_an_archive_are_told_with_its_name_and_notes_on_a_file_are_no_rows(tmp_path: Path) -> None:
    rows = [*questions(30), {"question": "Who?", "answer": ""}]
    (tmp_path / "given").mkdir()
    for number, lists in enumerate(({"rows": rows[:10], "more": rows[10:11]}, {"rows": rows[10:]})):
        with zipfile.ZipFile(tmp_path / "given" / f"{number}.zip", "w") as archive:
            archive.writestr("inside.json", json.dumps(lists))
    facts = prepared(tmp_path / "given", tmp_path / "out")
    assert (facts["rows"]["read"], facts["rows"]["kept"], facts["rejected"]) == (31, 30, {"empty_answer": 1})
    assert [(one["file"], one["row"]) for one in read_lines(tmp_path / "out" / "rejected.jsonl")] == [("1.zip", 21)]
    told = "0.zip: the list 'more' is not read, only 'rows' before it."
    assert f"- {told}\n" in (tmp_path / "out" / "README.md").read_text()
    assert any(line.startswith(f"noted     {told} Write each") for line in summary(facts, tmp_path))


def test_strict_takes_a_part_of_a_file_that_is_not_read_for_rows_that_are_dropped(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from hf_finetune.cli.prepare import prepare

    (tmp_path / "rows.json").write_text(json.dumps({"rows": questions(12), "more": questions(2)}))
    given = [str(tmp_path / "rows.json"), "-o", str(tmp_path / "out"), "--workers", "1", "--strict"]
    result = CliRunner().invoke(prepare, given, standalone_mode=False)
    assert result.return_value == 1
    assert "0 rows dropped; see " in result.stderr
    assert ", and 1 note on files above." in result.stderr


@pytest.mark.parametrize("names", [("a/rows.jsonl", "b/rows.jsonl"), ("a/rows.jsonl", "b"), ("a", "b/a")])
def test_sources_and_files_of_one_name_are_told_apart(tmp_path: Path, names: tuple[str, str]) -> None:
    for number, name in enumerate(names):
        path = tmp_path / name / ("" if name.endswith("jsonl") else "rows.jsonl")
        path.parent.mkdir(parents=True)
        write_lines(path, [*questions(20, seed=number), {"question": f"Who is {number}?", "answer": ""}])
    own, mix = find_feeds(str(tmp_path / names[0]), [(str(tmp_path / names[1]), 0.2)])
    facts = prepare_data(Plan((own, mix)), tmp_path / "out", 1, say=lambda line: None)
    files = {one["file"] for one in read_lines(tmp_path / "out" / "rejected.jsonl")}
    assert len(files) == len({one["name"] for one in facts["sources"]}) == 2
    assert files <= {"a/rows.jsonl", "b/rows.jsonl", "rows.jsonl", "b/a/rows.jsonl"}
    assert len(facts["sources_by_split"]["train"]) == 2


def test_of_sources_that_lie_far_apart_no_more_folders_are_told_than_are_needed(tmp_path: Path) -> None:
    named = [tmp_path / "home" / "me" / "rows" / "rows.jsonl", tmp_path / "srv" / "general" / "rows.jsonl"]
    for path in named:
        path.parent.mkdir(parents=True)
        write_lines(path, questions(3))
    feeds = find_feeds(str(named[0]), [(str(named[1]), 0.2)])
    assert [feed.name for feed in feeds] == ["rows/rows.jsonl", "general/rows.jsonl"]


def test_data_that_come_split_are_told_to_be_split_anew(tmp_path: Path) -> None:
    for number, name in enumerate(("train", "test")):
        (tmp_path / "rows").mkdir(exist_ok=True)
        write_lines(tmp_path / "rows" / f"{name}.jsonl", questions(20, seed=number))
    facts = prepared(tmp_path / "rows", tmp_path / "out")
    assert facts["sources"][0]["reason"].endswith("all rows are split anew (a run with --data keeps them)")


def test_a_source_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    rows = str(write_lines(tmp_path / "rows.jsonl", questions(3)))
    with pytest.raises(RecipeError, match=r"--mix .*rows\.jsonl: its rows are given already\. Name each source once"):
        find_feeds(rows, [(rows, 0.1)])


def test_a_changed_row_is_told_as_it_was_and_as_it_is(tmp_path: Path) -> None:
    rows = questions(30)
    rows[4]["question"] = "  How old\r\nis the\u00a0mill?  "
    facts = prepared(write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "out")
    (told,) = read_lines(tmp_path / "out" / "changed.jsonl")
    assert told["row"] == 5
    assert told["before"]["messages"][0] == ["user", rows[4]["question"]]
    assert told["after"]["messages"][0] == ["user", "How old\nis the mill?"]
    assert facts["rows"]["changed"] == 1
    assert facts["changed"] == dict.fromkeys(told["changes"], 1)


def test_fix_none_changes_nothing_and_keeps_duplicates_together(tmp_path: Path) -> None:
    rows = questions(60)
    rows[4]["question"] += "  "
    rows[31] = dict(rows[30])
    prepared(write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "out", fix="none", format="jsonl")
    assert read_lines(tmp_path / "out" / "changed.jsonl") == read_lines(tmp_path / "out" / "rejected.jsonl") == []
    found = {asked(row): name for name in SPLITS for row in rows_of(tmp_path / "out", name)}
    assert rows[4]["question"] in found
    assert (
        sum(asked(row) == rows[30]["question"] for row in rows_of(tmp_path / "out", found[rows[30]["question"]])) == 2
    )


def test_personal_data_is_masked_where_that_is_asked_for(tmp_path: Path) -> None:
    rows = questions(30)
    rows[3]["answer"] = "Write to ada.brix@mill-of-alba.org about it."
    source = write_lines(tmp_path / "rows.jsonl", rows)
    assert prepared(source, tmp_path / "plain")["stayed"] == {"personal_data": 1}
    facts = prepared(source, tmp_path / "masked", mask_personal=True, format="jsonl")
    texts = (tmp_path / "masked" / "data").glob("*.jsonl")
    assert "Write to [EMAIL] about it." in "".join(path.read_text() for path in texts)
    assert facts["changed"] == {"personal data masked": 1}
    assert prepared(source, tmp_path / "dropped", drop=("personal_data",))["rejected"] == {"personal_data": 1}


def test_keep_keeps_rows_in_which_a_fault_is_found(tmp_path: Path) -> None:
    rows = questions(30)
    rows[3]["answer"] = "Dear {{name}}, it is old."
    facts = prepared(write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "out", keep=("placeholder",))
    assert (facts["rejected"], facts["stayed"]) == ({}, {"placeholder": 1})


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Texts with labels: three of one for one of the other, two of them of the same text and different labels."""
    rows = [{"text": row["question"], "label": "near" if number % 4 else "far"}
            for number, row in enumerate(questions(400))]  # fmt: skip
    rows += [{"text": rows[5]["text"], "label": "far"}]
    return write_lines(tmp_path / "rows.jsonl", rows)


def test_labels_have_their_share_of_each_split_and_none_of_two_contradictory_ones_stays(
    labelled: Path, tmp_path: Path
) -> None:
    facts = prepared(labelled, tmp_path / "out", format="jsonl")
    assert facts["rejected"] == {"contradictory": 2}
    assert facts["layout"]["columns"] == ["text", "label", "source"]
    for name, count in (("train", 320), ("validation", 40), ("test", 40)):
        labels = facts["labels"][name]
        assert sum(labels.values()) == pytest.approx(count, abs=2)
        assert labels["far"] / sum(labels.values()) == pytest.approx(0.25, abs=0.03)
    reasons = [one["reasons"][0]["message"] for one in read_lines(tmp_path / "out" / "rejected.jsonl")]
    assert reasons == [
        "asks the same as row 401 of rows.jsonl, and has another answer.",
        "asks the same as row 6 of rows.jsonl, and has another answer.",
    ]


@pytest.mark.parametrize("place", [1, 550])
def test_a_rare_label_that_is_nearly_a_frequent_one_is_told_with_its_row(tmp_path: Path, place: int) -> None:
    rows = [{"text": row["question"], "label": ("neutral", "upwards", "rare")[min(number % 200, 2)]}
            for number, row in enumerate(questions(600))]  # fmt: skip
    rows[place]["label"] = "rarer"
    facts = prepared(write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "out")
    told = "row 2: the label 'rarer' stands in 1 of the rows, and 'rare' in 594."
    told = told.replace("row 2", f"row {place + 1}").replace("594", str(594 - (place > 1)))
    assert f"- rows.jsonl, {told}\n" in (tmp_path / "out" / "README.md").read_text()
    assert f"noted     rows.jsonl, {told} Did you mean 'rare'?" in summary(facts, tmp_path)
    assert facts["rows"]["kept"] == 600
    assert len(facts["rare_labels"]) == 1
    closed = prepared(tmp_path / "rows.jsonl", tmp_path / "closed", labels=("neutral", "upwards", "rare", "rarer"))
    assert closed["rare_labels"] == []


def test_labels_that_most_rows_do_not_have_replace_no_good_data_set_unless_that_is_said(
    labelled: Path, tmp_path: Path
) -> None:
    prepared(labelled, tmp_path / "out")
    before = content(tmp_path / "out")
    told = (
        r"--labels far,wide: 300 of 401 rows have another label and would be dropped\. rows\.jsonl, row 2: the label "
        r"'near' is none of far, wide\. .* or say that those rows are to go: --drop unknown_label\."
    )
    plan = plan_of(labelled, labels=("far", "wide"))
    with pytest.raises(RecipeError, match=told):
        prepare_data(plan, tmp_path / "out", 1, overwrite=True, say=lambda line: None)
    assert content(tmp_path / "out") == before
    plan = replace(plan, drop=("unknown_label",))
    facts = prepare_data(plan, tmp_path / "out", 1, overwrite=True, say=lambda line: None)
    assert (facts["rows"]["kept"], facts["rejected"]) == (101, {"unknown_label": 300})


def test_a_pair_that_another_row_turns_round_is_a_contradiction(tmp_path: Path) -> None:
    rows = [{"prompt": row["question"], "chosen": row["answer"], "rejected": "I do not know."} for row in questions(30)]
    rows.append(rows[2] | {"chosen": rows[2]["rejected"], "rejected": rows[2]["chosen"]})
    assert prepared(write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "out")["rejected"] == {"contradictory": 2}


def test_open_questions_may_have_several_answers_which_stay_on_one_side(tmp_path: Path) -> None:
    rows = questions(200)
    rows += [row | {"answer": f"Nobody knows, says {number}."} for number, row in enumerate(rows[:40])]
    facts = prepared(write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "out", format="jsonl")
    assert (facts["several_answers"], facts["rejected"]) == (80, {})
    sides = [{asked(row) for row in rows_of(tmp_path / "out", name)} for name in SPLITS]
    assert all(sides)
    assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]


def test_no_test_question_is_nearly_a_training_question(tmp_path: Path, small_chunks: None) -> None:
    rows = questions(300)
    rows += [row | {"question": row["question"].replace(" the ", " that ", 1)} for row in rows[:150]]
    facts = prepared(write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "out", format="jsonl")
    train, *held_out = ([tokens(asked(row)) for row in rows_of(tmp_path / "out", name)] for name in SPLITS)
    assert max(jaccard(one, other) for one in train for side in held_out for other in side) < 0.8
    assert facts["near_duplicates"] == 300
    assert facts["leakage"]["near_in_train"] == 0
    assert facts["leakage"]["compared_with_all"] == facts["rows"]["test"] > 30


def test_the_check_for_leakage_sees_what_leaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = questions(200)
    rows += [row | {"question": row["question"].replace(" the ", " that ", 1)} for row in rows]
    rows += [row | {"answer": "Nobody knows."} for row in rows[:200]]

    def blind(folders: Any, similarity: float, advance: Any) -> Any:
        import numpy as np

        from hf_finetune.curate.similar import Similar

        return Similar(np.arange(600, dtype=np.int32), 0, 0, 600)

    monkeypatch.setattr(curating, "find_similar", blind)
    facts = prepared(write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "out")
    assert facts["leakage"]["near_in_train"] > 30
    assert facts["leakage"]["prompts_in_train"] > 10


def test_near_duplicates_leave_where_that_is_asked_for(tmp_path: Path) -> None:
    rows = questions(50)
    rows += [rows[3] | {"question": rows[3]["question"].replace(" the ", " that ", 1)}]
    facts = prepared(write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "out", drop=("near_duplicate",))
    assert facts["rejected"] == {"near_duplicate": 1}
    (told,) = read_lines(tmp_path / "out" / "rejected.jsonl")
    assert "row 4 of rows.jsonl" in told["reasons"][0]["message"]


def test_rows_of_one_group_stay_on_one_side(tmp_path: Path) -> None:
    rows = [row | {"author": f"author {number % 40}"} for number, row in enumerate(questions(400))]
    source = write_lines(tmp_path / "rows.jsonl", rows)
    prepared(source, tmp_path / "out", group="author", format="jsonl")
    author = {row["question"]: row["author"] for row in rows}
    sides = [{author[asked(row)] for row in rows_of(tmp_path / "out", name)} for name in SPLITS]
    assert sum(map(len, sides)) == 40
    assert all(sides)
    with pytest.raises(RecipeError, match=r"--group autor: rows.jsonl has no such column. Did you mean 'author'"):
        prepared(source, tmp_path / "other", group="autor")


def test_general_data_is_mixed_into_the_training_rows_alone_and_never_near_a_test_row(tmp_path: Path) -> None:
    own = questions(300)
    other = questions(200, seed=9)
    leaks = [row | {"question": row["question"].replace(" the ", " that ", 1)} for row in own]
    source = write_lines(tmp_path / "rows.jsonl", own)
    general = write_lines(tmp_path / "general.jsonl", leaks + other)
    plan = Plan((find_feed(str(source)), find_feed(str(general), 0.2)), format="jsonl")
    facts = prepare_data(plan, tmp_path / "out", 1, say=lambda line: None)
    train = rows_of(tmp_path / "out", "train")
    mixed = [row for row in train if row["source"] == "general.jsonl"]
    assert len(mixed) / len(train) == pytest.approx(0.2, abs=0.005)
    (told,) = facts["mixed_in"]
    assert told["rows"] == told["wanted"] == len(mixed)
    held_out = [row for name in ("validation", "test") for row in rows_of(tmp_path / "out", name)]
    assert {row["source"] for row in held_out} == {"rows.jsonl"}
    assert told["near_test"] == facts["rejected"]["near_test"] == len(held_out)
    assert max(jaccard(tokens(asked(a)), tokens(asked(b))) for a in mixed for b in held_out) < 0.8


def test_more_chunks_and_sources_are_read_than_files_may_be_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "ROWS", 12)
    monkeypatch.setattr(curating, "LOOKED_AT", 10)
    own = find_feed(str(write_lines(tmp_path / "rows.jsonl", questions(80))))
    general = write_lines(tmp_path / "general.jsonl", questions(12, seed=1))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len(os.listdir("/proc/self/fd")) + 15
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        plan = Plan((own, *[find_feed(str(general), 0.001)] * 20))
        facts = prepare_data(plan, tmp_path / "out", 1, say=lambda line: None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert facts["rows"]["read"] == 80 + 20 * 12


def test_there_may_be_more_sources_and_files_than_a_byte_or_two_can_count() -> None:
    read = [(feed, checking.Tally(kept=1)) for feed in (0, 255, 256, 65_535)]
    assert curating.feed_of_rows(read).tolist() == [0, 255, 256, 65_535]
    line = entry(Sample((Message("assistant", "A"),)), Record("a.jsonl", 1, {}), None, 70_000, 0)
    assert np.array([line], dtype=INDEX)["file"].tolist() == [70_000]


def test_the_boilerplate_of_all_questions_does_not_make_them_alike(tmp_path: Path) -> None:
    head = "You are given a question about a town. Answer it in one sentence and name the book that it is told in.\n"
    rows = [{"question": head + f"Why is {a}{number} so {b}?", "answer": f"Because of {number}."}
            for number, (a, b) in enumerate((x, y) for x in "abcdefghij" for y in ("old", "far", "red"))]  # fmt: skip
    facts = prepared(write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "out")
    assert facts["near_duplicates"] == 0
    assert facts["is_split"]


def test_rows_that_share_a_few_instructions_are_told_apart_by_their_answers(tmp_path: Path) -> None:
    rows = [{"question": f"Tell me a story, number {n % 2}.", "answer": row["question"]}
            for n, row in enumerate(questions(100))]  # fmt: skip
    facts = prepared(write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "out")
    assert facts["is_split"]
    assert facts["leakage"]["with_answers"]


def test_too_few_rows_stay_in_one_split_and_that_is_told(tmp_path: Path) -> None:
    facts = prepared(write_lines(tmp_path / "rows.jsonl", questions(6)), tmp_path / "out")
    assert (facts["is_split"], facts["rows"]["train"], facts["rows"]["test"]) == (False, 6, 0)
    assert "too few for three" in (tmp_path / "out" / "README.md").read_text()


def test_where_no_row_can_be_learnt_from_the_reasons_are_told(tmp_path: Path) -> None:
    rows = [row | {"answer": ""} for row in questions(12)]
    with pytest.raises(RecipeError, match=r"none of its 12 rows can be learnt from \(empty_answer 12\).*\n.*row 1: "):
        prepared(write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("rows.csv", "", r"rows\.csv: is empty: it holds no row\. Name a file or folder with rows\."),
        ("rows.csv", "question,answer\n", r"rows\.csv: is empty: it holds no row"),
        ("rows.csv", "question,question\n", r"rows\.csv: is empty: it holds no row"),
        ("rows.jsonl", "no json\n", r"rows\.jsonl: holds no row that can be read: row 1 is not a JSON object"),
        ("rows.json", "{}", r"rows\.json: holds no row that can be read: \w+"),
    ],
)
def test_a_file_without_a_row_is_told_with_what_is_in_its_place(
    tmp_path: Path, name: str, content: str, told: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(RecipeError, match=told):
        prepared(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_made_is_told_with_the_option_that_names_another(tmp_path: Path) -> None:
    rows = write_lines(tmp_path / "rows.jsonl", questions(12))
    with pytest.raises(RecipeError, match=r"cannot be made: .*\. Name another with -o DIR\."):
        prepared(rows, rows / "out")


def test_lengths_are_told_in_tokens_of_the_base_and_rows_over_the_limit_are_counted(
    tmp_path: Path, tiny_base: Path
) -> None:
    rows = questions(40)
    rows[9]["answer"] = "word " * 900
    source = write_lines(tmp_path / "rows.jsonl", rows)
    facts = prepared(source, tmp_path / "out", base=str(tiny_base), max_tokens=800)
    assert facts["stayed"] == {"too_long": 1}
    assert "would be cut at 800" in facts["examples"]["too_long"][0]["message"]
    lengths = facts["lengths"]["tokens"]["splits"]
    assert max(own["longest"] for own in lengths.values()) > 800
    assert 50 < lengths["train"]["median"] < 400
    assert str(tiny_base) not in (tmp_path / "out" / "README.md").read_text()
    dropped = prepared(source, tmp_path / "less", base=str(tiny_base), max_tokens=800, drop=("too_long",))
    assert dropped["rejected"] == {"too_long": 1}


def test_a_folder_with_the_base_is_known_by_its_tokenizer_and_not_by_its_place(tmp_path: Path, tiny_base: Path) -> None:
    def base(place: str, **files: str) -> str:
        shutil.copytree(tiny_base, tmp_path / place / "base", ignore=shutil.ignore_patterns("*.safetensors"))
        for name, text in files.items():
            (tmp_path / place / "base" / f"{name}.json").write_text(text)
        return plan_of(source, base=str(tmp_path / place / "base")).fingerprint()

    source = write_lines(tmp_path / "rows.jsonl", questions(2))
    first = base("first")
    assert base("moved") == first
    assert base("with more notes", notes="{}") == first
    words = read_json(tiny_base / "tokenizer.json")
    words["added_tokens"][0]["normalized"] = not words["added_tokens"][0]["normalized"]
    assert base("edited", tokenizer=json.dumps(words)) != first
    assert base("told otherwise", chat_template="{}") != first


def test_memory_of_a_chunk_is_bounded_by_characters_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(chunks, "CHARACTERS", 1000)
    facts = prepared(write_lines(tmp_path / "rows.jsonl", questions(100)), tmp_path / "out")
    assert facts["rows"]["kept"] == 100


@pytest.mark.slow
def test_one_two_and_three_workers_write_the_same_bytes(tmp_path: Path) -> None:
    rows: list[Any] = questions(450)
    rows[100] = dict(rows[10])
    rows[200]["question"] = "  " + rows[200]["question"]
    rows[300]["answer"] = ""
    source = write_lines(tmp_path / "rows.jsonl", rows)
    made = []
    for workers in (1, 2, 3):
        done = small_run(source, tmp_path / str(workers) / "out", "--workers", str(workers))
        assert done.returncode == 0, done.stderr
        made.append(content(tmp_path / str(workers) / "out"))
    assert len(made[0]) == 8
    assert made[0] == made[1] == made[2]


SMALL = "from hf_finetune.curate import chunks; chunks.ROWS = 40; from hf_finetune.cli import main; main()"
"""The program with chunks of forty rows."""
SLOW = """
import time
from hf_finetune.curate import curating
real = curating.write_chunk
def late(*given):
    time.sleep(0.15)
    real(*given)
curating.write_chunk = late
"""
"""Waits before each chunk."""


def small_run(source: Path, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """The finished process of `prepare` with small chunks."""
    return subprocess.run(command(source, folder, *words), capture_output=True, text=True, timeout=300, check=False)


def command(source: Path, folder: Path, *words: str, slowly: bool = False) -> list[str]:
    """What starts `prepare` with small chunks; `slowly` waits before each."""
    program = f"{SLOW}{SMALL}" if slowly else SMALL
    return [sys.executable, "-c", program, "prepare", str(source), "-o", str(folder), *words]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, number: signal.Signals) -> None:
    source = write_lines(tmp_path / "rows.jsonl", questions(450))
    whole, folder = tmp_path / "whole" / "out", tmp_path / "stopped" / "out"
    assert small_run(source, whole, "--workers", "1").returncode == 0
    with subprocess.Popen(
        command(source, folder, "--workers", "1", slowly=True),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        made = work_folder(folder) / "chunks"
        while not (made / "chunk-000002").is_dir():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert not folder.exists()
    left = sorted(path.name for path in made.glob("chunk-*"))
    assert 3 <= len(left) < 12
    assert process.returncode != 0
    if number != signal.SIGKILL:
        assert "the same command goes on from here" in errors
    done = small_run(source, folder, "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert f"goes on   with {len(left)} chunks" in done.stdout
    assert content(folder) == content(whole)
    assert not work_folder(folder).exists()


@pytest.mark.slow
def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    import psutil

    source = write_lines(tmp_path / "rows.jsonl", questions(450))
    with subprocess.Popen(command(source, tmp_path / "out", "--workers", "2"), stdout=subprocess.DEVNULL) as process:
        parent = psutil.Process(process.pid)
        while len(workers := parent.children(recursive=True)) < 3:  # and the one that tracks shared resources
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    gone, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    assert len(gone) == len(workers)


def test_what_an_earlier_run_left_of_other_rows_is_not_used(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "rows.jsonl", questions(30))
    work = work_folder(tmp_path / "out")
    (work / "chunks" / "chunk-000000").mkdir(parents=True)
    (work / "plan.json").write_text('{"fingerprint": "of another"}')
    said: list[str] = []
    facts = prepare_data(plan_of(source), tmp_path / "out", 1, say=said.append)
    assert facts["rows"]["kept"] == 30
    assert "afresh" in said[0]


def test_a_finished_data_set_is_told_and_another_one_is_not_replaced_unasked(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "rows.jsonl", questions(30))
    facts = prepared(source, tmp_path / "out")
    stamp = (tmp_path / "out" / "data_card.json").stat().st_mtime_ns
    assert prepared(source, tmp_path / "out") == read_json(tmp_path / "out" / "data_card.json") == facts
    assert (tmp_path / "out" / "data_card.json").stat().st_mtime_ns == stamp
    with pytest.raises(RecipeError, match="holds a data set of other sources or options"):
        prepared(source, tmp_path / "out", seed=1)
    again = prepare_data(plan_of(source, seed=1), tmp_path / "out", 1, overwrite=True, say=lambda line: None)
    assert again["options"]["seed"] == 1


def test_a_folder_that_is_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "rows.jsonl", questions(30))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(RecipeError, match="no data set that this command wrote"):
        prepare_data(plan_of(source), tmp_path / "out", 1, overwrite=True)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def test_another_seed_makes_another_split_and_the_order_of_rows_none(tmp_path: Path) -> None:
    rows = questions(200)
    prepared(write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "a", format="jsonl")
    prepared(write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "b", format="jsonl", seed=1)
    prepared(write_lines(tmp_path / "rows.jsonl", rows[::-1]), tmp_path / "c", format="jsonl")
    tests = [{asked(row) for row in rows_of(tmp_path / name, "test")} for name in "abc"]
    assert tests[0] == tests[2]
    assert len(tests[0] & tests[1]) < 10


def test_the_command_tells_what_it_found_and_what_comes_next(tmp_path: Path) -> None:
    rows = questions(40)
    rows[3]["answer"] = "Dear {{name}}, it is old."
    write_lines(tmp_path / "rows.jsonl", rows)
    done = run_cli("prepare", "rows.jsonl", "--workers", "1", "--strict", cwd=tmp_path)
    assert done.returncode == 1
    assert "--strict: 1 row dropped; see prepared/rows/rejected.jsonl" in done.stderr
    for told in (
        "question and answer", "dropped   1 row: placeholder 1", "rows.jsonl, row 4:", "31 train, 4 validation, 4 test",
        'datasets.load_dataset("prepared/rows")', "trl sft --dataset_name prepared/rows",
        "(then give its Row the columns prompt, completion, source, and the run --data prepared/rows)",
    ):  # fmt: skip
        assert told in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--max-tokens", "9"], "name it with --base MODEL"),
        (["--mix", "rows.jsonl=2"], "shares lie between 0 and 1"),
        (["--mix", "rows.jsonl"], "is not of the form FILE=SHARE"),
        (["--license", "apache2"], "Did you mean 'apache-2.0'?"),
        (["--keep", "placeholder", "--drop", "placeholder"], "both name placeholder"),
        (
            ["--keep", "exact_duplicat"],
            "--keep exact_duplicat: there is no such check. Did you mean 'exact_duplicate'?",
        ),
        (["--drop", "to_long"], "Did you mean 'too_long'?"),
        (["--drop", "too_long"], "say how long that is with --max-tokens N"),
        (["--region", "Germany"], "Write it in two capital letters, such as DE."),
        (["--language", "en,english"], "--language english: is no code of a language"),
        (["--map", "prompt=nothing"], "nothing"),
        (["--labels", "near,far"], "--labels: the rows of rows.jsonl have none, as they are question and answer."),
        (["--seed", "-1"], "-1 is not in the range 0<=x<=18446744073709551615"),
        (["--seed", str(2**64)], "18446744073709551616 is not in the range"),
    ],
)
def test_a_wrong_option_is_told_before_anything_is_made(tmp_path: Path, words: list[str], told: str) -> None:
    from click.testing import CliRunner

    from hf_finetune.cli.prepare import prepare

    write_lines(tmp_path / "rows.jsonl", questions(12))
    given = [word.replace("rows.jsonl", str(tmp_path / "rows.jsonl")) for word in words]
    result = CliRunner().invoke(prepare, [str(tmp_path / "rows.jsonl"), "-o", str(tmp_path / "out"), *given])
    assert told in f"{result.output}{result.exception}"
    assert result.exit_code != 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]


def test_where_each_row_contradicts_another_nothing_is_written_and_that_is_told(tmp_path: Path) -> None:
    rows = [{"text": one["question"], "label": label} for one in questions(6) for label in ("open", "shut")]
    with pytest.raises(RecipeError, match=r"no row is left \(contradictory 12\)\. .* --keep contradictory"):
        prepared(write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_half_a_character_is_told_as_a_lost_one(tmp_path: Path, form: str) -> None:
    rows = questions(12)
    rows[3]["answer"] = "It is told \ud83d in a book."  # of an emoji that was cut
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    facts = prepared(tmp_path / "rows.jsonl", tmp_path / "out", format=form)
    assert (facts["rows"]["kept"], facts["stayed"]) == (12, {"lost_character": 1})


def test_what_is_pushed_quotes_no_row_that_could_not_be_masked(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [*questions(12)]
    rows[3]["answer"] = ["Write to anna.berg@hesse-norda.eu"]
    source = write_lines(tmp_path / "rows.jsonl", rows)
    facts = prepared(source, tmp_path / "out", mask_personal=True)
    assert facts["rejected"] == {"mixed_types": 1}
    quoting = [name for name, held in content(tmp_path / "out").items() if b"anna.berg" in held]
    assert quoting == ["rejected.jsonl"]  # which stays here
    assert "anna.berg" in read_lines(tmp_path / "out" / "rejected.jsonl")[0]["reasons"][0]["message"]


def test_every_check_that_the_code_names_may_be_kept_or_dropped() -> None:
    root = Path(curating.__file__).parents[1]
    modules = [ast.parse(path.read_text("utf-8")) for part in ("data", "curate") for path in (root / part).glob("*.py")]
    calls = [node for module in modules for node in ast.walk(module) if isinstance(node, ast.Call)]
    place = {"Finding": 0, "NotTurns": 0, "Broken": 2}
    named = {
        call.args[place[call.func.id]].value  # type: ignore[attr-defined]  # a constant
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id in place and call.args
        and isinstance(call.args[place[call.func.id]], ast.Constant)
    }  # fmt: skip
    assert len(named) > 30
    assert named <= CHECKS
