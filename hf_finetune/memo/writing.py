"""A borrower -> the memo that a model is to learn: every figure in it is an input or follows from two."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from hf_finetune.errors import RecipeError
from hf_finetune.memo.marks import faults
from hf_finetune.memo.rating import NOT_RATED, is_investment_grade
from hf_finetune.memo.ratios import derived, label_of, shown, unit_of
from hf_finetune.memo.reading import read
from hf_finetune.memo.row import SECTIONS, Borrower, implausible, one_line, prompt, rating_for, usable
from hf_finetune.memo.wording import DERIVED_SENTENCES, FOLLOWS, NEGATIVE, WORDS, Band, band

MOST_RATIOS = 6
"""Ratios that the analysis speaks of: more would make a list of it."""
_FIRST = ("current_ratio", "operating_profit_margin", "debt_equity_ratio", "working_capital_to_assets",
          "retained_earnings_to_assets")  # fmt: skip
"""Most of what a rating by the EM score rests on."""


def completion(row: Borrower) -> str:
    """The row's own memo, or the one written from its figures.

    Raises:
        RecipeError: when the row's own memo would not have full marks, with all that is wrong with it.
    """
    if not row.memo.strip():
        return write(row)
    wrong = faults(row, read(row.memo))
    if wrong:
        raise RecipeError(f"memo: {'; '.join(wrong)}. Mend it, or leave it empty to have one written.")
    return row.memo.strip()


def write(row: Borrower) -> str:
    """A memo of 120-220 words where the row has most ratios; the same row always gives the same one.

    Raises:
        RecipeError: when not one ratio of the row is a plausible number.
    """
    prompt(row)
    chance = random.Random(repr(asdict(row)))  # text seeds alike in every process, which hash() does not
    bodies = (_borrower(row, chance), _analysis(row, chance), _risks(row, chance), _covenants(row, chance),
              _recommendation(row, chance))  # fmt: skip
    parts = [f"## {heading}\n{body}" for heading, body in zip(SECTIONS, bodies, strict=True)]
    return "\n\n".join([*parts, f"Rating: {rating_for(row)}"])


def _borrower(row: Borrower, chance: random.Random) -> str:
    name, sector, date = one_line(row.name), one_line(row.sector), one_line(row.date)
    when = f" as of {date}" if date else ""
    return chance.choice((
        f"{name} is a borrower in the sector {sector}. This memo rests on its reported ratios{when}.",
        f"The borrower is {name}, which is active in {sector}. Its reported ratios{when} are the basis of this memo.",
        f"{name} belongs to the sector {sector}. The assessment uses the ratios reported{when} and nothing else.",
    ))  # fmt: skip


def _analysis(row: Borrower, chance: random.Random) -> str:
    values = usable(row)
    follow = derived(values)
    sentences = []
    for name in _chosen(list(values), chance):
        sentences.append(_sentence(name, values[name], chance))
        derivable = [other for other in FOLLOWS.get(name, ()) if other in follow]
        if derivable and values[name] > 0:
            other = chance.choice(derivable)
            sentences.append(chance.choice(DERIVED_SENTENCES[other]).format(shown(follow[other], unit_of(other))))
    return " ".join([*sentences, *_left_out(row, chance)])


def _chosen(names: Sequence[str], chance: random.Random) -> list[str]:
    """At most MOST_RATIOS of the ratios, those that matter most among them, in their usual order."""
    first = [name for name in _FIRST if name in names]
    others = [name for name in names if name not in first]
    chosen = first + chance.sample(others, max(0, min(len(others), MOST_RATIOS - len(first))))
    return [name for name in names if name in chosen]


def _sentence(name: str, value: float, chance: random.Random) -> str:
    is_loss = value < 0 and name in NEGATIVE
    choices = NEGATIVE[name] if is_loss else WORDS[name].sentences[band(name, value)]
    return chance.choice(choices).format(shown(value, unit_of(name)))


def _left_out(row: Borrower, chance: random.Random) -> Iterator[str]:
    """That a figure is not relied on, without the figure."""
    for name in implausible(row):
        yield chance.choice((
            f"The reported {label_of(name)} is not plausible and is not relied on.",
            f"No use is made of the reported {label_of(name)}, which is not plausible.",
        ))  # fmt: skip


def _in_band(row: Borrower, wanted: Band) -> list[str]:
    return [name for name, value in usable(row).items() if band(name, value) == wanted]


def _told(row: Borrower, name: str, text: str) -> str:
    return text.format(shown(usable(row)[name], unit_of(name)))


def _risks(row: Borrower, chance: random.Random) -> str:
    weak = _in_band(row, "weak")
    if not weak:
        return chance.choice((
            f"No ratio is weak. The remaining risk is that of the sector: a downturn in {one_line(row.sector)} would "
            "show in margins first.",
            f"The ratios show no weak spot. What remains is a downturn in {one_line(row.sector)}, and decisions of "
            "the owners that would add debt.",
        ))  # fmt: skip
    told = [_told(row, name, WORDS[name].risk) for name in chance.sample(weak, min(2, len(weak)))]
    ending = chance.choice((
        f"A downturn in {one_line(row.sector)} would add to this.",
        f"Conditions in {one_line(row.sector)} may make it worse.",
    ))  # fmt: skip
    return " ".join([f"The main risk is {told[0]}.", *(f"A second one is {text}." for text in told[1:]), ending])


_COVENANTS = {
    "debt_equity_ratio": ("Keep debt to equity at or below the present {}.", "Debt to equity may not rise above {}."),
    "current_ratio": ("Hold the current ratio at or above the present {}.", "The current ratio may not fall below {}."),
    "cash_ratio": ("Hold the cash ratio at or above {}.",),
    "operating_cash_flow_sales_ratio": ("Keep operating cash flow to sales at or above {}.",),
    "working_capital_to_assets": ("Keep working capital at or above {} of assets.",),
}


def _covenants(row: Borrower, chance: random.Random) -> str:
    possible = [name for name in _COVENANTS if usable(row).get(name, 0) > 0][:3]
    names = sorted(chance.sample(possible, min(2, len(possible))), key=possible.index)
    sentences = [_told(row, name, chance.choice(_COVENANTS[name])) for name in names]
    if usable(row).get("debt_equity_ratio", 0) < 0:
        sentences.append("No dividend is paid until equity is positive.")
    if len(sentences) < 2:
        sentences.append(chance.choice(("Accounts are delivered every quarter.", "Further debt needs consent.")))
    strong = _in_band(row, "strong")
    return " ".join([*sentences, _mitigant(row, chance.choice(strong)) if strong else "The main mitigant is security."])


def _mitigant(row: Borrower, name: str) -> str:
    return f"The main mitigant is {_told(row, name, WORDS[name].mitigant)}."


def _recommendation(row: Borrower, chance: random.Random) -> str:
    grade, weak, strong = _grade(rating_for(row)), len(_in_band(row, "weak")), len(_in_band(row, "strong"))
    balance = _BALANCE[(strong > weak) - (weak > strong)]
    is_against = (grade == "investment" and weak > strong) or (grade == "distressed" and strong > weak)
    return f"{balance}{', yet ratios are not all that a rating rests on' * is_against}. {chance.choice(_ADVICE[grade])}"


_BALANCE = {0: "Weak and strong points are in balance", 1: "Strong points outweigh weak ones",
            -1: "Weak points outweigh strong ones"}  # fmt: skip


def _grade(rating: str) -> str:
    if rating == NOT_RATED:
        return "unknown"
    return "investment" if is_investment_grade(rating) else "speculative" if rating in ("BB", "B") else "distressed"


_ADVICE = {
    "investment": (
        "Approval is recommended on standard terms, with a review every year.",
        "The credit is of investment grade, and approval is recommended.",
    ),
    "speculative": (
        "Approval is recommended only with the covenants above and with security.",
        "The credit is speculative: lend against security, and review it every quarter.",
    ),
    "distressed": (
        "New lending is not recommended; existing exposure should be reduced or secured.",
        "Decline new lending, and watch existing exposure closely.",
    ),
    "unknown": (
        "The figures do not suffice for a rating; further accounts should be asked for before a decision.",
        "Postpone the decision until the accounts that a rating needs are at hand.",
    ),
}
