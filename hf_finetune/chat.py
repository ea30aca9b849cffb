"""Text -> token ids: one place where prompts are rendered, so that training and answering see the same tokens."""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import RecipeError
from hf_finetune.packing import NO_LOSS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = "hf finetune probe"


@dataclass(frozen=True)
class ChatFormat:
    """How a base model's template asks a question and ends an answer.

    A training example is exactly the prompt the model will be asked with, then the answer, then the token it must
    stop at. Rendering the finished conversation instead can give another prompt (templates that add a thinking block)
    or lose the stop.
    """

    tokenizer: "PreTrainedTokenizerBase"
    lead: str
    """What the template puts between the generation prompt and the answer (a space in some)."""
    ending: tuple[int, ...]
    """The tokens that end an answer; the last one stops generation, and it is trained."""
    examples: tuple[tuple[str, str], ...] = ()
    """Prompts and answers that stand before each question, as if they had been asked and answered already."""

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase") -> "ChatFormat":
        """The format of a tokenizer's chat template, or plain text ended by EOS when it has none.

        Raises:
            RecipeError: when there is neither an end of turn nor an EOS token, so that answers could never stop.
        """
        lead, after = _around_an_answer(tokenizer) if tokenizer.chat_template else ("", "")
        ending = _up_to_first_special(tokenizer, after)
        if not ending and tokenizer.eos_token_id is None:
            raise RecipeError(
                "base model: its tokenizer has no EOS token, so answers would never stop. Use another base."
            )
        return cls(tokenizer, lead, ending or (tokenizer.eos_token_id,))

    def prompt_ids(self, prompt: str) -> list[int]:
        """The tokens of a question, up to where the answer begins."""
        if not self.tokenizer.chat_template:
            shown = "".join(f"{question}\n{answer}\n\n" for question, answer in self.examples)
            return list(self.tokenizer(f"{shown}{prompt}\n")["input_ids"])
        messages = [
            message
            for question, answer in self.examples
            for message in ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
        ]
        messages.append({"role": "user", "content": prompt})
        encoded = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        return list(encoded["input_ids"])

    def completion_ids(self, completion: str) -> list[int]:
        """The tokens of an answer and of its end: those that carry loss."""
        return [*self.tokenizer.encode(self.lead + completion, add_special_tokens=False), *self.ending]

    def example(self, prompt: str, completion: str) -> dict[str, list[int]]:
        """`input_ids` and `labels` of a training row; labels are NO_LOSS (-100) wherever no loss is taken."""
        question, answer = self.prompt_ids(prompt), self.completion_ids(completion)
        return {"input_ids": question + answer, "labels": [NO_LOSS] * len(question) + answer}

    def text(self, ids: list[int]) -> str:
        """The text of an answer's tokens, up to its end."""
        end = ids.index(self.ending[-1]) if self.ending[-1] in ids else len(ids)
        return str(self.tokenizer.decode(ids[:end], skip_special_tokens=True)).removeprefix(self.lead).strip()

    @property
    def template_sha256(self) -> str:
        """The hash of the chat template; of no text where there is none."""
        return hashlib.sha256(str(self.tokenizer.chat_template or "").encode()).hexdigest()

    @property
    def pad_id(self) -> int:
        """The id that fills up a batch; it is masked everywhere, so any id serves when the tokenizer names none."""
        return int(self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.ending[-1])


def _around_an_answer(tokenizer: Any) -> tuple[str, str]:
    """What the template writes between the generation prompt and an answer, and after the answer."""
    question = {"role": "user", "content": "hello"}
    asked = tokenizer.apply_chat_template([question], add_generation_prompt=True, tokenize=False)
    answer = {"role": "assistant", "content": PROBE}
    before, found, after = tokenizer.apply_chat_template([question, answer], tokenize=False).rpartition(PROBE)
    if not found:
        raise RecipeError("base model: its chat template drops the assistant's message. Use another base.")
    return (before[len(asked) :] if before.startswith(asked) else ""), after


def _up_to_first_special(tokenizer: Any, text: str) -> tuple[int, ...]:
    """The tokens of `text` up to its first special one; none when it has none. A newline after it is not answered."""
    ids = tokenizer.encode(text, add_special_tokens=False) if text else []
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    end = next((index for index, token in enumerate(ids) if token in special), None)
    return tuple(ids[: end + 1]) if end is not None else ()
