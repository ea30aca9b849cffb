"""Tables filled with rows for a query: some that it picks, some that it just misses, and others by chance.

An empty table makes every query right. Rows that draw on the constants of the reference tell it from a query with
another constant, column, comparison or join (Zhong et al. 2020, "Semantic Evaluation for Text-to-SQL with Distilled
Test Suites", fills tables for the same reason).
"""

import random
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from hf_finetune.errors import RecipeError
from hf_finetune.sql.clues import Clues, Comparison, Place, number_of
from hf_finetune.sql.sandbox import NOW, connect
from hf_finetune.sql.schema import Column, Table, quoted

MOST_ROWS = 120
OTHER_ROWS = 6
"""Of a table that the references do not name."""
ANY_ROWS = (4, 24)
"""How many rows have any values: from the first to below the second."""
MEETING = (0.2, 0.6, 0.9)
KEYS = 6
"""Values that joined columns without a unique one among them share."""

NOW_IN_SECONDS = int(datetime.fromisoformat(NOW).replace(tzinfo=UTC).timestamp())

Changed = dict[int, Any]
"""Values by the column's number."""


@dataclass
class Pool:
    """Values for one column, or for several that are joined."""

    passing: list[Any]
    """That pass all the comparisons, or as many as a value can."""
    failing: list[Any]
    near: list[Any]
    """The constants that the column is compared with, and values next to them."""
    meeting: float
    """How often rows have one of the first values, so that joined ones meet; 0 where nothing is joined."""


def fill(tables: Sequence[Table], found: Clues, seed: int) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """Two databases in memory with the same rows for the clues, which lie the other way round in the second.

    They are the same for the same seed.

    Raises:
        RecipeError: when SQLite does not take a table.
    """
    chance = random.Random(seed)
    pools = _pools(tables, found, chance)
    rows = [_rows(table, found, pools, chance) for table in tables]
    return _database(tables, rows), _database(tables, [own[::-1] for own in rows])


def _database(tables: Sequence[Table], rows: Sequence[list[tuple[Any, ...]]]) -> sqlite3.Connection:
    connection = connect()
    for table, own in zip(tables, rows, strict=True):
        try:
            connection.execute(table.statement)
        except sqlite3.Error as error:
            connection.close()
            raise RecipeError(f"schema: table {table.name} cannot be made ({error}). Mend its columns.") from error
        marks = ", ".join("?" * len(table.columns))
        connection.executemany(f"INSERT OR IGNORE INTO {quoted(table.name)} VALUES ({marks})", own)
    connection.commit()
    return connection


def _pools(tables: Sequence[Table], found: Clues, chance: random.Random) -> dict[Place, Pool]:
    """The pool of each column; joined columns have one together."""
    columns = {(table.name.lower(), one.name.lower()): (table, one) for table in tables for one in table.columns}
    parent = {place: place for place in columns}

    def root(place: Place) -> Place:
        while parent[place] != place:
            place = parent[place]
        return place

    for a, b in found.joined:
        if a in parent and b in parent:
            parent[root(a)] = root(b)
    together: dict[Place, list[Place]] = {}
    for place in columns:
        together.setdefault(root(place), []).append(place)
    pools = {}
    for places in together.values():
        pool = _pool(places, columns, found, chance)
        pools.update(dict.fromkeys(places, pool))
    return pools


def _pool(places: list[Place], columns: dict[Place, tuple[Table, Column]], found: Clues, chance: random.Random) -> Pool:
    own = [columns[place][1] for place in places]
    comparisons = [one for place in places for one in found.comparisons.get(place, ())]
    kind = own[0].kind
    if any(place in found.dates for place in places):
        kind = "seconds" if kind == "integer" else "date"
    unique = any(_is_unique(*columns[place]) for place in places)
    is_grouped = any(place in found.grouped for place in places)
    is_key = len(places) > 1
    many = MOST_ROWS if unique else 5 if is_grouped else KEYS if is_key else 12
    name = own[0].name.lower()
    near = [value for value in dict.fromkeys(_around(comparisons, kind)) if value is not None or not unique]
    values = list(dict.fromkeys([*near, *_plain(kind, name, many, chance)]))
    passed = [sum(one.passes(value) for one in comparisons) for value in values]
    best = max(passed, default=0)
    passing = [value for value, count in zip(values, passed, strict=True) if count == best]
    near = [value for value in near if passing != [value]]  # there are rows with it: a query may need just one
    failing = [value for value, count in zip(values, passed, strict=True) if count < best]
    return Pool(passing, failing, near, chance.choice(MEETING) if is_key else 0.0)


def _rows(table: Table, found: Clues, pools: dict[Place, Pool], chance: random.Random) -> list[tuple[Any, ...]]:
    """Rows that pass all comparisons, rows that pass all but perhaps one, which has a value near it, and any rows."""
    own = [pools[table.name.lower(), column.name.lower()] for column in table.columns]
    if table.name.lower() not in found.tables:
        return [_row(table, own, number, None, chance) for number in range(OTHER_ROWS)]
    passing: list[Changed | None] = [{}] * chance.randrange(1, 5 + 2 * found.largest_count)
    near: list[Changed | None] = [{place: value} for place, pool in enumerate(own) for value in pool.near]
    anything: list[Changed | None] = [None] * chance.randrange(*ANY_ROWS)
    changes = [*passing, *chance.sample(near, len(near)), *anything][:MOST_ROWS]
    rows = [_row(table, own, number, changed, chance) for number, changed in enumerate(changes)]
    return chance.sample(rows, len(rows))


def _row(
    table: Table, pools: Sequence[Pool], number: int, changed: Changed | None, chance: random.Random
) -> tuple[Any, ...]:
    """A row that passes all comparisons but where a value is `changed`; with None, one of any values."""
    values = []
    for place, (column, pool) in enumerate(zip(table.columns, pools, strict=True)):
        every = [*pool.passing, *pool.failing]
        if _is_unique(table, column):
            values.append(every[number % len(every)])
        elif changed is not None and place in changed:
            values.append(changed[place])
        else:
            values.append(_drawn(every if changed is None else pool.passing, pool.meeting, chance))
    return tuple(values)


def _drawn(values: Sequence[Any], meeting: float, chance: random.Random) -> Any:
    """One of the values; with the probability `meeting` one of the first, so that rows of joined tables meet."""
    return chance.choice(values[:4] if chance.random() < meeting else values[:30])


def _is_unique(table: Table, column: Column) -> bool:
    """Whether a column is declared unique, or is called as keys are: `id`, or `city_id` in the table of cities."""
    name, own = column.name.lower(), table.name.lower()
    stem = name.removesuffix("id").rstrip("_")
    return column.is_unique or (name.endswith("id") and (not stem or own in (stem, f"{stem}s", f"{stem}es")))


def _around(comparisons: Sequence[Comparison], kind: str) -> list[Any]:
    """The constants of comparisons, and values next to them on both sides."""
    near: list[Any] = []
    for comparison in comparisons:
        for constant in comparison.constants:
            near += _near(constant, comparison.operator, kind)
        if len(comparison.constants) == 2 and comparison.operator == "between":
            near += _between(*comparison.constants)
    alike = [one.constants[0].strip("%") for one in comparisons if one.operator == "like"]
    near += [" ".join(alike)] if len(alike) > 1 else []
    return near


def _near(constant: str, operator: str, kind: str) -> list[Any]:
    if operator == "null":
        return [None]
    if operator == "like":
        core = constant.replace("_", "a")
        return [core.replace("%", ""), core.replace("%", "xy "), core.strip("%") + " other", "an" + core.strip("%"),
                "other " + core.strip("%")[:-1]]  # fmt: skip
    number = number_of(constant)
    if number is not None and kind == "boolean":
        return [number]
    if number is not None:
        step = [number, number + 1, number - 1, number * 2, *([number + 0.5, number - 0.5] if kind == "real" else [])]
        return [str(one) for one in step] if kind == "text" else step
    day = _day(constant)
    if day is not None:
        return [constant, *(str(day + timedelta(days=days)) + constant[10:] for days in (-1, 1, -31, 31, -366, 366))]
    return [constant, constant + " II", constant.swapcase(), constant[:-1]]


def _between(low: str, high: str) -> list[Any]:
    ends = number_of(low), number_of(high)
    if ends[0] is not None and ends[1] is not None:
        return [(ends[0] + ends[1]) // 2]
    days = _day(low), _day(high)
    return [str(days[0] + (days[1] - days[0]) / 2)] if days[0] and days[1] else []


def _plain(kind: str, name: str, count: int, chance: random.Random) -> list[Any]:
    """Values of a kind, which hardly another column has."""
    start = chance.randrange(3, 400)
    if kind == "boolean":
        return [0, 1]
    if kind == "integer":
        return chance.sample(range(start, start + 4 * count), count)
    if kind == "real":
        return [round(value / 8, 3) for value in chance.sample(range(8 * start, 8 * start + 40 * count), count)]
    if kind == "seconds":  # since 1970
        return [NOW_IN_SECONDS - 3600 * hours for hours in chance.sample(range(30_000 + 2 * count), count)]
    if kind == "date":
        newest = date.fromisoformat(NOW[:10])
        return [str(newest - timedelta(days=days)) for days in chance.sample(range(1500 + 2 * count), count)]
    return [f"{name} {number}" for number in chance.sample(range(10, 100 + 2 * count), count)]


def _day(text: str) -> date | None:
    try:
        day = date.fromisoformat(text[:10])
    except ValueError:
        return None
    return day if 1900 < day.year < 2900 else None
