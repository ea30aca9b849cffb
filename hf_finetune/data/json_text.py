"""JSON that is read piece by piece, value after value: what was used is forgotten."""

import json
import re
from typing import Any, TextIO

from hf_finetune.data.records import SHOWN, Broken

LOOK = 64 * 2**20
"""Characters after a broken record in which the next one is looked for."""
PIECE = 2**20
"""Characters that are read at once, at least."""
MOST_LEVELS = 100
"""Lists and objects within each other: no row has as many, and of a thousand Python and its libraries break down."""
DECODER = json.JSONDecoder()
STRUCTURE = re.compile(r'"(?:[^"\\\n]|\\.)*"|[{}\[\]]')
"""A text or a bracket outside of texts."""
AFTER_OBJECT = re.compile(r"\s*(?:,\s*\{|\]|\Z|\{)")
SPACE, BETWEEN = re.compile(r"\s*"), re.compile(r"[\s,]*")


def decoded(text: str) -> Any:
    """The JSON value that a text is.

    Raises:
        ValueError: when it is none, or has more than MOST_LEVELS levels.
    """
    value, end = decoded_at(text, _after_space(text, 0))
    if (rest := _after_space(text, end)) != len(text):
        raise json.JSONDecodeError("Extra data", text, rest)
    return value


def decoded_at(text: str, position: int) -> tuple[Any, int]:
    """The JSON value that begins at a place in a text, and where it ends.

    Raises:
        ValueError: when it is none, or has more than MOST_LEVELS levels.
    """
    try:
        value, end = DECODER.raw_decode(text, position)
        brackets = text.count("[", position, end) + text.count("{", position, end)
    except RecursionError:
        value, end, brackets = None, position, 0
    if end == position or (brackets > MOST_LEVELS and _is_too_deep(value)):
        what = f"Lists or objects lie more than {MOST_LEVELS} deep in each other"
        raise json.JSONDecodeError(what, text, position)
    return value, end


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MOST_LEVELS):
        parts = (part for one in level for part in (one.values() if isinstance(one, dict) else one))
        level = [part for part in parts if isinstance(part, dict | list)]
    return len(level) > 0


def _after_space(text: str, position: int) -> int:
    found = SPACE.match(text, position)
    return found.end() if found else position


def is_cut(error: ValueError, text: str) -> bool:
    """Whether JSON failed because the text ends too early."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.pos >= len(text.rstrip()) - 8 or error.msg.startswith("Unterminated string")


class JsonText:
    """A file of JSON, and how far it was read."""

    def __init__(self, file: TextIO, text: str = "") -> None:
        self.file, self.text = file, text.removeprefix("\ufeff")
        self.position = 0
        self.start = 0
        """Where the value begins that was read last."""
        self.lines_before = 0
        self.column_before = 0

    def more(self, size: int = 0) -> bool:
        """Whether there was more to read; by default as much again as is kept, so that long values cost no more."""
        piece = self.file.read(max(size, PIECE, len(self.text) - self.position))
        if not piece:
            return False
        used = self.text[: self.position]
        self.lines_before += used.count("\n")
        end = used.rfind("\n")
        self.column_before = len(used) - end - 1 if end >= 0 else self.column_before + len(used)
        self.text = self.text[self.position :] + piece
        self.position = 0
        return True

    def can_end_within(self, size: int) -> bool:
        """Whether the next value, or the file, ends within so many characters, or is broken."""
        while len(self.text) - self.position < size and self.more(size):
            pass
        if len(self.text) - self.position < size:
            return True
        try:
            decoded_at(self.text, self.position)
        except ValueError as error:
            return not is_cut(error, self.text)
        return True

    def peek(self, ahead: int = 0) -> str:
        """The next character that is no space, or the one so many after it; empty at the end."""
        return self._next(SPACE, ahead)

    def between(self) -> str:
        """The next character that is neither space nor comma."""
        return self._next(BETWEEN, 0)

    def _next(self, passed: re.Pattern[str], ahead: int) -> str:
        while True:
            found = passed.match(self.text, self.position)
            self.position = found.end() if found else self.position
            rest = self.text[self.position : self.position + 4096]
            rest = rest[:1] + rest[1:].lstrip() if ahead else rest
            if len(rest) > ahead or not self.more():
                return rest[ahead : ahead + 1]

    def key(self) -> str:
        """The next name in an object, and passes over the colon after it.

        Raises:
            ValueError: when there is none.
        """
        key = self.value()
        if self.peek() != ":":
            raise json.JSONDecodeError("Expecting ':' delimiter", self.text, self.position)
        self.step()
        return str(key)

    def step(self) -> None:
        """Passes over one character."""
        self.position += 1

    def value(self) -> Any:
        """The next JSON value.

        Raises:
            ValueError: when it is none; the position stays before it.
        """
        self.peek()
        while True:
            try:
                value, end = decoded_at(self.text, self.position)
            except ValueError as error:
                if not is_cut(error, self.text) or not self.more():
                    raise
            else:
                self.start, self.position = self.position, end
                return value

    def pass_broken(self) -> bool:
        """Whether a broken object ends where its brackets close, and another follows, or the end; then that is next."""
        depth, at = 0, self.position
        while at - self.position < LOOK:
            for found in STRUCTURE.finditer(self.text, at):
                at = found.end()
                depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(found.group(), 0)
                if depth <= 0:
                    break
            if depth <= 0 and at > self.position:
                break
            at -= self.position
            if not self.more():
                return False
        start, self.position = self.position, at
        if AFTER_OBJECT.match(self.text, at):
            return True
        self.position = start
        return False

    def find_object(self, known: set[str]) -> bool:
        """Whether there is another object after a broken one: then it is the next value.

        It has the keys of those before, and begins a line where the broken one does, as deep.
        """
        line = self.text[self.text.rfind("\n", 0, self.position) + 1 : self.position]
        before = f"\n{line}" if not line.strip() and self.position > len(line) else ""
        self.position += 1
        looked = 0
        while looked < LOOK:
            at = self.text.find(before + "{", self.position)
            if at < 0:
                looked += len(self.text) - self.position
                self.position = max(self.position, len(self.text) - len(before))
                if not self.more():
                    return False
                continue
            self.position = at + len(before)
            try:
                value = self.value()
            except ValueError:
                self.position += 1
                continue
            if len(known & set(value)) * 2 >= len(known):
                self.position = self.start
                return True
        return False

    def broken(self, name: str, number: int, error: ValueError) -> Broken:
        """What is told of the value at this position."""
        at = getattr(error, "pos", self.position)
        before = self.text[:at]
        line = self.lines_before + before.count("\n") + 1
        end = before.rfind("\n")
        column = at - end if end >= 0 else self.column_before + at + 1
        message = getattr(error, "msg", str(error))
        shown = self.text[self.position : self.position + SHOWN].strip()
        what = f"is not JSON ({message} at line {line}, column {column})."
        return Broken(name, number, "broken_json", what, "Mend that line.", line, column, shown)
