"""One invented story: it fills slots by name, so that names, dates and figures agree with each other."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from hf_finetune.demo import grammar
from hf_finetune.demo.facts import MAKERS, two_values
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


class Scene:
    """One story: fills slots by name and remembers what must not change."""

    def __init__(self, rng: random.Random, event: Event) -> None:
        """A story about `event`, with everything else still open."""
        self.rng: random.Random = rng
        self.event = event
        self.book = grammar.load()
        self.known: dict[str, str] = {}
        self.currency = rng.choices(_CURRENCIES, _CURRENCY_WEIGHTS)[0]
        self.layout = rng.randrange(9)
        self.percent = rng.choice(_PERCENT)
        self.amounts: list[str] = []

    def another(self) -> Scene:
        """A story of its own on the same event: that of another company."""
        return Scene(self.rng, self.event)

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
        maker: Callable[[Scene], str] | None = MAKERS.get(name) or MAKERS.get(name.rstrip("23"))
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
            low, high = two_values(self.rng)
            new, old = (low, high) if self.event.direction == "down" else (high, low)
            show = self._shower(self.known.get("m" + mark, ""))
            self.known["new" + mark], self.known["old" + mark] = show(new), show(old)
            if not mark:
                self.known["chg"] = self.per_cent(abs(new - old) / old * 100)
        low, high = two_values(self.rng)
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
