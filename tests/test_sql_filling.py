"""Filled tables: the same in every process, and telling a reference from other queries as well as real rows do."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sql_data
from sql_mutations import MUTATIONS, mutations
from sql_schemas import LIBRARY, SCHEMAS, SHOP, write_database

from hf_finetune.errors import RecipeError
from hf_finetune.sql import accepted_queries, mark_query, schema_text
from hf_finetune.sql.clues import clues
from hf_finetune.sql.filling import MOST_ROWS, fill
from hf_finetune.sql.queries import for_sqlite
from hf_finetune.sql.results import Reference, is_wanted, wanted
from hf_finetune.sql.sandbox import QueryError, column_names, connect, lock, run
from hf_finetune.sql.schema import read_schema

QUERIES = [
    ("library", "SELECT title FROM books WHERE genre = 'crime' AND pages > 100"),
    ("library", "SELECT b.title, a.full_name FROM books b JOIN authors a ON b.author_id = a.author_id"
     " WHERE a.born < 1950"),
    ("library", "SELECT genre, COUNT(*) FROM books WHERE pages >= 95 GROUP BY genre ORDER BY COUNT(*) DESC"),
    ("library", "SELECT full_name FROM authors WHERE author_id NOT IN (SELECT author_id FROM books WHERE pages > 105)"),
    ("library", "SELECT COUNT(DISTINCT reader) FROM loans WHERE weeks BETWEEN 2 AND 4"),
    ("library", "SELECT l.reader FROM loans l JOIN books b ON l.book_id = b.book_id JOIN authors a"
     " ON b.author_id = a.author_id WHERE a.country = 'Peru' AND l.weeks > 3"),
    ("shop", "SELECT label, price FROM goods WHERE shelf = 'B' ORDER BY price DESC, good_id LIMIT 3"),
    ("shop", "SELECT shelf, AVG(price) FROM goods GROUP BY shelf HAVING MAX(stock) > 11"),
    ("shop", "SELECT SUM(s.quantity * g.price) FROM sales s JOIN goods g ON s.good_id = g.good_id WHERE g.shelf = 'A'"),
    ("shop", "SELECT c.name FROM customers c JOIN sales s ON s.customer_id = c.customer_id"
     " WHERE s.sold_on >= '2023-06-01' AND c.is_member = 1 GROUP BY c.customer_id HAVING COUNT(*) > 1"),
    ("shop", "SELECT label FROM goods WHERE price > (SELECT AVG(price) FROM goods)"),
    ("shop", "SELECT name FROM customers WHERE town LIKE 'Tur%' ORDER BY name"),
    ("hospital", "SELECT w.ward_name, COUNT(n.nurse_id) FROM wards w LEFT JOIN nurses n ON n.ward_id = w.ward_id"
     " WHERE w.floor = 2 GROUP BY w.ward_id"),
    ("hospital", "SELECT patient FROM stays WHERE ended IS NULL AND cost >= 115"),
    ("hospital", "SELECT MAX(n.wage) FROM nurses n JOIN wards w ON n.ward_id = w.ward_id"
     " WHERE w.beds < 10 AND w.floor <> 3"),
]  # fmt: skip

Rows = list[dict[str, Any]]
needs_shared = pytest.mark.skipif(not sql_data.SHARED.exists(), reason="no public data sets beside the project")


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A database of 300 rows a table for each schema."""
    folder = tmp_path_factory.mktemp("databases")
    return {name: write_database(folder / f"{name}.sqlite", name) for name in SCHEMAS}


def changing(gold: str, schema: str, database: Path) -> Iterator[tuple[str, str]]:
    """The kind and text of each mutation of a query that gives another thing on a database."""
    with closing(connect(database)) as connection:
        lock(connection)
        reference = Reference.of(for_sqlite(gold, column_names(database)))
        whole = run(connection, reference.whole) if reference.whole else None
        own = wanted(reference, run(connection, reference.query), whole)
        for kind, query in mutations(gold, read_schema(schema)):
            try:
                result = run(connection, query)
            except QueryError:
                continue
            if not is_wanted(result, own):
                yield kind, query


def test_filled_tables_catch_what_a_database_of_many_rows_catches(databases: dict[str, Path]) -> None:
    changed: Counter[str] = Counter()
    missed = []
    for name, gold in QUERIES:
        for kind, query in changing(gold, SCHEMAS[name], databases[name]):
            changed[kind] += 1
            if mark_query(gold, query, schema=SCHEMAS[name])["execution_accuracy"] == 1.0:
                missed.append((kind, query))
    assert set(changed) == set(MUTATIONS)
    assert changed.total() > 100
    assert len(missed) <= 0.05 * changed.total(), missed


@pytest.mark.parametrize(("name", "gold"), QUERIES)
def test_a_reference_is_right_and_says_something_on_its_filled_tables(name: str, gold: str) -> None:
    assert mark_query(gold, f"{gold} ", schema=SCHEMAS[name])["execution_accuracy"] == 1.0


def test_marks_are_the_same_in_every_process() -> None:
    """Sets of texts lie in another order in each process; no row may be drawn in their order."""
    script = (
        "from sql_schemas import SCHEMAS\nfrom test_sql_filling import QUERIES\n"
        "from hf_finetune.sql.clues import clues\nfrom hf_finetune.sql.filling import fill\n"
        "from hf_finetune.sql.schema import read_schema\n"
        "for name, gold in QUERIES:\n"
        "    tables = read_schema(SCHEMAS[name])\n"
        "    for way in fill(tables, clues([gold], tables), 3):\n"
        "        print(*way.iterdump(), sep='\\n')\n"
    )
    dumps = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True, text=True, check=True, timeout=120,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(dumps) == 1
    assert len(dumps.pop()) > 10_000


def test_the_second_database_has_the_same_rows_the_other_way_round() -> None:
    tables = read_schema(SHOP)
    ways = fill(tables, clues(["SELECT label FROM goods WHERE price > 9"], tables), seed=1)
    forth, back = (way.execute("SELECT * FROM goods").fetchall() for way in ways)
    for way in ways:
        way.close()
    assert forth == back[::-1] != back
    assert 5 < len(forth) <= MOST_ROWS


@pytest.mark.parametrize(
    "gold",
    [
        "SELECT label FROM (SELECT * FROM goods LIMIT 2)",
        "SELECT label FROM goods LIMIT 1 + 1",
        "SELECT GROUP_CONCAT(label) FROM goods",
    ],
)
def test_a_reference_whose_answer_hangs_on_how_the_rows_lie_is_refused(gold: str) -> None:
    with pytest.raises(RecipeError, match=r"hangs on how the rows lie. Have it order by what tells them apart"):
        mark_query(gold, "SELECT 1", schema=SHOP)


@pytest.mark.parametrize("keys", ["price DESC, good_id", "shelf"])
def test_a_reference_with_a_limit_and_an_order_that_tells_some_rows_apart_is_marked(keys: str) -> None:
    """Fillings where it leaves a choice are passed over."""
    gold = f"SELECT label FROM goods ORDER BY {keys} LIMIT 2"
    assert mark_query(gold, gold.replace("label", "label AS l"), schema=SHOP)["execution_accuracy"] == 1.0


def values(gold: str, schema: str, column: str, seed: int = 0) -> list[Any]:
    """What stands in a column of `goods`, or of another `table.column`, filled for a query."""
    tables = read_schema(schema)
    table, _, name = column.rpartition(".")
    ways = fill(tables, clues([gold], tables), seed)
    found = [value for (value,) in ways[0].execute(f"SELECT {name} FROM {table or 'goods'}")]
    for way in ways:
        way.close()
    return found


def test_numbers_lie_on_both_sides_of_a_constant_and_on_it() -> None:
    stocks = values("SELECT label FROM goods WHERE stock > 17", SHOP, "stock")
    assert {16, 17, 18} <= set(stocks)


def test_texts_are_the_constant_and_others_near_it() -> None:
    shelves = values("SELECT label FROM goods WHERE shelf = 'Blue'", SHOP, "shelf")
    assert {"Blue", "bLUE", "Blu"} <= set(shelves)


def test_a_nullable_column_that_is_tested_has_nulls_and_others() -> None:
    shelves = values("SELECT label FROM goods WHERE shelf IS NULL", SHOP, "shelf")
    assert None in shelves
    assert any(shelf is not None for shelf in shelves)


def test_joined_tables_meet_in_some_rows_and_not_in_all() -> None:
    gold = "SELECT b.title FROM books b JOIN authors a ON b.author_id = a.author_id"
    own, others = (set(values(gold, LIBRARY, f"{table}.author_id")) for table in ("books", "authors"))
    assert own & others
    assert own ^ others


def test_columns_that_a_reference_joins_meet_without_a_foreign_key() -> None:
    schema, gold = "CREATE TABLE a (x INTEGER); CREATE TABLE b (y INTEGER)", "SELECT 1 FROM a JOIN b ON a.x = b.y"
    for seed in range(3):
        assert set(values(gold, schema, "a.x", seed)) & set(values(gold, schema, "b.y", seed))


def test_a_truth_value_is_0_or_1() -> None:
    """With a 2 in it, `WHERE is_sold` and `WHERE is_sold = TRUE` would not be the same."""
    schema = "CREATE TABLE goods (label TEXT, is_sold BOOLEAN)"
    for gold in ("SELECT label FROM goods WHERE is_sold", "SELECT label FROM goods WHERE is_sold = 1"):
        assert set(values(gold, schema, "is_sold")) == {0, 1}
        for same in ("is_sold", "is_sold = TRUE", "is_sold IS NOT FALSE", "NOT is_sold = 0"):
            marks = mark_query(gold, f"SELECT label FROM goods WHERE {same}", schema=schema)
            assert marks["execution_accuracy"] == 1.0


def test_keys_are_unique() -> None:
    for column in ("books.book_id", "authors.author_id", "loans.loan_id"):
        keys = values("SELECT title FROM books JOIN loans USING (book_id)", LIBRARY, column)
        assert len(keys) == len(set(keys)) > 3


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ("", "holds no CREATE TABLE"),
        ("Tables: goods(label, price)", "schema: "),
        ("CREATE TABLE goods AS SELECT 1", "holds no CREATE TABLE"),
        ("CREATE TABLE goods (label TEXT", "is not sqlite"),
        ("CREATE TABLE goods (label TEXT, Label TEXT)", "'Label' twice as a column in table goods|has 'label' twice"),
        ("CREATE TABLE goods (label TEXT); CREATE TABLE Goods (price REAL)", "twice as a table"),
        ("(" * 5000, "schema: "),
    ],
)
def test_a_schema_that_cannot_be_read_is_refused(schema: str, fault: str) -> None:
    with pytest.raises(RecipeError, match=f"^schema: .*({fault}).*|^({fault})"):
        mark_query("SELECT label FROM goods", "SELECT 1", schema=schema)


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE TABLE goods (label, price)",
        'CREATE TABLE "goods" ("label" VARCHAR(255) NOT NULL DEFAULT \'x\', "the price" MONEY CHECK ("the price" > 0))',
        "CREATE TABLE IF NOT EXISTS goods (label JSON, shape POINT, id UUID, raw BLOB, CONSTRAINT k UNIQUE (id));",
        "-- the goods\nCREATE TABLE goods (label TEXT /* its name */, FOREIGN KEY (label) REFERENCES labels (label));",
    ],
)  # fmt: skip
def test_schemas_of_all_sorts_are_filled(schema: str) -> None:
    assert (
        mark_query("SELECT label FROM goods", "SELECT g.label FROM goods g", schema=schema)["execution_accuracy"] == 1.0
    )


@cache
def geography() -> tuple[Rows, Path, str]:
    """GeoQuery's rows, one for each gold query, its database and its schema."""
    rows = {row["answer"]: row for row in sql_data.classic("geography")}
    classics = sql_data.SHARED / "classics"
    schema = sql_data.classic_schema(classics / "geography-schema.csv")
    return list(rows.values()), classics / "geography-db.added-in-2020.sqlite", schema


def public(name: str) -> list[tuple[str, Path, str]]:
    """A gold answer, a database and a schema for each row of a public data set that its own database can mark."""
    if name == "geography":
        rows, database, schema = geography()
        found = [(row["answer"], database, schema) for row in rows]
    else:
        files = [(row["answer"], Path(row["database"])) for row in sql_data.defog()]
        found = [(answer, database, schema_text(database)) for answer, database in files]
    return [one for one in found if can_be_marked(one[0], database=one[1])]


def can_be_marked(answer: str, **where: Any) -> bool:
    """Whether a gold answer runs and says something."""
    try:
        mark_query(answer, None, **where)
    except RecipeError:
        return False
    return True


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("geography", 300), ("defog", 185)])
def test_public_gold_answers_are_right(name: str, least: int) -> None:
    rows = public(name)
    assert len(rows) >= least
    for answer, database, schema in rows:
        places: list[dict[str, Any]] = [{"database": database}]
        places += [{"schema": schema}] if can_be_marked(answer, schema=schema) else []
        for query in accepted_queries(answer):
            for where in places:
                assert mark_query(answer, f"{query} ", **where)["execution_accuracy"] == 1.0, (query, where)


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("geography", 0.97), ("defog", 0.95)])
def test_mutants_of_public_queries_are_caught_on_filled_tables(name: str, least: float) -> None:
    caught: Counter[bool] = Counter()
    for answer, database, schema in public(name):
        if can_be_marked(answer, schema=schema):
            for _, query in changing(accepted_queries(answer)[0], schema, database):
                caught[mark_query(answer, query, schema=schema)["execution_accuracy"] == 0.0] += 1
    assert caught.total() > 1000
    assert caught[True] >= least * caught.total()


PEOPLE = """CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE visit (id INTEGER PRIMARY KEY, person_id INTEGER, day DATE);"""
NEVER = [
    "SELECT p.name FROM person p LEFT JOIN visit v ON v.person_id = p.id WHERE v.id IS NULL",
    "SELECT name FROM person WHERE id NOT IN (SELECT person_id FROM visit)",
    "SELECT name FROM person p WHERE NOT EXISTS (SELECT 1 FROM visit v WHERE v.person_id = p.id)",
    "SELECT name FROM person WHERE id IN (SELECT id FROM person EXCEPT SELECT person_id FROM visit)",
]


@pytest.mark.parametrize("gold", NEVER)
@pytest.mark.parametrize("prediction", NEVER)
def test_who_has_no_partner_is_found_in_any_way(gold: str, prediction: str) -> None:
    assert mark_query(gold, prediction, schema=PEOPLE)["execution_accuracy"] == 1.0
