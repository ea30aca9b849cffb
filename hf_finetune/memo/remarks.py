"""What is to be told about rows before they are used: ratios that are not plausible, agencies that disagree."""

import re
from collections.abc import Sequence

from hf_finetune.errors import plural
from hf_finetune.memo.rating import rating_letter
from hf_finetune.memo.ratios import RATIOS, Ratio, is_plausible
from hf_finetune.memo.row import Borrower, given, implausible, one_line

EXAMPLES = 3


def remarks(rows: Sequence[Borrower]) -> list[str]:
    """One sentence for each ratio with values that are not plausible, and one on agencies that disagree."""
    found = [(ratio, [row for row in rows if ratio.name in implausible(row)]) for ratio in RATIOS]
    told = [_implausible(ratio, cases) + _percentages(ratio, rows) for ratio, cases in found if cases]
    return [*told, *_disagreements(rows)]


def _percentages(ratio: Ratio, rows: Sequence[Borrower]) -> str:
    """What to do where more than half of a ratio's values are plausible as percentages only; else nothing."""
    values = [own[ratio.name] for own in map(given, rows) if ratio.name in own]
    only = [value for value in values if not is_plausible(ratio, value) and is_plausible(ratio, value / 100)]
    return " The column looks like percentages: divide all of it by 100." if len(only) > len(values) / 2 else ""


def _implausible(ratio: Ratio, rows: Sequence[Borrower]) -> str:
    examples = [f"{one_line(row.name)} {getattr(row, ratio.name):g}" for row in rows]
    ranges = " or ".join(f"{low:g} to {high:g}" for low, high in ratio.plausible)
    return f"{ratio.name}: {plural(len(rows), 'value')} not within {ranges}, left out: {_first(examples, ', ')}."


def _disagreements(rows: Sequence[Borrower]) -> list[str]:
    """The company-years for which two agencies gave no rating in common."""
    ratings: dict[tuple[str, str], dict[str, set[str]]] = {}
    for row in rows:
        letter = rating_letter(row.rating)
        if letter and row.rating_agency_name:
            agencies = ratings.setdefault((one_line(row.name), _year(row.date)), {})
            agencies.setdefault(one_line(row.rating_agency_name), set()).add(letter)
    cases = {key: by for key, by in ratings.items() if not set.intersection(*by.values())}
    if not cases:
        return []
    examples = [f"{name} {year}: {_by_agency(by)}" for (name, year), by in cases.items()]
    return [f"Agencies disagree on {plural(len(cases), 'company-year')} of {len(ratings):,}: {_first(examples, '; ')}."]


def _by_agency(ratings: dict[str, set[str]]) -> str:
    return ", ".join(f"{'/'.join(sorted(letters))} {agency}" for agency, letters in ratings.items())


def _year(date: str) -> str:
    """The year in a date; the whole of it where there is none."""
    match = re.search(r"(?:19|20)\d\d", date)
    return match[0] if match else date


def _first(examples: Sequence[str], between: str) -> str:
    more = len(examples) - EXAMPLES
    return between.join(examples[:EXAMPLES]) + (f"{between}and {more:,} more" if more > 0 else "")
