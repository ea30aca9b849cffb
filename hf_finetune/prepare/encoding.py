"""Rows in splits -> the tokens to train on and to validate with."""

import dataclasses
import hashlib
import json
from itertools import islice
from statistics import median
from typing import Any

from hf_finetune.chat import ChatFormat
from hf_finetune.data.splits import SPLITS
from hf_finetune.errors import RecipeError, plural
from hf_finetune.prepare.splitting import Prepared
from hf_finetune.progress import Progress
from hf_finetune.recipe import Recipe
from hf_finetune.settings import Settings
from hf_finetune.tokens import tokenize


@dataclasses.dataclass(frozen=True)
class Encoded:
    """`input_ids` and `labels` of the rows that are trained on and validated with, and the facts for data.json."""

    train: list[dict[str, list[int]]]
    validation: list[dict[str, list[int]]]
    train_lines: list[int]
    """The line of splits/train.jsonl that each training row stands in."""
    facts: dict[str, Any]


def encode(
    recipe: Recipe[Any], prepared: Prepared, chat: ChatFormat, settings: Settings, progress: Progress | None = None
) -> Encoded:
    """The rows to train on and to validate with as tokens, less those longer than `settings.max_length` tokens.

    Raises:
        RecipeError: when no row of a split is short enough.
    """
    rows = [row for name in SPLITS for row in prepared.rows[name]]
    texts = [(recipe.prompt(row), recipe.completion(row)) for row in rows]
    given = iter(tokenize(chat, texts, settings.keep_tokens, progress))
    max_length = settings.max_length
    examples = {name: list(islice(given, len(prepared.rows[name]))) for name in SPLITS}
    lengths = {name: [len(example["input_ids"]) for example in examples[name]] for name in SPLITS}
    fitting = {name: [e for e in examples[name] if len(e["input_ids"]) <= max_length] for name in SPLITS}
    for name in ("train", "validation"):
        if not fitting[name]:
            raise RecipeError(
                f"data: all {plural(len(lengths[name]), 'row')} of the {name} split are longer than "
                f"max_length={max_length} tokens (the shortest has {min(lengths[name])}). "
                f"Raise it: max_length={max(lengths[name])}."
            )
    facts = {
        "tokens": {
            name: {
                "median": int(median(lengths[name])),
                "longest": max(lengths[name]),
                "sum": sum(lengths[name]),
                "sha256": hashlib.sha256(json.dumps(examples[name]).encode()).hexdigest(),
            }
            for name in SPLITS
        },
        "max_length": max_length,
        "rows_trained_on": len(fitting["train"]),
        "longer_than_max_length": {name: len(examples[name]) - len(fitting[name]) for name in SPLITS},
    }
    train_lines = [line for line, length in enumerate(lengths["train"], 1) if length <= max_length]
    return Encoded(fitting["train"], fitting["validation"], train_lines, facts)
