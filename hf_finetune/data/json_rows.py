"""JSON and JSON lines -> records, one after the other; what is broken is told with its line, and reading goes on."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, TextIO

from hf_finetune.data.json_text import JsonText, decoded, decoded_at, is_cut
from hf_finetune.data.records import SHOWN, Broken, Record

Read = Iterator[Record | Broken]

HEAD_LINES = 200
HEAD = 4 * 2**20
"""Characters within which the first value of a file must end to be looked at as a whole."""
COMMENT = ("#", "//", "--", "/*")
TURN_KEYS = ({"role", "content"}, {"from", "value"})


def json_lines(name: str, file: TextIO) -> Read:
    """A record for each line; or for each value, where they are written over several lines or in a list."""
    head = _head(file)
    if not _holds_lines(head, fewest=1) and _begins_document("".join(head)):
        yield from _document(name, JsonText(file, "".join(head)))
    else:
        yield from _lines(name, _all_lines(head, file))


def json_document(name: str, file: TextIO) -> Read:
    """A record for each row of the list, or of the list in an object; for each value where there are several."""
    head = _head(file)
    if _holds_lines(head, fewest=2):
        yield from _lines(name, _all_lines(head, file))
    else:
        yield from _document(name, JsonText(file, "".join(head)))


def _head(file: TextIO) -> list[str]:
    """The first lines: fewer where they are long."""
    lines: list[str] = []
    size = 0
    for line in islice(iter(lambda: file.readline(HEAD), ""), HEAD_LINES):
        lines.append(line)
        size += len(line)
        if size >= HEAD:
            break
    return lines


def _all_lines(head: list[str], file: TextIO) -> Iterator[str]:
    """The head's lines, of which the last may have been cut, and all after them."""
    whole = [head[-1] + file.readline()] if head and not head[-1].endswith("\n") else head[-1:]
    return chain(head[:-1], whole, file)


def _holds_lines(lines: list[str], fewest: int) -> bool:
    """Whether most lines are an object each, less comments."""
    told = [line for line in lines if line.strip() and not line.lstrip().startswith(COMMENT)]
    if told and told[0].startswith("["):
        return False
    whole = sum(line.startswith("{") and _is_object(line) for line in told)
    return whole >= fewest and (whole * 2 >= len(told) or _is_object(told[0]))


def _is_object(line: str) -> bool:
    try:
        return isinstance(decoded(line), dict)
    except ValueError:
        return False


def _begins_document(text: str) -> bool:
    """Whether a text begins with a list, or with an object over several lines."""
    start = text.lstrip("\ufeff \t\r\n")
    try:
        value, end = decoded_at(start, 0)
    except ValueError as error:
        return start.startswith("[") and is_cut(error, start)
    return (isinstance(value, list) and any(isinstance(one, dict) for one in value)) or (
        isinstance(value, dict) and "\n" in start[:end]
    )  # fmt: skip


def _lines(name: str, lines: Iterator[str]) -> Read:
    number = 0
    for number, line in enumerate(lines, 1):
        try:
            value = decoded(line)
        except ValueError as error:
            if line.strip():
                yield _broken_line(name, number, line, error)
            continue
        yield _row(name, number, value, line)


def _row(name: str, number: int, value: Any, line: str = "") -> Record | Broken:
    if isinstance(value, dict):
        return Record(name, number, value)
    return Broken(
        name, number, "not_an_object",
        f"is not a JSON object (it is {type(value).__name__}: {str(value)[:40]!r}).",
        'Write it as {"field": value, ...}.', text=line[:SHOWN].strip(),
    )  # fmt: skip


def _broken_line(name: str, number: int, line: str, error: ValueError) -> Broken:
    text = line.strip()
    shown = text[:SHOWN]
    if text.startswith(COMMENT):
        what = f"is not a JSON object (it is a comment: {text[:40]!r})."
        return Broken(name, number, "comment_line", what, "Take the line out.", number, 1, shown)
    column = getattr(error, "colno", 1)
    what = f"is not a JSON object ({getattr(error, 'msg', error)} at line {number}, column {column})."
    return Broken(name, number, "broken_json", what, _advice(text, column), number, column, shown)


def _advice(text: str, column: int) -> str:
    """How such a line most often came about."""
    if text.startswith(("{'", "{ '")):
        return "It is written as Python, not as JSON: write it with json.dumps()."
    if text.endswith(("},", "],")) and column >= len(text):
        return "Take away the comma at its end: in JSON lines nothing stands between rows."
    if "\\" in text[column - 1 : column]:
        return r"Write a backslash in a text as \\."
    if column > len(text) or not text.endswith("}"):
        return "It breaks off: write the row again, on one line, its line breaks as \\n."
    return "Mend that line, or take it out."


def _document(name: str, text: JsonText) -> Read:
    first = text.peek()
    if first == "[":
        text.step()
        yield from _elements(name, text)
    elif first == "{" and not text.can_end_within(HEAD):
        yield from _list_of_object(name, text)
    else:
        yield from _values(name, text)


def _values(name: str, text: JsonText) -> Read:
    """One value, or several, each of which is a row then."""
    try:
        value = text.value()
    except ValueError as error:
        yield text.broken(name, 1, error)
    else:
        yield from _after_first(name, text, value)


def _after_first(name: str, text: JsonText, value: Any) -> Read:
    """The rows in the one value of a file; where others follow, each value is a row."""
    if not text.peek():
        yield from _rows_of(name, value)
        return
    yield _row(name, 1, value)
    yield from _elements(name, text, 2, set(value) if isinstance(value, dict) else set())


def _rows_of(name: str, value: Any) -> Read:
    """The rows in the one value of a file."""
    lists = {key: v for key, v in value.items() if isinstance(v, list)} if isinstance(value, dict) else {"": value}
    of_objects = {key: v for key, v in lists.items() if isinstance(v, list) and any(isinstance(o, dict) for o in v)}
    if isinstance(value, dict) and (not of_objects or _holds_turns(of_objects)) and _is_row(value, of_objects):
        yield Record(name, 1, value)
        return
    chosen = next(iter(of_objects), next(iter(lists), None))
    if chosen is None or not isinstance(lists[chosen], list):
        yield Broken(
            name, 0, "not_read", "holds no list of rows.", "Write them as [{...}, {...}], or one a line as .jsonl."
        )
        return
    for number, row in enumerate(lists[chosen], 1):
        yield _row(name, number, row)
    for key in (one for one in of_objects if one != chosen):
        yield _not_read(name, key, chosen)


def _not_read(name: str, key: str, chosen: str) -> Broken:
    what = f"the list {key!r} is not read, only {chosen!r} before it."
    return Broken(name, 0, "not_read", what, "Write each list into a file of its own.")


def _holds_turns(lists: dict[str, list[Any]]) -> bool:
    """Whether the lists of an object are turns of a conversation, so that the object is a row itself."""
    return all(isinstance(v[0], dict) and any(keys <= set(v[0]) for keys in TURN_KEYS) for v in lists.values())


def _is_row(value: dict[str, Any], lists: dict[str, Any]) -> bool:
    """Whether an object alone in a file looks like a row: a conversation, or several texts."""
    return bool(lists) or sum(isinstance(one, str) for one in value.values()) > 1


def _elements(name: str, text: JsonText, number: int = 1, known: set[str] | None = None) -> Read:
    """The rows of a list from its next one on, up to its end or the file's."""
    known = known or set()
    while text.between() not in ("", "]"):
        start = text.text[text.position : text.position + SHOWN]
        try:
            value = text.value()
        except ValueError as error:
            yield text.broken(name, number, error)
            if not text.pass_broken() and not text.find_object(known):
                return
        else:
            yield _row(name, number, value, start)
            known = set(value) if isinstance(value, dict) else known
        number += 1
    if text.peek() == "]":
        text.step()


def _list_of_object(name: str, text: JsonText) -> Read:
    """The rows of the first list of objects in an object that is too large to be looked at as a whole."""
    chosen = ""
    others: dict[str, Any] = {}
    text.step()
    try:
        while text.between() not in ("", "}"):
            key = text.key()
            if text.peek() == "[" and text.peek(1) == "{" and not chosen:
                chosen = key
                text.step()
                yield from _elements(name, text)
            elif isinstance(value := text.value(), list) and value and isinstance(value[0], dict):
                yield _not_read(name, key, chosen)
            else:
                others[key] = value
    except ValueError as error:
        yield text.broken(name, 0, error)
        return
    text.step()
    if not chosen:
        yield from _after_first(name, text, others)
