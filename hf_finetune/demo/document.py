"""A document as the pieces of text that it is made of, and how a sentence of it is typed."""

import re
from typing import NamedTuple

_SPACED = re.compile(r"\s*([;:()?!]|,(?!\d)|(?<=[^\d\s]),)\s*")


class Part(NamedTuple):
    """A stretch of a document, and whether it follows from what stands before it."""

    text: str
    follows: bool = False


Document = list[Part]


def punctuate(sentence: str, how: str) -> str:
    """The sentence as it stands, or with its punctuation set apart by spaces."""
    if how == "plain":
        return sentence
    text = re.sub(r'"([^"]*)"', r"`` \1 ''", sentence)
    text = _SPACED.sub(r" \1 ", text).replace("'s ", " 's ")
    text = re.sub(r"\.$", " .", text)
    return re.sub(" +", " ", text).strip()
