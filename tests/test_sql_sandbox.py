"""What runs queries of unknown origin: nothing is changed, all ends, memory is bounded, and faults name the file."""

import gc
import random
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import sleep

import pytest
from sql_schemas import SHOP, write_database

from hf_finetune.errors import RecipeError
from hf_finetune.sql import mark_query, read_query, sandbox, schema_text
from hf_finetune.sql.marking import _KEPT_ROWS, TRIES, _trials
from hf_finetune.sql.sandbox import MAX_HEAP_BYTES, MAX_ROWS, QueryError, connect, lock, run

GOLD = "SELECT label FROM goods"
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT COUNT(*) FROM n"
TEXT = "hex(zeroblob(22000))"
"""180,000 characters, which is near to the most that a value may hold."""

WRITING = [
    "DROP TABLE goods", "DELETE FROM goods", "INSERT INTO goods VALUES (999, 'x', 'A', 1, 1)",
    "UPDATE goods SET price = 0",
    "REPLACE INTO goods VALUES (1, 'x', 'A', 1, 1)", "ALTER TABLE goods RENAME TO wares", "CREATE TABLE wares (id)",
    "CREATE TEMP TABLE wares AS SELECT 1", "CREATE VIEW wares AS SELECT 1", "CREATE INDEX i ON goods (label)",
    "WITH one AS (SELECT 1) DELETE FROM goods", "WITH one AS (SELECT 1) INSERT INTO goods (label) SELECT 'x'",
    "SELECT label INTO wares FROM goods", "VACUUM", "VACUUM INTO 'stolen.sqlite'", "ANALYZE",
    "ATTACH 'stolen.sqlite' AS other", "DETACH main", "BEGIN", "BEGIN EXCLUSIVE", "COMMIT", "SAVEPOINT s",
    "PRAGMA writable_schema = 1", "PRAGMA query_only = OFF", "PRAGMA table_info(goods)",
    "SELECT writefile('stolen.sqlite', 'x')", "SELECT edit('x')",
]  # fmt: skip
PRYING = [
    "SELECT * FROM pragma_table_info('goods')", "SELECT * FROM pragma_database_list", "SELECT sql FROM sqlite_master",
    "SELECT name FROM SQLITE_MASTER", "SELECT name FROM main.sqlite_schema", 'SELECT name FROM "sqlite_master"',
    "SELECT * FROM sqlite_temp_master", "SELECT * FROM sqlite_stmt", "SELECT * FROM dbstat",
    "SELECT readfile('/etc/passwd')",
    "SELECT load_extension('x')", "SELECT fts3_tokenizer('simple')", "SELECT random()", "SELECT randomblob(9)",
    "SELECT label FROM goods ORDER BY RANDOM()", "SELECT ?", "SELECT label FROM goods WHERE good_id = :id",
]  # fmt: skip
HIDING = [
    "SELECT label FROM goods; DROP TABLE goods", "SELECT label FROM goods; SELECT label FROM goods",
    "SELECT label FROM goods -- all;\n; DROP TABLE goods", "SELECT label FROM goods /* ; */; DELETE FROM goods /* x */",
    "SELECT label FROM goods /* open; DROP TABLE goods", "BEGIN; SELECT label FROM goods", "SELECT label\0 FROM goods",
    "SELECT label FROM goods\0; DROP TABLE goods", "SELECT label FROM goods WHERE label = '\0", "\0", "REINDEX",
    "EXPLAIN SELECT label FROM goods", "EXPLAIN QUERY PLAN SELECT label FROM goods",
]  # fmt: skip
ENDLESS_ONES = [
    ENDLESS, ENDLESS.replace("UNION ALL", "UNION"), ENDLESS.replace("COUNT(*)", "x") + " ORDER BY x DESC",
    "SELECT COUNT(*) FROM goods a, goods b, goods c, goods d, goods e, goods f",
    "SELECT * FROM goods a, goods b, goods c, goods d, goods e, goods f",
    "SELECT a.label FROM goods a, goods b, goods c, goods d ORDER BY b.price * c.price",
]  # fmt: skip
HEAVY = [
    "SELECT zeroblob(1000000000)", "SELECT length(hex(zeroblob(200000)))", "SELECT hex(zeroblob(600000000))",
    "SELECT printf('%.*c', 900000000, 'x')",
    "SELECT printf('%.900000000c', 'x')", "SELECT format('%900000000d', 1)", f"SELECT replace({TEXT}, '0', {TEXT})",
    f"SELECT group_concat({TEXT}) FROM goods a, goods b", "SELECT group_concat(a.label) FROM goods a, goods b, goods c",
    "SELECT json_group_array(hex(zeroblob(9000))) FROM goods a, goods b", f"SELECT {TEXT} FROM goods a, goods b",
    "WITH RECURSIVE n(x) AS (SELECT 'a' UNION ALL SELECT x || x FROM n) SELECT x FROM n",
    f"SELECT COUNT(DISTINCT a.good_id || '-' || b.good_id || {TEXT}) FROM goods a, goods b",
    f"SELECT label, {TEXT} || a.price AS wide FROM goods a, goods b ORDER BY wide",
    f"SELECT {TEXT} LIKE '%' || hex(zeroblob(20000)) || '1'",
]  # fmt: skip
LONG = [
    "SELECT " + "(" * 5000 + "1" + ")" * 5000, "SELECT " + "NOT " * 5000 + "1", "SELECT 1" + " + 1" * 5000,
    "SELECT " + "abs(" * 2000 + "1" + ")" * 2000, "SELECT '" + "a" * 1_000_000 + "'", "a" * 1_000_000, "(" * 1_000_000,
    ";" * 1_000_000, "`" * 1_000_000, "SELECT " * 150_000, "```sql\n" + "SELECT 1; " * 100_000,
]  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of the shop, alone in its folder."""
    return write_database(tmp_path_factory.mktemp("shop") / "shop.sqlite", "shop")


@pytest.fixture
def locked() -> Iterator[sqlite3.Connection]:
    """A locked connection to an empty database in memory."""
    with closing(connect()) as connection:
        lock(connection)
        yield connection


@pytest.mark.parametrize("is_read", [True, False], ids=["read", "raw"])
@pytest.mark.parametrize("query", WRITING + PRYING + HIDING)
def test_a_hostile_query_is_wrong_and_changes_no_byte(query: str, is_read: bool, shop: Path) -> None:
    """Also where it comes to the marking raw, as if the reading had let it through."""
    before, given = shop.read_bytes(), read_query(query) if is_read else query
    for marks in (mark_query(GOLD, given, database=shop), mark_query(GOLD, given, schema=SHOP)):
        assert (marks["execution_accuracy"], marks["valid_sql"]) == (0.0, 0.0)
    assert shop.read_bytes() == before
    assert [path.name for path in shop.parent.iterdir()] == ["shop.sqlite"]
    assert not Path("stolen.sqlite").exists()


@pytest.mark.parametrize("query", WRITING + PRYING)
def test_sqlite_itself_refuses_what_does_more_than_read(query: str, shop: Path) -> None:
    """The second wall: here no parser has looked at the query before."""
    before = shop.read_bytes()
    with closing(connect(shop)) as connection:
        lock(connection)
        with pytest.raises(QueryError):
            run(connection, query)
    assert shop.read_bytes() == before
    assert not Path("stolen.sqlite").exists()


def test_each_wall_against_writing_stands_alone(shop: Path, locked: sqlite3.Connection) -> None:
    """The file is opened to read, and a locked connection only reads, also if SQLite's authorizer lets all pass."""
    with closing(connect(shop)) as connection, pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM goods")
    locked.set_authorizer(None)
    with pytest.raises(QueryError, match="readonly"):
        run(locked, "CREATE TABLE wares (id)")


@pytest.mark.parametrize("query", ENDLESS_ONES)
def test_a_query_without_end_is_ended(query: str, shop: Path) -> None:
    marks = mark_query(GOLD, read_query(query), database=shop)
    assert (marks["execution_accuracy"], marks["valid_sql"]) == (0.0, 0.0)


@pytest.mark.parametrize("query", HEAVY)
def test_a_query_that_asks_for_much_memory_is_refused(query: str, shop: Path) -> None:
    with closing(connect(shop)) as connection:
        lock(connection)
        with pytest.raises(QueryError):
            run(connection, query)


def test_all_of_sqlite_in_the_process_has_a_bound_of_memory(locked: sqlite3.Connection) -> None:
    with closing(sqlite3.connect(":memory:")) as other:
        assert other.execute("PRAGMA hard_heap_limit").fetchone() == (MAX_HEAP_BYTES,)


def test_few_steps_that_take_long_are_ended_too(locked: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound of steps alone, or a look at the clock every 10,000 steps, lets them run for hours."""
    calls: list[int] = []

    def slow() -> None:
        calls.append(1)
        sleep(0.01)

    locked.create_function("slow", 0, slow)
    monkeypatch.setattr(sandbox, "MAX_SECONDS", 0.05)
    with pytest.raises(QueryError, match="takes more than"):
        run(locked, ENDLESS.replace("COUNT(*)", "COUNT(slow())"))
    assert 5 <= len(calls) < 100


@pytest.mark.parametrize("query", LONG, ids=[f"{text[:12]} {len(text)}" for text in LONG])
def test_a_query_of_great_length_or_depth_is_wrong(query: str, shop: Path) -> None:
    for given in (read_query(query), query):
        assert mark_query(GOLD, given, database=shop)["execution_accuracy"] == 0.0


def test_a_result_of_more_rows_or_bytes_than_the_bound_is_refused(shop: Path) -> None:
    numbers = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT {}) SELECT x FROM n"
    with closing(connect(shop)) as connection:
        lock(connection)
        assert len(run(connection, numbers.format(MAX_ROWS)).rows) == MAX_ROWS
        with pytest.raises(QueryError, match="more than 20,000 rows"):
            run(connection, numbers.format(MAX_ROWS + 1))
        texts = f"SELECT {TEXT} FROM goods a, goods b LIMIT {{}}"
        assert len(run(connection, texts.format(400)).rows) == 400
        with pytest.raises(QueryError, match="or 20 MB"):
            run(connection, texts.format(900))


def test_a_bounded_printf_is_else_as_it_was(locked: sqlite3.Connection) -> None:
    query = "SELECT printf('%05.1f in 2024, %d%%', 3.14159, 7), format('%-5s|', 'ab'), printf('%s', NULL)"
    with closing(sqlite3.connect(":memory:")) as plain:
        assert run(locked, query).rows == plain.execute(query).fetchall()


def test_texts_that_are_not_unicode_are_read(locked: sqlite3.Connection) -> None:
    assert run(locked, "SELECT CAST(x'61ff' AS TEXT), x'ff00'").rows == [("a\ufffd", b"\xff\0")]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("date('now')", "2024-07-01"),
        ("date()", "2024-07-01"),
        ("date('NOW', '-1 day')", "2024-06-30"),
        ("date('now', 'start of month', '-1 month')", "2024-06-01"),
        ("CURRENT_DATE", "2024-07-01"),
        ("CURRENT_TIME", "12:00:00"),
        ("CURRENT_TIMESTAMP", "2024-07-01 12:00:00"),
        ("datetime('now')", "2024-07-01 12:00:00"),
        ("time('now', '+1 hour')", "13:00:00"),
        ("strftime('%Y', 'now')", "2024"),
        ("strftime('%Y-%m')", "2024-07"),
        ("strftime('%s', 'now')", "1719835200"),
        ("unixepoch('now')", 1719835200),
        ("julianday('now')", 2460493.0),
        ("julianday()", 2460493.0),
        ("julianday('now') - julianday('2024-06-01')", 30.5),
    ],
)
def test_now_is_the_same_on_every_day(expression: str, value: str | float, locked: sqlite3.Connection) -> None:
    """A gold answer about the last 30 days would else be empty next year."""
    assert run(locked, f"SELECT {expression}").rows == [(value,)]


@pytest.mark.parametrize(
    "expression",
    ["date('2024-02-10', '+1 month')", "strftime('%d.%m.%Y', '2023-05-06')", "julianday('2000-01-01')", "date(NULL)",
     "datetime(1700000000, 'unixepoch')", "date('no date')", "strftime('%W', '2023-12-31')",
     "time('2023-05-06 07:08:09')"],
)  # fmt: skip
def test_other_dates_are_as_they_were(expression: str, locked: sqlite3.Connection) -> None:
    with closing(sqlite3.connect(":memory:")) as plain:
        assert run(locked, f"SELECT {expression}").rows == plain.execute(f"SELECT {expression}").fetchall()


def test_a_query_of_the_last_days_finds_them_in_filled_tables() -> None:
    gold = "SELECT sale_id FROM sales WHERE sold_on >= date('now', '-30 days')"
    same = "SELECT sale_id FROM sales WHERE julianday('now', 'start of day') - julianday(sold_on) <= 30"
    other = "SELECT sale_id FROM sales WHERE sold_on >= date('now', '-60 days')"
    assert mark_query(gold, same, schema=SHOP)["execution_accuracy"] == 1.0
    assert mark_query(gold, other, schema=SHOP)["execution_accuracy"] == 0.0


def damaged(kind: str, shop: Path, folder: Path) -> Path:
    """The path of a file that is no whole database, in one of several ways."""
    path, whole, noise = folder / f"{kind}.sqlite", shop.read_bytes(), random.Random(0).randbytes
    contents = {
        "random": noise(9000),
        "nothing": b"",
        "cut": whole[:8192],
        "first page": whole[:100] + noise(3996) + whole[4096:],
        "other pages": whole[:4096] + noise(len(whole) - 4096),
    }
    if kind in contents:
        path.write_bytes(contents[kind])
    elif kind == "folder":
        path.mkdir()
    elif kind == "no rows":
        write_database(path, "shop", count=0)
    return path


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("missing", "there is no such file .* Mend the path in the row"),
        ("folder", "there is no such file .* Mend the path in the row"),
        ("random", "cannot be read .* Give the row a whole SQLite file"),
        ("cut", "cannot be read .* Give the row a whole SQLite file"),
        ("first page", "cannot be read .* Give the row a whole SQLite file"),
        ("nothing", "has no table. Give the row a SQLite file with tables"),
        ("other pages", "the gold query fails: .*malformed.* Mend it or the database"),
        ("no rows", "the gold query gives nothing. Mend the query or the database"),
    ],
)
def test_a_faulty_database_is_named(kind: str, fault: str, shop: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=rf"^database {kind}.sqlite: {fault}"):
        mark_query(GOLD, "SELECT 1", database=damaged(kind, shop, tmp_path))


@pytest.mark.parametrize("kind", ["missing", "random", "cut"])
def test_the_schema_of_a_faulty_database_names_it(kind: str, shop: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=rf"^database {kind}.sqlite: "):
        schema_text(damaged(kind, shop, tmp_path))


def test_a_locked_database_is_named_and_can_be_read_when_it_is_free(shop: Path, tmp_path: Path) -> None:
    busy = Path(shutil.copy(shop, tmp_path / "busy.sqlite"))
    with closing(sqlite3.connect(busy)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RecipeError, match=r"^database busy.sqlite: .*locked.* End .* writes to it, then start the"):
            mark_query(GOLD, GOLD, database=busy)
    assert mark_query(GOLD, GOLD, database=busy)["execution_accuracy"] == 1.0


def test_a_database_that_is_locked_meanwhile_stops_the_marking(shop: Path, tmp_path: Path) -> None:
    """Else a right answer would count as wrong."""
    busy = Path(shutil.copy(shop, tmp_path / "later.sqlite"))
    other = GOLD + " WHERE 1"
    assert mark_query(GOLD, GOLD, database=busy)["execution_accuracy"] == 1.0
    with closing(sqlite3.connect(busy)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        fault = (
            "database later.sqlite: is locked. End the program that writes to it, then start the same command again: "
        )
        with pytest.raises(RecipeError, match=f"^{re.escape(fault)}it goes on where it stopped.$"):
            mark_query(GOLD, other, database=busy)
    assert mark_query(GOLD, other, database=busy)["execution_accuracy"] == 1.0


def test_a_database_with_an_odd_name_that_nobody_may_write_to_is_read(shop: Path, tmp_path: Path) -> None:
    odd = Path(shutil.copy(shop, tmp_path / "shöp ?#%20&mode=rw.sqlite"))
    odd.chmod(0o400)
    assert mark_query(GOLD, GOLD + " WHERE 1", database=odd)["execution_accuracy"] == 1.0


def test_a_database_with_tables_that_only_sqlite_can_read_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "odd.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE a (x INTEGER, y INTEGER AS (x * 2) STORED, CHECK (x > 0)) STRICT;"
            "INSERT INTO a VALUES (1), (2);"
            'CREATE TABLE b (id PRIMARY KEY, "odd name") WITHOUT ROWID; CREATE VIEW c AS SELECT x AS seen FROM a;'
            "CREATE VIEW broken AS SELECT 1 FROM absent; CREATE TRIGGER d AFTER INSERT ON a BEGIN SELECT 1; END;"
        )
    for gold, prediction in (
        ("SELECT y FROM a", "SELECT x * 2 FROM a"),
        ("SELECT seen FROM c", 'SELECT "seen" FROM c'),
    ):
        assert mark_query(gold, prediction, database=path)["execution_accuracy"] == 1.0


@pytest.mark.parametrize(
    ("gold", "fault"),
    [
        ("SELECT absent FROM goods", "the gold query fails: no such column: absent"),
        ("SELECT label FROM absent", "the gold query fails: no such table: absent"),
        (ENDLESS, "the gold query fails: takes more than 50,000,000 steps"),
        ("SELECT sql FROM sqlite_master", "the gold query fails: .*prohibited"),
        (
            "SELECT label FROM goods WHERE 1 = 2",
            "the gold query gives (nothing|something)",
        ),
        ("SELECT MAX(price) FROM goods WHERE 1 = 2", "the gold query gives (nothing|something)"),
        ("DROP TABLE goods", "the gold query cannot be read: it is no query"),
        ("all the goods", "the gold query cannot be read: it is no query"),
        ("", "the gold query cannot be read: it is no query"),
    ],
)
def test_a_reference_that_cannot_mark_is_refused(gold: str, fault: str, shop: Path) -> None:
    for where in ({"database": shop}, {"schema": SHOP}):
        with pytest.raises(RecipeError, match=rf"{fault}.* Mend "):
            mark_query(gold, "SELECT 1", **where)


def open_connections() -> int:
    """How many there are, also of those that nobody has any more."""
    return sum(type(one) is sqlite3.Connection and _is_open(one) for one in gc.get_objects())


def _is_open(connection: sqlite3.Connection) -> bool:
    try:
        connection.cursor().close()
    except sqlite3.ProgrammingError:
        return False
    return True


@pytest.fixture
def none_kept() -> Iterator[int]:
    """The number of open connections before any row is marked, with no collection until the test ends.

    A connection stands in a cycle with its own cache, so that being forgotten alone does not close it.
    """
    mark_query(GOLD, GOLD, schema=SHOP)
    _trials.cache_clear()
    gc.collect()
    gc.disable()
    yield open_connections()
    gc.enable()


def test_the_databases_of_many_rows_do_not_pile_up(none_kept: int) -> None:
    for number in range(_KEPT_ROWS + 50):
        marks = mark_query(f"SELECT label FROM goods WHERE stock > {number}", "SELECT label FROM goods", schema=SHOP)
        assert marks["execution_accuracy"] == 0.0
    assert none_kept + _KEPT_ROWS <= open_connections() <= none_kept + TRIES * _KEPT_ROWS
    _trials.cache_clear()
    assert open_connections() == none_kept


@pytest.mark.parametrize("gold", ["SELECT absent FROM goods", "SELECT label FROM goods WHERE 1 = 2", "all", ENDLESS])
def test_a_refused_row_leaves_nothing_open(gold: str, none_kept: int, shop: Path) -> None:
    for where in ({"database": shop}, {"schema": SHOP}):
        with pytest.raises(RecipeError):
            mark_query(gold, "SELECT 2", **where)
    assert open_connections() == none_kept


def test_a_damaged_database_is_left_closed(none_kept: int, shop: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        connect(damaged("random", shop, tmp_path))
    assert open_connections() == none_kept
