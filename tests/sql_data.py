"""Public text-to-SQL data sets, where a developer has them beside the project, as rows of the recipe text2sql."""

import bz2
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHARED = Path(__file__).parents[2] / "shared" / "data" / "sql"

FIELD = r"(?:TABLEalias0\.)?(\S+?)_FIELD"
NUMBER = re.compile(r"-?\d+(\.\d+)?")


def classic(name: str, database: Path | None = None) -> list[dict[str, Any]]:
    """GeoQuery, Restaurants and others in the layout of text2sql-data, their variables filled in.

    Longest names first, so that `state_name1` is no `state_name` with a 1 behind it.
    """
    context = "" if database else classic_schema(SHARED / "classics" / f"{name}-schema.csv")
    rows = []
    for entry in json.loads((SHARED / "classics" / f"{name}.json").read_text()):
        for sentence in entry["sentences"]:
            values = {one["name"]: one["example"] for one in entry["variables"]} | sentence["variables"]
            rows.append(
                {
                    "question": _filled(sentence["text"], values),
                    "answer": _filled(entry["sql"][0], values),
                    "context": context,
                    "database": str(database) if database else None,
                }
            )
    return rows


def classic_schema(path: Path) -> str:
    """CREATE TABLE statements of a schema in the layout of text2sql-data: a line for each column, a `-` between two."""
    tables: dict[str, list[str]] = {}
    for line in csv.DictReader(path.read_text().splitlines(), skipinitialspace=True):
        cells = {str(name).strip().lower(): str(cell).strip() for name, cell in line.items()}
        if cells["table name"] not in ("-", "", "None"):
            kind = cells.get("type", "").split("(")[0] or "text"
            tables.setdefault(cells["table name"], []).append(f'"{cells["field name"]}" {kind}')
    return "\n".join(f'CREATE TABLE "{name}" ({", ".join(columns)});' for name, columns in tables.items())


def defog(file: str = "questions_gen_sqlite.csv") -> list[dict[str, Any]]:
    """Defog's questions, each with its database and its accepted queries."""
    folder = SHARED / "defog"
    with (folder / "questions" / file).open(newline="") as lines:
        return [
            {
                "question": row["question"],
                "answer": row["query"],
                "instructions": row["instructions"] or "",
                "context": "",
                "database": str(folder / "databases" / f"{row['db_name']}.sqlite"),
            }
            for row in csv.DictReader(lines)
        ]


def wikisql() -> Iterator[dict[str, Any]]:
    """WikiSQL's questions; a table holds the columns that its query names."""
    with bz2.open(SHARED / "wikisql.json.bz2", "rt") as file:
        entries = json.load(file)
    for entry in entries:
        for sentence in entry["sentences"]:
            values = {one["name"]: one["example"] for one in entry["variables"]} | sentence["variables"]
            yield _wikisql_row(sentence["original"], entry["sql"][0], values)


def _wikisql_row(question: str, query: str, values: dict[str, str]) -> dict[str, Any]:
    names = list(dict.fromkeys(re.findall(FIELD, query)))
    columns = {name: re.sub(r"\W+", "_", name).strip("_").lower() or "value" for name in names}
    compared = dict(re.findall(FIELD + r' (?:=|<|>|<=|>=) "?(var\d+)', query))
    numbers = {name for name, variable in compared.items() if NUMBER.fullmatch(values.get(variable, ""))}
    written = re.sub(FIELD, lambda found: f'"{columns[found[1]]}"', query).replace(
        "FROM TABLE AS TABLEalias0", "FROM rows"
    )
    written = re.sub(r'^SELECT (COUNT|MAX|MIN|SUM|AVG) ("\w+")', r"SELECT \1(\2)", written)
    written = re.sub(r'"?\b(var\d+)\b"?', lambda found: _literal(values.get(found[1], "")), written)
    listed = dict.fromkeys(f'"{columns[name]}" {"REAL" if name in numbers else "TEXT"}' for name in names)
    return {"question": question, "answer": written.strip(), "context": f"CREATE TABLE rows ({', '.join(listed)});"}


def _literal(value: str) -> str:
    return value if NUMBER.fullmatch(value) else "'" + value.replace("'", "''") + "'"


def _filled(text: str, values: dict[str, str]) -> str:
    for name in sorted(values, key=len, reverse=True):
        text = text.replace(name, values[name])
    return text.strip()
