"""Batched answers against the plain computation, one row at a time."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hf_finetune.chat import ChatFormat
from hf_finetune.errors import RecipeError
from hf_finetune.generate import _cut, choice_probabilities, generate_texts
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
    given = choice_probabilities(model, chat, PROMPTS, [CHOICES] * len(PROMPTS), batch_size)
    for prompt, probabilities in zip(PROMPTS, given, strict=True):
        plain = [plain_log_likelihood(model, chat, prompt, choice) for choice in CHOICES]
        # float32 sums in another order: 1e-4 of a nat
        torch.testing.assert_close(
            torch.tensor(probabilities),
            torch.tensor(plain).softmax(0).double(),
            rtol=1e-4,
            atol=1e-5,
            check_dtype=False,
        )
        assert sum(probabilities) == pytest.approx(1)


def test_rows_may_have_different_choices(loaded: tuple[Any, ChatFormat]) -> None:
    model, chat = loaded
    given = choice_probabilities(model, chat, ["a", "b"], [["yes", "no"], ["one", "two", "three"]], 2)
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


def test_a_likelihood_that_is_no_number_is_told(tiny_base: Path) -> None:
    settings = Settings(model_name_or_path=str(tiny_base))
    model = load_base_model(find_base_model(settings), settings)
    torch.nn.init.constant_(model.model.norm.weight, float("nan"))
    with pytest.raises(RecipeError, match="a likelihood is not a number"):
        choice_probabilities(model, ChatFormat.of(load_tokenizer(find_base_model(settings))), ["a"], [CHOICES], 2)


def test_a_batch_has_no_more_choices_than_there_is_room_for() -> None:
    assert _cut([0, 1, 2, 3], [3, 3, 3, 3], 7) == [[0, 1], [2, 3]]
    assert _cut([3, 0], [3, 3, 3, 77], 7) == [[3], [0]]
    assert _cut([], [], 7) == []
