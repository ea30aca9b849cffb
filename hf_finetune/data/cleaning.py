"""What is safe to change in a row, and what may be; each change is named."""

import html
import re
import unicodedata
from collections.abc import Callable
from typing import Literal

from hf_finetune.data.samples import Sample

Level = Literal["none", "safe", "more"]
LEVELS: tuple[Level, ...] = ("none", "safe", "more")

ZERO_WIDTH = re.compile("[\u200b\u2060\ufeff]")
"""Zero-width spaces and byte order marks; joiners (U+200C, U+200D) stay: scripts and emoji need them."""
ODD_SPACES = re.compile("[\u00a0\u2000-\u200a\u202f\u205f\u3000]")
LINE_ENDS = re.compile("\r\n?")
TRAILING = re.compile("[ \t]+(?=\n)")
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
ANSI = re.compile("\x1b\\[[0-9;]*[A-Za-z]")
ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|#\d{2,6}|#x[0-9a-fA-F]{2,5});")
BAD = re.compile("[\x80-\x9fÂÃÅâÄÐÑØÙðïãäå\ufffd]")
"""What mis-decoded text has in it: other texts are not looked at."""


def cleaned(sample: Sample, level: Level = "safe") -> tuple[Sample, list[str]]:
    """The sample at a level of cleaning, and a few words for each kind of change that was made.

    `safe` changes white space, line ends, invisible characters and the form of Unicode; `more` also repairs mis-decoded
    text and HTML's entities and removes control characters.
    """
    changed: dict[str, None] = {}

    def change(text: str) -> str:
        for words, step in _STEPS[level]:
            new = step(text)
            if new != text:
                changed[words] = None
                text = new
        return text

    return sample.with_texts(change), list(changed)


def _mended(text: str) -> str:
    if text.isascii() or not BAD.search(text):
        return text
    import ftfy

    return ftfy.fix_encoding(text)


def _spaces(text: str) -> str:
    return text if text.isascii() else ODD_SPACES.sub(" ", text)


def _zero_width(text: str) -> str:
    return text if text.isascii() else ZERO_WIDTH.sub("", text)


def _composed(text: str) -> str:
    return text if text.isascii() or unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def _line_ends(text: str) -> str:
    return LINE_ENDS.sub("\n", text) if "\r" in text else text


def _trailing(text: str) -> str:
    return TRAILING.sub("", text) if " \n" in text or "\t\n" in text else text


def _without_control(text: str) -> str:
    return CONTROL.sub("", ANSI.sub("", text)) if CONTROL.search(text) else text


def _without_entities(text: str) -> str:
    return ENTITY.sub(lambda found: html.unescape(found.group()), text) if "&" in text and "<" not in text else text


_SAFE: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("line ends", _line_ends),
    ("zero-width characters", _zero_width),
    ("odd spaces", _spaces),
    ("white space at ends", lambda text: _trailing(text.strip())),
    ("Unicode composed (NFC)", _composed),
)
_MORE: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("mis-decoded text repaired", _mended),
    ("HTML entities", _without_entities),
    ("control characters", _without_control),
)
_STEPS = {"none": (), "safe": _SAFE, "more": (*_MORE, *_SAFE)}
