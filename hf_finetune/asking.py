"""A model and the test rows -> what it gives to each: text or probabilities, and what the gold answer costs it."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_finetune.chat import ChatFormat
from hf_finetune.errors import RecipeError, plural
from hf_finetune.generate import generate_texts, log_likelihoods, sample_texts
from hf_finetune.processes import everyones, own_share, together
from hf_finetune.progress import Progress
from hf_finetune.recipe import Recipe
from hf_finetune.report import Answer
from hf_finetune.settings import Settings


@dataclass(frozen=True)
class Given:
    """What a model gives to one row, before it is read and marked."""

    text: str | None
    """None where the model's likelihoods are no numbers."""
    probabilities: dict[str, float] | None = None
    gold_loss: float | None = None
    samples: Sequence[str] = ()


def ask(
    model: Any, chat: ChatFormat, recipe: Recipe[Any], rows: Sequence[Any], max_new_tokens: int, settings: Settings,
    progress: Progress | None = None, name: str = "model",
) -> list[Given]:  # fmt: skip
    """The likeliest choice of each row, or generated text where the recipe gives none.

    With several processes each asks for its share, and all of them get all that was given.

    Raises:
        RecipeError: when a likelihood is not a number in any row, as after a training that went wrong.
    """
    numbers = own_share(range(len(rows)))
    own = [rows[number] for number in numbers]
    if all(recipe.choices(row) is not None for row in rows):
        given = _chosen(model, chat, recipe, own, settings, progress, name)
    else:
        seeds = [random.Random(f"{settings.seed} {number}").getrandbits(32) for number in numbers]
        given = _written(model, chat, recipe, own, seeds, max_new_tokens, settings, progress, name)
    everything = together(everyones(given))
    lost = sum(one.gold_loss is None for one in everything)
    if lost == len(rows):
        raise RecipeError(
            f"evaluate {name}: no likelihood is a number. Try dtype=bfloat16 or float32, or a lower learning_rate."
        )
    if lost and progress:
        progress.tell(f"evaluate {name}: the likelihoods of {plural(lost, 'row')} are no numbers; they count as wrong.")
    return everything


def _chosen(
    model: Any, chat: ChatFormat, recipe: Recipe[Any], rows: Sequence[Any], settings: Settings,
    progress: Progress | None, name: str,
) -> list[Given]:  # fmt: skip
    """The likeliest choice of each row."""
    prompts, choices = [recipe.prompt(row) for row in rows], [list(recipe.choices(row) or ()) for row in rows]
    size = settings.per_device_eval_batch_size
    likelihoods = log_likelihoods(model, chat, prompts, choices, size, progress, f"evaluate {name}")
    gold = [recipe.completion(row) for row in rows]
    return [_likeliest(*row) for row in zip(choices, likelihoods, gold, strict=True)]


def _written(
    model: Any, chat: ChatFormat, recipe: Recipe[Any], rows: Sequence[Any], seeds: Sequence[int], max_new_tokens: int,
    settings: Settings, progress: Progress | None, name: str,
) -> list[Given]:  # fmt: skip
    """The text that each row's question is answered with, what the gold answer costs, and samples if asked for."""
    prompts, gold = [recipe.prompt(row) for row in rows], [[recipe.completion(row)] for row in rows]
    size, count = settings.per_device_eval_batch_size, settings.num_samples
    texts = generate_texts(model, chat, prompts, max_new_tokens, size, progress, f"evaluate {name}")
    likelihoods = log_likelihoods(model, chat, prompts, gold, size, progress, f"gold answers, {name}")
    losses = [-nats if math.isfinite(nats) else None for (nats,) in likelihoods]
    samples: Sequence[Sequence[str]] = [()] * len(rows)
    if count:
        stage = f"sample {name}"
        samples = sample_texts(
            model, chat, prompts, seeds, count, settings.temperature, max_new_tokens, progress, stage
        )
    return [
        Given(text if loss is not None else None, None, loss, drawn if loss is not None else ())
        for text, loss, drawn in zip(texts, losses, samples, strict=True)
    ]


def marked(recipe: Recipe[Any], row: Any, given: Given) -> Answer:
    """What was given, as the recipe reads and marks it."""
    prediction = None if given.text is None else recipe.parse(given.text)
    right = sum(recipe.correct(row, recipe.parse(text)) for text in given.samples)
    return Answer(
        given.text or "", prediction, recipe.correct(row, prediction), given.probabilities, given.gold_loss,
        right if given.samples else None,
    )  # fmt: skip


def _likeliest(choices: Sequence[str], likelihoods: Sequence[float], gold: str) -> Given:
    """The first of the likeliest choices, and each one's share of the likelihood."""
    if not all(map(math.isfinite, likelihoods)):
        return Given(None)
    highest = max(likelihoods)
    shares = [math.exp(nats - highest) for nats in likelihoods]
    total = sum(shares)
    probabilities = {choice: share / total for choice, share in zip(choices, shares, strict=True)}
    text = max(probabilities, key=probabilities.__getitem__)
    return Given(text, probabilities, -likelihoods[choices.index(gold)])
