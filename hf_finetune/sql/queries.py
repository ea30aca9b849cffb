"""The text of a query: what an answer says, its template and kinds, and the same query for SQLite.

Parsed by sqlglot; nothing is executed here.
"""

import logging
import re
from collections.abc import Iterator, Set
from functools import lru_cache
from typing import Any, Literal, get_args

import sqlglot
from sqlglot import exp

from hf_finetune.sql.dialects import to_sqlite

Dialect = Literal["sqlite", "postgres", "mysql", "duckdb"]

REFUSAL = "The database cannot answer this question."
"""The answer to a question that the schema cannot answer; a query that reads no table and gives a text alone is one."""
KINDS = ("filter", "join", "group", "order", "nested")

_FENCED = re.compile(r"```(?:\w*\s*\n|sql(?:ite)?\b)?(.*?)(?:```|\Z)", re.DOTALL)
LONGEST = 20_000
"""Characters of a query; what is longer is not read."""

DEEPEST = 120
"""Nodes below each other in a query's tree; deeper ones cannot be walked through."""
MOST_TYPE_CALLS = 8
"""Calls of `DATE`, `DATETIME` and the like inside each other."""

_PARSED = 4096
"""Queries whose syntax trees are kept: each is looked at several times."""

logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it warns of each statement that it does not know


def read_query(text: str) -> str | None:
    """The one query that an answer holds, in a code block or not, without its semicolon; `REFUSAL` for a refusal.

    None where there is none: other words, two statements, one that is no query of any dialect. It may still not run.
    """
    if _refuses(text):
        return REFUSAL
    fenced = _FENCED.search(text)
    readings = (split_queries(fenced[1] if fenced else text, dialect) for dialect in get_args(Dialect))
    queries = next((found for found in readings if found), ())
    if len(queries) != 1:
        return None
    return REFUSAL if is_refusal(queries[0]) else queries[0]


def accepted_queries(answer: str, dialect: Dialect = "sqlite") -> tuple[str, ...]:
    """The queries of a gold answer, parted by semicolons; each is right. What cannot be parsed stays one text."""
    if _refuses(answer):
        return (REFUSAL,)
    queries = split_queries(answer, dialect) or (answer.strip().rstrip(";").rstrip(),)
    return tuple(REFUSAL if is_refusal(query, dialect) else query for query in queries)


def _refuses(text: str) -> bool:
    return REFUSAL.rstrip(".").lower() in text.lower()


@lru_cache(_PARSED)
def split_queries(text: str, dialect: Dialect) -> tuple[str, ...] | None:
    """The queries of a text as they are written; None where something in it is no query, or it is too long."""
    if len(text) > LONGEST:
        return None
    tokens = _tokens(text, dialect)
    ends = [token.start for token in tokens if token.token_type == sqlglot.TokenType.SEMICOLON]
    parts = [text[a:b].strip() for a, b in zip([0, *(end + 1 for end in ends)], [*ends, len(text)], strict=True)]
    written = [part for part in parts if _tokens(part, dialect)]
    return tuple(written) if written and all(syntax_tree(part, dialect) is not None for part in written) else None


@lru_cache(_PARSED)
def syntax_tree(query: str, dialect: Dialect = "sqlite") -> exp.Query | None:
    """The tree of one query, which nobody may change; None where it is no query."""
    try:
        trees = sqlglot.parse(query, read=dialect) if _can_be_parsed(query, dialect) else []
    except Exception:  # noqa: BLE001  # of words cut off, sqlglot makes errors of any kind
        return None
    tree = trees[0] if len(trees) == 1 else None
    return tree if isinstance(tree, exp.Query) and _depth(tree) <= DEEPEST else None


def _can_be_parsed(query: str, dialect: Dialect) -> bool:
    """Whether sqlglot comes to an end: calls of `DATE` and other types inside each other take it twice as long each."""
    if len(query) > LONGEST:
        return False
    brackets: list[bool] = []
    before = None
    for token in _tokens(query, dialect):
        if token.token_type == sqlglot.TokenType.L_PAREN:
            brackets.append(before is not None and before.token_type in sqlglot.Parser.TYPE_TOKENS)
        elif token.token_type == sqlglot.TokenType.R_PAREN and brackets:
            brackets.pop()
        if sum(brackets) > MOST_TYPE_CALLS:
            return False
        before = token
    return True


def _depth(tree: exp.Expr) -> int:
    """How many nodes lie below each other."""
    depth, level = 0, [tree]
    while level and depth <= DEEPEST:
        depth, level = depth + 1, [part for node in level for part in node.iter_expressions()]
    return depth


def parsed(query: str, dialect: Dialect = "sqlite") -> exp.Query | None:
    """The query's syntax tree, of the caller's own; None where it is no query."""
    tree = syntax_tree(query, dialect)
    return None if tree is None else tree.copy()


def is_refusal(query: str, dialect: Dialect = "sqlite") -> bool:
    """Whether a query reads no table and gives one text: `SELECT 'I do not know' AS answer`."""
    tree = syntax_tree(query, dialect)
    if not isinstance(tree, exp.Select) or tree.find(exp.Table) or len(tree.expressions) != 1:
        return False
    return bool(tree.expressions[0].unalias().is_string)


def kinds(query: str, dialect: Dialect = "sqlite") -> set[str]:
    """Which of `KINDS` a query is; none for the plainest."""
    tree = syntax_tree(query, dialect)
    if tree is None:
        return set()
    found = {
        "filter": tree.find(exp.Where) is not None,
        "join": tree.find(exp.Join) is not None,
        "group": tree.find(exp.Group) is not None,
        "order": tree.find(exp.Order) is not None,
        "nested": sum(1 for _ in tree.find_all(exp.Select)) > 1,
    }
    return {kind for kind in KINDS if found[kind]}


def template(answer: str, dialect: Dialect = "sqlite") -> str | None:
    """The first accepted query with its constants left out, and aliases, case and spacing made one; None: a refusal.

    What rows are split by: the same query about another city is no new one (Finegan-Dollak et al. 2018, "Improving
    Text-to-SQL Evaluation Methodology", section 3).
    """
    query = accepted_queries(answer, dialect)[0]
    if query == REFUSAL:
        return None
    tree = parsed(query, dialect)
    if tree is None:
        return re.sub(r"\s+", " ", re.sub(r"'[^']*'|\"[^\"]*\"|\b\d+(\.\d+)?\b", "?", query)).strip().lower()
    for constant in [*tree.find_all(exp.Literal), *(_quoted_values(tree) if dialect == "sqlite" else ())]:
        constant.replace(exp.Placeholder())
    return _normalised_tree(tree, dialect)


def normalised(query: str, dialect: Dialect = "sqlite") -> str:
    """The query with aliases, case, quotes and spacing made one, for exact match; itself where it cannot be parsed."""
    tree = parsed(query, dialect)
    if tree is None:
        return " ".join(query.split())
    for column in list(_quoted_values(tree)) if dialect == "sqlite" else ():
        column.replace(exp.Literal.string(column.name))
    return _normalised_tree(tree, dialect)


def _normalised_tree(tree: exp.Query, dialect: Dialect) -> str:
    """A tree as text: tables called t1, t2 ... by their places, names of columns in small letters and unquoted."""
    names: dict[str, str] = {}
    for table in tree.find_all(exp.Table):
        own = table.alias_or_name.lower()
        names.setdefault(own, f"t{len(names) + 1}")
        table.set("alias", exp.TableAlias(this=exp.to_identifier(names[own])))
    for column in tree.find_all(exp.Column):
        if column.table.lower() in names:
            column.set("table", exp.to_identifier(names[column.table.lower()]))
    for identifier in tree.find_all(exp.Identifier):
        identifier.set("this", identifier.name.lower())
        identifier.set("quoted", False)
    return tree.sql(dialect=dialect, comments=False)


def for_sqlite(query: str, columns: Set[str], dialect: Dialect = "sqlite", texts: Set[str] = frozenset()) -> str:
    """The query as SQLite must be given it, where `columns` are the names that the schema has, in small letters.

    SQLite takes a name in double quotes that it does not know for a text, so that an invented column seems to run.
    Here it stays a text only where it is compared with a column that there is, or is one of the `texts`, which the gold
    query has as such; everywhere else it must be a name.

    Raises:
        ValueError: when it is no query of the dialect.
    """
    if dialect != "sqlite":
        tree = parsed(query, dialect)
        if tree is None:
            raise ValueError(f"it is no {dialect} query")
        query = to_sqlite(tree)
    own = syntax_tree(query, "sqlite")
    if own is None:
        raise ValueError("it is no query")
    names = columns | _names_given(own)
    values: set[int] = set()
    if dialect == "sqlite":
        values = {id(column.this) for column in _quoted_values(own, names)}
        values |= {id(column.this) for column in _unknown(own, names) if column.name in texts}
    for identifier in sorted(own.find_all(exp.Identifier), key=_start, reverse=True):
        start = _start(identifier)
        if start >= 0 and query[start] == '"':
            end = int(identifier.meta["end"]) + 1
            query = query[:start] + _quoted(identifier, id(identifier) in values) + query[end:]
    return query


def quoted_texts(query: str, columns: Set[str]) -> set[str]:
    """Words in double quotes that a gold query gives to functions and cases as texts, which SQLite lets it do."""
    tree = syntax_tree(query)
    if tree is None:
        return set()
    unknown = _unknown(tree, columns | _names_given(tree))
    return {one.name for one in unknown if isinstance(one.parent, exp.Func | exp.DPipe) and one.arg_key != "this"}


def _unknown(tree: exp.Query, names: Set[str]) -> Iterator[exp.Column]:
    """Columns in double quotes, of no table, that are none of the names."""
    for column in tree.find_all(exp.Column):
        is_quoted = isinstance(column.this, exp.Identifier) and column.this.quoted and not column.table
        if is_quoted and column.name.lower() not in names:
            yield column


def _start(identifier: exp.Identifier) -> int:
    """Where it stands in the text; -1 for one that does not."""
    return int(identifier.meta.get("start", -1))


def _quoted(identifier: exp.Identifier, is_value: bool) -> str:
    name = identifier.name
    if is_value:
        return "'" + name.replace("'", "''") + "'"
    return f"[{name}]" if "]" not in name else '"' + name.replace('"', '""') + '"'  # a bracket cannot be escaped


def _names_given(tree: exp.Query) -> set[str]:
    """Names that a query itself gives to columns, in small letters."""
    given = {alias.alias.lower() for alias in tree.find_all(exp.Alias)}
    return given | {
        name.name.lower() for alias in tree.find_all(exp.TableAlias) for name in alias.args.get("columns") or ()
    }


def _quoted_values(tree: exp.Query, names: Set[str] | None = None) -> Iterator[exp.Column]:
    """Words in double quotes that are compared with a column, and are none of the known names themselves."""
    for column in tree.find_all(exp.Column):
        if not isinstance(column.this, exp.Identifier) or not column.this.quoted or column.table:
            continue
        if names is not None and column.name.lower() in names:
            continue
        if any(_is_name(other, names) for other in _compared_with(column)):
            yield column


def _compared_with(column: exp.Column) -> list[exp.Column]:
    """The columns on the other sides of the comparison that a column stands in, less those of a query inside it."""
    side: exp.Expr = column
    while isinstance(side.parent, exp.Lower | exp.Upper | exp.Trim | exp.Paren):
        side = side.parent
    if not isinstance(side.parent, exp.Predicate):
        return []
    others = [
        column for other in side.parent.iter_expressions() if other is not side for column in other.find_all(exp.Column)
    ]
    return [other for other in others if other.parent_select is column.parent_select]


def _is_name(column: exp.Column, names: Set[str] | None) -> bool:
    if names is not None:
        return column.name.lower() in names
    return isinstance(column.this, exp.Identifier) and not column.this.quoted


def _tokens(text: str, dialect: Dialect) -> list[Any]:
    """The words of a text, without comments and spaces; none where it cannot be parted into words."""
    try:
        return list(sqlglot.tokenize(text, read=dialect))
    except Exception:  # noqa: BLE001  # as above
        return []
