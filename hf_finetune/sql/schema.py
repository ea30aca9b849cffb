"""CREATE TABLE statements of any dialect -> tables and their columns."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from hf_finetune.errors import RecipeError, first_line
from hf_finetune.sql.queries import Dialect

_TYPE = re.compile(r"(\w[\w ]*(\(\d+(, ?\d+)?\))?)?")
"""The types that SQLite can parse."""


@dataclass(frozen=True)
class Column:
    """A column of a table; `kind` is what its values are: `boolean`, `integer`, `real`, `date` or `text`."""

    name: str
    declared: str
    """Its type as SQLite is given it, which decides how it compares."""
    kind: str
    is_unique: bool = False


@dataclass(frozen=True)
class Table:
    """A table with its columns, and where its foreign keys point: own column, other table, other column."""

    name: str
    columns: tuple[Column, ...]
    foreign_keys: tuple[tuple[str, str, str], ...] = ()

    @property
    def statement(self) -> str:
        """Its CREATE TABLE statement for SQLite, with no constraint but uniqueness."""
        parts = [f"{quoted(own.name)} {own.declared}{' UNIQUE' if own.is_unique else ''}" for own in self.columns]
        return f"CREATE TABLE {quoted(self.name)} ({', '.join(parts)})"


def quoted(name: str) -> str:
    """A name as SQLite reads it, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def read_schema(text: str, dialect: Dialect = "sqlite") -> tuple[Table, ...]:
    """The tables of a schema.

    Raises:
        RecipeError: when it holds no table or cannot be parsed, or a name stands in it twice.
    """
    try:
        statements = sqlglot.parse(text, read=dialect)
    except (SqlglotError, RecursionError) as error:
        raise RecipeError(
            f"schema: is not {dialect} ({first_line(error)}). Write it as CREATE TABLE statements."
        ) from error
    tables = [_table(one) for one in statements if isinstance(one, exp.Create) and isinstance(one.this, exp.Schema)]
    if not tables:
        raise RecipeError("schema: holds no CREATE TABLE statement with columns. Write one for each table.")
    _refuse_twice([table.name for table in tables], "table")
    for table in tables:
        _refuse_twice([column.name for column in table.columns], f"column in table {table.name}")
    return tuple(tables)


def _refuse_twice(names: Sequence[str], what: str) -> None:
    folded = [name.lower() for name in names]
    twice = next((name for name in names if folded.count(name.lower()) > 1), None)
    if twice is not None:
        raise RecipeError(f"schema: has {twice!r} twice as a {what}. Leave one out.")


def _table(statement: exp.Create) -> Table:
    schema = statement.this
    untyped = [exp.ColumnDef(this=part) if isinstance(part, exp.Identifier) else part for part in schema.expressions]
    definitions = [part for part in untyped if isinstance(part, exp.ColumnDef)]
    alone = {key.lower() for part in schema.expressions for key in _unique_alone(part)}
    keys = [key for part in schema.expressions for key in _foreign_keys(part)]
    return Table(schema.this.name, tuple(_column(one, alone) for one in definitions), tuple(keys))


def _column(definition: exp.ColumnDef, unique: set[str]) -> Column:
    own = {type(constraint.kind) for constraint in definition.constraints}
    is_unique = bool(own & {exp.PrimaryKeyColumnConstraint, exp.UniqueColumnConstraint})
    kind = _kind(definition)
    declared = definition.kind.sql(dialect="sqlite") if definition.kind else ""
    declared = declared if _TYPE.fullmatch(declared) else "TEXT"  # arrays, enums and the like
    return Column(definition.name, declared, kind, is_unique or definition.name.lower() in unique)


def _kind(definition: exp.ColumnDef) -> str:
    """What the values of a column are, from its declared type; a text may hold dates, which its name then says."""
    declared = definition.kind
    if declared is None or declared.is_type(*exp.DataType.TEXT_TYPES, exp.DataType.Type.USERDEFINED):
        return "text"
    if declared.is_type(exp.DataType.Type.BOOLEAN):
        return "boolean"
    if declared.is_type(*exp.DataType.INTEGER_TYPES, exp.DataType.Type.SERIAL):
        return "integer"
    if declared.is_type(*exp.DataType.NUMERIC_TYPES):
        return "real"
    return "date" if declared.is_type(*exp.DataType.TEMPORAL_TYPES) else "text"


def _unique_alone(part: exp.Expr) -> list[str]:
    """The column that a constraint of the table says is unique by itself."""
    inner = part.expressions[0] if isinstance(part, exp.Constraint) and part.expressions else part
    if isinstance(inner, exp.PrimaryKey):
        names = [one.name for one in inner.expressions]
    elif isinstance(inner, exp.UniqueColumnConstraint) and isinstance(inner.this, exp.Schema):
        names = [one.name for one in inner.this.expressions]
    else:
        return []
    return names if len(names) == 1 else []


def _foreign_keys(part: exp.Expr) -> list[tuple[str, str, str]]:
    """Own column, other table and other column of each foreign key that a part of a table declares."""
    if isinstance(part, exp.ColumnDef):
        references = [c.kind for c in part.constraints if isinstance(c.kind, exp.Reference)]
        return [key for reference in references for key in _pointing([part.name], reference)]
    inner = part.expressions[0] if isinstance(part, exp.Constraint) and part.expressions else part
    if not isinstance(inner, exp.ForeignKey):
        return []
    return _pointing([one.name for one in inner.expressions], inner.args.get("reference"))


def _pointing(own: Sequence[str], reference: exp.Expr | None) -> list[tuple[str, str, str]]:
    target = reference.this if reference is not None else None
    if not isinstance(target, exp.Schema):
        return []
    others = [one.name for one in target.expressions]
    return [(name, target.this.name, other) for name, other in zip(own, others, strict=False)]
