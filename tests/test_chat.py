"""What the model is asked with, and which tokens carry loss."""

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from conftest import CHATML, make_base
from hf_finetune.chat import ChatFormat
from hf_finetune.errors import RecipeError


def chat_of(base: Path, template: str | None = CHATML) -> ChatFormat:
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = template
    return ChatFormat.of(tokenizer)


def test_loss_is_taken_over_the_answer_and_its_end_and_nothing_else(tiny_base: Path) -> None:
    chat = chat_of(tiny_base)
    example = chat.example("is it good?", "positive")
    trained = [token for token in example["labels"] if token != -100]
    assert chat.tokenizer.decode(trained) == "positive<|im_end|>"
    assert example["input_ids"][-len(trained) :] == trained
    assert len(example["input_ids"]) == len(example["labels"])


def test_the_trained_prompt_is_the_prompt_that_is_asked(tiny_base: Path) -> None:
    chat = chat_of(tiny_base)
    example = chat.example("is it good?", "positive")
    asked = chat.prompt_ids("is it good?")
    assert example["input_ids"][: len(asked)] == asked
    assert chat.tokenizer.decode(asked) == "<|im_start|>user\nis it good?<|im_end|>\n<|im_start|>assistant\n"


def test_the_whole_example_is_what_the_template_renders(tiny_base: Path) -> None:
    chat = chat_of(tiny_base)
    messages = [{"role": "user", "content": "is it good?"}, {"role": "assistant", "content": "positive"}]
    rendered = chat.tokenizer.apply_chat_template(messages, tokenize=False)
    assert chat.tokenizer.decode(chat.example("is it good?", "positive")["input_ids"]) == rendered.rstrip("\n")


def test_a_template_that_begins_answers_with_a_space_keeps_it(tiny_base: Path) -> None:
    spaced = (
        "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
        "{% else %} {{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    )
    chat = chat_of(tiny_base, spaced)
    assert chat.lead == " "
    assert chat.tokenizer.decode(chat.completion_ids("positive")) == " positive<|im_end|>"
    assert chat.text(chat.completion_ids("positive")) == "positive"


def test_a_template_that_thinks_only_when_asked_trains_the_asked_prompt(tiny_base: Path) -> None:
    thinking = CHATML.replace("assistant\n' }}{% endif %}", "assistant\n<think></think>' }}{% endif %}")
    chat = chat_of(tiny_base, thinking)
    text = chat.tokenizer.decode(chat.example("is it good?", "positive")["input_ids"])
    assert text.endswith("assistant\n<think></think>positive<|im_end|>")


def test_examples_stand_before_the_question_as_turns_of_a_chat(tiny_base: Path) -> None:
    chat = replace(chat_of(tiny_base), examples=(("was it bad?", "negative"), ("and now?", "neutral")))
    assert chat.tokenizer.decode(chat.prompt_ids("is it good?")) == (
        "<|im_start|>user\nwas it bad?<|im_end|>\n<|im_start|>assistant\nnegative<|im_end|>\n"
        "<|im_start|>user\nand now?<|im_end|>\n<|im_start|>assistant\nneutral<|im_end|>\n"
        "<|im_start|>user\nis it good?<|im_end|>\n<|im_start|>assistant\n"
    )
    plain = replace(chat_of(tiny_base, None), examples=(("was it bad?", "negative"),))
    assert plain.tokenizer.decode(plain.prompt_ids("is it good?")) == "was it bad?\nnegative\n\nis it good?\n"


def test_without_a_template_the_answer_still_ends(tiny_base: Path) -> None:
    chat = chat_of(tiny_base, None)
    assert chat.completion_ids("positive")[-1] == chat.tokenizer.eos_token_id


def test_a_tokenizer_that_cannot_end_an_answer_is_refused(tiny_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.chat_template = None
    tokenizer.eos_token = None
    with pytest.raises(RecipeError, match="no EOS token"):
        ChatFormat.of(tokenizer)


def test_a_template_that_drops_the_answer_is_refused(tiny_base: Path) -> None:
    with pytest.raises(RecipeError, match="drops the assistant"):
        chat_of(tiny_base, "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}")


def test_a_beginning_of_text_token_is_not_doubled(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "<|endoftext|>" + CHATML)
    ids = chat_of(base, "<|endoftext|>" + CHATML).prompt_ids("hello")
    assert ids.count(ids[0]) == 1
