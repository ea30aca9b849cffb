"""The text of queries: what an answer says, exact match, kinds, templates, and other dialects than SQLite."""

import random
import re
from typing import get_args

import pytest
from sql_schemas import LIBRARY

from hf_finetune.errors import RecipeError
from hf_finetune.sql import REFUSAL, Dialect, accepted_queries, mark_query, read_query, template
from hf_finetune.sql.queries import LONGEST, kinds, normalised
from hf_finetune.testing import ODD_ANSWERS

TITLES = "SELECT title FROM books"


@pytest.mark.parametrize(
    ("text", "query"),
    [
        (TITLES, TITLES),
        (f"  {TITLES} ;\n", TITLES),
        (f"{TITLES};;", TITLES),
        (f"{TITLES}; -- that is all", TITLES),
        (f"```sql\n{TITLES};\n```", TITLES),
        (f"```\n{TITLES}\n```", TITLES),
        (f"```SQL \n{TITLES}", TITLES),
        (f"```{TITLES}```", TITLES),
        (f"```sql {TITLES}```", TITLES),
        (f"It lists the titles:\n\n```sqlite\n{TITLES}\n```\nThat is it; really.", TITLES),
        (f"```sql\n{TITLES}\n```\nor\n```sql\nSELECT 1\n```", TITLES),
        ("SELECT 'a;b' FROM books", "SELECT 'a;b' FROM books"),
        ("SELECT EXTRACT(YEAR FROM bought_on) FROM books", "SELECT EXTRACT(YEAR FROM bought_on) FROM books"),
        ("SELECT bought_on::date FROM books", "SELECT bought_on::date FROM books"),
        ("SELECT `title` FROM `books` LIMIT 1, 2", "SELECT `title` FROM `books` LIMIT 1, 2"),
        ("WITH a AS (SELECT 1 AS n) SELECT n FROM a", "WITH a AS (SELECT 1 AS n) SELECT n FROM a"),
        (f"{TITLES} UNION {TITLES}", f"{TITLES} UNION {TITLES}"),
        (REFUSAL, REFUSAL),
        (f"I am afraid {REFUSAL.lower()}", REFUSAL),
        ("SELECT 'That is not in the data';", REFUSAL),
        (f"{TITLES}; {TITLES}", None),
        (f"{TITLES}; DROP TABLE books", None),
        (f"{TITLES}\n\nThis lists the titles.", None),
        ("The titles.", None),
        ("DROP TABLE books", None),
        ("EXPLAIN SELECT 1", None),
        ("-- SELECT 1", None),
        ("```sql\n```", None),
        ("SELECT title FROM books WHERE (", None),
        (f"{TITLES} WHERE title = '{'a' * LONGEST}'", None),
    ],
)
def test_an_answer_is_read_as_one_query_a_refusal_or_nothing(text: str, query: str | None) -> None:
    assert read_query(text) == query


@pytest.mark.parametrize("text", ODD_ANSWERS)
def test_odd_answers_do_not_run(text: str) -> None:
    for given in (read_query(text), text):
        marks = mark_query(TITLES, given, schema=LIBRARY)
        assert marks["execution_accuracy"] == marks["valid_sql"] == marks["exact_match"] == 0.0


PIECES = (
    "\" ' ; -- /* */ ( ) ` [ ] * , . :: $1 ? :a @x # { } {{ }} \\ $$ 0x 1e x' N' < > = ! ~ ^ -> ->> "
    "\0 \n é 🙂 İ \u200b \ufeff "
    "SELECT FROM WHERE JOIN ON UNION WITH AS GROUP ORDER BY LIMIT CASE END NULL EXISTS OVER VALUES TABLE INTERVAL "
    "CAST( EXTRACT( DATE LATERAL PIVOT QUALIFY ANY ALL IN BETWEEN LIKE"
).split(" ")
SEEDS = (
    "SELECT b.title FROM books AS b JOIN authors a ON b.author_id = a.author_id WHERE a.country = 'Peru' AND pages > 9",
    "WITH c AS (SELECT genre, COUNT(*) AS n FROM books GROUP BY genre) SELECT genre FROM c WHERE n > 2 ORDER BY n DESC",
    'SELECT "title" FROM books WHERE "genre" IN ("crime", "poetry") UNION SELECT full_name FROM authors -- all; of',
    "SELECT CASE WHEN pages > 99 THEN 'long' ELSE 'short' END, strftime('%Y', bought_on) FROM books LIMIT 3 OFFSET 1",
)


def broken(query: str, chance: random.Random) -> str:
    """The query with up to four places where something is put in, left out or cut off."""
    for _ in range(chance.randint(1, 4)):
        place, kind = chance.randrange(len(query) + 1), chance.randrange(4)
        piece = f" {chance.choice(PIECES)} " if kind == 0 else chance.choice(PIECES) if kind == 1 else ""
        query = query[:place] + piece + query[place + (chance.randint(1, 9) if kind == 2 else 0) :]
        query = query[:place] if kind == 3 and chance.random() < 0.3 else query
    return query


@pytest.mark.parametrize("dialect", get_args(Dialect))
def test_nothing_raises_on_broken_queries(dialect: Dialect) -> None:
    """500 of them over all dialects, and bytes by chance; each is also marked."""
    chance = random.Random(dialect)
    texts = [broken(chance.choice(SEEDS), chance) for _ in range(125)]
    texts += [chance.randbytes(chance.randint(1, 200)).decode("latin-1") for _ in range(50)]
    assert len({read_query(text) for text in texts}) > 5  # some can still be read
    for text in texts:
        assert accepted_queries(text, dialect)
        assert normalised(text, dialect) is not None
        assert kinds(text, dialect) is not None
        assert template(text, dialect) is None or isinstance(template(text, dialect), str)
        assert mark_query(TITLES, text, schema=LIBRARY, dialect=dialect)["valid_sql"] in (0.0, 1.0)


@pytest.mark.parametrize(
    "same",
    [
        "select  TITLE\nfrom BOOKS where GENRE = 'crime'",
        'SELECT "title" FROM "books" WHERE "genre" = \'crime\'',
        'SELECT title FROM books WHERE genre = "crime"',
        "SELECT title /* its name */ FROM books WHERE genre = 'crime' -- all",
        "SELECT [title] FROM `books` WHERE genre = 'crime'",
    ],
)
def test_exact_match_does_not_look_at_case_quotes_spaces_and_aliases(same: str) -> None:
    gold = "SELECT title FROM books WHERE genre = 'crime'"
    assert mark_query(gold, same, schema=LIBRARY)["exact_match"] == 1.0


def test_exact_match_does_not_look_at_the_names_of_aliases() -> None:
    gold = "SELECT T1.title FROM books AS T1 JOIN authors AS T2 ON T1.author_id = T2.author_id"
    same = "SELECT books.title FROM books JOIN authors a ON books.author_id = a.author_id"
    assert mark_query(gold, same, schema=LIBRARY)["exact_match"] == 1.0


@pytest.mark.parametrize(
    "other",
    [
        "SELECT title FROM books WHERE genre = 'Crime'",
        "SELECT title FROM books WHERE 'crime' = genre",
        "SELECT title FROM books WHERE genre IN ('crime')",
        "SELECT DISTINCT title FROM books WHERE genre = 'crime'",
        "SELECT pages FROM books WHERE genre = 'crime'",
        "SELECT title FROM authors WHERE genre = 'crime'",
        "",
        REFUSAL,
    ],
)
def test_other_words_are_no_exact_match(other: str) -> None:
    assert mark_query("SELECT title FROM books WHERE genre = 'crime'", other, schema=LIBRARY)["exact_match"] == 0.0


def test_exact_match_with_any_accepted_query_counts() -> None:
    marks = mark_query(f"{TITLES}; SELECT title, genre FROM books", "select TITLE, GENRE from books", schema=LIBRARY)
    assert marks["exact_match"] == 1.0


@pytest.mark.parametrize(
    ("query", "own"),
    [
        (TITLES, set()),
        (f"{TITLES} WHERE pages > 3", {"filter"}),
        ("SELECT 1 FROM books JOIN loans USING (book_id)", {"join"}),
        ("SELECT 1 FROM books, loans", {"join"}),
        ("SELECT genre FROM books GROUP BY genre ORDER BY 1", {"group", "order"}),
        (f"{TITLES} WHERE pages = (SELECT MAX(pages) FROM books)", {"filter", "nested"}),
        (f"{TITLES} UNION {TITLES}", {"nested"}),
        ("no query", set()),
        (REFUSAL, set()),
    ],
)
def test_a_query_has_the_kinds_of_its_parts(query: str, own: set[str]) -> None:
    assert kinds(query) == own


CITY = (
    "SELECT b.title FROM books AS b JOIN authors AS a ON a.author_id = b.author_id"
    " WHERE a.country = 'Peru' AND pages > 9"
)


@pytest.mark.parametrize(
    "same",
    [
        CITY.replace("Peru", "Chad").replace("9", "12.5"),
        CITY.replace("'Peru'", '"Peru"'),
        CITY.replace("b.", "T1.").replace("AS b", "AS T1").replace("a.", "T2.").replace("AS a", "AS T2"),
        CITY.lower(),
        f"{CITY};  {TITLES}",
    ],
)
def test_a_template_leaves_out_constants_aliases_and_case(same: str) -> None:
    assert template(same) == template(CITY) is not None


@pytest.mark.parametrize(
    "other",
    [
        CITY.replace("b.title", "b.genre"),
        CITY.replace("pages >", "pages >="),
        CITY.replace("country", "full_name"),
        CITY.replace("AND pages > 9", ""),
        CITY.replace("JOIN", "LEFT JOIN"),
        CITY + " LIMIT 1",
        TITLES,
    ],
)
def test_another_query_has_another_template(other: str) -> None:
    assert template(other) != template(CITY)


def test_a_query_that_cannot_be_parsed_has_a_template_still() -> None:
    assert template("SELECT ( FROM x WHERE a = 'b' AND c = 3") == template("select ( from x  where a = 'c' and c = 44")


@pytest.mark.parametrize("refusal", [REFUSAL, f" {REFUSAL}\n", "SELECT 'I do not know' AS answer"])
def test_a_refusal_has_no_template(refusal: str) -> None:
    assert template(refusal) is None


VISITS = {
    "postgres": "CREATE TABLE visits (visit_id SERIAL PRIMARY KEY, guest VARCHAR(40), came_on TIMESTAMP,"
    " paid NUMERIC(8, 2), is_open BOOLEAN);",
    "mysql": "CREATE TABLE `visits` (`visit_id` INT AUTO_INCREMENT, `guest` VARCHAR(40), `came_on` DATETIME,"
    " `paid` DECIMAL(8, 2), `is_open` TINYINT(1), PRIMARY KEY (`visit_id`)) ENGINE=InnoDB;",
    "duckdb": "CREATE TABLE visits (visit_id INTEGER PRIMARY KEY, guest VARCHAR, came_on TIMESTAMP, paid DOUBLE,"
    " is_open BOOLEAN);",
}
DIALECTS: list[tuple[Dialect, str, str, str]] = [
    ("postgres", "SELECT guest FROM visits WHERE EXTRACT(YEAR FROM came_on) = 2023",
     "SELECT guest FROM visits WHERE came_on >= '2023-01-01' AND came_on < '2024-01-01'",
     "SELECT guest FROM visits WHERE EXTRACT(YEAR FROM came_on) = 2022"),
    ("postgres", "SELECT guest FROM visits WHERE DATE_PART('month', came_on) = 5",
     "SELECT guest FROM visits WHERE TO_CHAR(came_on, 'MM') = '05'",
     "SELECT guest FROM visits WHERE DATE_PART('day', came_on) = 5"),
    ("postgres", "SELECT guest FROM visits WHERE came_on >= CURRENT_DATE - INTERVAL '30 days'",
     "SELECT guest FROM visits WHERE came_on >= NOW()::date + INTERVAL '-30 days'",
     "SELECT guest FROM visits WHERE came_on >= CURRENT_DATE - INTERVAL '3 months'"),
    ("postgres", "SELECT guest FROM visits WHERE came_on::date = '2023-05-01'",
     "SELECT guest FROM visits WHERE CAST(came_on AS date) = '2023-05-01'",
     "SELECT guest FROM visits WHERE came_on::date > '2023-05-01'"),
    ("postgres", "SELECT guest FROM visits WHERE guest ILIKE '%ann%'",
     "SELECT guest FROM visits WHERE LOWER(guest) LIKE '%ann%'", "SELECT guest FROM visits WHERE guest ILIKE 'ann%'"),
    ("postgres", "SELECT DATE_TRUNC('month', came_on) AS m, COUNT(*) FROM visits GROUP BY m",
     "SELECT DATE_TRUNC('month', came_on), COUNT(visit_id) FROM visits GROUP BY 1",
     "SELECT DATE_TRUNC('year', came_on), COUNT(*) FROM visits GROUP BY 1"),
    ("postgres", "SELECT CONCAT(guest, '!', paid) FROM visits", "SELECT guest || '!' || paid FROM visits",
     "SELECT CONCAT(guest, '?', paid) FROM visits"),
    ("postgres", "SELECT guest FROM visits WHERE is_open", "SELECT guest FROM visits WHERE is_open = TRUE",
     "SELECT guest FROM visits WHERE NOT is_open"),
    ("postgres", "SELECT COUNT(*) FILTER (WHERE paid > 10) FROM visits",
     "SELECT SUM(CASE WHEN paid > 10 THEN 1 ELSE 0 END) FROM visits", "SELECT COUNT(*) FROM visits"),
    ("postgres", "SELECT paid::int / 2 FROM visits", "SELECT CAST(paid AS INTEGER) / 2 FROM visits",
     "SELECT paid / 2 FROM visits"),
    ("postgres", "SELECT LEFT(guest, 3) FROM visits", "SELECT SUBSTRING(guest FROM 1 FOR 3) FROM visits",
     "SELECT LEFT(guest, 4) FROM visits"),
    ("postgres", "SELECT EXTRACT(YEAR FROM came_on - INTERVAL '1 year') FROM visits",
     "SELECT EXTRACT(YEAR FROM came_on) - 1 FROM visits", "SELECT EXTRACT(YEAR FROM came_on) FROM visits"),
    ("postgres",
     "SELECT COUNT(*) FROM visits WHERE DATE_TRUNC('month', came_on) = DATE_TRUNC('month', NOW() - INTERVAL '1 month')",
     "SELECT COUNT(*) FROM visits WHERE TO_CHAR(came_on, 'YYYY-MM') = TO_CHAR(NOW() - INTERVAL '1 month', 'YYYY-MM')",
     "SELECT COUNT(*) FROM visits WHERE DATE_TRUNC('month', came_on) = DATE_TRUNC('month', NOW())"),
    ("mysql", "SELECT `guest` FROM `visits` WHERE YEAR(came_on) = 2023",
     "SELECT guest FROM visits WHERE EXTRACT(YEAR FROM came_on) = 2023",
     "SELECT `guest` FROM `visits` WHERE YEAR(came_on) > 2023"),
    ("mysql", "SELECT guest FROM visits ORDER BY paid DESC, visit_id LIMIT 1, 2",
     "SELECT guest FROM visits ORDER BY paid DESC, visit_id LIMIT 2 OFFSET 1",
     "SELECT guest FROM visits ORDER BY paid DESC, visit_id LIMIT 2, 1"),
    ("mysql", "SELECT CONCAT(guest, ' ', paid) FROM visits", "SELECT CONCAT(`guest`, CONCAT(' ', `paid`)) FROM visits",
     "SELECT CONCAT(paid, ' ', guest) FROM visits"),
    ("mysql", 'SELECT guest FROM visits WHERE guest = "ann"', "SELECT guest FROM visits WHERE 'ann' = guest",
     'SELECT guest FROM visits WHERE guest = "Ann"'),
    ("mysql", "SELECT guest FROM visits WHERE came_on >= DATE_SUB(NOW(), INTERVAL 2 MONTH)",
     "SELECT guest FROM visits WHERE came_on >= NOW() - INTERVAL 2 MONTH",
     "SELECT guest FROM visits WHERE came_on >= DATE_ADD(NOW(), INTERVAL -1 YEAR)"),
    ("mysql", "SELECT IF(paid > 10, 'much', 'little') FROM visits",
     "SELECT CASE WHEN paid <= 10 THEN 'little' ELSE 'much' END FROM visits WHERE paid IS NOT NULL",
     "SELECT IF(paid >= 10, 'much', 'little') FROM visits"),
    ("mysql", "SELECT DATE_FORMAT(came_on, '%Y-%m') FROM visits", "SELECT LEFT(came_on, 7) FROM visits",
     "SELECT DATE_FORMAT(came_on, '%Y-%d') FROM visits"),
    ("duckdb", "SELECT guest FROM visits WHERE year(came_on) = 2023",
     "SELECT guest FROM visits WHERE date_part('year', came_on) = 2023",
     "SELECT guest FROM visits WHERE month(came_on) = 2023"),
    ("duckdb", "SELECT guest FROM visits WHERE came_on > today() - INTERVAL 7 DAY",
     "SELECT guest FROM visits WHERE came_on > current_date - INTERVAL 1 WEEK",
     "SELECT guest FROM visits WHERE came_on > today() - INTERVAL 7 MONTH"),
    ("duckdb", "FROM visits SELECT guest WHERE paid > 10", "SELECT guest FROM visits WHERE paid > 10.0",
     "FROM visits SELECT guest WHERE paid >= 10"),
    ("duckdb", "SELECT date_trunc('year', came_on), sum(paid) FROM visits GROUP BY 1",
     "SELECT date_trunc('year', came_on) AS y, sum(paid) FROM visits GROUP BY y",
     "SELECT date_trunc('month', came_on), sum(paid) FROM visits GROUP BY 1"),
    ("duckdb", "SELECT guest FROM visits WHERE guest ILIKE 'ann%'",
     "SELECT guest FROM visits WHERE lower(guest) LIKE 'ann%'", "SELECT guest FROM visits WHERE guest ILIKE '%ann'"),
    ("duckdb", "SELECT paid::DOUBLE / 2 FROM visits", "SELECT CAST(paid AS DOUBLE) / 2.0 FROM visits",
     "SELECT paid::INTEGER / 2 FROM visits"),
]  # fmt: skip
"""A dialect, a gold query, the same in other words, and another query."""


@pytest.mark.parametrize(("dialect", "gold", "same", "other"), DIALECTS)
def test_a_query_of_another_dialect_is_marked_as_its_own(dialect: Dialect, gold: str, same: str, other: str) -> None:
    def outcome(prediction: str) -> tuple[float, float]:
        marks = mark_query(gold, prediction, schema=VISITS[dialect], dialect=dialect)
        return marks["execution_accuracy"], marks["valid_sql"]

    assert [outcome(gold), outcome(f"{gold} "), outcome(same), outcome(other)] == [(1, 1), (1, 1), (1, 1), (0, 1)]


@pytest.mark.parametrize("dialect", ["postgres", "duckdb"])
def test_double_quotes_are_a_name_where_the_dialect_says_so(dialect: Dialect) -> None:
    gold = "SELECT guest FROM visits WHERE guest = 'ann'"
    for query, valid in (('SELECT "guest" FROM "visits" WHERE "guest" = \'ann\'', 1.0), (gold.replace("'", '"'), 0.0)):
        marks = mark_query(gold, query, schema=VISITS[dialect], dialect=dialect)
        assert marks["execution_accuracy"] == marks["valid_sql"] == valid


@pytest.mark.parametrize(
    ("dialect", "gold"),
    [
        ("postgres", "SELECT AGE(came_on, came_on) FROM visits"),
        ("mysql", "SELECT SUBSTRING_INDEX(guest, ' ', 1) FROM visits"),
        ("duckdb", "SELECT * EXCLUDE (paid) FROM visits"),
    ],
)
def test_a_gold_query_that_sqlite_has_no_words_for_is_refused(dialect: Dialect, gold: str) -> None:
    with pytest.raises(RecipeError, match="the gold query fails"):
        mark_query(gold, gold, schema=VISITS[dialect], dialect=dialect)


CUT_OFF = [
    "SELECT DATE_SUB(a, ",
    "SELECT DATE_SUB(a, THEN",
    "SELECT DATE_SUB(hired, WHERE) FROM t",
    "SELECT DATE_ADD(b, ) FROM t",
]


@pytest.mark.parametrize("text", CUT_OFF)
def test_an_answer_that_is_cut_off_is_no_query(text: str) -> None:
    assert read_query(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "SELECT a FROM t WHERE a" + " IS NOT NULL" * 150,
        "SELECT a" + "::int" * 300 + " FROM t",
        "SELECT a FROM t WHERE a" + " IN (1)" * 600,
        "SELECT a" + " + 1" * 900 + " FROM t",
        "SELECT now() " + "- interval '1 day' " * 40 + " FROM t",
        "SELECT " + "DATE(" * 40 + "a" + ")" * 40 + " FROM t",
    ],
    ids=["is not null", "casts", "in", "sums", "intervals", "dates"],
)
@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_a_query_too_deep_to_walk_through_is_marked_in_no_time(text: str, dialect: Dialect) -> None:
    template(text, dialect)
    marks = mark_query("SELECT a FROM t", text, schema="CREATE TABLE t (a INT)", dialect=dialect)
    assert marks["execution_accuracy"] == 0.0


@pytest.mark.parametrize("dialect", ["sqlite", "postgres", "mysql", "duckdb"])
def test_golds_cut_anywhere_raise_nothing_but_recipe_errors(dialect: Dialect) -> None:
    gold = "SELECT DATE(a, '-1 day'), COUNT(*) FROM t WHERE b IN ('x', \"y\") GROUP BY 1 ORDER BY COUNT(*) DESC LIMIT 3"
    for end in range(len(gold)):
        cut = gold[:end]
        assert read_query(cut) in (None, cut.strip())
        assert template(cut or "x", dialect)
        marks = mark_query("SELECT a FROM t", cut, schema="CREATE TABLE t (a DATE, b TEXT)", dialect=dialect)
        assert marks["execution_accuracy"] == 0.0


@pytest.mark.parametrize(
    "gold",
    [
        'SELECT strftime("%Y", day), COUNT(*) FROM visits GROUP BY 1',
        'SELECT COALESCE(note, "none") FROM visits',
        'SELECT CASE WHEN cost > 5 THEN "high" ELSE "low" END FROM visits',
    ],
)
def test_a_text_in_double_quotes_is_one_where_the_gold_query_has_it_as_such(gold: str) -> None:
    schema = "CREATE TABLE visits (day DATE, note TEXT, cost INT)"
    assert mark_query(gold, gold + " ", schema=schema)["execution_accuracy"] == 1.0
    invented = re.sub(r"\b(note|cost|day)\b", '"invented"', gold)
    assert mark_query(gold, invented, schema=schema)["valid_sql"] == 0.0


def test_a_refusal_is_one_without_its_full_stop_and_beside_a_query() -> None:
    assert accepted_queries("The database cannot answer this question") == (REFUSAL,)
    both = "SELECT a FROM t; SELECT 'unknown'"
    for given in ("SELECT t.a FROM t", REFUSAL):
        assert mark_query(both, given, schema="CREATE TABLE t (a INT)")["execution_accuracy"] == 1.0


def test_a_type_that_sqlite_does_not_know_loses_no_row() -> None:
    for dialect, kind in (("postgres", "TEXT[]"), ("duckdb", "STRUCT(x INT, y INT)"), ("mysql", "ENUM('x','y')")):
        schema = f"CREATE TABLE t (a INT, b {kind})"
        assert mark_query("SELECT a FROM t", "SELECT t.a FROM t", schema=schema, dialect=dialect)["valid_sql"] == 1.0  # type: ignore[arg-type]
    assert mark_query('SELECT "x ] y" FROM t', 'SELECT "x ] y" FROM t ', schema='CREATE TABLE t ("x ] y" INT)')[
        "valid_sql"
    ]


def test_the_schema_of_a_table_is_left_out_where_a_dialect_has_them() -> None:
    schema = "CREATE TABLE s.t (a INT)"
    assert (
        mark_query("SELECT a FROM s.t", "SELECT x.a FROM s.t AS x", schema=schema, dialect="postgres")["valid_sql"]
        == 1.0
    )
