"""What a written memo says of each ratio: what is weak and what is strong, and sentences for both."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Band = Literal["weak", "fair", "strong"]


@dataclass(frozen=True)
class Words:
    """How memos speak of one ratio; `{}` in a sentence is its figure."""

    weak: float
    """From here on it is weak."""
    strong: float
    """From here on it is strong; below `weak` where less is better."""
    sentences: Mapping[Band, tuple[str, ...]]
    risk: str
    """What is to be feared where it is weak."""
    mitigant: str
    """What helps where it is strong."""


# Rules of thumb, near the quartiles of real companies' ratios: they choose words, and no mark depends on them.
WORDS: Mapping[str, Words] = {
    "current_ratio": Words(1.0, 1.8, {
        "weak": ("Liquidity is tight, with a current ratio of {}.",
                 "A current ratio of {} means that short-term debts exceed current assets."),
        "fair": ("Liquidity is adequate, with a current ratio of {}.",
                 "The current ratio of {} covers short-term debts with some room."),
        "strong": ("Liquidity is comfortable, with a current ratio of {}.",
                   "The current ratio of {} leaves ample cover for short-term debts."),
    }, "liquidity: with a current ratio of {} the borrower depends on rolling over short-term debt",
       "the comfortable liquidity behind a current ratio of {}"),
    "cash_ratio": Words(0.15, 0.6, {
        "weak": ("Little of this is cash: the cash ratio is {}.", "Cash is thin, at a cash ratio of {}."),
        "fair": ("The cash ratio is {}, a usable first reserve.", "Cash is in fair supply, at a cash ratio of {}."),
        "strong": ("Cash is plentiful, at a cash ratio of {}.", "The cash ratio of {} is a solid reserve."),
    }, "a thin reserve: the cash ratio is {}, so a late payer would soon be felt",
       "the cash reserve, at a cash ratio of {}"),
    "operating_profit_margin": Words(0.05, 0.15, {
        "weak": ("Operations earn too little: the operating margin is {}.",
                 "The operating margin of {} leaves hardly any cushion."),
        "fair": ("Operations are profitable, with an operating margin of {}.",
                 "The operating margin of {} is sufficient."),
        "strong": ("Operations are very profitable, with an operating margin of {}.",
                   "The operating margin of {} shows pricing power."),
    }, "profitability: an operating margin of {} would not absorb a rise in costs",
       "strong operations, with an operating margin of {}"),
    "net_profit_margin": Words(0.02, 0.10, {
        "weak": ("Little or nothing remains for owners, at a net margin of {}.", "The net margin is poor, at {}."),
        "fair": ("After interest and tax the net margin is {}.", "The net margin stands at {}."),
        "strong": ("After interest and tax a net margin of {} remains, which is high.",
                   "The net margin is high, at {}."),
    }, "weak earnings: a net margin of {} builds no reserves",
       "good earnings, with a net margin of {}"),
    "return_on_assets": Words(0.02, 0.08, {
        "weak": ("The return on assets is low, at {}.", "Assets are not paying their way: the return on assets is {}."),
        "fair": ("The return on assets is {}, a fair result.", "Assets earn enough, with a return on assets of {}."),
        "strong": ("The return on assets is high, at {}.", "Assets are used well, with a return on assets of {}."),
    }, "a poor return on assets of {}, which makes new debt hard to carry",
       "the good use of what it owns, with a return on assets of {}"),
    "return_on_equity": Words(0.06, 0.15, {
        "weak": ("Owners earn little, with a return on equity of {}.", "The return on equity is low, at {}."),
        "fair": ("Owners earn a return on equity of {}.", "The return on equity is {}, which is acceptable."),
        "strong": ("Owners earn well, with a return on equity of {}.", "The return on equity is high, at {}."),
    }, "a return on equity of {}, which will not attract new capital",
       "a return on equity of {}, which keeps access to new capital open"),
    "asset_turnover": Words(0.4, 1.2, {
        "weak": ("The business is heavy in assets, with an asset turnover of {}.", "Asset turnover is slow, at {}."),
        "fair": ("Asset turnover is {}, neither slow nor fast.", "Sales keep pace with assets: asset turnover is {}."),
        "strong": ("Asset turnover is fast, at {}.", "The business needs few assets, with an asset turnover of {}."),
    }, "capital tied up in slow assets, with an asset turnover of {}",
       "quick sales, with an asset turnover of {}"),
    "debt_equity_ratio": Words(2.5, 1.0, {
        "weak": ("Leverage is high, with debt to equity of {}.", "Debt to equity of {} leaves little room."),
        "fair": ("Leverage is moderate, with debt to equity of {}.", "Debt to equity stands at {}, which is bearable."),
        "strong": ("Leverage is low, with debt to equity of {}.", "Debt to equity of only {} leaves room to borrow."),
    }, "leverage: debt to equity of {} magnifies any setback",
       "low leverage, with debt to equity of {}"),
    "operating_cash_flow_sales_ratio": Words(0.05, 0.18, {
        "weak": ("Sales bring in little cash: operating cash flow to sales is {}.",
                 "Operating cash flow to sales is weak, at {}."),
        "fair": ("Operating cash flow to sales is {}, enough for normal needs.",
                 "Sales turn into cash at a fair rate, with operating cash flow to sales of {}."),
        "strong": ("Operating cash flow to sales is strong, at {}.",
                   "Sales turn into cash well, with operating cash flow to sales of {}."),
    }, "cash generation: operating cash flow to sales is {}, a narrow base for debt service",
       "strong cash generation, with operating cash flow to sales of {}"),
    "working_capital_to_assets": Words(0.0, 0.2, {
        "weak": ("Working capital is short, at {} of assets.", "Working capital to assets is {}, a strain on funding."),
        "fair": ("Working capital is {} of assets.", "Working capital to assets stands at {}."),
        "strong": ("Working capital is ample, at {} of assets.", "Working capital to assets is a comfortable {}."),
    }, "a shortage of working capital, at {} of assets",
       "ample working capital, at {} of assets"),
    "retained_earnings_to_assets": Words(0.05, 0.35, {
        "weak": ("Past profits have left little: retained earnings are {} of assets.",
                 "Retained earnings to assets are low, at {}."),
        "fair": ("Retained earnings are {} of assets.", "Retained earnings to assets stand at {}."),
        "strong": ("Retained earnings are high, at {} of assets.",
                   "Years of profit show in retained earnings to assets of {}."),
    }, "a thin record of profit, with retained earnings of {} of assets",
       "a long record of profit, with retained earnings of {} of assets"),
}  # fmt: skip

# A loss, and liabilities above assets, want words of their own.
NEGATIVE: Mapping[str, tuple[str, ...]] = {
    "operating_profit_margin": ("Operations lose money: the operating margin is {}.",),
    "net_profit_margin": ("The year closed with a loss: the net margin is {}.",),
    "return_on_assets": ("Assets earn nothing: the return on assets is {}.",),
    "return_on_equity": ("Owners lose money, with a return on equity of {}.",),
    "operating_cash_flow_sales_ratio": ("Operations use up cash: operating cash flow to sales is {}.",),
    "debt_equity_ratio": ("Liabilities exceed assets: equity is negative, and debt to equity is {}.",),
    "retained_earnings_to_assets": ("Past losses weigh: retained earnings to assets are {}.",),
}

DERIVED_SENTENCES: Mapping[str, tuple[str, ...]] = {
    "ebit_to_assets": ("That makes EBIT to assets {}.", "At the present pace, EBIT to assets is {}."),
    "equity_to_liabilities": ("Equity to liabilities is therefore {}.", "That is equity to liabilities of {}."),
    "debt_ratio": ("The debt ratio is therefore {}.", "That is a debt ratio of {}."),
}
"""Said right after a ratio that they follow from."""

FOLLOWS: Mapping[str, tuple[str, ...]] = {
    "operating_profit_margin": ("ebit_to_assets",),
    "debt_equity_ratio": ("equity_to_liabilities", "debt_ratio"),
}


def band(name: str, value: float) -> Band:
    """Whether a value is weak, fair or strong; negative equity is weak however the ratio is signed."""
    words = WORDS[name]
    if words.strong < words.weak:
        if value < 0 or value >= words.weak:
            return "weak"
        return "strong" if value < words.strong else "fair"
    return "weak" if value < words.weak else "strong" if value >= words.strong else "fair"
