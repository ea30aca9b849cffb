"""What will be trained, token by token: rows as the real template renders them, and where the loss is taken."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from hf_finetune.chat import ChatFormat
from hf_finetune.doctor.line import Line, fault, ok, warning
from hf_finetune.doctor.subject import Subject
from hf_finetune.errors import plural
from hf_finetune.estimate.lengths import num_labels
from hf_finetune.packing import NO_LOSS
from hf_finetune.prepare import Prepared, encode

MANY = 5_000
"""Rows from which only a part is tokenised here."""
SPREAD, LONGEST = 1_500, 500
"""Of many training rows: how many are tokenised all over them, and of the longest."""
SHOWN, LONG = 2, 600
"""Rows that are shown, and characters from which one is enough."""
OFTEN_UNKNOWN = 0.01


@dataclass(frozen=True)
class Shown:
    """A training row as the model sees it."""

    line: int
    """Of splits/train.jsonl."""
    pieces: tuple[tuple[str, bool], ...]
    """Text in order, and whether the loss is taken of it."""


def encoded(subject: Subject) -> Iterator[Line]:
    """The rows as tokens; those that are longer than max_length are counted."""
    if subject.recipe is None or subject.prepared is None or subject.chat is None:
        return
    part = some_of(subject, subject.prepared)
    is_part = part.drawn != ()
    values = subject.settings.model_copy(update={"keep_tokens": subject.settings.keep_tokens and not is_part})
    found = encode(subject.recipe, part.prepared, subject.chat, values)
    lines = [part.lines[line - 1] for line in found.train_lines]
    subject.encoded = replace(found, train_lines=lines)
    subject.drawn = [n for n, line in enumerate(lines) if line in part.drawn]
    facts = found.facts
    longer = facts["longer_than_max_length"]["train"] + facts["longer_than_max_length"]["validation"]
    longest = max(facts["tokens"][name]["longest"] for name in ("train", "validation"))
    subject.num_train_rows -= facts["longer_than_max_length"]["train"]
    least = "at least " if is_part and facts["longer_than_max_length"]["train"] >= LONGEST else ""
    if longer:
        verb = "is" if longer == 1 else "are"
        yield warning(
            f"{least}{plural(longer, 'row')} {verb} longer than max_length={facts['max_length']} tokens and left out "
            f"(the longest has {longest:,})",
            _longer(subject, longest),
        )
    yield ok(f"{facts['tokens']['train']['median']:,} tokens a row in the middle, {longest:,} in the longest")


def supervised(subject: Subject) -> Iterator[Line]:
    """How many tokens carry loss, and whether each row has any besides the end of its answer."""
    if subject.encoded is None or subject.chat is None:
        return
    end = len(subject.chat.ending)
    counts = [num_labels(row) for row in subject.encoded.train]
    empty = [subject.encoded.train_lines[n] for n, count in enumerate(counts) if count <= end]
    if empty:
        yield fault(
            f"{plural(len(empty), 'training row')} learn nothing but the end of an answer, such as line "
            f"{empty[0]} of train.jsonl: the tokenizer has no token for what is in them",
            "mend these answers, or take a base whose tokenizer can write them",
        )
    total = sum(len(row["input_ids"]) for row in subject.encoded.train)
    name = subject.chat.tokenizer.convert_ids_to_tokens(subject.chat.ending[-1])
    yield ok(f"loss on {sum(counts):,} of {total:,} tokens ({sum(counts) / total:.0%}), the end {name} among them")


def unknown(subject: Subject) -> Iterator[Line]:
    """Whether the tokenizer has no token for what the rows are written in."""
    if subject.encoded is None or subject.chat is None or subject.chat.tokenizer.unk_token_id is None:
        return
    rows, own = [row["input_ids"] for row in subject.encoded.train], subject.chat.tokenizer.unk_token_id
    share = sum(row.count(own) for row in rows) / sum(map(len, rows))
    if share > OFTEN_UNKNOWN:
        yield warning(
            f"{share:.0%} of the tokens are {subject.chat.tokenizer.unk_token}: the tokenizer has none for them",
            "take a base whose tokenizer can write the language of the rows",
        )


def read_back(subject: Subject) -> Iterator[Line]:
    """Whether answers come back out of their tokens as they went in."""
    if subject.recipe is None or subject.prepared is None or subject.chat is None:
        return
    recipe, chat = subject.recipe, subject.chat
    for line, row in enumerate(subject.prepared.rows["train"][:200], 1):
        answer = recipe.completion(row)
        text = chat.text(chat.completion_ids(answer))
        if recipe.parse(text) != recipe.parse(answer):
            yield fault(
                f"line {line} of train.jsonl: the answer {answer[:40]!r} comes out of its tokens as "
                f"{text[:40]!r}, which is read otherwise",
                "have parse() read both, or take a base whose tokenizer can write it",
            )
            return


def choices_differ(subject: Subject) -> Iterator[Line]:
    """Whether closed answers are different tokens."""
    if subject.recipe is None or subject.prepared is None or subject.chat is None:
        return
    for row in subject.prepared.rows["train"][:1]:
        choices = subject.recipe.choices(row) or ()
        by_ids: dict[tuple[int, ...], list[str]] = {}
        for choice in choices:
            by_ids.setdefault(tuple(subject.chat.completion_ids(choice)), []).append(choice)
        same = [own for own in by_ids.values() if len(own) > 1]
        if same:
            yield fault(
                f"the answers {' and '.join(same[0])} are the same tokens, and cannot be told apart",
                "name the choices otherwise, or take a base whose tokenizer can write them",
            )


def shown(subject: Subject) -> list[Shown]:
    """The first training rows, as they are learnt from."""
    if subject.encoded is None or subject.chat is None:
        return []
    pairs = zip(subject.encoded.train_lines, subject.encoded.train, strict=True)
    rows = [Shown(line, pieces_of(subject.chat, row)) for line, row in list(pairs)[:SHOWN]]
    return rows[:1] if sum(len(text) for text, _ in rows[0].pieces) > LONG else rows


def pieces_of(chat: ChatFormat, row: Mapping[str, Sequence[int]]) -> tuple[tuple[str, bool], ...]:
    """The text of a row's tokens, where the loss is taken and where it is not."""
    tokens = [(token, label != NO_LOSS) for token, label in zip(row["input_ids"], row["labels"], strict=True)]
    groups = [(is_learnt, [token for token, _ in own]) for is_learnt, own in groupby(tokens, lambda pair: pair[1])]
    return tuple((str(chat.tokenizer.decode(ids, skip_special_tokens=False)), is_learnt) for is_learnt, ids in groups)


@dataclass(frozen=True)
class Part:
    """The rows that are tokenised here."""

    prepared: Prepared
    lines: Sequence[int]
    """Of splits/train.jsonl, for each training row."""
    drawn: Container[int] = ()
    """Those lines that stand for all, where there are more than these; the others are the longest."""


def some_of(subject: Subject, prepared: Prepared) -> Part:
    """The rows to tokenise: all, or of many training rows the longest and some that stand for all."""
    train = prepared.rows["train"]
    if len(train) <= MANY or subject.recipe is None:
        return Part(prepared, range(1, len(train) + 1))
    prompt, completion = subject.recipe.prompt, subject.recipe.completion
    sizes = [len(prompt(row).encode()) + len(completion(row).encode()) for row in train]
    longest = sorted(range(len(train)), key=lambda n: -sizes[n])[:LONGEST]
    drawn = range(1, len(train) + 1, max(1, len(train) // SPREAD))
    lines = sorted({*drawn, *(number + 1 for number in longest)})
    fewer: dict[str, Sequence[Any]] = {name: own[:LONGEST] for name, own in prepared.rows.items()}
    return Part(replace(prepared, rows=fewer | {"train": [train[line - 1] for line in lines]}), lines, drawn)


def _longer(subject: Subject, longest: int) -> str:
    from hf_finetune.doctor.base import context_of

    context = context_of(subject)
    return f"max_length={min(longest, context) if context else longest}, or shorten these rows"
