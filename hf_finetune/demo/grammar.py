"""Read the text files under text/ into sentence templates that can be expanded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "text"


class Slot(NamedTuple):
    """A place in a template to be filled by name."""

    name: str


class Choice(NamedTuple):
    """A place in a template where one of several templates is taken."""

    options: tuple[Template, ...]


Template = tuple[str | Slot | Choice, ...]

_TOKEN = re.compile(r"\{(\w+(?:\.\w+)?)\}|([\[\]|])")


def parse(line: str) -> Template:
    """The template written in `line`: {slot}, [one|or another|] and plain text."""
    stack: list[list[list[str | Slot | Choice]]] = [[[]]]
    position = 0
    for match in _TOKEN.finditer(line):
        if match.start() > position:
            stack[-1][-1].append(line[position : match.start()])
        position = match.end()
        if match[1]:
            stack[-1][-1].append(Slot(match[1]))
        else:
            _bracket(stack, match[2], line)
    if len(stack) != 1 or len(stack[0]) != 1:
        raise ValueError(f"unbalanced brackets in grammar line: {line}")
    return (*stack[0][0], line[position:])


def _bracket(stack: list[list[list[str | Slot | Choice]]], mark: str, line: str) -> None:
    """Nothing: open, divide or close the innermost choice on `stack`."""
    if mark == "[":
        stack.append([[]])
    elif len(stack) == 1:
        raise ValueError(f"stray {mark} in grammar line: {line}")
    elif mark == "|":
        stack[-1].append([])
    else:
        options = tuple(tuple(option) for option in stack.pop())
        stack[-1][-1].append(Choice(options))


@dataclass(frozen=True)
class Event:
    """One kind of event: its sentences and what it means for the company."""

    name: str
    kind: str
    topic: str
    weight: int
    direction: str
    metric: str
    paraphrases: bool
    lines: tuple[Template, ...]


@dataclass(frozen=True)
class Grammar:
    """Everything that the text files hold."""

    words: dict[str, tuple[Template, ...]]
    events: tuple[Event, ...]
    after: dict[str, tuple[Template, ...]]
    about_shares: dict[str, tuple[Template, ...]]
    tasks: dict[str, tuple[Template, ...]]
    systems: tuple[Template, ...]
    vocabulary: tuple[str, ...]
    everyday: tuple[str, ...]
    labels: tuple[str, ...]
    topics: tuple[str, ...]


def _sections(name: str) -> list[tuple[str, list[str]]]:
    """The sections of one file as (header, lines)."""
    found: list[tuple[str, list[str]]] = []
    for line in (FOLDER / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if re.fullmatch(r"\[[a-z_0-9.= ]+\]", line):
            found.append((line[1:-1], []))
        else:
            found[-1][1].append(line.strip())
    return found


def _word_lists() -> dict[str, list[str]]:
    """The items of every word list."""
    sections = _sections("words.txt")
    return {head: [item.strip() for item in " ".join(lines).split(",")] for head, lines in sections}


def _event(head: str, lines: list[str], frames: dict[str, list[str]]) -> Event:
    """The event described by a header such as "event loss_widened bad dir=up topic=results"."""
    _, name, kind, *rest = head.split()
    options = dict(item.split("=") for item in rest)
    return Event(
        name=name,
        kind=kind,
        topic=options["topic"],
        weight=int(options.get("weight", 1)),
        direction=options.get("dir", ""),
        metric=options.get("metric", "metric_gain"),
        paraphrases="use" in options or name.startswith("loss_"),
        lines=tuple(parse(line) for line in lines + frames.get(options.get("use", ""), [])),
    )


def _vocabulary(lists: dict[str, list[str]]) -> tuple[str, ...]:
    """Every plain word of the word lists, once each."""
    plain = (item for name, items in lists.items() if not name.startswith("syl_") for item in items)
    return tuple(sorted({word for item in plain for word in item.split() if word.isalpha() and len(word) > 2}))


def _by_name(name: str, prefix: str) -> dict[str, tuple[Template, ...]]:
    """The sections of a file whose header begins with `prefix`, as templates."""
    return {
        head.removeprefix(prefix).strip(): tuple(parse(line.replace("\\n", "\n")) for line in lines)
        for head, lines in _sections(name)
        if head.startswith(prefix)
    }


def _share_lines() -> dict[str, tuple[Template, ...]]:
    """The lines under "[after KIND]" that tell what the share did."""
    return {
        head.removeprefix("after "): tuple(parse(line) for line in lines if re.search("[Ss]hare", line))
        for head, lines in _sections("after.txt")
    }


@cache
def load() -> Grammar:
    """The grammar, read once."""
    lists = _word_lists()
    sections = _sections("events.txt")
    frames = {head.removeprefix("frame "): lines for head, lines in sections if head.startswith("frame ")}
    events = tuple(_event(head, lines, frames) for head, lines in sections if head.startswith("event "))
    return Grammar(
        words={name: tuple(parse(item) for item in items) for name, items in lists.items()},
        events=events,
        after=_by_name("after.txt", "after "),
        about_shares=_share_lines(),
        tasks=_by_name("tasks.txt", "task "),
        systems=_by_name("tasks.txt", "system")[""],
        vocabulary=_vocabulary(lists),
        everyday=tuple(lists["word_misc"]),
        labels=tuple(lists["label_word"]),
        topics=tuple(sorted({event.topic for event in events})),
    )
