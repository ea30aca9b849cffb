"""A model's text -> a memo: its sections in the order in which they stand, and its rating."""

import re
from dataclasses import dataclass

from hf_finetune.memo.rating import NOT_RATED, rating_letter
from hf_finetune.memo.row import SECTIONS


@dataclass(frozen=True)
class Section:
    """One section: its heading as the recipe spells it where it is one of the five, and its text."""

    heading: str
    """Empty for text above the first heading."""
    body: str


@dataclass(frozen=True)
class Memo:
    """A memo as it was found: nothing is mended."""

    sections: tuple[Section, ...]
    rating: str | None
    """The whole letter of the last line, or `not rated`; None where there is none, or lines contradict each other."""

    @property
    def text(self) -> str:
        """What the sections say, without headings and rating lines."""
        return "\n\n".join(section.body for section in self.sections)


_ALIASES = {section.lower(): section for section in SECTIONS} | dict.fromkeys(
    ("covenants or mitigants", "covenants/mitigants", "covenants & mitigants", "covenants", "mitigants"), SECTIONS[3]
)
_DECORATION = " \t#*_:"
_RATING_LINE = re.compile(r"[\s>#*_-]*(?:(?:credit|internal|overall)\s+)?rating[\s*_]*[:=–-](.+)", re.I)


def read(text: str) -> Memo | None:
    """The memo that a text holds; None where it has not one section heading. Never raises."""
    sections: list[tuple[str, list[str]]] = [("", [])]
    ratings: list[str | None] = []
    last_is_rating = False
    for line in text.splitlines():
        heading = _heading(line)
        rating = None if heading else _RATING_LINE.fullmatch(line)
        if heading:
            sections.append((heading, []))
        elif rating:
            ratings.append(_rating(rating[1]))
        else:
            sections[-1][1].append(line)
        last_is_rating = bool(rating) or (last_is_rating and not line.strip())
    if not any(heading in SECTIONS for heading, _ in sections):
        return None
    found = [Section(heading, "\n".join(lines).strip()) for heading, lines in sections]
    agreed = ratings[-1] if last_is_rating and len(set(ratings)) == 1 else None
    return Memo(tuple(section for section in found if section.heading or section.body), agreed)


def _heading(line: str) -> str | None:
    """The heading that a line is: one of the five however it is decorated, or another one marked with # or as bold."""
    bare = re.sub(r"^\d{1,2}[.)]", "", line.strip(_DECORATION)).strip(_DECORATION)
    known = _ALIASES.get(bare.lower())
    is_marked = re.match(r"\s*#{1,6}\s*\w|\s*\*\*[^*]+\*\*:?\s*$", line)
    if known or _RATING_LINE.fullmatch(line) or not is_marked:
        return known
    return bare or None


def _rating(text: str) -> str | None:
    bare = text.strip(" \t*_.")
    return NOT_RATED if bare.lower() == NOT_RATED else rating_letter(bare)
