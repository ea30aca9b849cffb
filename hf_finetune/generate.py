"""Prompts -> answers: choices scored by likelihood, or texts generated greedily, in batches with a progress bar."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_finetune.chat import ChatFormat
from hf_finetune.errors import RecipeError
from hf_finetune.progress import Progress, tracked

if TYPE_CHECKING:
    import torch


def choice_probabilities(
    model: Any,
    chat: ChatFormat,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
    batch_size: int,
    progress: Progress | None = None,
    stage: str = "answer",
) -> list[list[float]]:
    """For each prompt, the probability of each of its choices among them all; each list sums to 1.

    A choice's likelihood is that of all its tokens and of the end of the answer, so that a choice which begins like
    another is not favoured; nothing is divided by the length.

    Raises:
        RecipeError: when a likelihood is no number, as after a training that went wrong.
    """
    import torch

    questions = [chat.prompt_ids(prompt) for prompt in prompts]
    pairs = [(row, questions[row], chat.completion_ids(c)) for row, own in enumerate(choices) for c in own]
    order = sorted(range(len(pairs)), key=lambda index: len(pairs[index][1]) + len(pairs[index][2]), reverse=True)
    scores = [0.0] * len(pairs)
    for batch in tracked(_batches(order, batch_size), progress, stage, "batches"):
        for index, score in zip(batch, _completion_scores(model, chat, [pairs[i] for i in batch]), strict=True):
            scores[index] = score
    if not all(map(math.isfinite, scores)):
        raise RecipeError(
            f"{stage}: a likelihood is not a number. Try dtype=bfloat16 or float32, or a lower learning_rate."
        )
    by_row: list[list[float]] = [[] for _ in prompts]
    for (row, _, _), score in zip(pairs, scores, strict=True):
        by_row[row].append(score)
    return [torch.tensor(row, dtype=torch.float64).softmax(0).tolist() for row in by_row]


def generate_texts(
    model: Any,
    chat: ChatFormat,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None = None,
    stage: str = "answer",
) -> list[str]:
    """The most likely text (greedy) that follows each prompt, up to the end of the answer or `max_new_tokens`."""
    import torch
    from transformers import GenerationConfig

    questions = [chat.prompt_ids(prompt) for prompt in prompts]
    order = sorted(range(len(questions)), key=lambda index: len(questions[index]), reverse=True)
    greedy = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        repetition_penalty=1.0,  # what is not set here is taken from the base: Qwen2.5's is 1.1, which is not greedy
        no_repeat_ngram_size=0,
        eos_token_id=_stop_ids(model, chat),
        pad_token_id=chat.pad_id,
    )
    texts = [""] * len(questions)
    model.eval()
    for batch in tracked(_batches(order, batch_size), progress, stage, "batches"):
        ids, mask = _left_padded([questions[index] for index in batch], chat.pad_id, model.device)
        with torch.inference_mode():
            output = model.generate(input_ids=ids, attention_mask=mask, generation_config=greedy)
        for index, answer in zip(batch, output[:, ids.shape[1] :].tolist(), strict=True):
            texts[index] = chat.text(answer)
    return texts


def _completion_scores(model: Any, chat: ChatFormat, pairs: Sequence[tuple[int, list[int], list[int]]]) -> list[float]:
    """The log-likelihood of each completion after its prompt, in nats."""
    import torch

    ids, mask = _left_padded([question + answer for _, question, answer in pairs], chat.pad_id, model.device)
    longest = max(len(answer) for _, _, answer in pairs)
    model.eval()
    with torch.inference_mode():
        # The vocabulary is projected onto only at the last positions: the ones that predict a completion's tokens.
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            logits_to_keep=longest + 1,
            use_cache=False,
        ).logits.float()
    logp = logits[:, -longest - 1 : -1].log_softmax(-1).gather(-1, ids[:, -longest:, None])[..., 0]  # (batch, longest)
    return [float(logp[i, longest - len(answer) :].sum()) for i, (_, _, answer) in enumerate(pairs)]


def _left_padded(
    sequences: Sequence[list[int]], pad_id: int, device: "torch.device"
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Ids and attention mask, each (batch, longest length), with the padding on the left."""
    import torch

    longest = max(map(len, sequences))
    ids = [[pad_id] * (longest - len(sequence)) + sequence for sequence in sequences]
    mask = [[0] * (longest - len(sequence)) + [1] * len(sequence) for sequence in sequences]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _stop_ids(model: Any, chat: ChatFormat) -> list[int]:
    """What ends an answer: what the training taught, and what the base model itself stops at."""
    own = model.generation_config.eos_token_id
    own = own if isinstance(own, list) else [own] if own is not None else []
    return sorted({chat.ending[-1], *own})


def _batches(order: Sequence[int], size: int) -> list[Sequence[int]]:
    return [order[start : start + size] for start in range(0, len(order), size)]
