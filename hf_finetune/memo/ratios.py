"""The ratios that a memo may speak of: names, units, what is plausible, and what follows from two of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

Unit = Literal["percent", "times"]


@dataclass(frozen=True)
class Ratio:
    """A ratio that a row may hold, as a fraction or a multiple: 0.041 is a return of 4.1 %."""

    name: str
    """The field of the row."""
    label: str
    """What prompts and memos call it."""
    unit: Unit
    plausible: tuple[tuple[float, float], ...]
    """Closed ranges; a value outside all of them is no fact about a borrower."""
    spellings: tuple[str, ...]
    """How else text names it. ` to ` is also `/`, a space also a hyphen, `assets` also `total assets`, and
    a following `ratio` belongs to it."""
    vague: tuple[str, ...] = ()
    """Words that name it only where a sentence names no ratio outright."""


@dataclass(frozen=True)
class Derived:
    """A standard ratio that follows from two others."""

    name: str
    label: str
    unit: Unit
    spellings: tuple[str, ...]
    inputs: tuple[str, ...]
    formula: Callable[..., float]
    """Of the inputs, in order; ZeroDivisionError where it has no value."""


# Wide on purpose: they are to catch a slipped decimal point, a percentage given as a fraction and a division by almost
# nothing, and no bad year. Beside each range is why; all but 0.3-2 % of the
# values of 1,637 real company-years lie within.
RATIOS: tuple[Ratio, ...] = (
    # Both parts are assets or debts, so never negative; 25 is ten times what is called ample (2.5).
    Ratio("current_ratio", "current ratio", "times", ((0.01, 25),), (), ("liquidity",)),
    # A part of the current ratio; a company may hold no cash.
    Ratio("cash_ratio", "cash ratio", "times", ((0, 25),), ("cash to current liabilities",), ("cash alone",)),
    # Above 100 % a company earns more than it sells; below -200 % it hardly sells anything.
    Ratio("operating_profit_margin", "operating margin", "percent", ((-2, 1),), (
        "operating profit margin", "EBIT margin", "EBIT to revenue", "EBIT to sales", "operating profit to sales",
    )),
    Ratio("net_profit_margin", "net margin", "percent", ((-2, 1),), (
        "net profit margin", "net income margin", "net loss margin", "profit margin", "return on sales",
    )),
    # A company that loses all of its assets, or earns 60 % on them, in one year.
    Ratio("return_on_assets", "return on assets", "percent", ((-1, 0.6),), ("ROA", "return on average assets")),
    # Equity may be thin, so five times as wide; beyond that it is next to nothing and the ratio says nothing.
    Ratio("return_on_equity", "return on equity", "percent", ((-5, 5),), ("ROE", "return on average equity")),
    # Sales below 1 % of assets leave no margin a meaning; traders reach 5 to 8.
    Ratio("asset_turnover", "asset turnover", "times", ((0.01, 10),), (
        "total asset turnover", "assets turnover", "turnover of assets", "sales to assets", "revenue to assets",
    )),
    # Total liabilities to equity. Between -1 and 0 assets would be negative; 0 is a company without any liability.
    Ratio("debt_equity_ratio", "debt to equity", "times", ((-30, -1), (0.01, 30)), (
        "D to E", "liabilities to equity", "total liabilities to equity",
    ), ("leverage", "gearing")),
    Ratio("operating_cash_flow_sales_ratio", "operating cash flow to sales", "percent", ((-2, 1.5),), (
        "operating cash flow margin", "cash flow margin", "OCF margin", "operating cash flow to revenue",
        "operating cash flow sales", "operating cash flow", "OCF to sales",
    )),
    # Altman's X1: current assets less current liabilities, each at most the whole of the assets or a little more.
    Ratio("working_capital_to_assets", "working capital to assets", "percent", ((-1.5, 1),), ("working capital",)),
    # Altman's X2: losses of years may exceed the assets that are left.
    Ratio("retained_earnings_to_assets", "retained earnings to assets", "percent", ((-5, 1),), ("retained earnings",)),
)  # fmt: skip

# Total liabilities + equity = assets, and DuPont's identities. On the real rows: ROA and ROE hold on all, the
# multiplier on 94 % (the others have minority interests).
DERIVED: tuple[Derived, ...] = (
    Derived("equity_multiplier", "equity multiplier", "times", ("assets to equity",),
            ("debt_equity_ratio",), lambda debt: 1 + debt),
    Derived("debt_ratio", "debt ratio", "percent", ("debt to assets", "liabilities to assets"),
            ("debt_equity_ratio",), lambda debt: debt / (1 + debt)),
    Derived("equity_ratio", "equity ratio", "percent", ("equity to assets",),
            ("debt_equity_ratio",), lambda debt: 1 / (1 + debt)),
    Derived("equity_to_liabilities", "equity to liabilities", "percent", ("equity to debt",),
            ("debt_equity_ratio",), lambda debt: 1 / debt),
    Derived("ebit_to_assets", "EBIT to assets", "percent", ("operating profit to assets",),
            ("operating_profit_margin", "asset_turnover"), lambda margin, turnover: margin * turnover),
    Derived("operating_cash_flow_to_assets", "operating cash flow to assets", "percent", ("OCF to assets",),
            ("operating_cash_flow_sales_ratio", "asset_turnover"), lambda margin, turnover: margin * turnover),
    Derived("return_on_assets", "return on assets", "percent", (),
            ("net_profit_margin", "asset_turnover"), lambda margin, turnover: margin * turnover),
    Derived("return_on_equity", "return on equity", "percent", (),
            ("return_on_assets", "debt_equity_ratio"), lambda on_assets, debt: on_assets * (1 + debt)),
)  # fmt: skip

ALL: tuple[Ratio | Derived, ...] = (*RATIOS, *DERIVED)
BY_NAME: Mapping[str, Ratio] = {ratio.name: ratio for ratio in RATIOS}

OTHER_RATIOS = (
    "gross margin", "gross profit margin", "EBITDA margin", "EBITDA", "pretax margin", "pre-tax margin",
    "interest coverage", "interest cover", "coverage", "debt service coverage", "DSCR", "debt to EBITDA",
    "net debt to EBITDA", "net debt", "quick ratio", "acid test", "return on capital employed", "return on capital",
    "return on invested capital", "ROCE", "ROIC", "inventory turnover", "receivables turnover", "payables turnover",
    "fixed asset turnover", "days sales outstanding", "tax rate", "payout", "free cash flow", "revenue growth",
    "sales growth", "growth", "loan to value", "LTV", "probability of default", "market share", "enterprise value",
    "price to earnings", "Z score", "EM score", "interest rate", "dividend yield", "capital expenditure", "capex",
)  # fmt: skip
"""Ratios that no row holds: a figure that stands with one of them is invented, whatever else it may equal."""


def is_plausible(ratio: Ratio, value: float) -> bool:
    """Whether a borrower can have that value."""
    return any(low <= value <= high for low, high in ratio.plausible)


def shown(value: float, unit: Unit) -> str:
    """A value as prompts and memos write it, `4.1%` or `1.84x`: with more digits where fewer would be 5 % off."""
    amount, sign, places = (value * 100, "%", 1) if unit == "percent" else (value, "x", 2)
    while places < 8 and abs(round(amount, places) - amount) > 0.05 * abs(amount):
        places += 1
    return f"{amount:.{places}f}{sign}"


def as_shown(value: float, unit: Unit) -> float:
    """The value that a reader of `shown` sees."""
    text = shown(value, unit)
    return float(text[:-1]) / (100 if unit == "percent" else 1)


def derived(values: Mapping[str, float]) -> dict[str, float]:
    """Each standard ratio that follows from the values and is not among them; one that is not plausible is left out."""
    known = dict(values)
    for rule in DERIVED:
        if rule.name in known or not all(name in known for name in rule.inputs):
            continue
        try:
            value = rule.formula(*(known[name] for name in rule.inputs))
        except ZeroDivisionError:
            continue
        if rule.name not in BY_NAME or is_plausible(BY_NAME[rule.name], value):
            known[rule.name] = value
    return {name: value for name, value in known.items() if name not in values}


def unit_of(name: str) -> Unit:
    """The unit of a ratio, a derived one too."""
    return next(ratio.unit for ratio in ALL if ratio.name == name)


_SAID_OF_ALL = frozenset("a average d e net of on profit ratio return to total".split())


@cache
def words_of(name: str) -> frozenset[str]:
    """The words, singular and plural, by which a sentence can be about a ratio without naming it."""
    own = next(one for one in ALL if one.name == name)
    texts = [own.label, *own.spellings, *(own.vague if isinstance(own, Ratio) else ())]
    words = {word for text in texts for word in text.lower().split()} - _SAID_OF_ALL
    words |= {"profitability"} if own.unit == "percent" else set()
    return frozenset(words | {word.removesuffix("s") for word in words} | {f"{word}s" for word in words})


def label_of(name: str) -> str:
    """What memos call a ratio, a derived one too."""
    return next(ratio.label for ratio in ALL if ratio.name == name)
