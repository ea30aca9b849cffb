"""Queries of unknown origin run on SQLite: they only read, and end within bounds of steps, seconds, memory and rows."""

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import monotonic
from typing import Any

from hf_finetune.errors import RecipeError

MAX_STEPS = 50_000_000
"""Of SQLite's virtual machine, in one query: the same on every machine, about a second."""
MAX_SECONDS = 10.0
"""For the few steps that take long."""
MAX_ROWS = 20_000
MAX_RESULT_BYTES = 20_000_000
MAX_VALUE_BYTES = 50_000
"""Of one text: what searches a text in a text takes its square, in a single step that nothing can end."""
MAX_PATTERN_BYTES = 500
"""Of LIKE and GLOB, for the same reason."""
MAX_HEAP_BYTES = 512_000_000
"""Of all of SQLite in this process."""
NOW = "2024-07-01 12:00:00"
"""What `now` is to every query, so that an answer is as right tomorrow as it is today."""
ONCE_FREE = "End the program that writes to it, then start the same command again: it goes on where it stopped."
"""What to do about a locked database."""

_STEPS_BETWEEN_CHECKS = 200
_WIDE = re.compile(r"%[-+ #0,!.\d]*(\*|\d{4})")
"""A width or precision that printf may spend a minute on: `%.*c`, `%900000000d`."""
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_FORBIDDEN = {"load_extension", "random", "randomblob", "readfile", "writefile", "edit", "fts3_tokenizer"}
_CLOCKS = ("date", "time", "datetime", "julianday", "unixepoch", "strftime")
_CURRENT = {"current_date": "date", "current_time": "time", "current_timestamp": "datetime"}


class QueryError(Exception):
    """A query that does not run, or not within the bounds; its text says why."""


@dataclass(frozen=True)
class Result:
    """What a query gives."""

    rows: list[tuple[Any, ...]]
    columns: int


def connect(path: Path | None = None) -> sqlite3.Connection:
    """A connection to a SQLite file that can only be read, or to an empty database in memory.

    Raises:
        RecipeError: when the file is missing, no database, damaged, or locked.
    """
    if path is None:
        return sqlite3.connect(":memory:")
    if not path.is_file():
        raise RecipeError(f"database {path.name}: there is no such file ({path}). Mend the path in the row.")
    try:
        return _opened(path)
    except sqlite3.Error as error:
        locked = "locked" in str(error)
        hint = ONCE_FREE if locked else "Give the row a whole SQLite file."
        raise RecipeError(f"database {path.name}: cannot be read ({error}). {hint}") from error


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def schema_text(path: Path | None) -> str:
    """The CREATE TABLE and CREATE VIEW statements of a SQLite file.

    Raises:
        RecipeError: when no file is named, or it is missing, no database, damaged, or locked.
    """
    if path is None:
        raise RecipeError("there is neither a schema nor a database. Give the row CREATE TABLE statements or a file.")
    with closing(connect(path)) as connection:
        found = connection.execute("SELECT sql FROM sqlite_master WHERE type IN ('table', 'view') AND sql NOT NULL")
        return "\n".join(f"{sql};" for (sql,) in found)


def column_names(path: Path) -> frozenset[str]:
    """The names of the columns of a SQLite file's tables, in small letters, as SQLite reads them.

    Raises:
        RecipeError: when the file is missing, no database, damaged, locked, or has no table.
    """
    with closing(connect(path)) as connection:
        found = connection.execute(
            "SELECT lower(own.name) FROM sqlite_master AS made, pragma_table_info(made.name) AS own"
            " WHERE made.type = 'table'"
        ).fetchall()
    if not found:
        raise RecipeError(f"database {path.name}: has no table. Give the row a SQLite file with tables and rows.")
    return frozenset(name for (name,) in found)


def lock(connection: sqlite3.Connection) -> None:
    """Closes a connection to everything but reading tables, with frozen clocks and bounds on what a value may hold."""
    connection.execute(f"PRAGMA hard_heap_limit={MAX_HEAP_BYTES}")
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute("PRAGMA query_only=ON")
    connection.text_factory = _as_text
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, MAX_PATTERN_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    _freeze_clocks(connection)
    _bound_formats(connection)
    connection.set_authorizer(_may)


def run(connection: sqlite3.Connection, query: str) -> Result:
    """What one query gives on a locked connection.

    Raises:
        QueryError: when it does not run, does more than read, or oversteps a bound.
        RecipeError: when another program has locked the database meanwhile.
    """
    checks, end = 0, monotonic() + MAX_SECONDS

    def is_over() -> bool:
        nonlocal checks
        checks += 1
        return checks * _STEPS_BETWEEN_CHECKS > MAX_STEPS or monotonic() > end

    connection.set_progress_handler(is_over, _STEPS_BETWEEN_CHECKS)
    try:
        with closing(connection.execute(query)) as cursor:
            return Result(_fetched(cursor), len(cursor.description or ()))
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise RecipeError(f"is locked. {ONCE_FREE}") from error
        why = f"takes more than {MAX_STEPS:,} steps" if "interrupted" in str(error) else str(error)
        raise QueryError(why) from error
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        raise QueryError(str(error)) from error
    except MemoryError as error:
        raise QueryError(f"takes more than {MAX_HEAP_BYTES // 1_000_000} MB of memory") from error
    finally:
        connection.set_progress_handler(None, 0)


def _fetched(cursor: sqlite3.Cursor) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    size = 0
    for row in cursor:
        size += sum(len(value) if isinstance(value, str | bytes) else 8 for value in row)
        if len(rows) == MAX_ROWS or size > MAX_RESULT_BYTES:
            raise QueryError(f"gives more than {MAX_ROWS:,} rows or {MAX_RESULT_BYTES // 1_000_000} MB")
        rows.append(row)
    return rows


def _may(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    """SQLite's authorizer: what a statement may do, asked as it is compiled."""
    is_catalogue = action == sqlite3.SQLITE_READ and (first or "").startswith("sqlite_")
    is_forbidden = action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FORBIDDEN
    return sqlite3.SQLITE_OK if action in _READING and not is_catalogue and not is_forbidden else sqlite3.SQLITE_DENY


def _freeze_clocks(connection: sqlite3.Connection) -> None:
    """Puts `NOW` in the place of the clock in SQLite's functions of date and time, which are else as they were."""
    clock = _plain_connection()

    def frozen(name: str) -> Callable[..., Any]:
        place = 1 if name == "strftime" else 0

        def call(*arguments: Any) -> Any:
            given = [*arguments, NOW] if len(arguments) == place else list(arguments)
            if isinstance(given[place], str) and given[place].strip().lower() == "now":
                given[place] = NOW
            return clock.execute(f"SELECT {name}({', '.join('?' * len(given))})", given).fetchone()[0]

        return call

    for name in _CLOCKS:
        connection.create_function(name, -1, frozen(name), deterministic=True)
    for name, function in _CURRENT.items():
        connection.create_function(name, 0, frozen(function), deterministic=True)


def _bound_formats(connection: sqlite3.Connection) -> None:
    """Has printf, which SQLite also calls format, refuse widths of thousands; it is else as it was."""
    plain = _plain_connection()

    def call(*arguments: Any) -> Any:
        if arguments and _WIDE.search(str(arguments[0])):
            raise ValueError("too wide")
        return plain.execute(f"SELECT printf({', '.join('?' * len(arguments))})", arguments).fetchone()[0]

    for name in ("printf", "format"):
        connection.create_function(name, -1, call, deterministic=True)


@lru_cache(1)
def _plain_connection() -> sqlite3.Connection:
    """One empty database for all, whose functions are SQLite's own."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    connection.text_factory = _as_text
    return connection


def _as_text(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")
