"""How long rows are in the tokens of a base model, of which the tokenizer alone is loaded."""

import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hf_finetune.data.samples import Message, Sample

Counter = Callable[[Sequence[Sample]], list[int]]


@cache
def token_counter(base: str | None, commit: str | None) -> Counter:
    """What counts the tokens of samples, as the base's chat template writes them; zeros without a base."""
    if base is None:
        return lambda samples: [0] * len(samples)
    from hf_finetune.model import BaseModel, load_tokenizer

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # several processes count already
    tokenizer: Any = load_tokenizer(BaseModel(Path(base).name if Path(base).is_dir() else base, base, commit, commit))
    tokenizer.model_max_length = int(1e9)  # it would warn of each longer text

    def count(samples: Sequence[Sample]) -> list[int]:
        texts = [[_text(tokenizer, turns) for turns in _conversations(sample)] for sample in samples]
        flat = [text for own in texts for text in own]
        counted = iter(map(len, tokenizer(flat, add_special_tokens=False)["input_ids"]) if flat else ())
        return [max([next(counted) for _ in own], default=0) for own in texts]

    return count


def _conversations(sample: Sample) -> list[tuple[Message, ...]]:
    """What is learnt of a sample: a conversation, or two that end otherwise."""
    if not sample.rejected:
        return [sample.messages]
    return [sample.messages, (*sample.messages[: -len(sample.rejected)], *sample.rejected)]


def _text(tokenizer: Any, turns: Sequence[Message]) -> str:
    """The turns in the template's form; where there is none, or it refuses their roles, one after the other."""
    from jinja2 import TemplateError

    plain = "\n".join(turn.content for turn in turns)
    if not tokenizer.chat_template or len(turns) < 2:
        return plain
    try:
        return str(
            tokenizer.apply_chat_template([{"role": t.role, "content": t.content} for t in turns], tokenize=False)
        )
    except TemplateError:
        return plain
