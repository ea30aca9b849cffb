"""Cleaning changes what a level allows, and names each kind of change."""

import pytest

from hf_finetune.data.cleaning import LEVELS, Level, cleaned
from hf_finetune.data.findings import findings
from hf_finetune.data.samples import Message, Sample

CHANGES: list[tuple[Level, str, str, str]] = [
    ("safe", "  Yes. \n", "Yes.", "white space at ends"),
    ("safe", "one  \ntwo\t\nthree", "one\ntwo\nthree", "white space at ends"),
    ("safe", "one\r\ntwo\rthree", "one\ntwo\nthree", "line ends"),
    ("safe", "\ufeffYes\u200b.", "Yes.", "zero-width characters"),
    ("safe", "10\u00a0000\u2009km", "10 000 km", "odd spaces"),
    ("safe", "Cafe\u0301", "Café", "Unicode composed (NFC)"),
    ("more", "cafÃ© â€“ itâ€™s", "café – it’s", "mis-decoded text repaired"),
    ("more", "Fish &amp; chips &#39;now&#39;", "Fish & chips 'now'", "HTML entities"),
    ("more", "A\x00 \x1b[31mred\x1b[0m one", "A red one", "control characters"),
]


def asked(prompt: str, completion: str) -> Sample:
    return Sample((Message("user", prompt), Message("assistant", completion)))


@pytest.mark.parametrize(("level", "text", "expected", "words"), CHANGES)
def test_what_is_changed_is_named(level: Level, text: str, expected: str, words: str) -> None:
    assert cleaned(asked("Who?", text), level) == (asked("Who?", expected), [words])
    lower = LEVELS[LEVELS.index(level) - 1]
    assert words not in cleaned(asked("Who?", text), lower)[1]


@pytest.mark.parametrize(
    "text",
    [
        "    return one\n    if two:\n        pass",
        "Fish &amp; chips in <b>HTML</b>",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 and می\u200cخواهم",
        "“Quoted” — naïve, à côté, Ærø",
        "a\tb\n\n\nc",
        "全角\u3000空白",
    ],
)
def test_what_is_meant_stays(text: str) -> None:
    assert cleaned(asked("Who?", text), "more") == (asked("Who?", text), [])


def test_none_changes_nothing() -> None:
    sample = asked(" a\r\n", "b\u200b ")
    assert cleaned(sample, "none") == (sample, [])
    assert cleaned(sample, "none")[0] is sample


def test_all_texts_of_a_row_are_cleaned_and_nothing_else_is_lost() -> None:
    sample = Sample(
        (Message("user", "a "), Message("assistant", "b ", 0.5)), (Message("assistant", "c "),), "b ", is_good=True
    )
    assert cleaned(sample)[0] == Sample(
        (Message("user", "a"), Message("assistant", "b", 0.5)), (Message("assistant", "c"),), "b", is_good=True
    )


def test_cleaning_what_is_clean_changes_nothing() -> None:
    for level, text, _, _ in CHANGES:
        once = cleaned(asked("Who?", text), level)[0]
        assert cleaned(once, level) == (once, [])


def test_what_more_mends_is_no_fault_after_it() -> None:
    broken = asked("Is it?", "The cafÃ© is\x08 near.")
    assert {one.check for one in findings(broken)} == {"mis_decoded", "control_character"}
    assert findings(cleaned(broken, "more")[0]) == []
