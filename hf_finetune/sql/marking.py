"""A query marked by what it gives: on the row's own database, or on its schema filled several times."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hf_finetune.errors import RecipeError, told_where
from hf_finetune.sql.clues import Clues, clues
from hf_finetune.sql.filling import fill
from hf_finetune.sql.queries import REFUSAL, Dialect, accepted_queries, for_sqlite, kinds, normalised, quoted_texts
from hf_finetune.sql.results import Reference, Wanted, is_wanted, wanted
from hf_finetune.sql.sandbox import QueryError, Result, column_names, connect, lock, run
from hf_finetune.sql.schema import Table, read_schema

FILLS = 5
"""Times that the tables of a schema are filled."""
TRIES = 15
"""Fillings that are tried, as some cannot tell: the reference's own answer hangs there on how the rows lie."""
_KEPT_ROWS = 256
_KEPT_MARKS = 200_000


@dataclass(frozen=True)
class Trial:
    """A database that queries are run on, the names of its columns, and what each accepted query gives there.

    A reference that cannot tell here, as its answer hangs on how the rows lie, has None.
    """

    connection: sqlite3.Connection
    columns: frozenset[str]
    texts: frozenset[str]
    """Words that the references have in double quotes and that are no names."""
    wanted: tuple[Wanted | None, ...]

    def __del__(self) -> None:
        self.connection.close()  # at once: it stands in a cycle with its own cache, where it waits for a collection


def mark_query(
    answer: str, prediction: str | None, *, schema: str = "", database: Path | None = None, dialect: Dialect = "sqlite"
) -> dict[str, float]:
    """The marks of one predicted query, or refusal, against a gold answer, which may be several queries.

    `execution_accuracy` is 1.0 where it gives what an accepted query gives, `valid_sql` where it runs, `exact_match`
    where it is an accepted query but for aliases, case, quotes and spacing. `accuracy_join` and the others are the
    execution accuracy of the rows whose gold query is of that kind.

    Raises:
        RecipeError: when no query can be marked: the database or schema cannot be read, or the gold query fails,
            hangs or gives nothing there.
    """
    return dict(_marks(answer, prediction, schema, database, dialect))


@lru_cache(_KEPT_MARKS)
def _marks(
    answer: str, prediction: str | None, schema: str, database: Path | None, dialect: Dialect
) -> Mapping[str, float]:
    gold = accepted_queries(answer, dialect)
    queries = tuple(query for query in gold if query != REFUSAL)
    trials = _trials(queries, schema, database, dialect) if queries else ()
    with told_where(f"database {database.name}") if database else nullcontext():
        is_valid, is_right = _outcome(gold, prediction, trials, dialect)
    own = sorted(kinds(queries[0], dialect)) or ["plain"] if queries else ["refusal"]
    same = prediction is not None and normalised(prediction, dialect) in {normalised(one, dialect) for one in gold}
    return {
        "execution_accuracy": float(is_right),
        **({"valid_sql": float(is_valid)} if trials else {}),
        "exact_match": float(same),
        **{f"accuracy_{kind}": float(is_right) for kind in own},
    }


def _outcome(
    gold: Sequence[str], prediction: str | None, trials: Sequence[Trial], dialect: Dialect
) -> tuple[bool, bool]:
    """Whether a prediction runs, and whether it is right."""
    if prediction is None or prediction == REFUSAL or not trials:
        return False, prediction is not None and prediction in gold
    if prediction in gold:
        return True, True
    try:
        given = [run(trial.connection, for_sqlite(prediction, trial.columns, dialect, trial.texts)) for trial in trials]
    except (QueryError, ValueError):
        return False, False
    return True, any(
        all(own is None or is_wanted(result, own) for result, own in zip(given, wants, strict=True))
        for wants in zip(*(trial.wanted for trial in trials), strict=True)
        if any(own is not None for own in wants)
    )


@lru_cache(_KEPT_ROWS)
def _trials(gold: tuple[str, ...], schema: str, database: Path | None, dialect: Dialect) -> tuple[Trial, ...]:
    """Where a row's queries are run: its database, or its schema filled several times."""
    return (_on_database(gold, database, dialect),) if database else _on_filled_tables(gold, schema, dialect)


def _on_database(gold: Sequence[str], database: Path, dialect: Dialect) -> Trial:
    columns = column_names(database)
    queries = [_reference(query, columns, dialect) for query in gold]
    with ExitStack() as on_failure:
        connection = on_failure.enter_context(closing(connect(database)))
        lock(connection)
        with told_where(f"database {database.name}"):
            wants = tuple(_wanted(connection, one, "database") for one in queries)
            if not any(one.says_something for one in wants):
                raise RecipeError("the gold query gives nothing. Mend the query or the database.")
        on_failure.pop_all()
    return Trial(connection, columns, _texts(gold, columns, dialect), wants)


def _on_filled_tables(gold: Sequence[str], schema: str, dialect: Dialect) -> tuple[Trial, ...]:
    tables = read_schema(schema, dialect)
    columns = frozenset(column.name.lower() for table in tables for column in table.columns)
    texts = _texts(gold, columns, dialect)
    queries = [_reference(query, columns, dialect) for query in gold]
    found = clues([one.query for one in queries], tables)
    trials: list[Trial] = []
    for seed in range(TRIES):
        trial = _on_one_filling(tables, found, seed, queries)
        if trial is not None:
            trials.append(Trial(trial[0], columns, texts, trial[1]))
        if len(trials) >= FILLS and any(_says_something(trial) for trial in trials):
            break
    if not trials:
        raise RecipeError("the gold query's answer hangs on how the rows lie. Have it order by what tells them apart.")
    if not any(_says_something(trial) for trial in trials):
        raise RecipeError(
            "the tables could not be filled so that the gold query gives something. Mend it or the schema, or give the "
            "row a database."
        )
    return tuple(trials)


def _on_one_filling(
    tables: Sequence[Table], found: Clues, seed: int, queries: Sequence[Reference]
) -> tuple[sqlite3.Connection, tuple[Wanted | None, ...]] | None:
    """None where the first reference's answer hangs on how the rows lie: it is another when they lie the other way."""
    with ExitStack() as unused:
        ways = [unused.enter_context(closing(way)) for way in fill(tables, found, seed)]
        for way in ways:
            lock(way)
        pairs = [(_wanted(ways[0], one), _wanted(ways[1], one)) for one in queries]
        wants = tuple(one if one == other else None for one, other in pairs)
        if wants[0] is None:
            return None
        unused.pop_all()
        ways[1].close()
    return ways[0], wants


def _says_something(trial: Trial) -> bool:
    return trial.wanted[0] is not None and trial.wanted[0].says_something


def _texts(gold: Sequence[str], columns: frozenset[str], dialect: Dialect) -> frozenset[str]:
    return frozenset(text for query in gold if dialect == "sqlite" for text in quoted_texts(query, columns))


def _reference(query: str, columns: frozenset[str], dialect: Dialect) -> Reference:
    try:
        texts = _texts([query], columns, dialect)
        return Reference.of(for_sqlite(query, columns, dialect, texts))
    except ValueError as error:
        raise RecipeError(
            f"the gold query cannot be read: {error} ({query[:60]!r}). Mend it; a refusal is written {REFUSAL!r}"
        ) from error


def _wanted(connection: sqlite3.Connection, reference: Reference, place: str = "schema") -> Wanted:
    """What a reference gives."""
    try:
        own = run(connection, reference.query)
    except QueryError as error:
        shown = f"{reference.query[:60]!r}"
        raise RecipeError(f"the gold query fails: {error} ({shown}). Mend it or the {place}.") from error
    return wanted(reference, own, _whole(connection, reference, own))


def _whole(connection: sqlite3.Connection, reference: Reference, own: Result) -> Result | None:
    """What the reference's whole gives, where it stays within the bounds."""
    if reference.whole == reference.query:
        return own
    try:
        return None if reference.whole is None else run(connection, reference.whole)
    except QueryError:
        return None
