"""The facts of one invented story: names, places, dates and figures that agree with each other."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import NamedTuple

from hf_finetune.demo import grammar
from hf_finetune.demo.grammar import Event, Slot, Template

# Facts that stay the same for the whole document, and facts that stay the same for one event.
_STORY = frozenset("short full sector nation year person person2 person3 broker city heshe short2 ticker".split())
_EVENT = frozenset(
    "m m2 m_gain period prior prior_n co2 co3 product product2 facility unit customer country country2 role "
    "sector_cap city2 agency lossname profitname marginname quarter".split()
)
_LINKED = frozenset("new old new2 old2 chg hipct lopct hiprice loprice".split())

_RATIOS = "market share,rate,ratio,return,utilisation,gearing,unemployment,margin,churn".split(",")
_COUNTS = "number,volume,passenger,deliveries,shipments,circulation,output,emissions,stock".split(",")
_CURRENCIES = "EUR USD $ € £ GBP SEK NOK DKK EEK LTL RUB JPY CHF PLN Lt".split()
_CURRENCY_WEIGHTS = (60, 6, 8, 6, 6, 4, 6, 4, 3, 3, 2, 2, 2, 2, 1, 1)
_IN_WORDS = "euros,euros,euro,dollars,pounds,crowns,kronor,US dollars".split(",")
_PERCENT = "{} %,{} %,{}%,{}%,{} per cent,{} percent,{} pct".split(",")
_SPACED = re.compile(r"\s*([;:()?!]|,(?!\d)|(?<=[^\d\s]),)\s*")


class Part(NamedTuple):
    """A stretch of a document, and whether it follows from what stands before it."""

    text: str
    follows: bool = False


Document = list[Part]


class Scene:
    """One story: fills slots by name and remembers what must not change."""

    def __init__(self, rng: random.Random, event: Event) -> None:
        """A story about `event`, with everything else still open."""
        self.rng = rng
        self.event = event
        self.book = grammar.load()
        self.known: dict[str, str] = {}
        self.currency = rng.choices(_CURRENCIES, _CURRENCY_WEIGHTS)[0]
        self.layout = rng.randrange(9)
        self.percent = rng.choice(_PERCENT)
        self.amounts: list[str] = []

    def next_event(self, event: Event) -> str:
        """A sentence on a further event of the same story."""
        main, self.event = self.event, event
        self.known = {name: value for name, value in self.known.items() if name in _STORY}
        sentence = self.sentence(self.rng.choice(event.lines))
        self.event = main
        return sentence

    def sentence(self, template: Template) -> str:
        """The template filled in, with a capital letter and a full stop."""
        text = self._grammatical(self.expand(template).strip())
        text = text[0].upper() + text[1:]
        return text if text[-1] in '.!?"' else text + "."

    def expand(self, template: Template) -> str:
        """The template with every choice made and every slot filled."""
        parts: list[str] = []
        for part in template:
            if isinstance(part, str):
                parts.append(part)
            elif isinstance(part, Slot):
                parts.append(self.fill(part.name))
            else:
                parts.append(self.expand(self.rng.choice(part.options)))
        return "".join(parts)

    def fill(self, name: str) -> str:
        """The words for slot `name`; a name ending in _c begins with a capital."""
        if name.endswith("_c"):
            text = self.fill(name[:-2])
            return text[0].upper() + text[1:]
        if name in self.known:
            return self.known[name]
        if name in _LINKED:
            self._link()
            return self.known[name]
        text = self._make(name)
        if name in _STORY or name in _EVENT:
            self.known[name] = text
        return text

    def _make(self, name: str) -> str:
        """Fresh words for slot `name`, made by code or drawn from a word list."""
        maker: Callable[[Scene], str] | None = _MAKERS.get(name) or _MAKERS.get(name.rstrip("23"))
        if maker:
            return maker(self)
        if name in ("m", "m2", "m_gain"):
            return self._metric(name)
        words, base = self.book.words, name.rstrip("23")
        for key in (f"{base}.{self.event.direction}", f"{base}.{self.event.kind}", base):
            if key in words:
                ranked = key != base
                return self.expand(_early(self.rng, words[key]) if ranked else self.rng.choice(words[key]))
        raise KeyError(f"grammar slot without words: {name}")

    def _metric(self, name: str) -> str:
        """A figure that companies report; m2 is never the same as m."""
        key = "metric_gain" if name == "m_gain" else self.event.metric
        while True:
            text = self.expand(self.rng.choice(self.book.words[key]))
            if text != self.known.get("m"):
                return text

    def _link(self) -> None:
        """Nothing: settles the figures of the event so that they agree with its direction."""
        for mark in ("", "2"):
            low, high = _two_values(self.rng)
            new, old = (low, high) if self.event.direction == "down" else (high, low)
            show = self._shower(self.known.get("m" + mark, ""))
            self.known["new" + mark], self.known["old" + mark] = show(new), show(old)
            if not mark:
                self.known["chg"] = self.per_cent(abs(new - old) / old * 100)
        low, high = _two_values(self.rng)
        scale = 40 / max(high, 40)
        self.known["lopct"], self.known["hipct"] = (
            self.per_cent(low * scale),
            self.per_cent(high * scale + 0.2),
        )
        self.known["loprice"], self.known["hiprice"] = (
            self.price(low * scale),
            self.price(high * scale + 0.05),
        )

    def _shower(self, metric: str) -> Callable[[float], str]:
        """How values of `metric` are written."""
        if metric == "EPS" or "per share" in metric or "dividend" in metric:
            return lambda value: self.price(value / 100 + 0.01)
        if any(word in metric for word in _RATIOS):
            return lambda value: self.per_cent(value % 90 if value > 90 else value)
        if any(word in metric for word in _COUNTS):
            return lambda value: f"{int(value * 1000):,}"
        return self.money

    def per_cent(self, value: float) -> str:
        """A percentage in the layout of this story."""
        digits = 0 if (value >= 20 and value == int(value)) or (self.layout % 3 == 0 and value >= 2) else 1
        return self.percent.format(f"{value:.{digits}f}")

    def price(self, value: float) -> str:
        """A price per share in the currency of this story."""
        gap = "" if self.currency in "$€£" or self.layout == 1 else " "
        return f"{self.currency}{gap}{max(value, 0.02):.2f}"

    def money(self, millions: float) -> str:
        """An amount of money in the layout of this story."""
        text = self._money(millions)
        self.amounts.append(text)
        return text

    def _money(self, millions: float) -> str:
        """The amount itself, as in "EUR 13.1 mn", "EUR131m" or "2.4 billion euros"."""
        big = millions >= 1000
        value = millions / 1000 if big else millions
        number = f"{value:.2f}" if big or value < 2 else f"{value:.1f}" if value < 400 else f"{value:.0f}"
        if self.layout == 0 and not big:
            return f"{self.currency} {int(value * 1000) * 1000:,}"
        if self.layout == 1:
            return f"{self.currency}{number}{'bn' if big else 'm'}"
        if self.layout == 2:
            unit = _IN_WORDS[_CURRENCIES.index(self.currency) % len(_IN_WORDS)]
            return f"{number} {'billion' if big else 'million'} {unit}"
        if self.layout == 3:
            return f"{self.currency}{number.replace('.', ' .')} {'bn' if big else 'mn'}"
        gap = "" if self.currency in "$€£" and self.layout < 7 else " "
        names = ("bn", "mn") if self.layout < 6 else ("billion", "million") if self.layout < 8 else ("bln", "mln")
        return f"{self.currency}{gap}{number} {names[0] if big else names[1]}"

    def _grammatical(self, text: str) -> str:
        """The text with verbs and articles made to agree with what they stand by."""
        for metric in (self.known.get("m", ""), self.known.get("m_gain", "")):
            if re.search(r"[^sui]s$|sales( in .*| of .*)?$", metric.split(" in ")[0]):
                for one, many in (("was", "were"), ("is", "are"), ("has", "have"), ("amounts", "amount")):
                    text = re.sub(rf"(?i)({re.escape(metric)}) {one}\b", rf"\1 {many}", text)
        text = re.sub(r"\b([Aa]) (?=[aeio]|8 |11 |18 )(?!one|eu)", r"\1n ", text)
        return re.sub(r" +", " ", text).replace(" ,", ",").replace(" .", ".") if self.layout != 3 else text


def _early(rng: random.Random, options: tuple[Template, ...]) -> Template:
    """One of the options, the more often the earlier it stands."""
    return options[int(len(options) * rng.random() ** 1.7)]


def _two_values(rng: random.Random) -> tuple[float, float]:
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
    return _full(Scene(scene.rng, scene.event)) if scene.rng.random() < 0.4 else _short(Scene(scene.rng, scene.event))


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


def punctuate(sentence: str, how: str) -> str:
    """The sentence as it stands, or with its punctuation set apart by spaces."""
    if how == "plain":
        return sentence
    text = re.sub(r'"([^"]*)"', r"`` \1 ''", sentence)
    text = _SPACED.sub(r" \1 ", text).replace("'s ", " 's ")
    text = re.sub(r"\.$", " .", text)
    return re.sub(" +", " ", text).strip()


_MAKERS: dict[str, Callable[[Scene], str]] = {
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
    "amt": lambda s: s.money(_two_values(s.rng)[1]),
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
