"""One row -> what is wrong with it, by small checks that each have a name and an advice.

A fault spoils what is learnt, so that the row has to go; a warning is counted. What can only be told from all rows is
told elsewhere: duplicates.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import pairwise
from statistics import median

from hf_finetune.data.samples import Finding, Message, Sample
from hf_finetune.data.text_checks import breaks_off, ends_a_sentence, faults_of_text, says_nothing

LONG = 80
"""Characters from which an answer is a text, of which it can be told whether it ends."""
MOSTLY = 0.97
"""The share of long answers that must end a sentence before one that does not counts as cut off."""
SHORT = 40
"""Characters that answers must usually have before one of a single sign is very short."""
ALIKE = 0.85
"""How alike two labels must be, by difflib, for one to be the other misspelt."""
RARE = 20
"""How many times as often a label must stand in the rows as one that may be it misspelt."""
SLIPS = 2
"""In more of the first rows a label is no slip of the keyboard."""


@dataclass(frozen=True)
class Expected:
    """What the rows are held against: what is usual among them, and what the user asked for."""

    labels: Mapping[str, int] = field(default_factory=dict)
    """How often each label was seen, best in all rows: one that is not among them is told; of a given set, 0."""
    is_closed: bool = False
    """Whether the labels were given, so that every other one is a fault."""
    answer_length: int = 0
    """The median number of characters of an answer; 0 where it is not known."""
    ends_sentences: bool = False
    """Whether nearly all long answers end a sentence."""
    has_personal: bool = True
    """Whether personal data is looked for."""
    region: str | None = None
    """The country whose telephone numbers are meant where none is named, such as `DE`."""


def expected_of(
    samples: Sequence[Sample],
    labels: Sequence[str] = (),
    *,
    has_personal: bool = True,
    region: str | None = None,
) -> Expected:
    """What is usual among the first samples, with what the user asked for; `labels` is a closed set."""
    answers = [sample.completion.strip() for sample in samples if sample.messages]
    long = [answer for answer in answers if len(answer) >= LONG]
    seen = Counter(sample.label for sample in samples if sample.label is not None)
    return Expected(
        labels=dict.fromkeys(labels, 0) if labels else dict(seen),
        is_closed=bool(labels),
        answer_length=int(median(map(len, answers))) if answers else 0,
        ends_sentences=len(long) >= 20 and sum(map(ends_a_sentence, long)) >= MOSTLY * len(long),
        has_personal=has_personal,
        region=region,
    )


def findings(sample: Sample, expected: Expected | None = None) -> list[Finding]:
    """All that is wrong, or may be, with one row."""
    expected = expected or Expected()
    return [finding for check in CHECKS for finding in check(sample, expected)]


def turns(sample: Sample, expected: Expected) -> Iterator[Finding]:
    """`missing_turn`, `role_order`, `first_turn`, `last_turn`: faults of the conversation's order."""
    roles = [message.role for message in sample.messages]
    if not roles:
        yield Finding("missing_turn", True, "the conversation has no turns.", "Drop the row.")
        return
    if "assistant" not in roles:
        yield Finding("missing_turn", True, "no turn is the assistant's.", "Add the answer, or drop the row.")
        return
    if roles[-1] != "assistant":
        what = f"the last turn is the {roles[-1]}'s: nothing is learnt of it."
        yield Finding("last_turn", True, what, "Drop the turns after the last answer.")
    spoken = roles[1:] if roles[0] == "system" else roles
    if spoken[0] != "user" and len(sample.messages) > 1 and not (sample.rejected and spoken == ["assistant"]):
        yield Finding("first_turn", True, f"the first turn is the {spoken[0]}'s.", "Begin with the user's question.")
    for number, (before, role) in enumerate(pairwise(roles), 2):
        if role == "system":
            what = f"turn {number} is the system's, after other turns."
            yield Finding("role_order", True, what, "Put the system's turn first.")
        elif role == before and role != "tool":
            what = f"turns {number - 1} and {number} are both the {role}'s."
            yield Finding("role_order", True, what, "Join them, or add the turn that is missing between.")
        elif role == "tool" and before == "user":
            what = f"turn {number} is a tool's, right after the user's."
            yield Finding("role_order", True, what, "Add the assistant's call of the tool.")


def emptiness(sample: Sample, expected: Expected) -> Iterator[Finding]:
    """`empty_answer`, `empty_prompt`, `missing_turn`, `very_short_answer`."""
    last = len(sample.messages) - 1
    for number, message in enumerate(sample.messages):
        if message.content.strip():
            continue
        if message.role == "assistant":
            check, what = ("empty_answer", "the answer is empty.") if number == last else (
                "missing_turn", f"turn {number + 1}, the assistant's, is empty.")  # fmt: skip
            yield Finding(check, True, what, "Write the answer, or drop the row.")
        elif message.role == "user":
            what = f"{_place(sample, number)} is empty."
            yield Finding("empty_prompt", True, what, "Write the question, or drop the row.")
    if sample.rejected and not any(message.content.strip() for message in sample.rejected):
        yield Finding("empty_answer", True, "the rejected answer is empty.", "Write it, or drop the row.")
    if sample.label is None and sample.messages and (answer := sample.completion.strip()):
        kind = says_nothing(answer)
        if kind == "error":
            what = f"the answer is {answer!r}: an empty cell that became text."
            yield Finding("empty_answer", True, what, "Write the answer, or drop the row.")
        elif kind == "nothing" and expected.answer_length >= SHORT:
            what = f"the answer is {answer!r}; half of the answers are longer than {expected.answer_length} characters."
            yield Finding("very_short_answer", False, what, "Look whether it is whole.")


def pairs(sample: Sample, expected: Expected) -> Iterator[Finding]:
    """`same_answers` of a preference pair; `repeats_prompt` of an answer."""
    if sample.rejected:
        kept = sample.messages[-len(sample.rejected) :]
        if [one.content.strip() for one in kept] == [one.content.strip() for one in sample.rejected]:
            what = "the chosen answer and the rejected one are the same."
            yield Finding("same_answers", True, what, "Drop the row: no preference can be learnt.")
    if len(sample.messages) > 1 and sample.label is None:
        asked, told = sample.messages[-2].content.strip(), sample.completion.strip()
        if asked == told and len(told) > SHORT:
            what = f"the answer is the question again: {told[:40]!r}."
            yield Finding("repeats_prompt", False, what, "Look whether a column was taken twice.")


def label(sample: Sample, expected: Expected) -> Iterator[Finding]:
    """`unknown_label`: outside the set, or nearly like a label that is far more frequent; `new_label`.

    Without a set it is a fault only where it is sure: rows may be sorted by their labels, of which two may be alike.
    """
    own = sample.label
    if own is None or not own.strip() or not expected.labels:
        return
    seen = expected.labels.get(own)
    if seen is not None and (expected.is_closed or seen > SLIPS or seen * RARE > max(expected.labels.values())):
        return
    frequent = (name for name, count in expected.labels.items() if expected.is_closed or count > (seen or 0) * RARE)
    meant = meant_label(own, tuple(frequent))
    known = ", ".join([name for name in expected.labels if name != own][:20])
    advice = f"Did you mean {meant!r}?" if meant else "Use one of these."
    is_same = meant is not None and _folded(meant) == _folded(own)
    if expected.is_closed or is_same or (meant and seen is not None):
        yield Finding("unknown_label", True, f"the label {own!r} is none of {known}.", advice)
    elif seen is None:
        what = f"the label {own!r} is not among those of the first rows ({known})."
        yield Finding("new_label", False, what, advice if meant else "Look whether it is meant.")


@lru_cache(maxsize=10_000)
def meant_label(own: str, known: tuple[str, ...], is_sure: bool = True) -> str | None:
    """The label that another one is, but for case, spaces or a slip of the keyboard.

    Where that need not be sure, it may also hold the other one, as `irrelevant` and `neutrall` do.
    """
    folded = _folded(own)
    for name in known:
        if _folded(name) == folded and name != own:
            return name
    for name in known:
        other = _folded(name)
        is_part = folded in other or other in folded  # irrelevant and relevant are two labels, and both are right
        same_digits = [c for c in folded if c.isdigit()] == [c for c in other if c.isdigit()]
        if not (is_sure and is_part) and same_digits and SequenceMatcher(None, folded, other).ratio() >= ALIKE:
            return name
    return None


def _folded(name: str) -> str:
    return "".join(sign for sign in name.casefold() if sign.isalnum())


def ending(sample: Sample, expected: Expected) -> Iterator[Finding]:
    """`truncated_answer`: it breaks off in a sentence or in a block of code."""
    if sample.label is not None or not sample.messages:
        return
    answer = sample.completion.rstrip()
    why = breaks_off(answer, expected.ends_sentences and len(answer) >= LONG)
    if why:
        what = f"the answer {why}: ...{answer[-40:]!r}."
        yield Finding("truncated_answer", False, what, "Write its end, or drop the row.")


def texts(sample: Sample, expected: Expected) -> Iterator[Finding]:
    """What the texts themselves hold: see `text_checks`; the same thing in several turns is told once."""
    told: set[tuple[str, bool]] = set()
    for number, message in enumerate((*sample.messages, *sample.rejected)):
        is_answer = message.role == "assistant"
        for finding in faults_of_text(message.content, expected.has_personal, expected.region):
            is_fault = (finding.is_fault and is_answer) or finding.check in ALWAYS_FAULTS
            if (finding.check, is_fault) not in told:
                told.add((finding.check, is_fault))
                what = f"{_place(sample, number)} {finding.message}"
                yield Finding(finding.check, is_fault, what, finding.advice)


ALWAYS_FAULTS = ("placeholder", "special_token")
"""Faults in a question too: a model will never meet it so."""


def _place(sample: Sample, number: int) -> str:
    """What a turn is called in a message."""
    count = len(sample.messages)
    if number >= count:
        return "the rejected answer"
    message: Message = sample.messages[number]
    if number == count - 1 and message.role == "assistant":
        return "the answer" if count > 1 else "the text"
    if message.role == "system":
        return "the system prompt"
    return "the prompt" if count <= 2 or (count == 3 and sample.messages[0].role == "system") else (
        f"turn {number + 1}, the {message.role}'s,")  # fmt: skip


CHECKS: tuple[Callable[[Sample, Expected], Iterator[Finding]], ...] = (
    turns, emptiness, pairs, label, ending, texts,
)  # fmt: skip
"""All checks of one row."""
