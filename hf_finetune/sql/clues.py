"""What gold queries say of the columns of a schema: what they are compared with, joined to and grouped by."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlglot import exp

from hf_finetune.sql.queries import syntax_tree
from hf_finetune.sql.schema import Table

Place = tuple[str, str]
"""A table and a column, in small letters."""


@dataclass(frozen=True)
class Comparison:
    """A column compared with constants: `=`, `!=`, `<`, `<=`, `>`, `>=`, `between`, `like` or `null`, or not so."""

    operator: str
    constants: tuple[str, ...]
    is_negated: bool = False

    def passes(self, value: Any) -> bool:
        """Whether a value passes, near enough: text and numbers as Python compares them."""
        return self._holds(value) != self.is_negated

    def _holds(self, value: Any) -> bool:
        if self.operator == "null" or value is None:
            return value is None and self.operator == "null"
        if self.operator == "like":
            return re.fullmatch(_as_pattern(self.constants[0]), str(value), re.IGNORECASE | re.DOTALL) is not None
        own = [_alike(value, constant) for constant in self.constants]
        return _HOLDS[self.operator](value, own)


_HOLDS: dict[str, Callable[[Any, list[Any]], bool]] = {
    "=": lambda value, own: value in own,
    "!=": lambda value, own: value not in own,
    "<": lambda value, own: bool(value < own[0]),
    "<=": lambda value, own: bool(value <= own[0]),
    ">": lambda value, own: bool(value > own[0]),
    ">=": lambda value, own: bool(value >= own[0]),
    "between": lambda value, own: bool(own[0] <= value <= own[1]),
}
_OPERATORS: dict[type[exp.Expr], str] = {
    exp.EQ: "=", exp.Is: "=", exp.NEQ: "!=", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=", exp.In: "=",
    exp.Between: "between", exp.Like: "like", exp.ILike: "like", exp.Glob: "like",
}  # fmt: skip
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass
class Clues:
    """What references say of the columns: what they are compared with, joined to, grouped and counted by."""

    comparisons: dict[Place, list[Comparison]] = field(default_factory=dict)
    joined: list[tuple[Place, Place]] = field(default_factory=list)
    grouped: set[Place] = field(default_factory=set)
    dates: set[Place] = field(default_factory=set)
    tables: set[str] = field(default_factory=set)
    largest_count: int = 2


def clues(queries: Iterable[str], tables: Sequence[Table]) -> Clues:
    """What SQLite queries say of the columns of the tables."""
    found = Clues()
    for query in queries:
        tree = syntax_tree(query)
        if tree is not None:
            _look_through(tree, tables, found)
    for table in tables:
        found.joined += [((table.name.lower(), own.lower()), (other.lower(), key.lower()))
                         for own, other, key in table.foreign_keys]  # fmt: skip
    return found


def _look_through(tree: exp.Query, tables: Sequence[Table], found: Clues) -> None:
    names = {table.alias_or_name.lower(): table.name.lower() for table in tree.find_all(exp.Table)}
    found.tables |= set(names.values())
    own = {table.name.lower(): {column.name.lower() for column in table.columns} for table in tables}

    def places(column: exp.Expr) -> list[Place]:
        inside = column.find(exp.Column)
        if inside is None:
            return []
        table, name = inside.table.lower(), inside.name.lower()
        among = [names[table]] if table in names else list(dict.fromkeys(names.values()))
        return [(one, name) for one in among if name in own.get(one, ())]

    for predicate in tree.find_all(exp.Predicate):
        _note_comparison(predicate, places, found)
    for case in tree.find_all(exp.Case):
        if case.this is not None:
            constants = [text for one in case.args["ifs"] if (text := _constant(one.this)) is not None]
            _note(places(case.this), Comparison("=", tuple(constants)), found)
    for column in tree.find_all(exp.Column):
        if isinstance(column.parent, exp.Connector | exp.Where | exp.Having | exp.If | exp.Not):
            _note(places(column), Comparison("=", ("1", "0")), found)
    for group in tree.find_all(exp.Group):
        found.grouped |= {place for one in group.expressions for place in places(one)}
    for call in tree.find_all(exp.Anonymous, exp.Date, exp.TimeToStr, exp.TsOrDsToTimestamp, exp.TsOrDsToDate):
        found.dates |= set(places(call))


def _note(places: Sequence[Place], comparison: Comparison, found: Clues) -> None:
    for place in places if comparison.constants else ():
        found.comparisons.setdefault(place, []).append(comparison)


def _note_comparison(node: exp.Expr, places: Callable[[exp.Expr], list[Place]], found: Clues) -> None:
    operator = _OPERATORS.get(type(node))
    left, right = node.this, node.args.get("expression")
    if operator is None or not isinstance(left, exp.Expr):
        return
    inner = node.args.get("query") or right
    if isinstance(inner, exp.Query) and inner.selects:
        found.joined += [(a, b) for a in places(left) for b in places(inner.selects[0])]
        return
    others = [right, *node.expressions, node.args.get("low"), node.args.get("high")]
    constants = [text for one in others if one is not None and (text := _constant(one)) is not None]
    if right is not None and not constants and _constant(left) is not None:
        left, constants, operator = right, [_constant(left) or ""], _MIRRORED.get(operator, operator)
    if isinstance(right, exp.Null):
        constants, operator = [""], "null"
    if constants and left.find(exp.Count):
        found.largest_count = max([found.largest_count, *(int(c) for c in constants if c.isdigit() and int(c) < 20)])
    elif constants:
        is_negated = isinstance(node.parent, exp.Not)
        _note(places(left), Comparison(operator, tuple(constants), is_negated), found)
    elif isinstance(node, exp.EQ) and right is not None:
        found.joined += [(a, b) for a in places(left) for b in places(right)]


def _constant(node: exp.Expr) -> str | None:
    """The text of a constant, also of one in small letters or with a sign."""
    if isinstance(node, exp.Neg):
        inner = _constant(node.this)
        return None if inner is None else f"-{inner}"
    if isinstance(node, exp.Lower | exp.Upper | exp.Paren | exp.Cast):
        return _constant(node.this)
    if isinstance(node, exp.Boolean):
        return str(int(node.this))
    return str(node.name) if isinstance(node, exp.Literal) else None


def _alike(value: Any, constant: str) -> Any:
    """A constant as something that a value can be compared with."""
    number = number_of(constant)
    if isinstance(value, str):
        return constant
    return number if number is not None else float("inf")


def _as_pattern(like: str) -> str:
    return "".join(".*" if sign == "%" else "." if sign == "_" else re.escape(sign) for sign in like)


def number_of(text: str) -> int | float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 else value
