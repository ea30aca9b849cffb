"""The sample rows that ship with the package are what their generators write."""

import json

from hf_finetune.demo import rows_file
from hf_finetune.demo.questions import rows
from hf_finetune.files import read_jsonl
from hf_finetune.recipe import load_recipe
from hf_finetune.sql import REFUSAL
from hf_finetune.testing import read_rows


def test_the_questions_about_databases_are_generated() -> None:
    assert read_jsonl(rows_file("text2sql")) == json.loads(json.dumps(list(rows())))


def test_each_gold_query_of_the_questions_can_be_marked() -> None:
    recipe = load_recipe("text2sql")
    sample = read_rows(recipe, rows_file("text2sql"))[::8]
    kinds = {name for row in sample for name in recipe.mark(row, recipe.completion(row))}
    expected = {"filter", "group", "join", "nested", "order", "refusal"}
    assert {f"accuracy_{kind}" for kind in expected} <= kinds


def test_some_questions_cannot_be_answered() -> None:
    answers = [row["answer"] for row in rows()]
    assert 0.05 < answers.count(REFUSAL) / len(answers) < 0.12
