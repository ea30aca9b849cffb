"""The credit memo recipe: it splits by company, and goes on without rows that are broken."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from conftest import write_rows
from hf_finetune import LocalFile, load_recipe
from hf_finetune.demo.borrowers import as_json, borrowers
from hf_finetune.errors import RecipeError
from hf_finetune.layers import Layer, settle
from hf_finetune.memo import read, write
from hf_finetune.prepare import Prepared, prepare

ROOT = Path(__file__).parent.parent
RECIPE = load_recipe(str(ROOT / "recipes" / "credit_memo.py"))


def prepared(path: Path, **settings: object) -> Prepared:
    base = {"model_name_or_path": RECIPE.base_model, **RECIPE.hyperparameters, "near_duplicate_similarity": 1.0}
    return prepare(RECIPE, LocalFile(str(path)), settle([Layer("test", {**base, **settings})]).values)


def test_the_marks_of_an_unreadable_answer_and_of_the_memo_of_another_company_are_low() -> None:
    rows = borrowers(20)
    others = RECIPE.score(rows, [read(write(row)) for row in rows[1:] + rows[:1]])
    assert (others["form"], others["faith"], others["sound"]) == (1, 0, 0)
    assert set(RECIPE.score(rows, [None] * 20).values()) == {0.0}


def test_a_company_is_on_one_side_of_the_split_whatever_its_years() -> None:
    first, second = borrowers(2)
    assert RECIPE.group(first) != RECIPE.group(second)
    assert RECIPE.group(first) == RECIPE.group(type(first)(f" {first.name.upper()} ", "Other", date="1999"))


def test_columns_in_the_style_of_the_published_csv_are_found_and_an_empty_cell_is_no_value(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    header = "Rating,Name,Symbol,Rating Agency Name,Date,Sector,currentRatio,returnOnAssets,debtEquityRatio\n"
    lines = [f"BB,Velkora {n},VK,One,1/{n}/2015,Energy,1.{n},{'' if n % 2 else 0.04},1.8\n" for n in range(10, 28)]
    path.write_text(header + "".join(lines), encoding="utf-8")
    rows = [row for split in prepared(path).rows.values() for row in split]
    assert len(rows) == 18
    assert {row.rating_agency_name for row in rows} == {"One"}
    assert {row.return_on_assets for row in rows} == {None, 0.04}


BROKEN = {
    3: {"name": "No Figures", "sector": "Energy"},
    7: {"name": "No Number", "sector": "Energy", "current_ratio": "high"},
    9: {"name": "No Rating", "sector": "Energy", "current_ratio": 1.2, "rating": "fine"},
    12: {"name": "Own Memo", "sector": "Energy", "current_ratio": 1.2, "memo": "## Risks\nSales fell by 12%."},
}


def test_broken_rows_are_named_with_their_numbers_and_the_rest_is_still_used(tmp_path: Path) -> None:
    rows = [json.loads(as_json(row)) for row in borrowers(30)]
    for number, row in BROKEN.items():
        rows.insert(number - 1, row)
    path = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(RecipeError, match=r"4 faults in 34 rows\.\n  row 3: no ratio is a plausible number"):
        prepared(path)
    found = prepared(path, leave_out_faulty_rows=True)
    told = found.facts["faulty"]["first"]
    assert [line.split(":")[0] for line in told] == [f"row {number}" for number in BROKEN]
    assert "'current_ratio' is 'high'" in told[1]
    assert "rating 'fine' is none" in told[2]
    assert "'12%' is not supported" in told[3]
    assert sum(map(len, found.rows.values())) == 30


def test_what_is_odd_in_the_rows_is_told_in_the_facts(tmp_path: Path) -> None:
    rows = [asdict(row) for row in borrowers(30)]
    rows[0]["return_on_assets"] = -40213.0
    facts = prepared(write_rows(tmp_path / "rows.jsonl", rows)).facts
    assert any("return_on_assets" in one and "-40213" in one for one in facts["remarks"])
