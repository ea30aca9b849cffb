"""A query of another dialect -> the same for SQLite: sqlglot, and what it leaves as it was."""

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


def to_sqlite(tree: exp.Query) -> str:
    """The tree as a SQLite query; what has no counterpart there stays as it is, and fails when it is run."""
    return tree.transform(_rewritten).sql(dialect="sqlite", comments=False)


def _rewritten(node: exp.Expr) -> exp.Expr:
    """Parts of dates and steps in time by SQLite's strftime and datetime; every other node as it is."""
    if isinstance(node, exp.Extract):
        return _part(node.name.upper(), node.expression) or node
    if isinstance(node, exp.Year | exp.Month | exp.Day):
        return (
            _part(type(node).__name__.upper(), node.this.this if isinstance(node.this, exp.TsOrDsToDate) else node.this)
            or node
        )
    if isinstance(node, exp.DateTrunc | exp.TimestampTrunc):
        form = _TRUNCATED.get(node.text("unit").upper())
        return _strftime(form, node.this) if form else node
    if isinstance(node, exp.Add | exp.Sub) and isinstance(node.expression, exp.Interval):
        return _moved(node.this, node.expression, "+" if isinstance(node, exp.Add) else "-") or node
    if isinstance(node, exp.DateAdd | exp.DateSub):
        step = exp.Interval(this=node.expression, unit=node.args.get("unit"))
        return _moved(node.this, step, "+" if isinstance(node, exp.DateAdd) else "-") or node
    return node


def _part(unit: str, date: exp.Expr) -> exp.Expr | None:
    form = _PARTS.get(unit)
    return exp.cast(_strftime(form, date), "INTEGER") if form else None


def _strftime(form: str, date: exp.Expr) -> exp.Expr:
    return exp.Anonymous(this="STRFTIME", expressions=[exp.Literal.string(form), date.copy()])


def _moved(date: exp.Expr, step: exp.Interval, sign: str) -> exp.Expr | None:
    """A date and a constant step as a call of `DATE` (for days, months and years) or `DATETIME`."""
    unit, count = step.text("unit").upper().rstrip("S"), step.this
    if not isinstance(count, exp.Literal) or not count.name.lstrip("-").isdigit() or not unit:
        return None
    number = int(count.name) * (_WEEK if unit == "WEEK" else 1)
    name = "DATE" if unit in ("WEEK", "DAY", "MONTH", "YEAR") else "DATETIME"
    moved = f"{sign}{number} {'day' if unit == 'WEEK' else unit.lower()}s"
    return exp.Anonymous(this=name, expressions=[date.copy(), exp.Literal.string(moved)])
