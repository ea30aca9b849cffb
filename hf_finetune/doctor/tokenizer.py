"""The base's tokenizer and chat template: how a question is asked, how an answer ends, what is lost on the way."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_finetune.chat import PROBE, ChatFormat
from hf_finetune.doctor.line import Line, fault, ok, warning
from hf_finetune.doctor.subject import Subject
from hf_finetune.errors import RecipeError, first_line
from hf_finetune.files import read_json
from hf_finetune.model import BaseModel, load_tokenizer

MARKER = re.compile(r"<\|[^<>|\s]{1,40}\|>|<(?:start|end)_of_turn>|</?s>|<(?:bos|eos)>")
"""What templates write for special tokens."""
ANSWER = "hf finetune answer"


def tokenizer(subject: Subject) -> Iterator[Line]:
    """The tokenizer and its chat template; whether answers can end."""
    from jinja2 import TemplateError

    if subject.base is None or subject.config is None:
        return  # the tokenizer is chosen by the config, of which it is told what is wrong
    loaded = subject.chat.tokenizer if subject.chat else load_tokenizer(subject.base)
    try:
        subject.chat = subject.chat or ChatFormat.of(loaded)
    except (TemplateError, TypeError, AttributeError) as error:
        yield fault(
            f"its chat template cannot be rendered: {first_line(error)}", "mend chat_template.jinja of the base"
        )
        return
    if not loaded.chat_template:
        yield warning(
            "it has no chat template, as bases that were not tuned to chat: a question is asked as plain text",
            "nothing, or its -Instruct sister as the base",
        )
    end = loaded.convert_ids_to_tokens(subject.chat.ending[-1])
    pad = loaded.pad_token or f"none: {end}, masked"
    kind = "a chat template" if loaded.chat_template else "plain text"
    yield ok(f"{kind}; answers end with {end}, which is trained; padding {pad}")


def vocabulary(subject: Subject) -> Iterator[Line]:
    """Whether each token of the tokenizer has a row in the embeddings, or at least each that the rows are made of.

    Gemma 3 1B has 262,145 tokens for 262,144 rows: the last one is for images, which it has never seen.
    """
    if subject.chat is None or subject.skeleton is None:
        return
    count, rows = len(subject.chat.tokenizer), subject.skeleton.get_input_embeddings().weight.shape[0]
    if count > rows:
        used = max(*subject.chat.example(PROBE, ANSWER)["input_ids"], *_used(subject))
        line = fault if used >= rows else warning
        yield line(
            f"its tokenizer has {count:,} tokens, and its embeddings have {rows:,} rows",
            "take the tokenizer that belongs to the base: tokens were added to this one",
        )


def stop(subject: Subject) -> Iterator[Line]:
    """Whether what loads the base later stops where answers end."""
    if subject.chat is None or subject.base is None:
        return
    end, ids = subject.chat.ending[-1], stop_ids(subject.base)
    if ids and end not in ids:
        name = subject.chat.tokenizer.convert_ids_to_tokens
        yield warning(
            f"answers end with {name(end)}, and its generation_config.json stops at "
            f"{', '.join(str(name(own)) for own in sorted(ids))}: whoever loads the adapter elsewhere gets "
            f"answers that go on",
            f"generate(..., eos_token_id={end}) there, or a base whose ends agree",
        )


def markers(subject: Subject) -> Iterator[Line]:
    """Whether what the template writes for special tokens are tokens."""
    if subject.chat is None or not subject.chat.tokenizer.chat_template:
        return
    loaded = subject.chat.tokenizer
    written = dict.fromkeys(MARKER.findall(_rendered(loaded, [_said("user"), _said("assistant", ANSWER)])))
    split = {own: len(loaded.encode(own, add_special_tokens=False)) for own in written}
    torn = {own: count for own, count in split.items() if count > 1}
    if torn:
        each = ", ".join(f"{own} ({count} tokens)" for own, count in torn.items())
        yield warning(
            f"its template writes {each}, which its tokenizer does not know as one token",
            "take the template and the tokenizer of one and the same base",
        )


def system(subject: Subject) -> Iterator[Line]:
    """Whether a system prompt would reach the model."""
    from jinja2 import TemplateError

    if subject.chat is None or not subject.chat.tokenizer.chat_template:
        return
    loaded = subject.chat.tokenizer
    try:
        text = _rendered(loaded, [{"role": "system", "content": ANSWER}, _said("user")])
    except (TemplateError, TypeError) as error:
        yield ok(f"its template takes no system prompt ({first_line(error)}); the recipe's prompt has none")
        return
    if ANSWER not in text:
        yield warning(
            "its template drops a system prompt without a word",
            "say in prompt() what the model should know, here and where it is used",
        )
    before = _rendered(loaded, [_said("user")]).partition(PROBE)[0]
    words = " ".join(MARKER.sub(" ", before).split())
    if len(words) > 40:
        yield ok(f"its template adds a system prompt of its own: {words[:60]}...")


def double_bos(subject: Subject) -> Iterator[Line]:
    """Whether a question begins with two BOS tokens."""
    if subject.chat is None:
        return
    bos, ids = subject.chat.tokenizer.bos_token_id, subject.chat.prompt_ids(PROBE)
    if bos is not None and ids[:2] == [bos, bos]:
        yield fault(
            f"a question begins with two {subject.chat.tokenizer.bos_token}, which no base has seen",
            "take {{ bos_token }} out of its chat template, or add_bos_token out of its tokenizer",
        )


def prompts_differ(subject: Subject) -> Iterator[Line]:
    """Whether a finished conversation is rendered as it is asked; what is trained is always what is asked."""
    if subject.chat is None or not subject.chat.tokenizer.chat_template:
        return
    trained = subject.chat.example(PROBE, ANSWER)["input_ids"]
    messages = [_said("user"), _said("assistant", ANSWER)]
    finished = subject.chat.tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
    if list(finished[: len(trained)]) != trained:
        place = next((n for n, (a, b) in enumerate(zip(finished, trained, strict=False)) if a != b), 0)
        decode = subject.chat.tokenizer.decode
        yield warning(
            f"its template renders a finished answer other than it is asked for: {decode(finished[place:])!r}, "
            f"not {decode(trained[place:])!r}",
            "nothing here, where what is asked is trained; train with no other tool on its template",
        )


def stop_ids(base: BaseModel) -> set[int]:
    """The tokens at which the base's own files stop generation; nothing where they do not say."""
    from transformers.utils.hub import cached_file

    ids: Any = None
    for name in ("generation_config.json", "config.json"):
        try:
            file = cached_file(base.location, name, revision=base.commit, _raise_exceptions_for_missing_entries=False)
            ids = read_json(Path(file)).get("eos_token_id") if file else None
        except (OSError, ValueError, AttributeError):
            continue
        if ids is not None:
            break
    return {int(own) for own in (ids if isinstance(ids, list) else [ids]) if own is not None}


def _used(subject: Subject) -> set[int]:
    """The tokens that the rows are made of, as far as they are known."""
    encoded = subject.encoded
    rows = [*encoded.train, *encoded.validation] if encoded else []
    return set().union(*(row["input_ids"] for row in rows))


def _said(role: str, content: str = PROBE) -> dict[str, str]:
    return {"role": role, "content": content}


def _rendered(loaded: Any, messages: list[dict[str, str]]) -> str:
    """The text that the template makes of messages."""
    text = loaded.apply_chat_template(messages, tokenize=False)
    if not isinstance(text, str):
        raise RecipeError("base model: its chat template gives no text. Mend chat_template.jinja of the base.")
    return text
