"""The values of a row, by its layout -> the conversation that it is."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

from hf_finetune.data.samples import Message, Sample
from hf_finetune.data.turns import NotTurns, turns_of

Kind = Literal[
    "preference", "feedback", "messages", "sharegpt", "instruction", "prompt_completion", "question_answer",
    "text_label", "text",
]  # fmt: skip
Values = Mapping[str, Any]
Turns = tuple[Message, ...]


def conversation(kind: Kind, values: Values) -> Sample:
    """The sample that the values are, which stand under the names of the layout's fields.

    Raises:
        NotTurns: when they cannot be one.
    """
    sample = READERS[kind](values)
    texts = [turn.content for turn in (*sample.messages, *sample.rejected)]
    return sample if all(map(_can_be_written, texts)) else sample.with_texts(_writable)


def _can_be_written(text: str) -> bool:
    return text.isascii() or _writable(text) == text


def _writable(text: str) -> str:
    """The text with U+FFFD for each half of a character, as JSON has it where an emoji was cut: no file can hold it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def as_text(value: Any) -> str:
    """A value as a model is shown it: text as it is, other things as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def is_truth(value: Any) -> bool:
    """Whether a value is true or false, or says so."""
    return isinstance(value, bool) or str(value).strip().lower() in ("true", "false")


def _joined(values: Values, *names: str) -> str:
    return "\n".join(text for name in names if (text := as_text(values.get(name))).strip())


def _system(values: Values) -> Turns:
    text = as_text(values.get("system"))
    return (Message("system", text),) if text.strip() else ()


def _history(values: Values) -> Turns:
    """Earlier questions and answers, which stand as pairs."""
    pairs = values.get("history") or []
    if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise NotTurns("not_turns", "'history' is no list of pairs.", 'Write it as [["question", "answer"], ...].')
    roles = ("user", "assistant")
    return tuple(Message(roles[place], as_text(text)) for pair in pairs for place, text in enumerate(pair))  # type: ignore[arg-type]  # a role


def _turns(name: str) -> Callable[[Values], Sample]:
    return lambda values: Sample(_spoken(values, name))


def _spoken(values: Values, name: str) -> Turns:
    turns = turns_of(values.get(name))
    if all(turn.role != "user" for turn in turns):
        raise NotTurns(
            "missing_turn", "no turn of the conversation is the user's.", "Add the question, or drop the row."
        )
    return (*_system(values), *turns)


def _asked(*asked: str, told: str) -> Callable[[Values], Sample]:
    """A reader of rows whose question stands in some columns, in that order, and the answer in one."""

    def read(values: Values) -> Sample:
        question = values.get(asked[0])
        turns = turns_of(question) if isinstance(question, list) else (Message("user", _joined(values, *asked)),)
        return Sample((*_system(values), *_history(values), *turns, *_answer(values.get(told))))

    return read


def _answer(value: Any) -> Turns:
    """What stands in the place of an answer: a text, a turn or turns."""
    if isinstance(value, list | dict):
        return turns_of(value if isinstance(value, list) else [value])
    return (Message("assistant", as_text(value)),)


def _text_label(values: Values) -> Sample:
    label = as_text(values.get("label"))
    return Sample((Message("user", as_text(values.get("text"))), Message("assistant", label)), label=label)


def _question(values: Values) -> Turns:
    """What both answers of a pair are to."""
    if values.get("conversations") is not None:
        return (*_system(values), *turns_of(values["conversations"]))
    if isinstance(values.get("prompt"), list):
        return (*_system(values), *turns_of(values["prompt"]))
    asked = _joined(values, "prompt", "question", "instruction", "input")
    is_asked = any(values.get(name) is not None for name in ("prompt", "question", "instruction", "input"))
    return (*_system(values), Message("user", asked)) if is_asked else _system(values)


def _preference(values: Values) -> Sample:
    chosen, rejected = _answer(values.get("chosen")), _answer(values.get("rejected"))
    if not chosen or chosen[0].role in ("assistant", "tool"):
        _refuse_uneven(len(chosen), len(rejected))
        return Sample((*_question(values), *chosen), rejected)
    shared = 0  # pairs that hold the whole conversation, the question too
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared].content == rejected[shared].content:
        shared += 1
    if not shared:
        what = "the chosen answer and the rejected one are to different questions."
        raise NotTurns("different_questions", what, "Give both the same question.")
    _refuse_uneven(len(chosen), len(rejected))
    return Sample((*_system(values), *chosen), rejected[shared:])


def _refuse_uneven(chosen: int, rejected: int) -> None:
    """Stops where a pair's answers are not of as many turns: both are cut off their question at one place."""
    if chosen != rejected:
        raise NotTurns(
            "uneven_pair",
            f"the chosen conversation has {chosen} turns, and the rejected one {rejected}.",
            "Cut both after the first answer in which they differ.",
        )


def _feedback(values: Values) -> Sample:
    label = values.get("label")
    if not is_truth(label):
        raise NotTurns("no_rating", f"its label is {label!r}, not true or false.", "Rate the answer, or drop the row.")
    name = next((name for name in ("messages", "conversations") if values.get(name) is not None), None)
    turns = _spoken(values, name) if name else READERS["prompt_completion"](values).messages
    return Sample(turns, is_good=str(label).strip().lower() == "true")


READERS: Mapping[Kind, Callable[[Values], Sample]] = {
    "preference": _preference,
    "feedback": _feedback,
    "messages": _turns("messages"),
    "sharegpt": _turns("conversations"),
    "instruction": _asked("instruction", "input", told="output"),
    "prompt_completion": _asked("prompt", told="completion"),
    "question_answer": _asked("context", "question", told="answer"),
    "text_label": _text_label,
    "text": lambda values: Sample((Message("assistant", as_text(values.get("text"))),)),
}
"""How the rows of each layout are read; a text alone is one turn of the assistant's."""
