"""A row of the credit memo recipe: a borrower, its ratios, and what a model is shown of them."""

from dataclasses import dataclass

from hf_finetune.errors import RecipeError
from hf_finetune.memo.rating import NOT_RATED, RATINGS, em_score, rating_letter, rating_of_score
from hf_finetune.memo.ratios import BY_NAME, RATIOS, is_plausible, shown

SECTIONS = ("Borrower", "Financial analysis", "Risks", "Covenants and mitigants", "Recommendation")
_INSTRUCTION = (
    "Write a credit memo with the sections "
    + ", ".join(f"## {name}" for name in SECTIONS)
    + f". End with the line `Rating: X`, where X is {', '.join(RATINGS[:-1])} or {RATINGS[-1]}. "
    "Use no figure but these and what follows from two of them."
)


@dataclass(frozen=True)
class Borrower:
    """One row: a company's ratios at a date, its rating where one is known, and a memo where there is one."""

    name: str
    sector: str
    rating: str = ""
    """A letter as an agency writes it, or empty where none is known."""
    rating_agency_name: str = ""
    date: str = ""
    current_ratio: float | None = None
    cash_ratio: float | None = None
    operating_profit_margin: float | None = None
    """A fraction, as all margins and returns: 0.083 is 8.3 %."""
    net_profit_margin: float | None = None
    return_on_assets: float | None = None
    return_on_equity: float | None = None
    asset_turnover: float | None = None
    debt_equity_ratio: float | None = None
    """Total liabilities to equity."""
    operating_cash_flow_sales_ratio: float | None = None
    working_capital_to_assets: float | None = None
    retained_earnings_to_assets: float | None = None
    memo: str = ""
    """A memo of your own; empty: one is written from the figures."""


def given(row: Borrower) -> dict[str, float]:
    """Every ratio that the row has, plausible or not."""
    values = {ratio.name: getattr(row, ratio.name) for ratio in RATIOS}
    return {name: value for name, value in values.items() if value is not None}


def usable(row: Borrower) -> dict[str, float]:
    """The plausible ratios of the row."""
    return {name: value for name, value in given(row).items() if is_plausible(BY_NAME[name], value)}


def implausible(row: Borrower) -> dict[str, float]:
    """The ratios of the row that no borrower can have: never repeated as a fact."""
    values = usable(row)
    return {name: value for name, value in given(row).items() if name not in values}


def known_rating(row: Borrower) -> str | None:
    """The whole letter that the row gives; None where it gives none.

    Raises:
        RecipeError: when what it gives is no rating.
    """
    if not row.rating.strip():
        return None
    letter = rating_letter(row.rating)
    if letter is None:
        raise RecipeError(
            f"rating {row.rating!r} is none. Write one of {', '.join(RATINGS)}, or leave it empty if it is not known."
        )
    return letter


def rating_for(row: Borrower) -> str:
    """The rating that a memo ends with: the known one, else that of the EM score, else `not rated`."""
    score = em_score(usable(row))
    return known_rating(row) or (NOT_RATED if score is None else rating_of_score(score))


def prompt(row: Borrower) -> str:
    """The question: the form of the memo, then the borrower; a value that is not plausible is not shown.

    Raises:
        RecipeError: when not one ratio of the row is a plausible number.
    """
    lines = [f"Borrower: {one_line(row.name)}", f"Sector: {one_line(row.sector)}"]
    if row.date.strip():
        lines.append(f"Date: {one_line(row.date)}")
    return "\n".join([_INSTRUCTION, "", *lines, *_ratio_lines(row)])


def _ratio_lines(row: Borrower) -> list[str]:
    values, left_out = usable(row), implausible(row)
    if not values:
        raise RecipeError(
            f"no ratio is a plausible number ({_told(left_out)}). Give at least one of "
            f"{', '.join(ratio.name for ratio in RATIOS)}, as a fraction or a multiple: 0.041 is 4.1 %."
        )
    texts = {name: shown(value, BY_NAME[name].unit) for name, value in values.items()}
    texts |= dict.fromkeys(left_out, "not plausible as reported, left out")
    return [f"{_capital(ratio.label)}: {texts[ratio.name]}" for ratio in RATIOS if ratio.name in texts]


def _told(values: dict[str, float]) -> str:
    return ", ".join(f"{name} is {value:g}" for name, value in values.items()) or "it has none"


def one_line(text: str) -> str:
    """Text from a table's cell as it stands in a sentence."""
    return " ".join(text.split())


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
