"""The credit memo library: what a memo's figures may be, its form and rating, the gold memos, the rows."""

import csv
import json
import random
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest

from hf_finetune.demo import rows_file
from hf_finetune.demo.borrowers import as_json, borrowers
from hf_finetune.errors import RecipeError
from hf_finetune.memo import (
    NOT_RATED,
    RATINGS,
    SECTIONS,
    Borrower,
    Memo,
    completion,
    em_score,
    faults,
    findings,
    form_faults,
    marks,
    prompt,
    rating_letter,
    rating_of_score,
    read,
    remarks,
    write,
)
from hf_finetune.memo.ratios import DERIVED, RATIOS, as_shown, derived, is_plausible, shown
from hf_finetune.memo.row import usable
from hf_finetune.memo.wording import DERIVED_SENTENCES, NEGATIVE, WORDS

REAL = Path(__file__).parent.parent.parent / "shared" / "data" / "memo" / "corporate_rating.csv"
"""Real ratings and ratios, which are no part of this project."""

ROW = Borrower(
    "Torvalisk 66 Holdings", "Energy", "BBB", date="11/27/2015", current_ratio=1.504, cash_ratio=0.302,
    operating_profit_margin=0.0834, net_profit_margin=0.0412, return_on_assets=0.0293, return_on_equity=0.0832,
    asset_turnover=0.7112, debt_equity_ratio=1.8396, working_capital_to_assets=0.1203,
    retained_earnings_to_assets=-0.0512,
)  # fmt: skip
SLIPPED = Borrower("Slipvane", "Energy", current_ratio=1.5, return_on_assets=-40213.0, net_profit_margin=-0.032)

SUPPORTED = (
    "Liquidity is adequate: current assets cover short-term debts 1.50 times, and cash alone covers 0.30x of them.",
    "Return on assets (ROA) and return on equity (ROE) are 2.9% and 8.3%.",
    "Debt to equity is moderate, and an 8.3% return on equity helps.",
    "Net margin and return on assets stand at 4.1 and 2.9%.",
    "The current ratio is 1.50x, and debt to equity matters. 0.30x is the cash ratio.",
    "The cash ratio, a measure of liquidity, is 0.30x.",
    "The current ratio is 1.50x.",
    "A current ratio of 1.5 is fine.",
    "The current ratio is 1.504 times.",
    "The current ratio is 1.5:1.",
    "The current ratio and cash ratio are 1.50x and 0.30x respectively.",
    "Debt to equity is about 2x.",
    "Debt to equity is nearly twice.",
    "Debt/equity of 1.84x.",
    "D/E: 184%.",
    "Leverage of 1.84x is moderate.",
    "Debt to equity is 1.8.",
    "ROA of 2.9% is low.",
    "ROA of 3% is low.",
    "ROA of 2.93 percent.",
    "ROA of 0.0293.",
    "Return on assets (ROA) of 2.9% and return on equity (ROE) of 8.3%.",
    "A 2.9% return on assets and an 8.3% return on equity.",
    "The operating margin of 8.3% on asset turnover of 0.71x gives EBIT to assets of 5.9%.",
    "The debt ratio is 64.8%.",
    "The debt ratio is 0.65.",
    "The equity ratio is 35.2%.",
    "The equity multiplier is 2.84x.",
    "Return on equity exceeds return on assets by 5.4 percentage points.",
    "Net margin is 0.49 times the operating margin.",
    "Return on equity is the return on assets of 2.9% times the equity multiplier of 2.84x, or 8.3%.",
    "Retained earnings to assets are -5.1%.",
    "Retained earnings to assets are negative at 5.1%.",
    "A negative retained earnings ratio of 5.1% of assets.",
    "Retained earnings to assets are (5.1%).",
    "Working capital of 12% of assets.",
    "Working capital is 12.0% of total assets.",
    "Working capital to assets of 0.12.",
    "In 2015 the current ratio was 1.50x.",
    "As of 27 November 2015 the current ratio was 1.50x.",
    "At 11/27/2015 Torvalisk 66 Holdings had a current ratio of 1.5x.",
    "1. The current ratio is 1.50x.\n2. The cash ratio is 0.30x.",
    "1) Keep debt to equity below 1.84x.",
    "Profitability is weak at 2.9%.",
    "Two covenants. The current ratio is 1.50x.",
    "| Current ratio | 1.50x |\n| Cash ratio | 0.30x |",
    "The operating margin is eight percent.",
    "Rated BBB, formerly Baa2, in Q3 under rule X1. The current ratio is 1.50x.",
    "Debt to equity of 1.84x (a debt ratio of 64.8%) and an operating margin of 8.3% (net margin: 4.1%).",
    "Current assets cover short-term debts 1.50 times, by the current ratio.",
    "The return on equity was 8.3 %, the return on assets 2.9 %.",
    "Margins: operating margin 8.3%, net margin 4.1%.",
    "The current ratio is 1.50x; the cash ratio is 0.30x.",
    "The cash ratio is 0.3x\nand the current ratio 1.5x.",
    "Return on equity, helped by an equity multiplier of 2.84x, is 8.3%.",
    "Net margin and return on assets stand at 4.1% and 2.9%.",
    "current_ratio = 1.50",
    "With a current ratio of 1.50x, a cash ratio of 0.30x and debt to equity of 1.84x the borrower is fine.",
)
INVENTED = (
    "The current ratio is $1.50.",
    "The return on equity of 5.4% lies above the return on assets.",  # their difference, said of one of them
    "Profitability is weak at 3%.",  # one digit without a name could be anything
    "The current ratio is 1.6x.",
    "The current ratio is 1.5%.",
    "The current ratio is 150%.",
    "The current ratio is 15.0x.",
    "The current ratio is 0.30x and the cash ratio is 1.50x.",
    "The current ratio and the cash ratio are 0.30x and 1.50x.",
    "Current ratio 2x.",
    "Debt to equity is 1.84%.",
    "ROA of 2.9.",
    "ROA of 2.9x.",
    "ROA of 29%.",
    "ROA of -2.9%.",
    "A loss on assets, a negative return on assets of 2.9%.",
    "ROA of 8.3% and ROE of 2.9%.",
    "An 8.3% return on assets and a 2.9% return on equity.",
    "EBIT to assets is 6.4%.",
    "The debt ratio is 35.2%.",
    "Return on equity exceeds return on assets by 6.4 percentage points.",
    "The net margin is about half of the operating margin: 49.4%.",
    "Revenue grew by 12%.",
    "Interest coverage is 1.5x, like the current ratio.",
    "Sales of $20 million.",
    "USD20m of sales.",
    "EBITDA margin is 8.3%.",
    "Debt of 5m falls due in 3 years.",
    "Receivables are paid in 45 days.",
    "The margin is 120 bps above peers.",
    "A net margin of 412 basis points.",
    "Retained earnings to assets are 5.1%.",
    "In 2014 the current ratio was 1.50x.",
    "Keep debt to equity below 3.00x.",
    "Keep the current ratio above 1.0x.",
    "Profitability is weak at 3.4%.",
    "Two covenants and 3 sureties. The current ratio is 1.50x.",
    "| Current ratio | 0.30x |\n| Cash ratio | 1.50x |",
    "The operating margin is twelve percent.",
    "Cash flow to sales is 5.0%.",
    "Operating cash flow to sales is 5.0%.",
    "ROA4.1%",
    "The current ratio is 1.50x, up from 1.20x.",
    "The current ratio is 1.50x, ahead of the sector's 1.30x.",
    "The return on equity was 2.9 %, the return on assets 8.3 %.",
    "Margins: operating margin 4.1%, net margin 8.3%.",
    "The current ratio lies between 1.4x and 1.6x.",
    "The probability of default is 1.5%.",
    "The current ratio of 1,504.0x.",
)
SUPPORTED_BY_SLIPPED = (
    "The return on assets is not plausible. Current ratio of 1.5x.",
    "The net margin is -3.2%.",
    "A net loss margin of 3.2%.",
    "The net margin is minus 3.2 per cent.",
    "The net margin is negative at -3.2%.",
    "The net margin (-3.2%) is bad.",
    "The company posted a loss of 3.2% of sales.",
    "The net margin is −3.2 %.",
    "The net margin shows a loss of 3.2%.",
)
INVENTED_FOR_SLIPPED = (
    "ROA is -40213.",
    "ROA is -4021300%.",
    "A net margin of 3.2%.",
    "Return on assets is -40,213x and the current ratio 1.5x.",
)


def faulty(row: Borrower, text: str) -> list[str]:
    """The faults of a text's figures, each with its figure; the text must have one figure at least."""
    found = findings(row, text)
    assert found, text
    return [f"{one.figure}: {one.fault}" for one in found if one.fault]


@pytest.mark.parametrize("text", SUPPORTED)
def test_an_input_a_rounded_one_and_what_follows_from_two_are_supported(text: str) -> None:
    assert faulty(ROW, text) == []


@pytest.mark.parametrize("text", INVENTED)
def test_an_invented_or_swapped_figure_and_a_wrong_unit_are_not_supported(text: str) -> None:
    assert faulty(ROW, text)


@pytest.mark.parametrize("text", SUPPORTED_BY_SLIPPED)
def test_a_loss_may_be_said_in_words_or_by_a_sign(text: str) -> None:
    assert faulty(SLIPPED, text) == []


@pytest.mark.parametrize("text", INVENTED_FOR_SLIPPED)
def test_a_loss_without_a_sign_and_an_implausible_value_are_not_supported(text: str) -> None:
    assert faulty(SLIPPED, text)


def test_a_finding_says_what_a_figure_was_taken_for_and_why_it_is_wrong() -> None:
    good, bad, between = findings(
        ROW, "The current ratio is 1.50x. The ROA is 8.3%. Return on equity exceeds return on assets by 5.4%."
    )
    assert (good.figure, good.taken_for, good.fault) == ("1.50x", "current_ratio", None)
    assert (bad.taken_for, bad.fault) == ("return_on_assets", "return on assets is 2.9%")
    assert bad.sentence == "The ROA is 8.3%."
    assert between.taken_for == "return_on_equity - return_on_assets"


def test_the_value_that_the_prompt_shows_may_be_said_with_more_digits() -> None:
    """A reader of the prompt sees 2.9%, not 2.93%; what it works out from that is no invention either."""
    assert faulty(ROW, "ROA is 2.90%.") == []
    assert faulty(ROW, "The debt ratio is 64.79%.") == []  # 1.84 / 2.84, where the row has 1.8396


def test_a_longer_name_wins_over_one_that_it_begins_with() -> None:
    row = replace(ROW, operating_cash_flow_sales_ratio=0.1)
    assert faulty(row, "Operating cash flow to assets is 7.1%.") == []
    assert faulty(row, "Operating cash flow to sales is 7.1%.")


@pytest.mark.parametrize("name", ["3", "66", "1.5 Degrees", "Basel III 7 Inc."])
def test_digits_in_the_borrowers_name_are_no_figures_but_a_figure_beside_them_is(name: str) -> None:
    row = replace(ROW, name=name)
    assert faulty(row, f"{name} has a current ratio of 1.50x.") == []
    assert faulty(row, f"{name} has a current ratio of 3.00x.")
    assert faulty(row, "The current ratio is 3%.")
    assert faulty(row, "The current ratio is 66x.")


GOLD = write(ROW)


def parts_of(text: str) -> list[str]:
    """A memo's sections with their headings, and its rating line."""
    return text.split("\n\n")


MISSHAPEN = {
    "a missing section": parts_of(GOLD)[:2] + parts_of(GOLD)[3:],
    "sections in the wrong order": [parts_of(GOLD)[i] for i in (0, 2, 1, 3, 4, 5)],
    "a section twice": [parts_of(GOLD)[i] for i in (0, 1, 2, 2, 3, 4, 5)],
    "an empty section": [*parts_of(GOLD)[:2], "## Risks", *parts_of(GOLD)[3:]],
    "a section of a placeholder": [*parts_of(GOLD)[:2], "## Risks\nN/A", *parts_of(GOLD)[3:]],
    "a section of its own": [*parts_of(GOLD)[:5], "## Appendix\nThere is more to say.", parts_of(GOLD)[5]],
    "text above the first": ["Here is the memo you asked for:", *parts_of(GOLD)],
    "no rating line": parts_of(GOLD)[:5],
    "a rating that is none": [*parts_of(GOLD)[:5], "Rating: good"],
    "a rating line that is not the last": [*parts_of(GOLD), "I hope that this helps."],
    "two rating lines that disagree": [*parts_of(GOLD)[:5], "Rating: A", "Rating: BBB"],
    "the memo twice": [GOLD, GOLD],
}


@pytest.mark.parametrize("parts", MISSHAPEN.values(), ids=MISSHAPEN)
def test_a_misshapen_memo_gets_no_mark_for_form(parts: list[str]) -> None:
    memo = read("\n\n".join(parts))
    assert memo is not None
    own = marks(ROW, memo)
    assert (own["form"], own["sound"], own["faith"]) == (0, 0, 1)
    assert form_faults(memo)


def test_each_fault_of_form_is_told_once() -> None:
    told = {kind: form_faults(read("\n\n".join(parts))) for kind, parts in MISSHAPEN.items()}
    assert told["text above the first"] == ["there is text above the first section"]
    assert told["a missing section"] == ["section 'Risks' is missing"]
    assert told["an empty section"] == ["section 'Risks' is empty, or has fewer than 3 words"]
    assert told["a section of its own"] == ["'Appendix' is none of the sections"]
    assert told["no rating line"] == ["the last line is no rating line, or two of them disagree"]
    assert told["sections in the wrong order"][0].startswith("the sections are Borrower, Risks, Financial analysis,")


def test_headings_may_be_decorated_and_covenants_may_be_mitigants() -> None:
    text = GOLD.replace("## Borrower", "**1. BORROWER:**").replace("## Risks", "### 3) Risks")
    text = text.replace("Covenants and mitigants", "Covenants or Mitigants").replace("Rating: BBB", "**Rating:** BBB+.")
    memo = read(text)
    assert memo is not None
    assert ([section.heading for section in memo.sections], memo.rating) == (list(SECTIONS), "BBB")
    assert marks(ROW, memo)["sound"] == 1


def test_a_text_without_a_section_is_unreadable_and_is_marked_0() -> None:
    for text in ("", "BBB", "The current ratio is 1.50x.", "## Appendix\nmore", "Rating: BBB"):
        assert read(text) is None
    assert set(marks(ROW, None).values()) == {0.0}


def test_a_memo_without_figures_is_not_faithful_for_it_analyses_nothing() -> None:
    memo = read(re.sub(r"-?\d[\d.]*[%x]", "good", GOLD))
    own = marks(ROW, memo)
    assert (own["form"], own["faith"], own["supported_figures"], own["sound"]) == (1, 0, 0, 0)
    assert faults(ROW, memo) == ["it has no figures"]


def test_the_share_of_supported_figures_counts_each_figure() -> None:
    count = len(findings(ROW, GOLD))
    memo = read(GOLD.replace("## Risks\n", "## Risks\nSales fell by 12%. "))
    own = marks(ROW, memo)
    assert own["supported_figures"] == pytest.approx(count / (count + 1))
    assert (own["form"], own["faith"], own["sound"], own["rating_exact"]) == (1, 0, 0, 1)


@pytest.mark.parametrize(
    ("said", "exact", "near", "grade"),
    [("BBB", 1, 1, 1), ("BBB-", 1, 1, 1), ("Baa2", 1, 1, 1), ("A", 0, 1, 1), ("BB", 0, 1, 0), ("AA", 0, 0, 1),
     ("B", 0, 0, 0), ("D", 0, 0, 0), (NOT_RATED, 0, 0, 0)],
)  # fmt: skip
def test_a_rating_is_marked_by_letter_by_notch_and_by_grade(said: str, exact: int, near: int, grade: int) -> None:
    own = marks(ROW, read(GOLD.replace("Rating: BBB", f"Rating: {said}")))
    assert (own["rating_exact"], own["rating_within_one_notch"], own["investment_grade"]) == (exact, near, grade)
    assert (own["form"], own["faith"], own["sound"]) == (1, 1, exact)


def test_where_no_rating_is_known_none_is_marked() -> None:
    own = marks(replace(ROW, rating=""), read(GOLD))
    assert own == {"sound": 1, "form": 1, "faith": 1, "supported_figures": 1}


@pytest.mark.parametrize(
    ("text", "letter"),
    [("AAA", "AAA"), ("Aaa", "AAA"), ("Aa3", "AA"), ("bbb-", "BBB"), ("Baa2", "BBB"), ("Ba1", "BB"), ("B2", "B"),
     ("Caa1", "CCC"), ("Ca", "CC"), ("C", "C"), ("SD", "D"), ("A (low)", "A"), ("BB high", "BB"), (" CCC+ ", "CCC"),
     ("NR", None), ("", None), ("AAAA", None), ("BBB5", None), ("good", None), ("A A", None)],
)  # fmt: skip
def test_the_agencies_writings_of_a_rating_are_read_as_its_letter(text: str, letter: str | None) -> None:
    assert rating_letter(text) == letter


def test_the_score_and_its_table_are_those_of_altman_2005() -> None:
    values = {"working_capital_to_assets": 0.1, "retained_earnings_to_assets": 0.2, "operating_profit_margin": 0.1,
              "asset_turnover": 0.5, "debt_equity_ratio": 2.0}  # fmt: skip
    score = em_score(values)
    assert score == pytest.approx(3.25 + 6.56 * 0.1 + 3.26 * 0.2 + 6.72 * 0.05 + 1.05 * 0.5)
    assert [rating_of_score(x) for x in (8.2, 8.1, 6.9, 6.3, 5.6, 4.7, 3.7, 1.7)] == [
        "AAA", "AA", "A", "BBB", "BB", "B", "CCC", "D",
    ]  # fmt: skip
    assert all(em_score({n: v for n, v in values.items() if n != name}) is None for name in values)


def test_the_same_seed_gives_the_sample_rows_that_ship_with_the_package() -> None:
    assert rows_file("credit_memo").read_text("utf-8") == "".join(f"{as_json(row)}\n" for row in borrowers())


def test_invented_borrowers_have_names_of_their_own_all_ratings_and_consistent_ratios() -> None:
    rows = borrowers()
    assert len({row.name for row in rows}) == len(rows) == 800
    assert {row.rating for row in rows} == set(RATINGS) - {"CC", "C"}
    whole = [usable(row) for row in rows if len(usable(row)) == len(RATIOS)]
    assert len(whole) > 600
    for values in whole:
        for rule in DERIVED:
            if rule.name in values:
                worked_out = rule.formula(*(values[name] for name in rule.inputs))
                assert values[rule.name] == pytest.approx(worked_out, abs=0.0005, rel=0.002)  # four decimals each


def test_invented_borrowers_are_rated_by_their_score() -> None:
    scores = [(em_score(usable(row)), row.rating) for row in borrowers()]
    rated = [(score, rating) for score, rating in scores if score is not None]
    assert len(rated) > 600
    assert all(rating_of_score(score) == rating for score, rating in rated)


def gold_marks(rows: list[Borrower]) -> list[float]:
    return [marks(row, read(completion(row)))["sound"] for row in rows]


def test_all_gold_memos_of_the_sample_rows_are_marked_perfect() -> None:
    assert gold_marks(borrowers()) == [1.0] * 800


def test_all_gold_memos_of_other_invented_borrowers_are_marked_perfect() -> None:
    assert gold_marks(borrowers(300, seed=11)) == [1.0] * 300


def extreme_rows() -> Iterator[Borrower]:
    """Rows with each ratio alone, at the ends of what is plausible, at zero and near it."""
    for ratio in RATIOS:
        for value in (*sum(ratio.plausible, ()), 0.0, 0.00004, -0.00004, 0.005, 0.99999, -1.0):
            if is_plausible(ratio, value):
                changed: dict[str, Any] = {ratio.name: value}
                yield replace(Borrower("Lone Ratio", "Energy"), **changed)
                yield replace(ROW, **changed)


def test_gold_memos_of_extreme_rows_are_marked_perfect() -> None:
    rows = list(extreme_rows())
    assert len(rows) > 100
    wrong = [(row, faults(row, read(write(row)))) for row in rows if marks(row, read(write(row)))["sound"] < 1]
    assert wrong == []


def real_rows() -> list[Borrower]:
    """The rows of the real file, with its columns under the names of the fields."""
    names = {field.name.replace("_", ""): field for field in fields(Borrower)}
    rows = []
    with REAL.open(encoding="utf-8", newline="") as file:
        for record in csv.DictReader(file):
            own = {
                names[key]: text for column, text in record.items() if (key := column.replace(" ", "").lower()) in names
            }
            values: dict[str, Any] = {f.name: text if f.type is str else float(text) for f, text in own.items()}
            rows.append(Borrower(**values))
    return rows


@pytest.mark.skipif(not REAL.is_file(), reason="the real ratings are not here")
def test_gold_memos_of_real_companies_are_marked_perfect_and_their_impossible_ratios_are_told() -> None:
    rows = real_rows()
    assert len(rows) > 1000
    assert gold_marks(rows) == [1.0] * len(rows)
    told = remarks(rows)
    assert any(one.startswith("return_on_assets:") for one in told)
    assert told[-1].startswith("Agencies disagree on ")


def test_a_gold_memo_has_120_to_220_words_and_the_same_row_always_gives_the_same() -> None:
    rows = [row for row in borrowers() if len(usable(row)) == len(RATIOS)]
    lengths = [len(write(row).split()) for row in rows]
    assert min(lengths) >= 120
    assert max(lengths) <= 220
    assert [write(row) for row in rows[:50]] == [write(replace(row)) for row in rows[:50]]


def test_gold_memos_are_worded_in_many_ways() -> None:
    """The sentences without their figures and names, over 100 rows."""
    bodies = {re.sub(r"-?\d[\d.]*", "", write(row).replace(row.name, "")) for row in borrowers()[:100]}
    assert len(bodies) == 100


@pytest.mark.slow
def test_question_and_memo_fit_into_900_tokens() -> None:
    from transformers import AutoTokenizer

    from hf_finetune.demo import BASE_MODEL

    tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL)
    assert max(len(tokenizer(prompt(row) + write(row))["input_ids"]) for row in borrowers()) < 900


NUMBER = re.compile(r"-?\d+\.\d+(?=[%x])")


def changed_figures(text: str, chance: random.Random) -> dict[str, str]:
    """The memo with one figure of its analysis or below changed, in each of several ways."""
    found = [match for match in NUMBER.finditer(text) if match.start() > text.index("## Financial")]
    one = chance.choice(found)
    other = chance.choice([match for match in found if match[0] != one[0]])
    number, decimals = float(one[0]), len(one[0].partition(".")[2])
    head, unit, tail = text[: one.start()], text[one.end()], text[one.end() + 1 :]
    first, second = sorted((one, other), key=lambda match: match.start())
    swapped = text[: first.start()] + second[0] + text[first.end() : second.start()] + first[0] + text[second.end() :]
    return {
        "another value": f"{head}{chance.uniform(0.05, 60):.{decimals}f}{unit}{tail}",
        "a fifth more": f"{head}{number * 1.2 + 0.1:.{decimals}f}{unit}{tail}",
        "ten times": f"{head}{number * 10 + 0.2:.{decimals}f}{unit}{tail}",
        "another unit": f"{head}{one[0]}{'x' if unit == '%' else '%'}{tail}",
        "another sign": f"{head}{-number or 1:.{decimals}f}{unit}{tail}",
        "swapped": swapped,
    }


def test_more_than_97_of_100_changed_figures_are_caught() -> None:
    chance, caught = random.Random(5), []
    for row in borrowers()[:200]:
        for text in changed_figures(write(row), chance).values():
            caught.append(marks(row, read(text))["faith"] == 0)
    assert len(caught) == 1200
    assert sum(caught) / len(caught) > 0.97


def test_an_implausible_ratio_is_told_left_out_and_never_repeated() -> None:
    text = write(SLIPPED)
    assert "return on assets" in text
    assert "not plausible" in text
    assert "40" not in prompt(SLIPPED) + text
    assert "Return on assets: not plausible as reported, left out" in prompt(SLIPPED)
    assert "Return on equity" not in prompt(SLIPPED)  # it is missing, which is not worth a word
    assert faulty(replace(SLIPPED, asset_turnover=0.7), "Return on assets is -2.2%.")  # nor worked out from others
    assert remarks([SLIPPED, ROW]) == ["return_on_assets: 1 value not within -1 to 0.6, left out: Slipvane -40213."]


@pytest.mark.parametrize(
    ("values", "told"),
    [([4.1, -2.2, 0.5], True), ([4.1, -2.2, 0.05, 0.04], False), ([4100.0, -40213.0], False), ([4.1, None], True)],
)
def test_a_column_that_looks_like_percentages_is_told(values: list[float | None], told: bool) -> None:
    found = remarks([replace(ROW, return_on_assets=value) for value in values])
    assert found[0].startswith("return_on_assets: ")
    assert found[0].endswith(". The column looks like percentages: divide all of it by 100.") == told


def test_ratios_that_are_no_numbers_are_implausible() -> None:
    row = replace(ROW, return_on_assets=float("nan"), current_ratio=float("inf"))
    assert not {"return_on_assets", "current_ratio"} & set(usable(row))
    assert not re.search(r"\b(?:nan|inf)", write(row))


def test_a_row_without_a_usable_figure_is_refused_with_the_way_to_mend_it() -> None:
    for row in (Borrower("A", "B"), Borrower("A", "B", return_on_assets=-40213.0)):
        for made in (prompt, write, completion):
            with pytest.raises(RecipeError, match=r"no ratio is a plausible number .*0\.041 is 4\.1 %"):
                made(row)


def test_a_rating_that_is_none_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"rating 'great' is none\. Write one of AAA, AA"):
        write(replace(ROW, rating="great"))


def test_a_memo_of_ones_own_is_used_and_refused_where_its_figures_form_or_rating_are_wrong() -> None:
    assert completion(replace(ROW, memo=f"\n{GOLD}\n")) == GOLD
    wrong = GOLD.replace("## Risks\n", "## Risks\nSales fell by 12%. ").replace("Rating: BBB", "Rating: A")
    with pytest.raises(RecipeError, match=r"memo: '12%' is not supported: .*; its rating is A, that of the row BBB"):
        completion(replace(ROW, memo=wrong))
    with pytest.raises(RecipeError, match="memo: it has no section; it must have Borrower"):
        completion(replace(ROW, memo="A fine company."))


def test_a_row_without_a_rating_gets_that_of_its_score_or_none() -> None:
    score = em_score(usable(ROW))
    assert score is not None
    assert write(replace(ROW, rating="")).endswith(f"\nRating: {rating_of_score(score)}")
    assert write(replace(ROW, rating="", asset_turnover=None)).endswith("\nRating: not rated")


def test_the_prompt_tells_neither_rating_nor_memo() -> None:
    asked = prompt(replace(ROW, rating="BBB", memo=GOLD))
    assert asked == prompt(replace(ROW, rating="D"))
    assert "Current ratio: 1.50x\n" in asked
    assert "Operating margin: 8.3%\n" in asked


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.0412, "percent", "4.1%"), (0.0003, "percent", "0.03%"), (0.0, "percent", "0.0%"),
     (-0.0004, "percent", "-0.04%"), (1.8396, "times", "1.84x"), (0.011, "times", "0.011x"),
     (-30.0, "times", "-30.00x"), (1.0, "percent", "100.0%")],
)  # fmt: skip
def test_a_small_value_is_shown_with_more_digits(value: float, unit: Any, text: str) -> None:
    assert shown(value, unit) == text
    assert as_shown(value, unit) == pytest.approx(value, rel=0.05)


def test_each_way_to_word_a_ratio_names_it_so_that_its_figure_is_found() -> None:
    for name, words in WORDS.items():
        plain = (*sum(words.sentences.values(), ()), f"The risk is {words.risk}.", f"A help is {words.mitigant}.")
        for text in (*plain, *NEGATIVE.get(name, ())):
            (found,) = findings(ROW, text.format("7.77%"))
            assert found.taken_for == name, text
    for name, texts in DERIVED_SENTENCES.items():
        assert {findings(ROW, text.format("7.77%"))[0].taken_for for text in texts} == {name}


def test_derived_ratios_are_the_standard_ones() -> None:
    found = derived({"debt_equity_ratio": 3.0, "operating_profit_margin": 0.1, "asset_turnover": 0.5})
    assert found == pytest.approx(
        {"equity_multiplier": 4, "debt_ratio": 0.75, "equity_ratio": 0.25, "equity_to_liabilities": 1 / 3,
         "ebit_to_assets": 0.05}
    )  # fmt: skip


def test_agencies_that_disagree_on_a_company_year_are_told() -> None:
    one = replace(ROW, rating_agency_name="Agency One")
    rows = [one, replace(one, rating="A2", rating_agency_name="Agency Two"), replace(one, date="1/2/2014", rating="A")]
    (told,) = remarks(rows)
    assert told == "Agencies disagree on 1 company-year of 2: Torvalisk 66 Holdings 2015: BBB Agency One, A Agency Two."
    agreed = replace(one, rating="Baa1", rating_agency_name="Agency Two")
    assert remarks([one, agreed, replace(one, date="1/2/2014", rating="A")]) == []


def test_a_memo_can_be_written_as_json() -> None:
    memo = read(GOLD)
    assert memo is not None
    found = json.loads(json.dumps(asdict(memo)))
    assert found["rating"] == "BBB"
    assert [section["heading"] for section in found["sections"]] == list(SECTIONS)


def test_reading_and_marking_never_raise() -> None:
    chance = random.Random(0)
    signs = "0123456789.,%x()-− \n#*:Rratingofcuetlsd$¤²½Ⅷ٣"
    for _ in range(2000):
        noise = "".join(chance.choice(signs) for _ in range(60))
        memo = read(f"## Risks\n{noise}")
        assert isinstance(memo, Memo)
        assert 0 <= marks(ROW, memo)["supported_figures"] <= 1
        read(noise)


@pytest.mark.parametrize(
    "text", ["1 " * 9000, "1.5x " * 4000, "negative " * 2000, "* " * 9000, "rating: " + "* " * 9000]
)
def test_a_long_answer_of_nonsense_takes_no_longer_than_its_length_explains(text: str) -> None:
    """Patterns that try all ways to split a run of signs would take minutes here, and eight times as long for twice."""

    def spent(some: str) -> float:
        start = time.process_time()
        for answer in (some, f"## Risks\n{some}x"):
            marks(ROW, read(answer))
        return time.process_time() - start

    assert spent(text) < 6 * max(spent(text[: len(text) // 2]), 0.01)
