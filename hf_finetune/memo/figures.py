"""Text -> the figures in it: value, unit, sign and how finely they are written."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

FigureUnit = Literal["percent", "times", "bare", "other"]
"""`bare` has no unit; `other` is money, time, basis points, millions: no ratio has it."""


@dataclass(frozen=True)
class Figure:
    """One figure as it stands in a text."""

    text: str
    start: int
    end: int
    values: tuple[float, ...]
    """What it may say: two values where parentheses may mean a loss or only a remark."""
    unit: FigureUnit
    half_step: float
    """Half a unit of its last digit: how far rounding may move it."""
    digits: int
    """Digits that are written, less leading zeros."""


_TENS = {word: 10 * n for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
_ONES = {
    word: n
    for n, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen".split()
    )
}
_OTHER_UNIT = (
    r"bps?\b|basis[\s-]points?\b|(?:millions?|billions?|trillions?|thousands?|hundreds?|mln|mio|mn|bn|m|k|tn)\b"
    r"|(?:days?|weeks?|months?|quarters?|years?)\b|(?:USD|EUR|GBP|CHF|JPY|dollars?|euros?|pounds?|cents?)\b|[$€£¥]"
)
_PERCENT = r"%|percent(?:age[\s-]points?)?\b|per[\s-]cent\b|pct\b|pp\b|p\.p\."
_TIMES = r"x(?![^\W_])|×|times\b|-?fold\b|(?::|\s?to\s)\s?1(?![\d.,]*\d)(?!\s?%)"
_UNIT = rf"(?:[\s-]?(?P<percent>{_PERCENT})|[\s-]?(?P<times>{_TIMES})|[\s-]?(?P<other>{_OTHER_UNIT}))?"
_WORDS = rf"(?P<tens>{'|'.join(_TENS)})?(?:(?<=y)[\s-])?(?P<ones>{'|'.join(sorted(_ONES, key=len, reverse=True))})?"

_NUMBER = re.compile(
    r"(?P<currency>[$€£¥]\s?|\b(?:USD|EUR|GBP|CHF|JPY)\s?)?(?P<open>\(\s?)?(?<!\w)(?<!\d\.)(?P<sign>[-−–+])?"
    r"(?P<number>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)" + _UNIT + r"(?P<close>\s?\))?",
    re.IGNORECASE,
)
_GLUED = re.compile(r"(?<=[^\W\d])(?P<sign>)(?P<number>\d+(?:\.\d+)?)" + _UNIT, re.IGNORECASE)
_SPELLED = re.compile(rf"\b(?=\w)(?P<sign>minus\s)?{_WORDS}{_UNIT}", re.IGNORECASE)
_TWICE = re.compile(r"\b(?:(?P<twice>twice|double)|(?P<thrice>thrice|triple))\b", re.IGNORECASE)


def figures_in(text: str) -> list[Figure]:
    """All figures of a text, in order; what is no figure must have been blanked out before."""
    found = [_figure(match) for match in _NUMBER.finditer(text)]
    found += [figure for figure in _glued(text) if not _overlaps(figure, found)]
    found += [figure for figure in (*_spelled(text), *_multiples(text)) if not _overlaps(figure, found)]
    return _with_shared_units(sorted(found, key=lambda figure: figure.start), text)


def _figure(match: re.Match[str]) -> Figure:
    number = match["number"].replace(",", "")
    size = float(number)
    decimals = len(number.partition(".")[2])
    is_negative = match["sign"] in ("-", "−", "–")
    values: tuple[float, ...] = (-size,) if is_negative else (size,)
    if match["open"] and match["close"] and not match["sign"]:
        values = (size, -size)
    start = match.start("sign") if match["sign"] else match.start("number")
    unit: FigureUnit = "other" if match["currency"] else _unit(match)
    return Figure(
        match[0].strip(), start, match.end(), values, unit, 0.5 * 10**-decimals,
        len(number.replace(".", "").lstrip("0")),
    )  # fmt: skip


def _unit(match: re.Match[str]) -> FigureUnit:
    units: tuple[FigureUnit, ...] = ("percent", "times", "other")
    return next((unit for unit in units if match[unit]), "bare")


def _glued(text: str) -> Iterator[Figure]:
    """Numbers stuck to letters (`ROA4.1%`); names such as Q3, X1, FY15 and Baa2 are none."""
    for match in _GLUED.finditer(text):
        if "." in match["number"] or len(match["number"]) > 2 or _unit(match) != "bare":
            size, decimals = float(match["number"]), len(match["number"].partition(".")[2])
            unit = _unit(match)
            yield Figure(match[0], match.start(), match.end(), (size,), unit, 0.5 * 10**-decimals, 2)


def _spelled(text: str) -> Iterator[Figure]:
    """Numbers in words that have a unit: `twelve percent`; `three covenants` is no figure."""
    for match in _SPELLED.finditer(text):
        words = (match["tens"] or "").lower(), (match["ones"] or "").lower()
        if any(words) and _unit(match) != "bare":
            size = float(_TENS.get(words[0], 0) + _ONES.get(words[1], 0))
            values = (-size,) if match["sign"] else (size,)
            yield Figure(match[0], match.start(), match.end(), values, _unit(match), 0.5, len(f"{size:.0f}"))


def _multiples(text: str) -> Iterator[Figure]:
    for match in _TWICE.finditer(text):
        yield Figure(match[0], match.start(), match.end(), (2.0 if match["twice"] else 3.0,), "times", 0.5, 1)


def _overlaps(figure: Figure, others: list[Figure]) -> bool:
    return any(figure.start < other.end and other.start < figure.end for other in others)


def _with_shared_units(figures: list[Figure], text: str) -> list[Figure]:
    """`1.2-1.5x`, `4.1 and 5.2 %`: a number without a unit has that of the next, where only such a word is between."""
    shared = list(figures)
    for place in range(len(figures) - 2, -1, -1):
        one, following = shared[place], shared[place + 1]
        between = text[one.end : following.start]
        if one.unit == "bare" and re.fullmatch(r"\s*(?:-|–|to|and|or|,|/)?\s*", between):
            shared[place] = Figure(
                one.text, one.start, one.end, one.values, following.unit, one.half_step, one.digits
            )  # fmt: skip
    return shared
