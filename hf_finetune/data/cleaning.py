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
ODD_SPACES = re.compile("[\u00a0\u2000-\u200a\u202f\u205f]")
LINE_ENDS = re.compile("\r\n?")
INDENTED = re.compile("[ \t]+[^\n]*\n+[ \t]")
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
ANSI = re.compile("\x1b\\[[0-9;]*[A-Za-z]")
ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|#\d{2,6}|#x[0-9a-fA-F]{2,5});")
MIS_DECODED = re.compile(
    "[\u00c2-\u00f4][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013\u2014"
    "\u2018-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122 ]"
)
"""Two signs that bytes of UTF-8 become in Windows-1252: a text without such a pair is not looked at."""
NOT_CONTROL = bytes(byte for byte in range(256) if (byte >= 32 and byte != 127) or byte in b"\t\n\r")


def has_control(text: str) -> bool:
    """Whether a text has control characters, less tabs and line ends; much faster than a regular expression."""
    if text.encode("utf-8", "surrogatepass").translate(None, NOT_CONTROL):
        return True
    return not text.isascii() and CONTROL.search(text) is not None


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
    if text.isascii() or not MIS_DECODED.search(text):
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
    """The text without white space around it and at its lines' ends; code keeps the indent of its first line."""
    if " \n" in text or "\t\n" in text:
        text = "\n".join(line.rstrip(" \t") for line in text.split("\n"))  # a pattern would be slow in long gaps
    if not text or not (text[0].isspace() or text[-1].isspace()):
        return text
    text = text.strip("\n").rstrip()
    return text if INDENTED.match(text) else text.strip()


def _without_control(text: str) -> str:
    return CONTROL.sub("", ANSI.sub("", text)) if has_control(text) else text


def _without_entities(text: str) -> str:
    return ENTITY.sub(lambda found: html.unescape(found.group()), text) if "&" in text and "<" not in text else text


_SAFE: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("line ends", _line_ends),
    ("zero-width characters", _zero_width),
    ("odd spaces", _spaces),
    ("white space at ends", _trailing),
    ("Unicode composed (NFC)", _composed),
)
_MORE: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("mis-decoded text repaired", _mended),
    ("HTML entities", _without_entities),
    ("control characters", _without_control),
)
_STEPS = {"none": (), "safe": _SAFE, "more": (*_MORE, *_SAFE)}
