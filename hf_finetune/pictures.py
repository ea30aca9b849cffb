"""What pages are made with: the templates and their number formats, axes, interval pictures and line charts."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, log10
from typing import TYPE_CHECKING

from hf_finetune.rendering import template

if TYPE_CHECKING:
    import jinja2


def page_template(name: str) -> "jinja2.Template":
    """A page's template; it writes numbers by the functions below."""
    filters: dict[str, Callable[..., str]] = {
        "number": number, "signed": signed, "percent": percent, "plain": plain, "interval": interval,
        "sentence": sentence, "chance": chance,
    }  # fmt: skip
    return template(name, filters, trim_blocks=True, lstrip_blocks=True)


def number(value: float | None, digits: int = 3) -> str:
    """`0.705`, `1,200` for a whole number, and a dash for what is absent."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def signed(value: float, digits: int = 3) -> str:
    """`+0.120` or, with a true minus, `−0.120`."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def percent(share: float) -> str:
    """`12 %`, with one digit below ten."""
    return f"{share * 100:.{1 if 0 < share < 0.0995 else 0}f} %"


def interval(ends: Sequence[float], is_gain: bool = False) -> str:
    """`0.592 to 0.802`; the ends of a difference with their signs."""
    return " to ".join(signed(end) if is_gain else number(end) for end in ends)


def chance(p_value: float) -> str:
    """`p = 0.012`, and `p < 0.001` for all below."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def sentence(text: str) -> str:
    """A text with a capital at its start, the rest as it is."""
    return text[:1].upper() + text[1:]


def plain(text: str) -> str:
    """A sentence or a title of a report without the marks that terminals need."""
    return text.replace(" -> ", " \N{RIGHTWARDS ARROW} ").replace("`", "")


@dataclass(frozen=True)
class Axis:
    """Where values stand on an axis that runs from its first tick to its last."""

    ticks: list[float]
    digits: int = 0

    @classmethod
    def over(cls, values: Iterable[float], steps: int = 5) -> "Axis":
        """An axis with about as many round steps, which holds all values."""
        low, high = min(known := [*values] or [0.0, 1.0]), max(known)
        rough = (high - low or abs(high) or 1.0) / steps
        power = floor(log10(rough))
        step = next(factor * 10.0**power for factor in (1, 2, 5, 10) if factor * 10.0**power >= rough * (1 - 1e-9))
        first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
        if first == last:
            first, last = (first - 1, last) if first > 0 else (first, last + 1)
        digits = max(0, -floor(log10(step) + 1e-9))
        return cls([round(i * step, digits) for i in range(first, last + 1)], digits)

    def at(self, value: float) -> float:
        """How far along the axis a value stands, in percent."""
        low, high = self.ticks[0], self.ticks[-1]
        return round((value - low) / (high - low) * 100, 2)


@dataclass(frozen=True)
class Mark:
    """A value with its interval, as a line of the interval picture."""

    name: str
    """Decides the colour."""
    title: str
    value: float
    ends: list[float] | None = None


@dataclass(frozen=True)
class Intervals:
    """Marks on one axis."""

    marks: list[Mark]
    axis: Axis
    are_gains: bool = False


def intervals(marks: Sequence[Mark], are_gains: bool = False) -> Intervals:
    """The picture of the marks, on an axis that holds them, and zero where they are differences."""
    values = [value for mark in marks for value in (mark.value, *(mark.ends or []))]
    return Intervals(list(marks), Axis.over([*values, *([0.0] if are_gains else [])]), are_gains)


@dataclass(frozen=True)
class Line:
    """A column's points, x and y, and how many rows each stands for."""

    name: str
    title: str
    points: list[tuple[float, float]]
    rows: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """Lines on two axes."""

    x: Axis
    y: Axis
    lines: list[Line]


UNIT = Axis([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], 1)
"""Shares."""
