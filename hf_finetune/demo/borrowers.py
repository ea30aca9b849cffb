"""Invented borrowers with consistent accounts, rated by a published score: the sample rows of the credit memo recipe.

python -m hf_finetune.demo.borrowers > hf_finetune/demo/credit_memo.jsonl

No name is a company's and no figure is anyone's. Each borrower is a small balance sheet and income statement, drawn so
that good ones are good in most respects; its ratios are taken from these accounts and so agree with each other. The
rating is that of its EM score (Altman 2005), which stands in no row.
"""

import json
import random
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

from hf_finetune.memo.rating import em_score, rating_of_score
from hf_finetune.memo.ratios import RATIOS, is_plausible
from hf_finetune.memo.row import Borrower, usable

COUNT = 800
SEED = 7
SHARES = {"AAA": 6, "AA": 10, "A": 15, "BBB": 22, "BB": 20, "B": 14, "CCC": 10, "D": 3}
"""Percent of the borrowers with each rating; Altman's table has no CC and no C."""
MISSING, SLIPPED = 0.08, 0.04
"""Shares of the rows that lack a ratio, and in which one has a slipped decimal point."""

_TURNOVER = {
    "Energy": 0.6, "Basic Industries": 0.8, "Consumer Services": 1.3, "Technology": 0.8, "Capital Goods": 0.9,
    "Public Utilities": 0.35, "Health Care": 0.7, "Food Processing": 1.5, "Furniture and Appliances": 1.2,
    "Transport and Logistics": 0.9, "Construction": 1.2, "Wholesale": 2.2,
}  # fmt: skip
"""Each sector and its usual asset turnover."""

_STARTS = "Bru Cald Dorv Fenn Grix Halv Jorm Kelb Lund Mord Narv Pelq Quor Rinz Selv Torb Ulm Vekt Wynd Zant".split()
_MIDDLES = "a e i o u ara eli imo ona uve".split()
_ENDS = "drix gund lisk morv phar quol ruk thane veth zenn".split()
_KINDS = "Holdings Group Works Partners Industries Company".split()


@dataclass(frozen=True)
class Accounts:
    """A balance sheet and an income statement, in units of total assets."""

    current_assets: float
    cash: float
    current_liabilities: float
    liabilities: float
    retained_earnings: float
    sales: float
    ebit: float
    net_income: float
    operating_cash_flow: float

    def ratios(self) -> dict[str, Any]:
        """The ratios of a row, to four decimals."""
        equity = 1 - self.liabilities
        exact = {
            "current_ratio": self.current_assets / self.current_liabilities,
            "cash_ratio": self.cash / self.current_liabilities,
            "operating_profit_margin": self.ebit / self.sales,
            "net_profit_margin": self.net_income / self.sales,
            "return_on_assets": self.net_income,
            "return_on_equity": self.net_income / equity,
            "asset_turnover": self.sales,
            "debt_equity_ratio": self.liabilities / equity,
            "operating_cash_flow_sales_ratio": self.operating_cash_flow / self.sales,
            "working_capital_to_assets": self.current_assets - self.current_liabilities,
            "retained_earnings_to_assets": self.retained_earnings,
        }
        return {name: round(value, 4) for name, value in exact.items()}


def borrowers(count: int = COUNT, seed: int = SEED) -> list[Borrower]:
    """That many borrowers, each with a name of its own; the same for the same seed."""
    chance = random.Random(seed)
    names = [f"{start}{middle}{end} {kind}" for start in _STARTS for middle in _MIDDLES for end in _ENDS
             for kind in _KINDS]  # fmt: skip
    return [_borrower(name, chance) for name in chance.sample(names, count)]


def _borrower(name: str, chance: random.Random) -> Borrower:
    """A borrower of a rating drawn by SHARES: accounts are drawn until their score gives that rating."""
    (wanted,) = chance.choices(list(SHARES), list(SHARES.values()))
    sector, date = chance.choice(list(_TURNOVER)), f"{chance.randint(2012, 2023)}-{chance.choice(_YEAR_ENDS)}"
    while True:
        row = Borrower(name, sector, wanted, date=date, **_accounts(sector, chance).ratios())
        score = em_score(row_values := usable(row))
        if score is not None and len(row_values) == len(RATIOS) and rating_of_score(score) == wanted:
            return _flawed(row, chance)


_YEAR_ENDS = ("03-31", "06-30", "09-30", "12-31", "12-31", "12-31")


def _accounts(sector: str, chance: random.Random) -> Accounts:
    """Accounts of a quality between 0, near default, and 1; the spreads are wide enough for good ones with a flaw."""
    quality = chance.uniform(-0.1, 1.1)
    liabilities = _between(0.12, chance.gauss(0.75 - 0.45 * quality, 0.08), 0.95)
    current_assets = chance.uniform(0.2, 0.6)
    current_liabilities = _between(
        0.05, current_assets / (0.9 + 1.6 * max(0.0, quality)) * chance.lognormvariate(0, 0.2), 0.9 * liabilities
    )
    sales = _TURNOVER[sector] * chance.lognormvariate(0, 0.3)
    ebit = chance.gauss(-0.06 + 0.24 * quality, 0.025)
    interest = (liabilities - 0.5 * current_liabilities) * (0.08 - 0.05 * quality)
    pretax = ebit - interest
    net_income = pretax * (0.75 if pretax > 0 else 1)
    return Accounts(
        current_assets=current_assets,
        cash=current_assets * chance.uniform(0.05, 0.5),
        current_liabilities=current_liabilities,
        liabilities=liabilities,
        retained_earnings=min(chance.gauss(-0.25 + 0.75 * quality, 0.1), 0.95 * (1 - liabilities)),
        sales=sales,
        ebit=ebit,
        net_income=net_income,
        operating_cash_flow=net_income + chance.uniform(0.02, 0.06) + chance.gauss(0, 0.01),
    )


def _between(low: float, value: float, high: float) -> float:
    return max(low, min(value, high))


def _flawed(row: Borrower, chance: random.Random) -> Borrower:
    """The row as it is, or as real ones are: a ratio is missing, or its decimal point slipped out of what can be."""
    kind = chance.random()
    if kind > MISSING + SLIPPED:
        return row
    ratio = chance.choice(RATIOS)
    if kind <= MISSING:
        return _with(row, ratio.name, None)
    slipped = getattr(row, ratio.name) * 10_000
    return row if is_plausible(ratio, slipped) else _with(row, ratio.name, round(slipped, 4))


def _with(row: Borrower, name: str, value: float | None) -> Borrower:
    changed: dict[str, Any] = {name: value}
    return replace(row, **changed)


def as_json(row: Borrower) -> str:
    """A row as a line of JSON, without what is empty."""
    return json.dumps({name: value for name, value in asdict(row).items() if value not in ("", None)})


if __name__ == "__main__":
    sys.stdout.write("".join(f"{as_json(row)}\n" for row in borrowers()))
