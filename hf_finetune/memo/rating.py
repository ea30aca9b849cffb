"""Ratings: their scale, how they are written, and the published score that the invented borrowers are rated by."""

import re
from collections.abc import Mapping

RATINGS = ("AAA", "AA", "A", "BBB", "BB", "B", "CCC", "CC", "C", "D")
"""Whole letters, best first; a notch is one of them."""
NOT_RATED = "not rated"

_MOODYS = {"AAA": "AAA", "AA": "AA", "A": "A", "BAA": "BBB", "BA": "BB", "B": "B", "CAA": "CCC", "CA": "CC", "C": "C"}
_DEFAULTED = {"SD": "D", "RD": "D"}
_WRITTEN = re.compile(r"([A-Z]{1,3})\s?(?:[+-]|[1-3]|\(?(?:HIGH|MID|LOW)\)?)?")

EM_THRESHOLDS = (("AAA", 8.15), ("AA", 7.00), ("A", 6.40), ("BBB", 5.65), ("BB", 4.75), ("B", 3.75), ("CCC", 1.75))
"""The EM score that a rating takes: Altman 2005, "An emerging market credit scoring system for corporate bonds",
Emerging Markets Review 6, 311-323, its table of US bond rating equivalents, with the modifiers + and - left out
(AA- begins at 7.00, A- at 6.40, BBB- at 5.65, BB- at 4.75, B- at 3.75, CCC- at 1.75). It has no CC and no C."""


def rating_letter(text: str) -> str | None:
    """The whole letter of a rating in S&P's, Fitch's, DBRS's or Moody's writing (`BBB+`, `Baa2`, `BBB (low)`)."""
    match = _WRITTEN.fullmatch(text.strip().upper())
    if not match:
        return None
    letters = match[1]
    return letters if letters in RATINGS else _MOODYS.get(letters) or _DEFAULTED.get(letters)


def notches(one: str, other: str) -> int:
    """How many letters apart two ratings are."""
    return abs(RATINGS.index(one) - RATINGS.index(other))


def is_investment_grade(rating: str) -> bool:
    """BBB or better."""
    return RATINGS.index(rating) <= RATINGS.index("BBB")


def em_score(values: Mapping[str, float]) -> float | None:
    """Altman's Z'' + 3.25 = 3.25 + 6.56 X1 + 3.26 X2 + 6.72 X3 + 1.05 X4 (Altman 2005); None without all that it needs.

    X1 is working capital and X2 retained earnings to assets; X3, EBIT to assets, is margin x turnover, and X4, book
    equity to total liabilities, is the reciprocal of debt to equity.
    """
    needed = "working_capital_to_assets retained_earnings_to_assets operating_profit_margin asset_turnover".split()
    debt = values.get("debt_equity_ratio")
    if not debt or not all(name in values for name in needed):
        return None
    capital, earnings, margin, turnover = (values[name] for name in needed)
    return 3.25 + 6.56 * capital + 3.26 * earnings + 6.72 * margin * turnover + 1.05 / debt


def rating_of_score(score: float) -> str:
    """The rating equivalent of an EM score."""
    return next((rating for rating, least in EM_THRESHOLDS if score > least), "D")
