"""Text -> where it names which ratio, and which figure belongs to which name."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hf_finetune.memo.figures import Figure
from hf_finetune.memo.ratios import ALL, OTHER_RATIOS, RATIOS

OTHER = "other: "
"""Begins the name of a mention of a ratio that no row holds."""


@dataclass(frozen=True)
class Mention:
    """One place where a ratio is named."""

    name: str
    start: int
    end: int


def _spellings() -> dict[str, str]:
    """Each spelling in lower case, and the name of its ratio."""
    listed: list[tuple[str, str]] = [(name, f"{OTHER}{name}") for name in OTHER_RATIOS]
    for one in ALL:
        listed += [(text, one.name) for text in (one.label, one.name.replace("_", " "), *one.spellings)]
    return {text.lower(): name for text, name in listed}


def _pattern(spelling: str) -> str:
    words = [re.escape(word) for word in spelling.removesuffix(" ratio").split()]
    words = [r"(?:total[\s_-]+)?assets" if word == "assets" and place else word for place, word in enumerate(words)]
    text = r"[\s_-]+".join(words).replace(r"[\s_-]+to[\s_-]+", r"(?:[\s_-]+to[\s_-]+|\s?/\s?|[\s_-]+over[\s_-]+)")
    # A ratio is also its reciprocal's words with another order, so "ratio" is asked for where the name is nothing else.
    return text + (r"[\s_-]+ratios?" if spelling.endswith(" ratio") else r"(?:[\s_-]+ratios?)?")


def _any_of(spellings: Sequence[str]) -> re.Pattern[str]:
    """A pattern with a group for each spelling, the longest first."""
    parts = [f"(?P<s{place}>{_pattern(spelling)})" for place, spelling in enumerate(spellings)]
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(parts)})(?![^\W\d_])", re.IGNORECASE)


_NAMES = dict(sorted(_spellings().items(), key=lambda item: -len(item[0])))
_OUTRIGHT = _any_of(list(_NAMES))
_CHANGES = "grew grown rose risen fell fallen increased decreased declined dropped climbed gained".split()
_VAGUE_NAMES = dict.fromkeys(_CHANGES, f"{OTHER}a change over time") | {
    word: ratio.name for ratio in RATIOS for word in ratio.vague
}
_VAGUE = re.compile(rf"\b(?:{'|'.join(_VAGUE_NAMES)})\b", re.IGNORECASE)


def mentions_in(text: str) -> list[Mention]:
    """The ratios that a sentence names, in order; a vague word counts only where none is named outright."""
    names = list(_NAMES.values())
    found = [
        Mention(names[int((match.lastgroup or "s0")[1:])], match.start(), match.end())
        for match in _OUTRIGHT.finditer(text)
    ]
    vague = [Mention(_VAGUE_NAMES[match[0].lower()], match.start(), match.end()) for match in _VAGUE.finditer(text)]
    return found or vague


def attributed(figures: Sequence[Figure], mentions: Sequence[Mention], text: str) -> list[Mention | None]:
    """The mention that each figure of a sentence belongs to.

    `A and B are 1 and 2` is read in order. Otherwise a figure belongs to the nearest name before it that has no figure
    yet, else to the nearest one after it, else to the nearest one before it.
    """
    named = _merged(mentions, figures)
    if not named:
        return [None] * len(figures)
    if len(named) == len(figures) > 1 and _are_listed(named, text):
        return list(named)
    taken: set[int] = set()
    found: list[Mention | None] = []
    for figure in figures:
        place = _place(figure, named, taken, text)
        taken.add(place)
        found.append(named[place])
    return found


def _are_listed(mentions: Sequence[Mention], text: str) -> bool:
    """`the current ratio and the cash ratio`: names with nothing between them but what lists them."""
    return all(_LISTING.fullmatch(text[one.end : following.start]) for one, following in pairwise(mentions))


_LISTING = re.compile(r"[\s,/&)]*(?:(?:and|or|the|its|both)\b[\s,]*)*", re.IGNORECASE)


def _place(figure: Figure, mentions: Sequence[Mention], taken: set[int], text: str) -> int:
    before = [place for place, mention in enumerate(mentions) if mention.end <= figure.start]
    after = [place for place, mention in enumerate(mentions) if mention.start >= figure.end]
    free_before = [place for place in before if place not in taken]
    free_after = [place for place in after if place not in taken]
    if free_after and stands_before(figure, mentions[free_after[0]], text):
        nearest = text[mentions[before[-1]].end : figure.start] if before else ","
        if not free_before or before[-1] in taken or re.search(r",|\band\b|\bagainst\b|\bversus\b|\bwith\b", nearest):
            return free_after[0]
    return (free_before[-1:] or free_after[:1] or before[-1:] or after[:1])[0]


def stands_before(figure: Figure, mention: Mention, text: str) -> bool:
    """`a 4.1% return on assets`."""
    return bool(re.fullmatch(r"\s*(?:for\s+|in\s+)?(?:the\s+|its\s+)?", text[figure.end : mention.start]))


def _merged(mentions: Sequence[Mention], figures: Sequence[Figure]) -> list[Mention]:
    """`return on assets (ROA)` as one mention: names of one ratio with no figure between them."""
    merged: list[Mention] = list(mentions[:1])
    for one, following in pairwise(mentions):
        is_apart = any(one.end <= figure.start < following.start for figure in figures)
        if following.name == one.name and not is_apart:
            merged[-1] = Mention(one.name, merged[-1].start, following.end)
        else:
            merged.append(following)
    return merged
