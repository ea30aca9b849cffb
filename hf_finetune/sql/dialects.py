"""A query of another dialect -> the same for SQLite: sqlglot, and what it leaves as it was."""

from collections.abc import Sequence
from functools import reduce

from sqlglot import exp

_PARTS = {
    "YEAR": "%Y",
    "MONTH": "%m",
    "DAY": "%d",
    "HOUR": "%H",
    "MINUTE": "%M",
    "SECOND": "%S",
    "DOW": "%w",
    "DOY": "%j",
}
_TRUNCATED = {"YEAR": "%Y-01-01", "MONTH": "%Y-%m-01", "DAY": "%Y-%m-%d"}
_WEEK = 7
_NOW = ("NOW", "SYSDATE", "GET_CURRENT_TIMESTAMP")
_PART_CALLS = ("DATE_PART", "DATEPART")


def to_sqlite(tree: exp.Query) -> str:
    """The tree as a SQLite query; what has no counterpart there stays as it is, and fails when it is run."""
    tree = tree.copy()
    for node in reversed(list(tree.bfs())):  # parts before what they are parts of
        other = _rewritten(node)
        if other is not node:
            node.replace(other)
    return tree.sql(dialect="sqlite", comments=False)


def _rewritten(node: exp.Expr) -> exp.Expr:
    """Parts of dates and steps in time by SQLite's strftime and datetime; every other node as it is."""
    if isinstance(node, exp.Table):
        node.set("db", None)
        node.set("catalog", None)
    if isinstance(node, exp.Extract):
        return _part(node.name.upper(), node.expression) or node
    if isinstance(node, exp.Year | exp.Month | exp.Day | exp.Hour | exp.Minute | exp.Second):
        date = node.this.this if isinstance(node.this, exp.TsOrDsToDate) else node.this
        return _part(type(node).__name__.upper(), date) or node
    if isinstance(node, exp.Anonymous | exp.Localtimestamp):
        return _called(node)
    if isinstance(node, exp.Concat) and node.args.get("coalesce"):
        return _joined(node.expressions)
    if isinstance(node, exp.Left):
        return exp.Substring(this=node.this.copy(), start=exp.Literal.number(1), length=node.expression.copy())
    if isinstance(node, exp.DateTrunc | exp.TimestampTrunc):
        form = _TRUNCATED.get(node.text("unit").upper())
        return _strftime(form, node.this) if form else node
    if isinstance(node, exp.Add | exp.Sub) and isinstance(node.expression, exp.Interval):
        return _moved(node.this, node.expression, 1 if isinstance(node, exp.Add) else -1) or node
    if isinstance(node, exp.Add) and isinstance(node.this, exp.Interval):
        return _moved(node.expression, node.this, 1) or node
    if isinstance(node, exp.DateAdd | exp.DateSub):
        step = exp.Interval(this=node.expression, unit=node.args.get("unit"))
        return _moved(node.this, step, 1 if isinstance(node, exp.DateAdd) else -1) or node
    return node


def _called(node: exp.Expr) -> exp.Expr:
    """`NOW()` and `DATE_PART('year', date)`, which sqlglot leaves as they are."""
    name, arguments = node.name.upper(), node.expressions
    if isinstance(node, exp.Localtimestamp) or (name in _NOW and not arguments):
        return exp.CurrentTimestamp()
    if name in _PART_CALLS and len(arguments) == 2:
        return _part(arguments[0].name.upper(), arguments[1]) or node
    return node


def _joined(parts: Sequence[exp.Expr]) -> exp.Expr:
    """`CONCAT` where a null is an empty text; SQLite has it since 3.44 alone."""
    texts: list[exp.Expr] = [exp.Coalesce(this=part.copy(), expressions=[exp.Literal.string("")]) for part in parts]
    return exp.Paren(this=reduce(lambda left, right: exp.DPipe(this=left, expression=right), texts))


def _part(unit: str, date: exp.Expr) -> exp.Expr | None:
    form = _PARTS.get(unit)
    return exp.cast(_strftime(form, date), "INTEGER") if form else None


def _strftime(form: str, date: exp.Expr) -> exp.Expr:
    return exp.Anonymous(this="STRFTIME", expressions=[exp.Literal.string(form), date.copy()])


def _moved(date: exp.Expr, step: exp.Interval, sign: int) -> exp.Expr | None:
    """A date and a constant step as a call of `DATE` (for days, months and years) or `DATETIME`."""
    unit, count = step.text("unit").upper().rstrip("S"), step.this
    if not isinstance(count, exp.Literal) or not count.name.lstrip("-").isdigit() or not unit:
        return None
    number = sign * int(count.name) * (_WEEK if unit == "WEEK" else 1)
    name = "DATE" if unit in ("WEEK", "DAY", "MONTH", "YEAR") else "DATETIME"
    moved = f"{number:+} {'day' if unit == 'WEEK' else unit.lower()}s"
    return exp.Anonymous(this=name, expressions=[date.copy(), exp.Literal.string(moved)])
