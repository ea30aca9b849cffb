"""Marking by hand cases: predictions that are right in other words, wrong by little, or no query of the schema."""

from collections import Counter
from pathlib import Path

import pytest
from sql_schemas import SCHEMAS, write_database

from hf_finetune.sql import REFUSAL, mark_query, read_query
from hf_finetune.sql.results import Tied, Wanted, is_wanted
from hf_finetune.sql.sandbox import Result

CASES = Path(__file__).parent / "data" / "sql_cases.txt"


def cases(outcome: str) -> pytest.MarkDecorator:
    """A test for each case of the outcome, called by what is another in it."""
    schema = gold = ""
    found = []
    for line in CASES.read_text(encoding="utf-8").splitlines():
        kind, *rest = line.split(" | ", 2)
        if not line.startswith(("#", "  ")) and line:
            schema, gold = line.split(": ", 1)
        elif rest and kind.strip() == outcome:
            found.append(pytest.param(schema, gold, rest[1].replace(r"\n", "\n").replace(r"\t", "\t"), id=rest[0]))
    assert len(found) > 20
    return pytest.mark.parametrize(("schema", "gold", "prediction"), found)


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A database of 300 rows a table for each schema."""
    folder = tmp_path_factory.mktemp("databases")
    return {name: write_database(folder / f"{name}.sqlite", name) for name in SCHEMAS}


def outcomes(schema: str, gold: str, prediction: str | None, databases: dict[str, Path]) -> list[tuple[float, float]]:
    """Whether a prediction is right and whether it runs: on filled tables, and on the database."""
    read = None if prediction is None else read_query(prediction)
    both = (mark_query(gold, read, schema=SCHEMAS[schema]), mark_query(gold, read, database=databases[schema]))
    return [(marks["execution_accuracy"], marks["valid_sql"]) for marks in both]


@cases("right")
def test_a_prediction_that_gives_the_same_is_right(
    schema: str, gold: str, prediction: str, databases: dict[str, Path]
) -> None:
    assert outcomes(schema, gold, prediction, databases) == [(1.0, 1.0)] * 2


@cases("wrong")
def test_a_prediction_that_gives_another_thing_is_wrong(
    schema: str, gold: str, prediction: str, databases: dict[str, Path]
) -> None:
    assert outcomes(schema, gold, prediction, databases) == [(0.0, 1.0)] * 2


@cases("invalid")
def test_what_does_not_run_is_wrong_and_not_valid(
    schema: str, gold: str, prediction: str, databases: dict[str, Path]
) -> None:
    assert outcomes(schema, gold, prediction, databases) == [(0.0, 0.0)] * 2


@pytest.mark.parametrize("prediction", [None, "", " ", ";"])
def test_no_answer_is_wrong_and_not_valid(prediction: str | None, databases: dict[str, Path]) -> None:
    assert outcomes("shop", "SELECT label FROM goods", prediction, databases) == [(0.0, 0.0)] * 2


@pytest.mark.parametrize(
    "text", [REFUSAL, "Sorry: the database cannot answer this question", "SELECT 'no data' AS answer"]
)
def test_a_refusal_is_right_where_it_is_due(text: str) -> None:
    for gold in (REFUSAL, "SELECT 'I do not know' AS answer"):
        marks = mark_query(gold, read_query(text), schema=SCHEMAS["shop"])
        assert marks["execution_accuracy"] == marks["accuracy_refusal"] == 1.0
        assert "valid_sql" not in marks  # no query was due, so that none could run


@pytest.mark.parametrize("text", ["SELECT label FROM goods", "", "I do not know", "SELECT 1"])
def test_an_answer_is_wrong_where_a_refusal_was_due(text: str) -> None:
    assert mark_query(REFUSAL, read_query(text), schema=SCHEMAS["shop"])["execution_accuracy"] == 0.0


def test_a_refusal_with_a_query_behind_it_is_a_refusal() -> None:
    assert read_query(f"{REFUSAL}\n```sql\nSELECT label FROM goods\n```") == REFUSAL


def test_whole_numbers_count_to_their_last_digit() -> None:
    gold, other = "SELECT 5551234567 FROM goods", "SELECT 5551234568 FROM goods"
    assert mark_query(gold, other, schema=SCHEMAS["shop"])["execution_accuracy"] == 0.0
    assert mark_query(gold, "SELECT 5551234567.0 FROM goods", schema=SCHEMAS["shop"])["execution_accuracy"] == 1.0


def test_the_last_digits_of_a_sum_do_not_count() -> None:
    """0.1 + 0.2 is 0.30000000000000004."""
    gold, other = "SELECT 0.1 + 0.2, 2.9999999999 FROM goods", "SELECT 0.3, 3 FROM goods"
    assert mark_query(gold, other, schema=SCHEMAS["shop"])["execution_accuracy"] == 1.0


def test_no_rows_of_two_columns_are_not_no_rows_of_one() -> None:
    assert is_wanted(Result([], 1), Wanted((Tied(Counter(), 0),), 1))
    assert not is_wanted(Result([], 2), Wanted((Tied(Counter(), 0),), 1))


@pytest.mark.parametrize(
    ("gold", "other"),
    [
        ("SELECT label FROM goods ORDER BY 1.5", "SELECT label FROM goods"),
        ("SELECT stock AS c, shelf AS stock FROM goods ORDER BY stock", None),
        ("SELECT label FROM goods ORDER BY label COLLATE NOCASE LIMIT 3", None),
    ],
)
def test_odd_sort_keys_are_read_as_sqlite_reads_them(gold: str, other: str | None, databases: dict[str, Path]) -> None:
    """A number that is no place sorts nothing, and an alias goes before a column of that name."""
    turned = other or gold.replace(" LIMIT", ", good_id LIMIT") if "LIMIT" in gold else other or f"{gold}, good_id DESC"
    assert mark_query(gold, turned, database=databases["shop"])["execution_accuracy"] == 1.0


def test_an_order_counts_only_between_rows_that_differ_in_the_sort_key(databases: dict[str, Path]) -> None:
    gold, where = "SELECT label FROM goods ORDER BY shelf", databases["shop"]
    another_way_round = "SELECT label FROM goods ORDER BY shelf, good_id DESC"
    assert mark_query(gold, another_way_round, database=where)["execution_accuracy"] == 1.0
    assert mark_query(another_way_round, gold, database=where)["execution_accuracy"] == 0.0


def test_a_row_has_the_accuracy_of_its_kinds() -> None:
    gold = "SELECT shelf, COUNT(*) FROM goods WHERE price > 2 GROUP BY shelf ORDER BY shelf"
    marks = mark_query(gold, "SELECT 1", schema=SCHEMAS["shop"])
    assert {name for name in marks if name.startswith("accuracy_")} == {
        "accuracy_filter",
        "accuracy_group",
        "accuracy_order",
    }
    assert "accuracy_plain" in mark_query("SELECT label FROM goods", None, schema=SCHEMAS["shop"])
