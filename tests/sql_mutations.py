"""Queries changed in one place, by kind, to see whether the marking notices."""

import random
from collections.abc import Callable, Iterator, Sequence

import sqlglot
from sqlglot import exp

from hf_finetune.sql.queries import for_sqlite
from hf_finetune.sql.schema import Table

Mutation = Callable[[exp.Expr, Sequence[Table], random.Random], Iterator[exp.Expr]]

COMPARISONS = {exp.EQ: exp.NEQ, exp.NEQ: exp.EQ, exp.GT: exp.GTE, exp.GTE: exp.GT, exp.LT: exp.LTE, exp.LTE: exp.LT}
AGGREGATES: list[type[exp.Expr]] = [exp.Max, exp.Min, exp.Sum, exp.Avg, exp.Count]


def mutations(query: str, tables: Sequence[Table], seed: int = 0) -> Iterator[tuple[str, str]]:
    """The kind and the text of each changed query; for SQLite."""
    columns = {column.name.lower() for table in tables for column in table.columns}
    tree = sqlglot.parse_one(for_sqlite(query, columns), read="sqlite")
    original = tree.sql(dialect="sqlite")
    chance = random.Random(f"{seed} {query}")
    for kind, mutate in MUTATIONS.items():
        texts = {changed.sql(dialect="sqlite") for changed in mutate(tree, tables, chance)} - {original}
        yield from ((kind, text) for text in sorted(texts))


def _each(tree: exp.Expr, *kinds: type[exp.Expr]) -> Iterator[tuple[exp.Expr, exp.Expr]]:
    """A copy of the tree for each node of the kinds, and that node in the copy."""
    for number in range(len(list(tree.find_all(*kinds)))):
        copy = tree.copy()
        yield copy, list(copy.find_all(*kinds))[number]


def _constants(tree: exp.Expr, tables: Sequence[Table], chance: random.Random) -> Iterator[exp.Expr]:
    for copy, literal in _each(tree, exp.Literal):
        if literal.is_string:
            literal.replace(exp.Literal.string(f"{literal.name}x" if chance.random() < 0.5 else "something else"))
        elif literal.is_int:
            literal.replace(exp.Literal.number(int(literal.name) + 1))
        else:
            literal.replace(exp.Literal.number(float(literal.name) + 0.5))
        yield copy


def _columns(tree: exp.Expr, tables: Sequence[Table], chance: random.Random) -> Iterator[exp.Expr]:
    by_name = {table.name.lower(): [column.name for column in table.columns] for table in tables}
    for copy, column in _each(tree, exp.Column):
        names = {table.alias_or_name.lower(): table.name.lower() for table in copy.find_all(exp.Table)}
        own = names.get(column.text("table").lower()) or (next(iter(names.values())) if len(names) == 1 else "")
        others = [name for name in by_name.get(own, []) if name.lower() != column.name.lower()]
        if others:
            column.set("this", exp.to_identifier(chance.choice(others), quoted=True))
            yield copy


def _comparisons(tree: exp.Expr, tables: Sequence[Table], chance: random.Random) -> Iterator[exp.Expr]:
    for copy, node in _each(tree, *COMPARISONS):
        sides = node.this, node.args["expression"]
        if not all(isinstance(side, exp.Column) for side in sides):  # joins are another kind
            node.replace(COMPARISONS[type(node)](this=sides[0], expression=sides[1]))  # type: ignore[index]
            yield copy


def _joins(tree: exp.Expr, tables: Sequence[Table], chance: random.Random) -> Iterator[exp.Expr]:
    for copy, join in _each(tree, exp.Join):
        if join.args.get("on") is not None:
            join.set("on", exp.true())
            yield copy
    for copy, node in _each(tree, exp.EQ):
        if isinstance(node.this, exp.Column) and isinstance(node.args["expression"], exp.Column):
            node.replace(exp.true())
            yield copy


def _aggregates(tree: exp.Expr, tables: Sequence[Table], chance: random.Random) -> Iterator[exp.Expr]:
    for copy, node in _each(tree, *AGGREGATES):
        others = [kind for kind in AGGREGATES if not isinstance(node, kind)]
        if isinstance(node.this, exp.Star):
            continue
        inner = node.this.expressions[0] if isinstance(node.this, exp.Distinct) else node.this
        node.replace(chance.choice(others)(this=inner.copy()))
        yield copy


def _filters(tree: exp.Expr, tables: Sequence[Table], chance: random.Random) -> Iterator[exp.Expr]:
    for copy, node in _each(tree, exp.And):
        node.replace(node.this if chance.random() < 0.5 else node.args["expression"])
        yield copy
    for copy, node in _each(tree, exp.Where, exp.Having):
        node.pop()
        yield copy


def _orders(tree: exp.Expr, tables: Sequence[Table], chance: random.Random) -> Iterator[exp.Expr]:
    for copy, node in _each(tree, exp.Ordered):
        node.set("desc", not node.args.get("desc"))
        yield copy
    for copy, node in _each(tree, exp.Order):
        node.pop()
        yield copy


MUTATIONS: dict[str, Mutation] = {
    "constant": _constants,
    "column": _columns,
    "comparison": _comparisons,
    "join": _joins,
    "aggregate": _aggregates,
    "filter": _filters,
    "order": _orders,
}
