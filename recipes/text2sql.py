"""Text to SQL: run it with `accelerate launch -m hf_finetune recipes/text2sql.py`."""

from dataclasses import dataclass
from pathlib import Path

from hf_finetune import HubDataset, Recipe, register
from hf_finetune.sql import REFUSAL, Dialect, accepted_queries, mark_query, read_query, schema_text, template


@dataclass(frozen=True)
class Question:
    """One row: a question, the tables that it is about, and the query that answers it, or several, parted by `;`."""

    question: str
    answer: str
    context: str = ""  # CREATE TABLE statements; those of the database, where they are left out
    database: Path | None = None  # a SQLite file to run the query on; without one, the tables are filled
    instructions: str = ""
    dialect: Dialect = "sqlite"


@register("text2sql")
class TextToSql(Recipe[Question]):
    """Writes the SQL query that answers a question about a database, or says that the database cannot answer it.

    The data are sql-create-context: 78,577 questions from WikiSQL and Spider (Zhong et al. 2017, Yu et al. 2018), each
    with the CREATE TABLE statements it needs. A query is right if it gives what the gold query gives: on the row's own
    database, or on its tables, filled several times with rows that tell other queries apart.

    Limits: mostly one or two tables, English questions and SQLite; a schema says nothing of what the values look like,
    and a query that runs may still answer another question. Run its queries with rights to read only.
    """

    base_model = "Qwen/Qwen2.5-Coder-1.5B-Instruct"
    dataset = HubDataset("b-mc2/sql-create-context", file="sql_create_context_v4.json")
    license = "cc-by-4.0"
    primary_metric = "execution_accuracy"
    hyperparameters = {"leave_out_faulty_rows": True}  # gold queries that do not run are known in these data

    def prompt(self, row: Question) -> str:
        schema = row.context or schema_text(row.database)
        rules = f"Answer with one {row.dialect} query, or with: {REFUSAL} {row.instructions}"
        return f"{schema}\n\n{rules.strip()}\n{row.question}"

    def completion(self, row: Question) -> str:
        return accepted_queries(row.answer, row.dialect)[0]

    def parse(self, text: str) -> str | None:
        return read_query(text)

    def mark(self, row: Question, prediction: str | None) -> dict[str, float]:
        return mark_query(row.answer, prediction, schema=row.context, database=row.database, dialect=row.dialect)

    def group(self, row: Question) -> str | None:
        return template(row.answer, row.dialect)
