"""Base, few-shot and fine-tuned model answer the same test rows: report.json, report.md, answers.jsonl."""

import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hf_finetune.chat import ChatFormat
from hf_finetune.files import write_jsonl
from hf_finetune.generate import choice_probabilities, generate_texts
from hf_finetune.model import explaining_full_memory
from hf_finetune.processes import everyones, is_main, own_share, together
from hf_finetune.progress import Progress
from hf_finetune.recipe import Recipe
from hf_finetune.report import Answer, compare
from hf_finetune.settings import Settings


def evaluate(
    model: Any, chat: ChatFormat, recipe: Recipe[Any], train: Sequence[Any], test: Sequence[Any], settings: Settings,
    folder: Path, progress: Progress | None = None,
) -> None:  # fmt: skip
    """Asks a model with its adapter loaded; the adapter is switched off for the base, on for the fine-tuned.

    Each process asks for its share of the rows; the main one leaves answers.jsonl, report.md and report.json in
    `folder`.
    """
    max_new_tokens = longest_answer(chat, [recipe.completion(row) for row in (*train, *test)])
    draws = few_shot_chats(model, chat, recipe, train, test, max_new_tokens, settings)
    if progress and settings.few_shot and not draws:
        progress.tell("few-shot: left out, as no example fits into the base's context beside the longest question.")
    with explaining_full_memory("Halve per_device_eval_batch_size and start the same command again."):
        with model.disable_adapter():
            base = answer(model, chat, recipe, test, max_new_tokens, settings, progress, "base")
            few_shot = [
                answer(model, shown, recipe, test, max_new_tokens, settings, progress, f"few-shot {number}")
                for number, shown in enumerate(draws, 1)
            ]
        tuned = answer(model, chat, recipe, test, max_new_tokens, settings, progress, "tuned")
    if not is_main():
        return
    num_examples = len(draws[0].examples) if draws else 0
    report = compare(recipe, train, test, base, tuned, max_new_tokens, few_shot, num_examples)
    write_jsonl(
        folder / "answers.jsonl",
        [
            {
                "prompt": recipe.prompt(row),
                "gold": recipe.completion(row),
                "base": asdict(base[number]),
                "few_shot": [asdict(answers[number]) for answers in few_shot],
                "tuned": asdict(tuned[number]),
            }
            for number, row in enumerate(test)
        ],
    )
    report.write(folder)


def few_shot_chats(
    model: Any, chat: ChatFormat, recipe: Recipe[Any], train: Sequence[Any], test: Sequence[Any], max_new_tokens: int,
    settings: Settings,
) -> list[ChatFormat]:  # fmt: skip
    """For each draw, the chat that shows examples from the training rows before a question.

    Where answers are closed, they are shown in turn. There are fewer examples where they would not fit into the base's
    context beside the longest question and its answer; none, if not even one does.
    """
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 10**9
    longest = max((recipe.prompt(row) for row in test), key=lambda prompt: len(chat.prompt_ids(prompt)))
    draws = [_drawn(recipe, train, settings.few_shot, f"{settings.seed} {n}") for n in range(settings.few_shot_draws)]
    for count in range(settings.few_shot, 0, -1):
        chats = [replace(chat, examples=tuple(rows[:count])) for rows in draws]
        if max(len(shown.prompt_ids(longest)) for shown in chats) + max_new_tokens <= context:
            return chats
    return []


def _drawn(recipe: Recipe[Any], train: Sequence[Any], count: int, seed: str) -> list[tuple[str, str]]:
    """Prompts and answers of training rows, drawn by chance; of closed answers one after another."""
    rows = random.Random(seed).sample(list(train), len(train))
    by_answer: dict[str, list[Any]] = {}
    for row in rows:
        by_answer.setdefault(recipe.completion(row) if recipe.choices(row) is not None else "", []).append(row)
    turns = [own[turn] for turn in range(count) for own in by_answer.values() if turn < len(own)]
    return [(recipe.prompt(row), recipe.completion(row)) for row in turns[:count]]


def answer(
    model: Any, chat: ChatFormat, recipe: Recipe[Any], rows: Sequence[Any], max_new_tokens: int, settings: Settings,
    progress: Progress | None = None, name: str = "model",
) -> list[Answer]:  # fmt: skip
    """One answer a row: the likeliest of its choices, or generated text where the recipe gives none.

    With several processes each answers its share, and all of them get all answers.
    """
    own = own_share(rows)
    prompts, size, stage = [recipe.prompt(row) for row in own], settings.per_device_eval_batch_size, f"evaluate {name}"
    if any(recipe.choices(row) is None for row in rows):
        texts = generate_texts(model, chat, prompts, max_new_tokens, size, progress, stage)
        answers = [_marked(recipe, row, text, None) for row, text in zip(own, texts, strict=True)]
    else:
        choices = [recipe.choices(row) or () for row in own]
        probabilities = choice_probabilities(model, chat, prompts, choices, size, progress, stage)
        by_choice = [dict(zip(some, p, strict=True)) for some, p in zip(choices, probabilities, strict=True)]
        answers = [_marked(recipe, row, max(p, key=p.__getitem__), p) for row, p in zip(own, by_choice, strict=True)]
    return together(everyones(answers))


def longest_answer(chat: ChatFormat, completions: Sequence[str]) -> int:
    """How many tokens an answer may have: those of the longest gold completion and a quarter more."""
    longest = max(len(chat.completion_ids(completion)) for completion in completions)
    return longest + max(1, longest // 4)


def _marked(recipe: Recipe[Any], row: Any, text: str, probabilities: dict[str, float] | None) -> Answer:
    prediction = recipe.parse(text)
    return Answer(text, prediction, recipe.correct(row, prediction), probabilities)
