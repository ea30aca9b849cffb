"""Batched answers against the plain computation, one row at a time."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hf_finetune.chat import ChatFormat
from hf_finetune.generate import _cut, generate_texts, log_likelihoods, sample_texts
from hf_finetune.model import find_base_model, load_base_model, load_tokenizer
from hf_finetune.settings import Settings

PROMPTS = ["good?", "Alba said profit rose 7 % in the year", "the meeting lasts nine hours " * 6, "é ☕"]
CHOICES = ["negative", "neutral", "positive"]


@pytest.fixture(scope="module")
def loaded(tiny_base: Path) -> tuple[Any, ChatFormat]:
    settings = Settings(model_name_or_path=str(tiny_base))
    base = find_base_model(settings)
    return load_base_model(base, settings), ChatFormat.of(load_tokenizer(base))


def plain_log_likelihood(model: Any, chat: ChatFormat, prompt: str, choice: str) -> float:
    """The sum of the completion's token log-probabilities from one unpadded forward pass."""
    question, answer = chat.prompt_ids(prompt), chat.completion_ids(choice)
    with torch.inference_mode():
        logits = model(torch.tensor([question + answer])).logits[0].double().log_softmax(-1)
    return sum(float(logits[len(question) - 1 + i, token]) for i, token in enumerate(answer))


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_choices_are_scored_as_one_by_one_without_padding(loaded: tuple[Any, ChatFormat], batch_size: int) -> None:
    model, chat = loaded
    given = log_likelihoods(model, chat, PROMPTS, [CHOICES] * len(PROMPTS), batch_size)
    for prompt, likelihoods in zip(PROMPTS, given, strict=True):
        plain = [plain_log_likelihood(model, chat, prompt, choice) for choice in CHOICES]
        assert likelihoods == pytest.approx(plain, abs=1e-4)  # nats: float32 sums in another order


def test_long_answers_are_scored_as_one_by_one_too(loaded: tuple[Any, ChatFormat]) -> None:
    model, chat = loaded
    answers = [["the profit rose in the year " * count] for count in (1, 9, 4, 2)]
    given = log_likelihoods(model, chat, PROMPTS, answers, 1)
    plain = [plain_log_likelihood(model, chat, prompt, own[0]) for prompt, own in zip(PROMPTS, answers, strict=True)]
    assert [likelihood for (likelihood,) in given] == pytest.approx(plain, abs=1e-3)


def test_rows_may_have_different_choices(loaded: tuple[Any, ChatFormat]) -> None:
    model, chat = loaded
    given = log_likelihoods(model, chat, ["a", "b"], [["yes", "no"], ["one", "two", "three"]], 2)
    assert [len(row) for row in given] == [2, 3]


@pytest.mark.parametrize("batch_size", [2, 4])
def test_batched_texts_are_those_of_single_prompts(loaded: tuple[Any, ChatFormat], batch_size: int) -> None:
    model, chat = loaded
    single = [generate_texts(model, chat, [prompt], 8, 1)[0] for prompt in PROMPTS]
    assert generate_texts(model, chat, PROMPTS, 8, batch_size) == single
    assert any(single)


def test_a_base_that_punishes_repetition_still_answers_greedily(tiny_base: Path) -> None:
    """Qwen2.5-Instruct's generation_config.json has a repetition_penalty, which generate() takes over silently."""
    settings = Settings(model_name_or_path=str(tiny_base))
    model = load_base_model(find_base_model(settings), settings)
    chat = ChatFormat.of(load_tokenizer(find_base_model(settings)))
    plain = generate_texts(model, chat, PROMPTS, 8, 4)
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.no_repeat_ngram_size = 1
    assert generate_texts(model, chat, PROMPTS, 8, 4) == plain


def test_samples_depend_on_the_seed_of_their_own_row_alone(loaded: tuple[Any, ChatFormat]) -> None:
    model, chat = loaded
    together = sample_texts(model, chat, PROMPTS, [1, 2, 3, 4], 3, 0.8, 8)
    alone = sample_texts(model, chat, PROMPTS[2:3], [3], 3, 0.8, 8)
    assert [len(texts) for texts in together] == [3, 3, 3, 3]
    assert together[2] == alone[0]
    assert len(set(together[2])) > 1
    assert sample_texts(model, chat, PROMPTS[2:3], [5], 3, 0.8, 8) != alone


def test_a_batch_has_no_more_choices_than_there_is_room_for() -> None:
    assert _cut([0, 1, 2, 3], [3, 3, 3, 3], 7) == [[0, 1], [2, 3]]
    assert _cut([3, 0], [3, 3, 3, 77], 7) == [[3], [0]]
    assert _cut([], [], 7) == []
