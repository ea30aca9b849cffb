"""What two queries give, compared: rows as often as they come, and in order only where the reference orders them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

from sqlglot import exp

from hf_finetune.sql.queries import syntax_tree
from hf_finetune.sql.sandbox import Result

DIGITS = 9
"""Significant digits of numbers that count: sums of floats differ in the last ones by the order of rows."""


@dataclass(frozen=True)
class Tied:
    """Rows that may come in any order; where a LIMIT cuts through them, any `wanted` of them will do."""

    rows: Counter[tuple[Any, ...]]
    wanted: int

    def holds(self, given: Sequence[tuple[Any, ...]]) -> bool:
        """Whether these are as many of the rows as are wanted."""
        return len(given) == self.wanted and Counter(given) <= self.rows


@dataclass(frozen=True)
class Wanted:
    """What a reference gives: one group of rows where it does not order them, else one for each sort key."""

    groups: tuple[Tied, ...]
    columns: int

    @property
    def says_something(self) -> bool:
        """Whether there is a value: no rows, or nulls alone, is what most wrong queries give too."""
        return any(value is not None for group in self.groups for row in group.rows for value in row)


@dataclass(frozen=True)
class Reference:
    """A gold query for SQLite."""

    query: str
    whole: str | None
    """The query without its LIMIT, with the sort keys that are no columns of its own as further columns; None where
    it cannot have them."""
    further: int
    """How many further columns there are."""
    places: tuple[int | None, ...]
    """Which of its columns each sort key is; None: a further one."""
    window: slice
    """Which rows of the whole it gives."""

    @classmethod
    def of(cls, query: str) -> "Reference":
        """The reference that a query is."""
        tree = syntax_tree(query)
        if tree is None or not (tree.args.get("order") or tree.args.get("limit")):
            return cls(query, query, 0, (), slice(None))
        keys = [ordered.this for ordered in tree.args["order"].expressions] if tree.args.get("order") else []
        places = tuple(_place(key, tree) for key in keys)
        further = [key.copy() for key, place in zip(keys, places, strict=True) if place is None]
        whole, window = tree.copy(), _window(tree)
        if window != slice(None):
            whole.set("limit", None)
            whole.set("offset", None)
        is_collated = any(key.find(exp.Collate) for key in keys)  # what sorts as equal is then not the same
        if is_collated or (further and (not isinstance(whole, exp.Select) or tree.args.get("distinct"))):
            return cls(query, None, 0, places, window)
        if isinstance(whole, exp.Select):
            whole = whole.select(*further)
        return cls(query, whole.sql(dialect="sqlite"), len(further), places, window)


def wanted(reference: Reference, own: Result, whole: Result | None) -> Wanted:
    """What a reference gives, where `own` is the result of its query, and `whole`, if it has one, that of its `whole`.

    The rows are taken as they lie where the whole cannot be had, or does not hold the query's own result.
    """
    if whole is not None and whole.columns - reference.further == own.columns:
        found = Wanted(tuple(_tied(reference, whole, own.columns)), own.columns)
        if is_wanted(own, found):
            return found
    rows = [_comparable(row) for row in own.rows]
    groups = (Counter([row]) for row in rows) if reference.places else [Counter(rows)]
    return Wanted(tuple(Tied(group, group.total()) for group in groups), own.columns)


def is_wanted(given: Result, wanted: Wanted) -> bool:
    """Whether a result has the wanted rows, in an order that is as good."""
    if given.columns != wanted.columns or len(given.rows) != sum(group.wanted for group in wanted.groups):
        return False
    rows = iter([_comparable(row) for row in given.rows])
    return all(group.holds(list(islice(rows, group.wanted))) for group in wanted.groups)


def _tied(reference: Reference, whole: Result, columns: int) -> Iterator[Tied]:
    """The rows of the whole in groups of one sort key, each with how many of them the query gives."""
    further = iter(range(columns, whole.columns))
    places = [next(further) if place is None else place for place in reference.places]
    rows = [_comparable(row) for row in whole.rows]
    chosen = range(len(rows))[reference.window]
    for _, group in groupby(enumerate(rows), key=lambda pair: [pair[1][place] for place in places]):
        own = list(group)
        count = sum(number in chosen for number, _ in own)
        if count:
            yield Tied(Counter(row[:columns] for _, row in own), count)


def _window(tree: exp.Query) -> slice:
    """The rows that LIMIT and OFFSET leave; all, where one of them is no plain number."""
    limit, offset = (_number(tree.args.get(clause)) for clause in ("limit", "offset"))
    return slice(None) if limit is None else slice(offset or 0, (offset or 0) + limit)


def _number(clause: exp.Expr | None) -> int | None:
    """The number that a LIMIT or OFFSET names."""
    number = None if clause is None else clause.expression
    return int(number.name) if isinstance(number, exp.Literal) and number.name.isdecimal() else None


def _place(key: exp.Expr, tree: exp.Expr) -> int | None:
    """Which column of the result a sort key is: by its number, its alias, or because it is the same expression."""
    if isinstance(key, exp.Literal) and key.name.isdecimal():
        return int(key.name) - 1
    selects = tree.selects if isinstance(tree, exp.Query) else []
    if any(one.is_star for one in selects):
        return None
    name = key.name.lower() if isinstance(key, exp.Column) and not key.table else None
    aliases = [place for place, one in enumerate(selects) if name is not None and one.alias_or_name.lower() == name]
    same = [place for place, one in enumerate(selects) if one.unalias() == key]
    return next(iter([*aliases, *same]), None)


def _comparable(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_rounded(value) if isinstance(value, float) else value for value in row)


def _rounded(value: float) -> float:
    """A number less its last digits; a whole one, as it may be the id that another query gives, less fewer."""
    near = float(f"{value:.15g}")
    return near if near.is_integer() else float(f"{value:.{DIGITS}g}")
