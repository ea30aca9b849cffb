"""What rows of every layout come down to: a conversation to learn from; and what was found wrong with one."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    weight: float | None = None
    """How much the loss on this turn counts, where the row says so: 0 is not learnt."""


@dataclass(frozen=True)
class Sample:
    """One row as a model would learn from it, whatever layout it came in."""

    messages: tuple[Message, ...]
    """The turns in order. The assistant's are what is learnt; a text without a question is one of the assistant's."""
    rejected: tuple[Message, ...] = ()
    """Of a preference pair: the turns that stand in the place of the last ones and are the worse."""
    label: str | None = None
    """Of a classified text: its label, which the last turn says too."""
    is_good: bool | None = None
    """Of an answer that somebody rated: whether it is one to learn (KTO's label)."""

    @property
    def prompt(self) -> str:
        """All turns before the last answer, a line break between them: what makes two rows one question."""
        return "\n".join(message.content for message in self.messages[:-1])

    @property
    def completion(self) -> str:
        """The last turn: the answer."""
        return self.messages[-1].content if self.messages else ""

    def with_texts(self, change: Callable[[str], str]) -> "Sample":
        """The sample with every text changed; itself where none is."""
        changed = replace(
            self,
            messages=tuple(replace(one, content=change(one.content)) for one in self.messages),
            rejected=tuple(replace(one, content=change(one.content)) for one in self.rejected),
            label=None if self.label is None else change(self.label),
        )
        return self if changed == self else changed


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or may be, with one row."""

    check: str
    """Its name, such as `placeholder`: rows are counted by it."""
    is_fault: bool
    """A fault spoils what is learnt, so that the row has to go; else the row stays, and this is a warning."""
    message: str
    """What is wrong, with the value."""
    advice: str
    """How to mend it."""
