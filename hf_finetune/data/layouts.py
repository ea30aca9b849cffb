"""Columns of any usual data set -> conversations: which layout the rows have, and what each row says in it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_finetune.data.conversations import Kind, as_text, conversation, is_truth
from hf_finetune.data.records import Record
from hf_finetune.data.samples import Finding, Sample
from hf_finetune.data.turns import NotTurns, is_turns
from hf_finetune.errors import RecipeError, nearest

LOOKED_AT = 500
"""Records from which the layout is told."""
MOST_LABELS = 50
"""Different labels up to which they can be a closed set."""

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "conversations": ("conversations", "conversation"),
    "instruction": ("instruction",),
    "input": ("input", "context"),
    "output": ("output", "response"),
    "prompt": ("prompt",),
    "completion": ("completion", "response", "answer", "output"),
    "question": ("question", "query"),
    "context": ("context",),
    "answer": ("answer", "response", "answers"),
    "chosen": ("chosen", "response_j", "chosen_response"),
    "rejected": ("rejected", "response_k", "rejected_response"),
    "text": ("text", "sentence", "content", "document", "review", "comment", "tweet", "body"),
    "label": ("label", "labels", "category", "sentiment", "class", "intent", "rating"),
    "system": ("system", "system_prompt"),
    "history": ("history",),
}
"""What each field's column is called, the usual name first: it goes before the others."""

KNOWN_COLUMNS = tuple(dict.fromkeys(name for names in SYNONYMS.values() for name in names))
"""All names of columns that a layout has."""

NEEDED: Mapping[Kind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "preference": (("chosen", "rejected"), ("prompt", "question", "conversations", "instruction", "input", "system")),
    "feedback": (("label",), ("prompt", "completion", "messages", "conversations", "system")),
    "messages": (("messages",), ("system",)),
    "sharegpt": (("conversations",), ("system",)),
    "instruction": (("instruction", "output"), ("input", "system", "history")),
    "prompt_completion": (("prompt", "completion"), ("system", "history")),
    "question_answer": (("question", "answer"), ("context", "system")),
    "text_label": (("text", "label"), ()),
    "text": (("text",), ()),
}
"""Of each layout the fields that it must have and those that it may have, the most telling layout first."""

CALLED: Mapping[Kind, str] = {
    "preference": "preference pairs (chosen and rejected)",
    "feedback": "rated answers (KTO)",
    "messages": "chat messages (OpenAI's form)",
    "sharegpt": "chat messages (ShareGPT's form)",
    "instruction": "instruction, input and output (Alpaca's form)",
    "prompt_completion": "prompt and completion",
    "question_answer": "question and answer",
    "text_label": "text and label",
    "text": "text alone",
}


@dataclass(frozen=True)
class Layout:
    """What the columns of a source are, and how its rows are read."""

    kind: Kind
    columns: Mapping[str, str]
    """The column, or the path such as `sentences.0.text`, that each field is in."""
    reason: str
    """A sentence on why it is this layout, and which columns are not used."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Of each field what sort of value most rows have: another is a fault."""

    def sample(self, record: Record) -> tuple[Sample | None, list[Finding]]:
        """The conversation that a record is; none where its values cannot be one, and then why."""
        values, faults = self._values(record)
        if faults:
            return None, faults
        try:
            return conversation(self.kind, values), []
        except NotTurns as error:
            return None, [Finding(error.check, True, error.message, error.advice)]

    def _values(self, record: Record) -> tuple[dict[str, Any], list[Finding]]:
        """The record's values under the names of the fields, and what is wrong with them."""
        values: dict[str, Any] = {}
        faults: list[Finding] = []
        for name, column in self.columns.items():
            value = values[name] = value_at(record.values, column)
            expected = self.types.get(name)
            if value is None:
                if name in NEEDED[self.kind][0] and not has_column(record.values, column):
                    faults.append(_missing(name, column, record))
            elif expected and kind_of(value) != expected:
                faults.append(_mixed(column, value, expected))
        return values, faults


def _missing(name: str, column: str, record: Record) -> Finding:
    shown = ", ".join(map(str, record.values)) or "nothing"
    meant = nearest(column, map(str, record.values))
    hint = f" {meant}" if meant.startswith("Did") else ""
    return Finding(
        "missing_column",
        True,
        f"it has no {column!r} (it has {shown}).",
        f"Give each row its {name}, or drop it.{hint}",
    )


def _mixed(column: str, value: Any, expected: str) -> Finding:
    what = f"{column!r} is {kind_of(value)}, {str(value)[:40]!r}; in most rows it is {expected}."
    return Finding("mixed_types", True, what, f"Write {expected}, as in the other rows.")


def kind_of(value: Any) -> str:
    """What sort of value one is, in words."""
    kinds = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), type(value).__name__)


def detect(records: Sequence[Record], mapping: Mapping[str, str] | None = None) -> Layout:
    """The layout of a source, from its first records; `mapping` says of fields which column they are in.

    Raises:
        RecipeError: when no layout fits, or several do; or the mapping names what there is not.
    """
    if not records:
        raise RecipeError("data: there are no rows to tell the layout from. Give some.")
    records = records[:LOOKED_AT]
    columns = _columns(records)
    given = _checked_mapping(mapping or {}, columns, records)
    fitting = [kind for kind in NEEDED if _fits(kind, given, columns, records)]
    if not fitting:
        raise _no_layout(records[0].file, columns, records)
    kind = fitting[0]
    found = _found(kind, given, columns)
    _refuse_ambiguity(records[0].file, kind, fitting, found, given, columns)
    return Layout(kind, found, _reason(kind, found, columns), _types(found, records))


def value_at(values: Mapping[str, Any], path: str) -> Any:
    """The value of a column, or at a path of names and numbers with dots between; None where there is none."""
    if path in values:
        return values[path]
    value: Any = values
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def has_column(values: Mapping[str, Any], path: str) -> bool:
    """Whether a record has the column, be it empty, or a value at the path."""
    return path in values or value_at(values, path) is not None


# Which layout


def _columns(records: Sequence[Record]) -> list[str]:
    """The columns that at least half of the records have, in their order."""
    counts = Counter(str(column) for record in records for column in record.values)
    return [column for column, count in counts.items() if count * 2 >= len(records)]


def _checked_mapping(mapping: Mapping[str, str], columns: Sequence[str], records: Sequence[Record]) -> dict[str, str]:
    for name, column in mapping.items():
        if name not in SYNONYMS:
            raise RecipeError(f"--map {name}={column}: no field is called {name!r}. {nearest(name, SYNONYMS)}")
        if column not in columns and all(value_at(one.values, column) is None for one in records):
            raise RecipeError(f"--map {name}={column}: there is no column {column!r}. {nearest(column, columns)}")
    return dict(mapping)


def _candidates(name: str, given: Mapping[str, str], columns: Sequence[str]) -> list[str]:
    """The columns that a field may be in: the usual name's alone where there is one."""
    if name in given:
        return [given[name]]
    folded = {_folded(column): column for column in reversed(columns) if column not in given.values()}
    usual, *others = SYNONYMS[name]
    return [folded[usual]] if usual in folded else [folded[other] for other in others if other in folded]


def _folded(column: str) -> str:
    return re.sub(r"[\s-]+", "_", column.strip()).lower()


def _found(kind: Kind, given: Mapping[str, str], columns: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in (*NEEDED[kind][0], *NEEDED[kind][1]):
        free = [column for column in _candidates(name, given, columns) if column not in found.values()]
        if free:
            found[name] = free[0]
    return found


def _fits(kind: Kind, given: Mapping[str, str], columns: Sequence[str], records: Sequence[Record]) -> bool:
    found = _found(kind, given, columns)
    needed, optional = NEEDED[kind]
    if any(name not in found for name in needed) or not set(given) <= {*needed, *optional}:
        return False

    def values(name: str) -> list[Any]:
        return [value for one in records if (value := value_at(one.values, found[name])) is not None]

    match kind:
        case "messages" | "sharegpt":
            return _mostly(is_turns, values(needed[0]))
        case "feedback":
            return _mostly(is_truth, values("label")) and _has_rated_answer(found)
        case "preference":
            return bool(set(found) - {"chosen", "rejected", "system"}) or _mostly(is_turns, values("chosen"))
        case "prompt_completion":
            return True
        case "text_label":
            is_label = "label" in given or found["label"] == "label"  # then one may stand in all of the first rows
            return _is_closed(values("label"), fewest=1 if is_label else 2)
        case _:
            return not any(_mostly(is_turns, values(name)) for name in needed)


def _mostly(test: Any, values: Sequence[Any]) -> bool:
    return bool(values) and sum(map(bool, map(test, values))) * 2 > len(values)


def _has_rated_answer(found: Mapping[str, str]) -> bool:
    return {"prompt", "completion"} <= set(found) or "messages" in found or "conversations" in found


def _is_closed(values: Sequence[Any], fewest: int = 2) -> bool:
    """Whether values come from a closed set of short labels."""
    labels = {as_text(value) for value in values}
    return fewest <= len(labels) <= min(MOST_LABELS, max(2, len(values) // 2)) and all(len(one) <= 60 for one in labels)


def _types(found: Mapping[str, str], records: Sequence[Record]) -> dict[str, str]:
    """Of each field what sort of value most rows have; nothing where all are empty."""
    types: dict[str, str] = {}
    for name, column in found.items():
        values = (value_at(one.values, column) for one in records)
        kinds = Counter(kind_of(value) for value in values if value is not None)
        if kinds:
            types[name] = kinds.most_common(1)[0][0]
    return types


def _reason(kind: Kind, found: Mapping[str, str], columns: Sequence[str]) -> str:
    told = [column if name == column else f"{column} (as {name})" for name, column in found.items()]
    unused = [column for column in columns if column not in {path.split(".")[0] for path in found.values()}]
    more = f"; not used: {', '.join(unused)}" if unused else ""
    return f"{CALLED[kind]}, as the rows have {', '.join(told)}{more}."


def _refuse_ambiguity(
    file: str, kind: Kind, fitting: Sequence[Kind], found: Mapping[str, str], given: Mapping[str, str],
    columns: Sequence[str],
) -> None:  # fmt: skip
    for name in found:
        candidates = [
            one for one in _candidates(name, given, columns) if one not in found.values() or one == found[name]
        ]
        if len(candidates) > 1:
            raise RecipeError(
                f"{file}: {' and '.join(map(repr, candidates))} could each be the {name} of {CALLED[kind]}. "
                f"The columns are {', '.join(columns)}. Say which with --map {name}={candidates[0]}."
            )
    for other in fitting if kind not in ("preference", "feedback") else ():  # no other layout has their columns
        own = _found(other, given, columns)
        if other not in ("text", "text_label", "feedback") and not set(own.values()) & set(found.values()):
            raise RecipeError(
                f"{file}: could be {CALLED[kind]} ({', '.join(found.values())}) or {CALLED[other]} "
                f"({', '.join(own.values())}). Say which: {_as_options(found)}, or {_as_options(own)}."
            )


def _no_layout(file: str, columns: Sequence[str], records: Sequence[Record]) -> RecipeError:
    texts = [
        column for column in columns if _mostly(lambda v: isinstance(v, str), [r.values.get(column) for r in records])
    ]
    closed = [one for one in columns if _is_closed([r.values.get(one) for r in records])]
    open_texts = [one for one in texts if one not in closed]
    if len(open_texts) > 1:
        guess = {"prompt": open_texts[0], "completion": open_texts[1]}
    elif open_texts and closed:
        guess = {"text": open_texts[0], "label": closed[0]}
    else:
        guess = {"prompt": "COLUMN", "completion": "COLUMN"}
    return RecipeError(
        f"{file}: no layout fits its columns ({', '.join(columns) or 'none that half of the rows have'}). "
        f"Say which column is what, such as {_as_options(guess)}. Fields: {', '.join(SYNONYMS)}."
    )


def _as_options(found: Mapping[str, str]) -> str:
    return " ".join(f"--map {name}={column}" for name, column in found.items())
