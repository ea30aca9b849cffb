"""The facts of a story that are drawn and not listed: names, places, dates and figures, a maker for each slot."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from hf_finetune.demo import grammar

if TYPE_CHECKING:
    from hf_finetune.demo.scene import Scene


def two_values(rng: random.Random) -> tuple[float, float]:
    """A lower and a clearly higher value, in millions."""
    low = round(10 ** rng.uniform(-0.3, 3.2), 1)
    high = round(low * (1 + rng.choice((0.05, 0.12, 0.3, 0.8, 2.0)) * rng.uniform(0.6, 1.5)) + 0.1, 1)
    return low, high


def _name_part(rng: random.Random, style: str, count: int) -> str:
    """An invented word of `count` syllables."""
    syllables = grammar.load().words["syl_" + style]
    return "".join(str(rng.choice(syllables)[0]) for _ in range(count)).capitalize()


def _short(scene: Scene) -> str:
    """The short name of an invented company."""
    rng = scene.rng
    style = rng.choices(("nordic", "anglo", "german", "asian", "latin", "tech"), (40, 16, 10, 8, 8, 18))[0]
    scene.known["style"] = style
    word = _name_part(rng, style, rng.choices((1, 2, 3), (1, 8, 3))[0])
    draw = rng.random()
    if draw < 0.08:
        return "".join(rng.choices("ABCDEFGHIKLMNOPRSTUVY", k=rng.choice((2, 3, 3, 4))))
    if draw < 0.14:
        return f"{rng.choice('FMLXEQS')}-{word}"
    if draw < 0.20:
        return word + _name_part(rng, style, 2)
    if draw < 0.32:
        return f"{word} {scene.fill('branch_word')}"
    if draw < 0.36:
        return f"{scene.fill('last')} & {scene.fill('last')}"
    return word


def _full(scene: Scene) -> str:
    """The full name of the company of the story."""
    short = scene.fill("short")
    words = scene.book.words["suffix_" + scene.known.get("style", "nordic")]
    return f"{short} {scene.expand(scene.rng.choice(words))}"


def _company(scene: Scene) -> str:
    """The company of the story, by its full or its short name."""
    return scene.fill("full") if scene.rng.random() < 0.4 else scene.fill("short")


def _other(scene: Scene) -> str:
    """Another company."""
    return _full(scene.another()) if scene.rng.random() < 0.4 else _short(scene.another())


def _person(scene: Scene) -> str:
    """A first and a last name."""
    rng = scene.rng
    last = scene.fill("last") if rng.random() < 0.4 else (scene.fill("last_a") + scene.fill("last_b"))
    return f"{scene.fill('first')} {last}"


def _period(scene: Scene) -> str:
    """The time that the figures are for."""
    year, quarter = scene.fill("year"), scene.fill("ordinal")
    month = scene.fill("month")
    options = (
        f"in the {quarter} quarter of {year}",
        f"in the {quarter} quarter",
        f"in {year}",
        f"for the {quarter} quarter",
        f"in January-{month} {year}",
        f"in the first half of {year}",
        "in the first nine months",
        "in the period",
        f"in the fiscal year ended {month} 31",
        f"during the {quarter} quarter",
        "in the review period",
        "last year",
        f"in the twelve months to {month} {year}",
        f"in the first six months of {year}",
        "in the past year",
        f"in Q{scene.rng.randint(1, 4)}",
        f"in {month}",
        f"in {month} {year}",
        "in the first quarter of the year",
        f"between January and {month}",
        "this year",
        f"for the financial year {year}",
        f"in the second half of {year}",
    )
    return scene.rng.choice(options)


def _prior(scene: Scene) -> str:
    """The time that the figures are compared with."""
    before = scene.fill("prioryear")
    options = (
        f"in the corresponding period in {before}",
        "in the corresponding period",
        "a year earlier",
        f"in {before}",
        f"in the same period of {before}",
        "in the same period last year",
        "the year before",
        "the previous year",
        "in the year-earlier period",
        "a year ago",
        "in the comparison period",
        f"in the same quarter of {before}",
        f"in the corresponding period of {before}",
        "the corresponding quarter",
        "in the previous quarter",
    )
    return scene.rng.choice(options)


def _date(scene: Scene) -> str:
    """A date in one of the usual layouts."""
    day, month, year = scene.rng.randint(1, 30), scene.fill("month"), scene.fill("year")
    options = (
        f"{day} {month} {year}",
        f"{month} {day}, {year}",
        f"{month} {day}",
        f"{day} {month}",
        f"{month} {year}",
    )
    return scene.rng.choice(options)


def _count(scene: Scene) -> str:
    """A number of people or things."""
    value = int(10 ** scene.rng.uniform(1, 4.2))
    return f"{round(value, -1) if scene.rng.random() < 0.6 else value:,}"


def _price_drawn(scene: Scene) -> str:
    """A price per share."""
    return scene.price(10 ** scene.rng.uniform(-0.7, 1.9))


def _reason(scene: Scene) -> str:
    """A cause that fits the event."""
    return scene.fill("bad_reason" if scene.event.kind == "bad" else "good_reason")


MAKERS: dict[str, Callable[[Scene], str]] = {
    "short": _short,
    "short2": lambda s: _name_part(s.rng, "latin", 2),
    "full": _full,
    "co": _company,
    "co2": _other,
    "co3": _other,
    "it": lambda s: s.rng.choice(("the company", "the company", "the group", s.fill("short"))),
    "person": _person,
    "period": _period,
    "prior": _prior,
    "prior_n": lambda s: s.rng.choice(
        (
            "the previous year",
            "the year-earlier period",
            "last year",
            "a year ago",
            "the corresponding period",
        )
    ),
    "date": _date,
    "year": lambda s: str(s.rng.randint(1997, 2026)),
    "prioryear": lambda s: str(int(s.fill("year")) - 1),
    "year2": lambda s: str(int(s.fill("year")) + 2),
    "quarter": lambda s: f"{s.fill('ordinal')} quarter",
    "amt": lambda s: s.money(two_values(s.rng)[1]),
    "pct": lambda s: s.per_cent(round(10 ** s.rng.uniform(-0.3, 1.7), 1)),
    "price": _price_drawn,
    "price_n": lambda s: f"{s.rng.uniform(200, 9000):,.2f}",
    "n": lambda s: str(s.rng.randint(2, 90)),
    "staff": _count,
    "shares": lambda s: f"{int(10 ** s.rng.uniform(3, 8.2)):,}",
    "age": lambda s: str(s.rng.randint(31, 64)),
    "born": lambda s: str(s.rng.randint(1945, 1985)),
    "clock": lambda s: s.rng.choice(("9 am", "10.00", "11:00", "8.30", "14:00", "noon", "3 p.m.")),
    "ticker": lambda s: "".join(s.rng.choices("ABCDEFGHIKLMNOPRSTUV", k=4)) + s.rng.choice(("", "1V", "AS", "B")),
    "web": lambda s: re.sub(r"\W", "", s.fill("short").lower()),
    "broker": lambda s: f"{_name_part(s.rng, s.rng.choice(('anglo', 'nordic', 'german')), 2)} {s.fill('broker_tail')}",
    "reason": _reason,
    "reason_bad": lambda s: s.fill("bad_reason"),
}
