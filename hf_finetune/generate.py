"""Prompts -> likelihoods of given answers, or texts generated greedily or sampled, in batches with a progress bar."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from hf_finetune.chat import ChatFormat
from hf_finetune.errors import RecipeError, plural
from hf_finetune.memory import fault_of_first_that_fits, overflow
from hf_finetune.packed_model import PackedModel
from hf_finetune.packing import NO_LOSS, Batch, pack, shared_start, supervised
from hf_finetune.progress import Progress, tracked

if TYPE_CHECKING:
    import torch

SHORT_ANSWER = 8
"""Tokens of a choice that counts as one of a batch; a longer one counts as several, as each takes logits."""

SIZE = "per_device_eval_batch_size"

Question = tuple[list[int], list[list[int]]]
"""The token ids of a question, and of each of its choices."""


def log_likelihoods(
    model: Any,
    chat: ChatFormat,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
    batch_size: int,
    progress: Progress | None = None,
    stage: str = "answer",
) -> list[list[float]]:
    """For each prompt, the log-likelihood of each of its choices, in nats; NaN where the model gives no number.

    It is that of all tokens of a choice and of the end of the answer, so that a choice which begins like another is
    not favoured; nothing is divided by the length.
    """
    from accelerate.utils import send_to_device

    if not prompts:
        return []
    rows = [
        (chat.prompt_ids(p), [chat.completion_ids(c) for c in own]) for p, own in zip(prompts, choices, strict=True)
    ]
    order = sorted(range(len(rows)), key=lambda index: len(rows[index][0]), reverse=True)
    scores: list[list[float]] = [[] for _ in rows]
    lean = PackedModel(model)
    shared = shared_start([question[:-1] for question, _ in rows])  # a choice is predicted from what is not shared

    def fault_with(numbers: Sequence[int]) -> str | None:
        few = [(question, answers[:2]) for question, answers in (rows[number] for number in numbers)]
        both_ways = send_to_device([_padded(few, chat.pad_id), _packed(few, shared)], model.device)
        lean.forget()
        return lean.fault(*both_ways) or lean.fault(*both_ways)  # then with what was remembered

    model.eval()
    with lean.remembering():
        fault = fault_of_first_that_fits(partial(fault_with, range(len(rows))[:2]), partial(fault_with, order[-2:]))
        if fault:
            lean.forget()
        if fault and progress:
            progress.tell(f"{stage}: each choice has its question computed again: {fault}.")
        sizes = [sum(math.ceil(len(answer) / SHORT_ANSWER) for answer in answers) for _, answers in rows]

        def score(numbers: Sequence[int]) -> None:
            some = [rows[number] for number in numbers]
            batch = _padded(some, chat.pad_id) if fault else _packed(some, shared)
            own = _choice_scores(lean, send_to_device(batch, model.device), some, supervised_only=not fault)
            for number, given in zip(numbers, own, strict=True):
                scores[number] = given

        with lean.switched(not fault):
            _in_batches(order, sizes, batch_size, 1 if fault else 4, score, progress, stage)
    return scores


def generate_texts(
    model: Any,
    chat: ChatFormat,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None = None,
    stage: str = "answer",
) -> list[str]:
    """The most likely text (greedy) that follows each prompt, up to the end of the answer or `max_new_tokens`.

    In float32 they are those of one prompt at a time. In bfloat16 a sum is rounded otherwise in a batch of another
    shape, with padding before it more than without, so that of two tokens that are about as likely another is taken.
    """
    import torch

    questions = [chat.prompt_ids(prompt) for prompt in prompts]
    order = sorted(range(len(questions)), key=lambda index: len(questions[index]), reverse=True)
    greedy = _generation_config(model, chat, max_new_tokens, do_sample=False)
    texts = [""] * len(questions)
    model.eval()

    def answer(batch: Sequence[int]) -> None:
        ids, mask = _left_padded([questions[index] for index in batch], chat.pad_id, model.device)
        with torch.inference_mode():
            output = model.generate(input_ids=ids, attention_mask=mask, generation_config=greedy)
        for index, own in zip(batch, output[:, ids.shape[1] :].tolist(), strict=True):
            texts[index] = chat.text(own)

    _in_batches(order, [1] * len(order), batch_size, 1, answer, progress, stage)
    return texts


def sample_texts(
    model: Any, chat: ChatFormat, prompts: Sequence[str], seeds: Sequence[int], num_samples: int, temperature: float,
    max_new_tokens: int, progress: Progress | None = None, stage: str = "sample",
) -> list[list[str]]:  # fmt: skip
    """So many texts after each prompt, drawn as likely as the model finds them at a temperature.

    A prompt's texts depend on its own seed alone, not on what other prompts are asked with it.
    """
    import torch

    config = _generation_config(
        model, chat, max_new_tokens, do_sample=True, temperature=temperature, top_k=0, top_p=1.0,
        num_return_sequences=num_samples,
    )  # fmt: skip
    devices = [model.device] if model.device.type == "cuda" else []
    texts = []
    model.eval()
    for prompt, seed in tracked(list(zip(prompts, seeds, strict=True)), progress, stage, "rows"):
        ids = torch.tensor([chat.prompt_ids(prompt)], device=model.device)
        with torch.inference_mode(), torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
        texts.append([chat.text(answer) for answer in output[:, ids.shape[1] :].tolist()])
    return texts


def _in_batches(
    order: Sequence[int], sizes: Sequence[int], batch_size: int, times: int, answer: Callable[[Sequence[int]], None],
    progress: Progress | None, stage: str,
) -> None:  # fmt: skip
    """Answers the numbers in their order, in batches of `times` the size; in half of it from where memory is full.

    Raises:
        RecipeError: when a single one does not fit.
    """
    used = progress.session.used if progress else {}
    size = min(batch_size, used.get(SIZE, batch_size))
    for numbers in tracked(_cut(order, sizes, times * size), progress, stage, "batches"):
        left = numbers
        while left:
            batch = _cut(left, sizes, times * size)[0]
            if why := overflow(partial(answer, batch)):
                size = min(size, math.ceil(sum(sizes[number] for number in batch) / times))
                size, times = _smaller(size, times, len(batch), f"{stage}: the memory is full ({why})")
                used[SIZE] = size
                if progress:
                    rows = plural(len(batch), "row")
                    progress.tell(f"memory    {stage}: {rows} at a time do not fit ({why}); goes on with {SIZE}={size}")
            else:
                left = left[len(batch) :]


def _smaller(size: int, times: int, rows: int, fault: str) -> tuple[int, int]:
    """Half of a batch size, or of how many times it is taken where it is 1."""
    if rows == 1:
        raise RecipeError(
            f"{fault} with one row at a time, the longest first. Take a smaller base model, load_in_4bit=true if that "
            f"is off, or shorter prompts; few_shot=0 leaves out the examples before each."
        )
    return (max(1, size // 2), times) if size > 1 else (1, max(1, times // 2))


def _generation_config(model: Any, chat: ChatFormat, max_new_tokens: int, **values: Any) -> Any:
    """How texts are made; what is not set here is taken from the base: Qwen2.5 penalises repetition by 1.1."""
    from transformers import GenerationConfig

    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        eos_token_id=_stop_ids(model, chat),
        pad_token_id=chat.pad_id,
        **values,
    )


def _packed(rows: Sequence[Question], shared: int) -> Batch:
    """Questions end to end, each once and its choices after it; the `shared` tokens that all begin with stand first."""
    pairs = [(question, answer) for question, answers in rows for answer in answers]
    return pack(
        rows[0][0][:shared],
        [[question[shared:], answer] for question, answer in pairs],
        [[NO_LOSS] * len(question) + answer for question, answer in pairs],
    )


def _padded(rows: Sequence[Question], pad_id: int) -> Batch:
    """Each question with each of its choices, filled up to one length: the plain form of `_packed`."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    pairs = [(question, answer) for question, answers in rows for answer in answers]
    ids = [torch.tensor(question + answer) for question, answer in pairs]
    labels = [torch.tensor([NO_LOSS] * len(question) + answer) for question, answer in pairs]
    batch = {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad_id),
        "attention_mask": pad_sequence([torch.ones_like(own) for own in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=NO_LOSS),
    }
    return supervised(batch)


def _choice_scores(
    lean: PackedModel, batch: Batch, rows: Sequence[Question], supervised_only: bool
) -> list[list[float]]:
    """The log-likelihood of each choice of each question, in nats."""
    import torch

    lean.base.eval()
    with torch.inference_mode():
        losses = lean.losses(lean.base, batch, supervised_only)
        scores = -torch.zeros(sum(len(a) for _, a in rows), device=losses.device).index_add(0, batch["rows"], losses)
    given = iter(scores.tolist())
    return [[next(given) for _ in answers] for _, answers in rows]


def _cut(numbers: Sequence[int], sizes: Sequence[int], most: int) -> list[list[int]]:
    """The numbers in parts of which each has a size of at most `most` in all, or is one number."""
    parts: list[list[int]] = []
    room = 0
    for number in numbers:
        if sizes[number] > room or not parts:
            parts.append([])
            room = most
        parts[-1].append(number)
        room -= sizes[number]
    return parts


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
