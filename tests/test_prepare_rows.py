"""From a source to three splits of typed rows, with the facts of what was read, dropped and kept together."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hf_finetune import LocalFile, Recipe, RecipeError
from hf_finetune.data import LocalFolder, Located, Source
from hf_finetune.data.splits import SPLITS
from hf_finetune.doctor.data import rows as about_rows
from hf_finetune.doctor.data import shares
from hf_finetune.doctor.lengths import test_rows as few_rows
from hf_finetune.doctor.subject import Subject
from hf_finetune.files import sha256
from hf_finetune.layers import Layer, settle
from hf_finetune.prepare import Prepared, in_words, notes_on_rows, prepare, prepare_unsplit
from hf_finetune.settings import Settings

SETTINGS = Settings(validation_size=0.2, test_size=0.2)


@dataclass(frozen=True)
class Row:
    text: str
    label: str
    company: str = ""


class Closed(Recipe[Row]):
    """Answers yes or no."""

    base_model = "acme/base"
    dataset = LocalFile("rows.jsonl")
    license = "mit"
    primary_metric = "accuracy"

    def prompt(self, row: Row) -> str:
        return f"Yes or no?\n\n{row.text}"

    def completion(self, row: Row) -> str:
        return row.label.strip()

    def choices(self, row: Row) -> Sequence[str] | None:
        return ("yes", "no")

    def parse(self, text: str) -> str | None:
        return text or None

    def score(self, rows: Sequence[Row], predictions: Sequence[Any]) -> dict[str, float]:
        return {"accuracy": 1.0}

    def group(self, row: Row) -> str | None:
        return row.company or None


class Open(Closed):
    """Answers with anything."""

    def choices(self, row: Row) -> Sequence[str] | None:
        return None


def row(number: int, label: str, **more: str) -> dict[str, str]:
    return {"text": f"first{number} middle{number} last{number}", "label": label, **more}


def source(folder: Path, rows: Sequence[Mapping[str, str]]) -> LocalFile:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return LocalFile(str(path))


def prepared(folder: Path, rows: Sequence[Mapping[str, str]], recipe: Closed | None = None) -> Prepared:
    return prepare(recipe or Closed(), source(folder, rows), SETTINGS)


HALF_YES = [row(number, "yes" if number % 2 else "no") for number in range(40)]


def test_all_rows_come_typed_in_three_splits(tmp_path: Path) -> None:
    ready = prepared(tmp_path, HALF_YES)
    assert {name: len(ready.rows[name]) for name in SPLITS} == {"train": 24, "validation": 8, "test": 8}
    every = [row for name in SPLITS for row in ready.rows[name]]
    assert sorted(every, key=str) == sorted((Row(**row) for row in HALF_YES), key=str)


def test_closed_answers_are_stratified_and_counted(tmp_path: Path) -> None:
    ready = prepared(tmp_path, HALF_YES)
    assert ready.facts["answers"] == {
        "train": {"no": 12, "yes": 12},
        "validation": {"no": 4, "yes": 4},
        "test": {"no": 4, "yes": 4},
    }
    assert Counter(row.label for row in ready.rows["test"]) == ready.facts["answers"]["test"]


def test_open_answers_are_not_counted(tmp_path: Path) -> None:
    assert prepared(tmp_path, HALF_YES, Open()).facts["answers"] == {}


def test_the_facts_tell_source_and_counts(tmp_path: Path) -> None:
    rows = [
        *HALF_YES,
        row(0, "no"),
        row(1, "no"),
        row(2, "no", company="again"),
        {"text": "FIRST4 middle4 last4!", "label": "no"},
    ]
    facts = prepared(tmp_path, rows).facts
    del facts["answers"]
    assert facts == {
        "source": {
            "name": "rows.jsonl",
            "is_on_hub": False,
            "revision": None,
            "commit": None,
            "files": {"rows.jsonl": sha256(tmp_path / "rows.jsonl")},
        },
        "rows_read": 44,
        "exact_duplicates_dropped": 2,
        "contradictory_dropped": 2,
        "near_duplicates": 2,
        "near_duplicate_similarity": 0.8,
        "rows": {name: facts["rows"][name] for name in SPLITS},
    }
    assert sum(facts["rows"].values()) == 40


def test_the_facts_tell_the_hash_of_each_of_two_files_of_one_name(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Folders(Source):
        paths: tuple[Path, ...]

        def locate(self) -> Located:
            return Located(self.paths, "acme/rows", revision="main", commit="c" * 40)

    paths = tuple(tmp_path / language / "rows.jsonl" for language in ("en", "de"))
    for path, rows in zip(paths, (HALF_YES[:20], HALF_YES[20:]), strict=True):
        path.parent.mkdir()
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = prepare(Closed(), Folders(paths), SETTINGS).facts
    assert facts["rows_read"] == 40
    assert facts["source"]["files"] == {"en/rows.jsonl": sha256(paths[0]), "de/rows.jsonl": sha256(paths[1])}


def test_the_facts_can_be_written_as_json(tmp_path: Path) -> None:
    facts = prepared(tmp_path, HALF_YES).facts
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_the_recipes_groups_stay_on_one_side(tmp_path: Path) -> None:
    ready = prepared(tmp_path, [row(number, "yes", company=f"company {number // 4}") for number in range(80)])
    companies = [{row.company for row in ready.rows[name]} for name in SPLITS]
    assert all(companies)
    assert sum(map(len, companies)) == 20


def test_seed_shares_and_similarity_are_those_of_the_settings(tmp_path: Path) -> None:
    rows = source(tmp_path, HALF_YES)
    first, other = (prepare(Closed(), rows, Settings(seed=seed, test_size=0.3)) for seed in (1, 2))
    assert first.facts["rows"] == {"train": 24, "validation": 4, "test": 12}
    assert first.rows != other.rows
    looser = Settings(near_duplicate_similarity=0.2)
    chain = [{"text": f"a{n} b{n} c{n} common", "label": "yes"} for n in range(2)]
    both = source(tmp_path, [*HALF_YES, *chain])
    assert prepare(Closed(), both, looser).facts["near_duplicates"] == 0
    assert prepare(Closed(), both, Settings(near_duplicate_similarity=0.1)).facts["near_duplicates"] > 0


def test_all_rows_whose_answer_is_no_choice_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        prepared(tmp_path, [*HALF_YES, row(90, "maybe"), row(91, "yes"), row(92, "perhaps")])
    assert str(caught.value) == (
        "rows.jsonl: 2 faults in 43 rows.\n"
        "  row 41: the answer 'maybe' is not one of yes, no.\n"
        "  row 43: the answer 'perhaps' is not one of yes, no.\n"
        "  leave_out_faulty_rows=true goes on without them."
    )


def test_choices_that_are_read_alike_are_named(tmp_path: Path) -> None:
    class Twice(Closed):
        """Offers a choice twice where the row says so."""

        def choices(self, row: Row) -> tuple[str, ...]:
            return ("yes", "no", "no") if "twice" in row.text else ("yes", "no")

    rows = [*HALF_YES, row(90, "yes"), {"text": "twice", "label": "yes"}]
    with pytest.raises(RecipeError, match="row 42: the choices yes, no, no are not read as so many different answers"):
        prepare(Twice(), source(tmp_path, rows), SETTINGS)


def test_rows_kept_apart_are_neither_split_nor_thinned_out(tmp_path: Path) -> None:
    rows = [row(1, "yes"), row(1, "yes"), row(1, "no")]
    ready = prepare_unsplit(Closed(), source(tmp_path, rows), Settings())
    assert [own.label for own in ready.rows["test"]] == ["yes", "yes", "no"]
    assert (ready.facts["rows"], ready.facts["answers"]) == ({"test": 3}, {"test": {"no": 1, "yes": 2}})


def test_an_answer_that_is_empty_is_named(tmp_path: Path) -> None:
    class Silent(Open):
        """Answers with nothing where the row says so."""

        def completion(self, row: Row) -> str:
            return row.label.removeprefix("nothing")

    with pytest.raises(RecipeError, match=r"rows\.jsonl: 1 fault in 41 rows\.\n  row 41: the answer is empty\."):
        prepared(tmp_path, [*HALF_YES, row(90, "nothing")], Silent())


def test_the_number_of_a_row_is_that_of_its_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n\n" + json.dumps(row(1, "maybe")) + "\n")
    with pytest.raises(RecipeError, match="row 3: the answer 'maybe'"):
        prepare(Closed(), LocalFile(str(file)), SETTINGS)


def test_broken_rows_are_told_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"rows\.jsonl: 1 fault in 41 rows\.\n  row 41: 'label' is missing"):
        prepared(tmp_path, [*HALF_YES, {"text": "no label"}])


def test_too_few_rows_are_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="data: 4 rows in 4 independent groups cannot fill"):
        prepared(tmp_path, HALF_YES[:4])


# In words


def facts_with(**changes: Any) -> dict[str, Any]:
    return {
        "source": {"name": "acme/rows"},
        "rows_read": 1234,
        "rows": {"train": 1000, "validation": 110, "test": 111},
        "exact_duplicates_dropped": 0,
        "contradictory_dropped": 0,
        "near_duplicates": 0,
        "near_duplicate_similarity": 0.8,
        "max_length": 1024,
        "longer_than_max_length": {"train": 0, "validation": 0, "test": 0},
        **changes,
    }


def test_clean_data_are_told_in_one_line() -> None:
    assert in_words(facts_with()) == ["1,234 rows from acme/rows: 1,000 train, 110 validation, 111 test"]


def test_rows_that_were_left_out_are_told_with_the_reason() -> None:
    lines = in_words(
        facts_with(
            exact_duplicates_dropped=1200,
            contradictory_dropped=2,
            longer_than_max_length={"train": 3, "validation": 1, "test": 5},
        )
    )
    # Long rows of the test split are not left out: they are evaluated.
    assert lines[1:] == ["left out: 1,200 exact duplicates, 2 with contradictory answers, 4 longer than 1024 tokens"]


def test_a_reason_without_rows_is_not_told() -> None:
    assert in_words(facts_with(contradictory_dropped=2))[1:] == ["left out: 2 with contradictory answers"]


def test_near_duplicates_are_told_with_the_similarity() -> None:
    lines = in_words(facts_with(near_duplicates=1500))
    assert lines[1:] == ["1,500 near-duplicates (token Jaccard >= 0.8) kept on one side of the split"]


class Marked(Open):
    """Marks each row; some rows cannot be asked, and some cannot be marked."""

    def prompt(self, row: Row) -> str:
        if "mute" in row.company:
            raise RecipeError("there is nothing to ask. Write a text.")
        return super().prompt(row)

    def mark(self, row: Row, prediction: Any) -> dict[str, float]:
        if "unmarkable" in row.company:
            raise RecipeError("its gold answer fails. Mend it.")
        return {"accuracy": float(prediction == row.label)}

    score = Recipe.score

    def group(self, row: Row) -> str | None:
        return None

    def remarks(self, rows: Sequence[Row]) -> Sequence[str]:
        return [f"{len(rows)} rows are remarkable."]


LENIENT = SETTINGS.model_copy(update={"leave_out_faulty_rows": True})


def odd_rows(count: int = 40) -> list[dict[str, str]]:
    """Rows of which the seventh cannot be asked, the eighth has no label, and every third cannot be marked."""
    rows = [row(number, "yes", company="unmarkable" if number % 3 == 0 else "") for number in range(1, count + 1)]
    rows[6]["company"] = "mute"
    del rows[7]["label"]
    return rows


def test_faulty_rows_stop_the_run_unless_they_may_be_left_out(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        prepare(Marked(), source(tmp_path, odd_rows()), SETTINGS)
    told = str(caught.value)
    assert "2 faults in 40 rows" in told
    assert "row 7: there is nothing to ask. Write a text." in told
    assert "row 8: 'label' is missing" in told


def test_rows_that_cannot_be_marked_stop_the_run_unless_they_may_be_left_out(tmp_path: Path) -> None:
    rows = [row(number, "yes", company="unmarkable" if number % 3 == 0 else "") for number in range(1, 41)]
    with pytest.raises(RecipeError, match=r"rows [\d, ]+: its gold answer fails\. Mend it\."):
        prepare(Marked(), source(tmp_path, rows), SETTINGS)


def test_rows_left_out_are_counted_and_named_and_the_rest_is_used(tmp_path: Path) -> None:
    ready = prepare(Marked(), source(tmp_path, odd_rows()), LENIENT)
    facts = ready.facts
    assert facts["rows_read"] == 40
    assert facts["faulty"]["rows"] == 2
    assert [line.split(":")[0] for line in facts["faulty"]["first"]] == ["row 7", "row 8"]
    unmarkable = facts["unmarkable"]["rows"]
    assert unmarkable > 0
    assert sum(map(len, ready.rows.values())) == 38 - unmarkable
    assert not any(one.company == "unmarkable" for one in ready.rows["test"])
    assert any(one.company == "unmarkable" for one in ready.rows["train"])  # it can still be learned from


def test_rows_left_out_and_remarks_are_told(tmp_path: Path) -> None:
    facts = prepare(Marked(), source(tmp_path, odd_rows()), LENIENT).facts
    lines = in_words(facts | {"max_length": 9, "longer_than_max_length": dict.fromkeys(SPLITS, 0)})
    unmarkable = facts["unmarkable"]["rows"]
    assert notes_on_rows(facts) == [
        f"Left out: 2 rows that are broken and {unmarkable} test rows to which no answer can be marked; "
        f"data.json names them."
    ]
    assert "2 rows left out as they are broken:" in lines
    assert "  row 7: there is nothing to ask. Write a text." in lines
    assert any(line.endswith("left out of the test split:") for line in lines)
    assert "38 rows are remarkable." in lines


def test_more_left_out_rows_than_are_shown_are_counted(tmp_path: Path) -> None:
    rows = [row(number, "yes", company="mute" if number < 8 else "") for number in range(40)]
    facts = prepare(Marked(), source(tmp_path, rows), LENIENT).facts
    lines = in_words(facts | {"max_length": 9, "longer_than_max_length": dict.fromkeys(SPLITS, 0)})
    assert "  (and 3 more; see data.json)" in lines


def test_rows_that_are_all_broken_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="20 faults in 20 rows"):
        prepare(Marked(), source(tmp_path, [row(number, "yes", company="mute") for number in range(20)]), LENIENT)


def test_a_test_split_without_a_row_that_can_be_marked_stops_the_run(tmp_path: Path) -> None:
    rows = [row(number, "yes", company="unmarkable") for number in range(20)]
    with pytest.raises(RecipeError, match="4 faults in 4 rows"):
        prepare(Marked(), source(tmp_path, rows), LENIENT)


def test_clean_rows_have_no_word_of_what_was_left_out(tmp_path: Path) -> None:
    facts = prepare(Open(), source(tmp_path, [row(number, "yes") for number in range(20)]), LENIENT).facts
    assert not {"faulty", "unmarkable", "remarks", "columns_not_used"} & set(facts)
    assert notes_on_rows(facts) == []


def test_fewer_test_rows_are_part_of_more(tmp_path: Path) -> None:
    given = source(tmp_path, [row(number, "yes") for number in range(40)])
    drawn = [prepare(Open(), given, SETTINGS.model_copy(update={"max_test_rows": most})) for most in (3, 5, None)]
    few, more, every = (set(one.rows["test"]) for one in drawn)
    assert (len(few), len(more), len(every)) == (3, 5, 8)
    assert few < more < every
    assert [one.facts.get("test_rows_left_out") for one in drawn] == [5, 3, None]
    assert drawn[0].rows["train"] == drawn[2].rows["train"]


def test_rows_that_cannot_be_marked_make_room_for_others(tmp_path: Path) -> None:
    rows = [row(number, "yes", company="unmarkable" if number % 2 else "") for number in range(60)]
    few = LENIENT.model_copy(update={"max_test_rows": 5})
    assert len(prepare(Marked(), source(tmp_path, rows), few).rows["test"]) == 5
    assert len(prepare_unsplit(Marked(), source(tmp_path, rows), few).rows["test"]) == 5


def test_a_cut_line_of_json_stops_the_run_also_where_broken_rows_may_be_left_out(tmp_path: Path) -> None:
    given = source(tmp_path, HALF_YES)
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    (tmp_path / "rows.jsonl").write_text("\n".join([*lines[:7], lines[7][:30], *lines[8:]]))
    with pytest.raises(RecipeError, match="row 8: is not a JSON object"):
        prepare(Closed(), given, LENIENT)


def test_columns_that_are_no_field_are_told(tmp_path: Path) -> None:
    rows = [row(number, "yes", compny="x") | {"id": str(number)} for number in range(20)]
    facts = prepare(Open(), source(tmp_path, rows), SETTINGS).facts
    assert (facts["columns_not_used"], facts["columns_meant"]) == (["compny", "id"], {"compny": "company"})
    assert "columns not used: compny (did you mean company?), id" in in_words(
        facts | {"max_length": 9, "longer_than_max_length": dict.fromkeys(SPLITS, 0)}
    )


def split_files(folder: Path, **files: Sequence[Mapping[str, str]]) -> LocalFolder:
    folder.mkdir()
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return LocalFolder(str(folder))


def in_three() -> dict[str, Sequence[Mapping[str, str]]]:
    rows = [row(number, "yes" if number % 2 else "no") for number in range(60)]
    return {"train-00000-of-00001": rows[:30], "dev": rows[30:45], "test": rows[45:]}


def test_splits_that_files_are_named_after_are_kept_and_told(tmp_path: Path) -> None:
    files = in_three()
    made = prepare(Closed(), split_files(tmp_path / "rows", **files), Settings())
    for name, own in zip(SPLITS, files.values(), strict=True):
        assert [one.text for one in made.rows[name]] == [one["text"] for one in own]
    assert made.facts["splits_given"] is True
    assert in_words(made.facts | {"longer_than_max_length": dict.fromkeys(SPLITS, 0), "max_length": 9})[0] == (
        "60 rows from rows: 30 train, 15 validation, 15 test, as its files are named"
    )


def test_files_without_a_test_split_among_them_are_split_as_ever(tmp_path: Path) -> None:
    files = in_three()
    del files["test"]
    made = prepare(Closed(), split_files(tmp_path / "rows", **files), Settings())
    assert "splits_given" not in made.facts
    assert len(made.rows["train"]) == 36


def test_a_file_of_no_split_beside_others_is_told(tmp_path: Path) -> None:
    files = in_three()
    source = split_files(tmp_path / "rows", **files, train_and_test=files["dev"])
    with pytest.raises(RecipeError, match=r"rows: train_and_test\.jsonl is of no split, and other files are"):
        prepare(Closed(), source, Settings())


def test_a_split_of_which_no_row_can_be_used_is_told_and_not_made_of_others(tmp_path: Path) -> None:
    files = in_three()
    files["test"] = [{**one, "label": "-1"} for one in files["test"]]
    with pytest.raises(RecipeError, match=r"rows: no row of the test files can be used"):
        prepare(Closed(), split_files(tmp_path / "rows", **files), Settings(leave_out_faulty_rows=True))


def test_all_rows_of_data_that_come_split_are_not_asked(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"rows: --all-rows asks all rows, and training rows are among these"):
        prepare_unsplit(Closed(), split_files(tmp_path / "rows", **in_three()), Settings())


def test_doctor_tells_sizes_of_splits_that_have_no_effect(tmp_path: Path) -> None:
    for sizes in ({"test_size": 0.2, "validation_size": 0.2}, {}):
        settled = settle([Layer("command line", sizes)])
        subject = Subject(settled, Closed(), split_files(tmp_path / str(len(sizes)), **in_three()))
        assert [line.level for line in about_rows(subject)] == ["ok"]
        assert [line.text.split()[0] for line in shares(subject)] == list(sizes)
        assert [line.fix for line in few_rows(subject)] == [
            f"give more rows in the {split} files" for split in ("test", "validation")
        ]


def test_doctor_names_broken_rows_also_where_the_others_are_too_few_to_split(tmp_path: Path) -> None:
    subject = Subject(settle([]), Closed(), source(tmp_path, [*HALF_YES[:7], row(50, "maybe"), row(51, "maybe")]))
    lines = about_rows(subject)
    assert "rows 8, 9" in (told := next(lines).text)
    assert "'maybe'" in told
    with pytest.raises(RecipeError, match="7 rows in 7 independent groups"):
        next(lines)
