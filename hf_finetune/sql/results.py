"""What two queries give, compared: rows as often as they come, and in order only where the reference orders them."""

from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlglot import exp

from hf_finetune.sql.queries import syntax_tree
from hf_finetune.sql.sandbox import Result

DIGITS = 9
"""Significant digits of numbers that count: sums of floats differ in the last ones by the order of rows."""


@dataclass(frozen=True)
class Wanted:
    """What a reference gives, in groups whose rows may come in any order: all in one, or one for each sort key."""

    groups: tuple[Counter[tuple[Any, ...]], ...]
    columns: int

    @property
    def says_something(self) -> bool:
        """Whether there is a value: no rows, or nulls alone, is what most wrong queries give too."""
        return any(value is not None for group in self.groups for row in group for value in row)


@dataclass(frozen=True)
class Reference:
    """A gold query for SQLite."""

    query: str
    with_keys: str | None
    """The query with its sort keys as further columns; None where it sorts by its own columns alone, or by nothing."""
    sort_keys: tuple[exp.Expr, ...]
    places: tuple[int | None, ...]
    """Which of its columns each sort key is; None: a further one."""

    @classmethod
    def of(cls, query: str) -> "Reference":
        """The reference that a query is."""
        tree = syntax_tree(query)
        if tree is None or not tree.args.get("order"):
            return cls(query, None, (), ())
        keys = tuple(ordered.this for ordered in tree.args["order"].expressions)
        places = tuple(_place(key, tree) for key in keys)
        further = [key.copy() for key, place in zip(keys, places, strict=True) if place is None]
        can_have_more = isinstance(tree, exp.Select) and not tree.args.get("distinct")
        with_keys = tree.copy().select(*further).sql(dialect="sqlite") if further and can_have_more else None
        return cls(query, with_keys, keys, places)


def wanted(reference: Reference, result: Result, with_keys: Result | None) -> Wanted:
    """What a reference gives, where `with_keys` is the result of its query of that name, if it has one."""
    rows = [_comparable(row) for row in result.rows]
    if not reference.sort_keys:
        return Wanted((Counter(rows),), result.columns)
    keys = _keys(reference, result, with_keys)
    groups = groupby(zip(keys, rows, strict=True), key=lambda pair: pair[0])
    return Wanted(tuple(Counter(row for _, row in own) for _, own in groups), result.columns)


def is_wanted(given: Result, wanted: Wanted) -> bool:
    """Whether a result has the wanted rows, in an order that is as good."""
    if given.columns != wanted.columns or len(given.rows) != sum(group.total() for group in wanted.groups):
        return False
    rows, start = [_comparable(row) for row in given.rows], 0
    for group in wanted.groups:
        if Counter(rows[start : start + group.total()]) != group:
            return False
        start += group.total()
    return True


def _keys(reference: Reference, result: Result, with_keys: Result | None) -> list[tuple[Any, ...]]:
    """The sort key of each row; its number, which no other row has, where the keys cannot be seen."""
    further = iter(range(result.columns, result.columns + len(reference.places)))
    places = [next(further) if place is None else place for place in reference.places]
    rows = result.rows if with_keys is None else with_keys.rows
    if len(rows) != len(result.rows) or any(place >= len(row) for row in rows[:1] for place in places):
        return [(number,) for number in range(len(result.rows))]
    return [_comparable(tuple(row[place] for place in places)) for row in rows]


def _place(key: exp.Expr, tree: exp.Expr) -> int | None:
    """Which column of the result a sort key is: by its number, its alias, or because it is the same expression."""
    if isinstance(key, exp.Literal) and not key.is_string:
        return int(key.name) - 1
    selects = tree.selects if isinstance(tree, exp.Query) else []
    if any(one.is_star for one in selects):
        return None
    name = key.name.lower() if isinstance(key, exp.Column) and not key.table else None
    for place, one in enumerate(selects):
        if one.unalias() == key or (name is not None and one.alias_or_name.lower() == name):
            return place
    return None


def _comparable(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_rounded(value) if isinstance(value, float) else value for value in row)


def _rounded(value: float) -> float:
    """A number less its last digits; a whole one, as it may be the id that another query gives, less fewer."""
    near = float(f"{value:.15g}")
    return near if near.is_integer() else float(f"{value:.{DIGITS}g}")
