"""The turns of a conversation in OpenAI's form, ShareGPT's, or with typed parts of content -> messages."""

from collections.abc import Mapping
from typing import Any

from hf_finetune.data.json_text import decoded
from hf_finetune.data.samples import Message, Role
from hf_finetune.errors import nearest

ROLES: Mapping[str, Role] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
    "bing": "assistant", "bard": "assistant", "function_call": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "tool_response": "tool", "ipython": "tool",
}  # fmt: skip
"""What roles are called, and which each is."""
ROLE_KEYS = ("role", "from", "speaker")
CONTENT_KEYS = ("content", "value", "text")
WEIGHT_KEYS = ("loss_weight", "weight", "train")
PART_KEYS = ("text", "value", "content")


class NotTurns(Exception):
    """A value that is no conversation: the name of the check, what is wrong and how to mend it."""

    def __init__(self, check: str, message: str, advice: str) -> None:
        super().__init__(message)
        self.check, self.message, self.advice = check, message, advice


def is_turns(value: Any) -> bool:
    """Whether a value looks like the turns of a conversation."""
    value = _unpacked(value)
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and _key(value[0], ROLE_KEYS) != ""


def turns_of(value: Any) -> tuple[Message, ...]:
    """The messages in a list of turns; also of one that stands in a cell as JSON.

    Raises:
        NotTurns: when it is none.
    """
    value = _unpacked(value)
    if not value:
        raise NotTurns("missing_turn", "the conversation has no turns.", "Add them, or drop the row.")
    if not isinstance(value, list):
        what = f"the conversation is {type(value).__name__}: {str(value)[:40]!r}."
        raise NotTurns("not_turns", what, 'Write it as a list of turns, {"role": ..., "content": ...} each.')
    return tuple(_message(number, turn) for number, turn in enumerate(value, 1))


def _unpacked(value: Any) -> Any:
    """A list that stands as JSON in a text, as csv cells have it."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return decoded(value)
        except ValueError:
            return value
    return value


def _key(turn: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((name for name in names if name in turn), "")


def _message(number: int, turn: Any) -> Message:
    role_key = _key(turn, ROLE_KEYS) if isinstance(turn, dict) else ""
    if not role_key:
        what = f"turn {number} names no role: {str(turn)[:60]!r}."
        raise NotTurns("not_turns", what, 'Write it as {"role": "user", "content": ...}.')
    named = turn[role_key]
    role = ROLES.get(named.strip().lower()) if isinstance(named, str) else None
    if role is None:
        what = f"turn {number} has the role {named!r}."
        raise NotTurns("unknown_role", what, nearest(str(named), ROLES))
    content = turn.get(_key(turn, CONTENT_KEYS))
    if not content and (turn.get("tool_calls") or turn.get("function_call")):
        what = f"turn {number} is a tool call, which is not read."
        raise NotTurns("unsupported_content", what, "Write the call as the text that the model is to write.")
    return Message(role, _text(number, content), _weight(turn))


def _weight(turn: Mapping[str, Any]) -> float | None:
    value = turn.get(_key(turn, WEIGHT_KEYS))
    return float(value) if isinstance(value, int | float) else None


def _text(number: int, content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list):
        return "".join(_part(number, part) for part in content)
    what = f"turn {number} holds {type(content).__name__}: {str(content)[:40]!r}."
    raise NotTurns("mixed_types", what, "Write its content as text.")


def _part(number: int, part: Any) -> str:
    """The text of one typed part of a turn's content."""
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") in ("text", "input_text", "output_text"):
        text = part.get(_key(part, PART_KEYS))
        if isinstance(text, str):
            return text
    kind = part.get("type", "dict") if isinstance(part, dict) else type(part).__name__
    what = f"turn {number} holds a part of the type {kind!r}, not text."
    raise NotTurns("unsupported_content", what, "Leave the row out: only text is learnt here.")
