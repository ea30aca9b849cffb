"""Each figure of a memo -> what it was taken for, and why it is not supported where it is not.

A figure belongs to the ratio that is named nearest to it, and must be that ratio as the row gives it, in its unit, to
the rounding as written. So two figures that are swapped are both wrong although both stand in the row.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from hf_finetune.memo.figures import Figure, figures_in
from hf_finetune.memo.mentions import OTHER, Mention, attributed, mentions_in, stands_before
from hf_finetune.memo.ratios import BY_NAME, Unit, as_shown, derived, label_of, shown, unit_of, words_of
from hf_finetune.memo.row import Borrower, implausible, one_line, usable

MOST_RELATIVE_ERROR = 0.10
"""`2x` is 1.84x to its rounding; `1x` is not 1.40x, although half a unit of its last digit is further."""

# What follows "debt" or "equity" is also said in percent; a current ratio of 150 % is said by nobody.
_ALSO_PERCENT = ("debt_equity_ratio",)
_ALSO_TIMES = ("debt_ratio", "equity_ratio", "equity_to_liabilities")


@dataclass(frozen=True)
class Finding:
    """One figure of a memo."""

    figure: str
    """As it stands in the text."""
    sentence: str
    taken_for: str | None
    """The ratio it was taken for, or how it follows from two; None where no ratio is named."""
    fault: str | None
    """Why it is not supported; None where it is."""


@dataclass(frozen=True)
class _Known:
    """A ratio that a memo may state: its value, and that value as the prompt shows it."""

    values: tuple[float, ...]
    unit: Unit


def findings(row: Borrower, text: str) -> list[Finding]:
    """Every figure of a memo on this row, in order, with what it was taken for and what is wrong with it."""
    known, left_out = _known(row), implausible(row)
    found: list[Finding] = []
    for sentence in sentences(_blanked(row, text)):
        figures, mentions = figures_in(sentence), mentions_in(sentence)
        named, told = [mention.name for mention in mentions], " ".join(sentence.split())
        for figure, mention in zip(figures, attributed(figures, mentions, sentence), strict=True):
            signed = _signed(figure, mention, sentence)
            is_multiple = figure.unit == "times" and any(stands_before(figure, other, sentence) for other in mentions)
            is_stated = mention is not None and not is_multiple and _states(mention, figure, sentence)
            taken_for, fault = (
                _judged(signed, mention, named, is_stated, known, left_out) if mention
                else _unnamed(signed, sentence, known)
            )  # fmt: skip
            found.append(Finding(figure.text, told, taken_for, fault))
    return found


def _known(row: Borrower) -> dict[str, _Known]:
    """The usable ratios and what follows from them, exactly and as a reader of the prompt works it out."""
    exact = usable(row)
    seen = {name: as_shown(value, BY_NAME[name].unit) for name, value in exact.items()}
    exact_all, seen_all = exact | derived(exact), seen | derived(seen)
    left_out = implausible(row)
    return {
        name: _Known((value, seen_all.get(name, value)), unit_of(name))
        for name, value in exact_all.items()
        if name not in left_out
    }


# What is no figure: list numbers, ordinals, and the row's own name, sector and date, which may hold digits.
_LIST_NUMBER = re.compile(r"^[^\S\n]*(?:[-*•][^\S\n]*)?\(?\d{1,2}[.)](?=\s)", re.MULTILINE)
_ORDINAL = re.compile(r"\b\d+(?:st|nd|rd|th)\b", re.IGNORECASE)
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_NO_UNIT = r"(?![.,]?\d)(?!\s?(?:[%x×]|times|per\s?cent|m\b|bn|million|billion))"


def _blanked(row: Borrower, text: str) -> str:
    """The text with what is no figure replaced by signs, character for character."""
    own = [_verbatim(one_line(words)) for words in (row.name, row.sector, row.date) if words.strip()]
    patterns = [*own, _LIST_NUMBER, _ORDINAL, *_date_patterns(row.date)]
    for pattern in patterns:
        text = pattern.sub(lambda match: re.sub(r"[^\n]", "¤", match[0]), text)
    return text


def _verbatim(words: str) -> re.Pattern[str]:
    """The words as they stand, and not as the beginning of a figure: a company may be called 3."""
    spaced = r"\s+".join(map(re.escape, words.split()))
    return re.compile(rf"(?<![\w.,$€£]){spaced}(?!\w){_NO_UNIT}", re.IGNORECASE)


def _date_patterns(date: str) -> Iterator[re.Pattern[str]]:
    """The year of the row's date, and its day where a month and the year stand with it."""
    for year in sorted(set(re.findall(r"(?<!\d)(?:19|20)\d\d(?!\d)", date))):
        days = "|".join(sorted({str(int(day)) for day in re.findall(r"(?<!\d)\d{1,2}(?!\d)", date)})) or "(?!)"
        yield re.compile(rf"\b(?:0?(?:{days})\s+{_MONTH}|{_MONTH}\s+0?(?:{days})),?\s+{year}\b", re.IGNORECASE)
        yield re.compile(rf"(?<![\w.,$€£])(?:FYE?\s?|')?{year}{_NO_UNIT}")


_BREAK = re.compile(
    r"(?<=[.!?])(?<!\bvs\.)(?<!\bca\.)(?<!\bapprox\.)(?<!\bno\.)(?<!\bNo\.)[*_\"')\]]*\s+(?=[^\sa-z])"
    r"|\n(?=\s*(?:\n|[-*•|#>]|¤|$))|;\s"
)


def sentences(text: str) -> list[str]:
    """A text's sentences, list items and table rows; a line break alone ends none."""
    return [part for part in _BREAK.split(text) if part.strip()]


_NEGATIVE = r"(?:negative|minus|loss(?:es)?|lost|losing|deficit|shortfall)"
_BEFORE_FIGURE = re.compile(
    rf"\b{_NEGATIVE}(?:[\s,]+(?:of|at|to|by|about|around|roughly|nearly|some|a))*[\s:]*\(?$", re.I
)
_BEFORE_NAME = re.compile(r"\bnegative(?:\s+(?:a|the|its))?\s*$", re.IGNORECASE)
_LOSS_NAME = re.compile(r"\bloss\b", re.IGNORECASE)


_NEAR = 60
"""Characters before a figure or a name in which a word may give it its sign."""


def _signed(figure: Figure, mention: Mention | None, sentence: str) -> Figure:
    """The figure with the sign that its words give it: `a loss of 3.2%`, `a negative return on assets of 3.2%`."""
    is_negative = bool(_BEFORE_FIGURE.search(sentence[max(0, figure.start - _NEAR) : figure.start]))
    if mention and mention.end <= figure.start:
        is_negative |= bool(_BEFORE_NAME.search(sentence[max(0, mention.start - _NEAR) : mention.start]))
        is_negative |= bool(_LOSS_NAME.search(sentence[mention.start : mention.end]))
    if not is_negative:
        return figure
    values = tuple(dict.fromkeys(-abs(value) for value in figure.values))
    return Figure(figure.text, figure.start, figure.end, values, figure.unit, figure.half_step, figure.digits)


_STATING = re.compile(
    r"[\s,(:=|*_-]*(?:(?:of|at|is|was|stands|stood|comes|came|amounts|amounted|to|reaches|reached|only|just|about|around|"
    r"roughly|the|present|reported|a|an|negative|minus|equal|equals|and)[\s,(:=|*_-]*)*",
    re.IGNORECASE,
)


def _states(mention: Mention, figure: Figure, sentence: str) -> bool:
    """Whether a figure is given as the ratio's own value, and not as what it exceeds another by."""
    return mention.end <= figure.start and bool(_STATING.fullmatch(sentence[mention.end : figure.start]))


def _judged(
    figure: Figure, mention: Mention, named: Sequence[str], is_stated: bool, known: Mapping[str, _Known],
    left_out: Mapping[str, float],
) -> tuple[str | None, str | None]:  # fmt: skip
    """What a figure was taken for, and its fault."""
    if mention.name in known and _says(figure, known[mention.name], mention.name):
        return mention.name, None
    follows = None if is_stated or mention.name.startswith(OTHER) else _follows(figure, named, known)
    return (follows, None) if follows else (mention.name, _fault(figure, mention.name, known, left_out))


def _unnamed(figure: Figure, sentence: str, known: Mapping[str, _Known]) -> tuple[str | None, str | None]:
    """A figure in a sentence without a ratio: it needs a word of one; one digit, or no unit, could be anything."""
    if figure.digits >= 2 and figure.unit in ("percent", "times"):
        for name, one in known.items():
            if _says(figure, one, name) and words_of(name) & set(re.findall("[a-z]+", sentence.lower())):
                return name, None
    return None, "no ratio is named with it, and none of the row is that figure"


def _fault(figure: Figure, name: str, known: Mapping[str, _Known], left_out: Mapping[str, float]) -> str:
    if name.startswith(OTHER):
        return f"{name.removeprefix(OTHER)} is not among the figures of the row"
    if name in left_out:
        return f"{label_of(name)} is not plausible as reported, and must not be repeated"
    if name not in known:
        return f"{label_of(name)} is not among the figures of the row"
    return f"{label_of(name)} is {shown(known[name].values[0], known[name].unit)}"


def _says(figure: Figure, one: _Known, name: str) -> bool:
    """Whether the figure is that ratio, in a unit in which it is said, to the rounding as written."""
    units = {one.unit, "bare"}
    units |= {"percent"} if name in _ALSO_PERCENT else set()
    units |= {"times"} if name in _ALSO_TIMES else set()
    return figure.unit in units and any(_rounds(figure, value) for value in one.values)


def _rounds(figure: Figure, value: float) -> bool:
    target = value * 100 if figure.unit == "percent" else value
    errors = [abs(stated - target) for stated in figure.values]
    return any(error <= min(figure.half_step, MOST_RELATIVE_ERROR * abs(target)) + 1e-9 for error in errors)


def _follows(figure: Figure, named: Sequence[str], known: Mapping[str, _Known]) -> str | None:
    """How a figure follows from two ratios that its own sentence names, such as `a - b`; None where it does not."""
    for first, second in permutations(dict.fromkeys(name for name in named if name in known), 2):
        for way, value, unit in _combined(known[first], known[second]):
            if figure.unit in (unit, "bare") and figure.digits >= 2 and _rounds(figure, value):
                return f"{first} {way} {second}"
    return None


def _combined(one: _Known, other: _Known) -> Iterator[tuple[str, float, Unit]]:
    """Sum, difference, product and quotient of two ratios with their units, where the units allow one."""
    for a, b in zip(one.values, other.values, strict=True):
        if one.unit == other.unit:
            yield "+", a + b, one.unit
            yield "-", a - b, one.unit
        yield "x", a * b, "percent" if "percent" in (one.unit, other.unit) else "times"
        if b and not (one.unit == "times" and other.unit == "percent"):
            yield "/", a / b, "times" if one.unit == other.unit else "percent"
