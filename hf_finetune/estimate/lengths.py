"""How many tokens there are to compute: counted in a recipe's rows, or assumed and said so."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from hf_finetune.chat import ChatFormat
from hf_finetune.data.sources import Source
from hf_finetune.data.splits import SPLITS
from hf_finetune.errors import plural
from hf_finetune.model import BaseModel, load_tokenizer
from hf_finetune.packing import NO_LOSS
from hf_finetune.prepare import Encoded, Prepared, encode, prepare
from hf_finetune.recipe import Recipe
from hf_finetune.settings import Settings

Row = dict[str, list[int]]

ASSUMED_ROWS = 1_000
SHORT_ANSWER = 32
"""Tokens of an answer, where nothing is known of them."""


@dataclass(frozen=True)
class Lengths:
    """The rows of a training as tokens, and how much there is to validate with and to evaluate on."""

    rows: list[Row] = field(repr=False)
    """`input_ids` and `labels` of the training rows; assumed ones are of their lengths alone."""
    num_rows: int
    """Of the training; more than there are in `rows` where these only stand for them."""
    validation_tokens: int
    test_rows: int
    test_tokens: int
    longest_answer: int
    """Tokens, of all rows."""
    is_closed: bool
    """Whether the answers are chosen by likelihood, not written."""
    told: str
    """Where the numbers come from, in words."""
    drawn: Sequence[int] = ()
    """The numbers of those in `rows` that stand for all training rows, where the others are there as the longest."""

    @cached_property
    def typical(self) -> list[Row]:
        """Rows that are as long as training rows are on average."""
        return [self.rows[number] for number in self.drawn] or self.rows

    @cached_property
    def train_tokens(self) -> int:
        """The tokens of all training rows."""
        total = sum(len(row["input_ids"]) for row in self.typical)
        return round(total * self.num_rows / len(self.typical))

    def longest(self, count: int) -> list[Row]:
        """So many rows, the longest; again from the first where there are fewer."""
        return [self._ordered[number % len(self._ordered)] for number in range(count)]

    @cached_property
    def _ordered(self) -> list[Row]:
        return sorted(self.rows, key=lambda row: -len(row["input_ids"]))


def counted_lengths(recipe: Recipe[Any], prepared: Prepared, encoded: Encoded) -> Lengths:
    """The lengths of rows that were read and tokenised as a run does it."""
    tokens = encoded.facts["tokens"]
    total = sum(len(prepared.rows[name]) for name in SPLITS)
    rows = encoded.train
    return Lengths(
        rows=rows,
        num_rows=len(rows),
        validation_tokens=sum(len(row["input_ids"]) for row in encoded.validation),
        test_rows=len(prepared.rows["test"]),
        test_tokens=int(tokens["test"]["sum"]),
        longest_answer=max(map(num_labels, rows)),
        is_closed=all(recipe.choices(row) is not None for row in prepared.rows["test"]),
        told=f"{plural(total, 'row')} counted, of {tokens['train']['median']:,} tokens in the middle and "
        f"{tokens['train']['longest']:,} at most; {len(rows):,} to train on",
    )


def assumed_lengths(settings: Settings, rows: int = ASSUMED_ROWS, tokens: int | None = None, why: str = "") -> Lengths:
    """Rows of one length, max_length where none is given, of which the share of the training split is trained on."""
    length = tokens or settings.max_length
    answer = max(1, min(SHORT_ANSWER, length // 2))
    asked = length - answer
    row = {"input_ids": [3] * (length // 4), "labels": [NO_LOSS] * asked + [5] * answer}
    made = [row | {"input_ids": row["input_ids"] + [4 + n] * (length - length // 4)} for n in range(64)]
    train = max(1, round(rows * (1 - settings.validation_size - settings.test_size)))
    given = "as given" if tokens else "max_length"
    return Lengths(
        rows=made,
        num_rows=min(train, settings.max_train_rows or train),
        validation_tokens=round(rows * settings.validation_size) * length,
        test_rows=min(max(1, round(rows * settings.test_size)), settings.max_test_rows or rows),
        test_tokens=round(rows * settings.test_size) * length,
        longest_answer=answer,
        is_closed=False,
        told=f"assumed: {plural(rows, 'row')} of {length:,} tokens ({given}), a quarter of which all rows begin with"
        + (f"; {why}" if why else ""),
    )


def num_labels(row: Row) -> int:
    """The tokens of a row that carry loss."""
    return len(row["labels"]) - row["labels"].count(NO_LOSS)  # three times as fast as a loop


def padded(rows: Sequence[Row]) -> list[Row]:
    """The rows as they are computed where they are not laid end to end: filled up to the longest of them."""
    width = max(len(row["input_ids"]) for row in rows)
    missing = [(row, width - len(row["input_ids"])) for row in rows]
    return [
        {"input_ids": row["input_ids"] + [0] * more, "labels": row["labels"] + [NO_LOSS] * more}
        for row, more in missing
    ]


def read_lengths(recipe: Recipe[Any], source: Source, settings: Settings, base: BaseModel) -> Lengths:
    """The lengths of a source's rows, checked, split and tokenised as a run does it.

    Raises:
        RecipeError: what a run would say of the rows or the tokenizer.
    """
    prepared = prepare(recipe, source, settings)
    return counted_lengths(recipe, prepared, encode(recipe, prepared, ChatFormat.of(load_tokenizer(base)), settings))


def of_samples(sampled: Lengths, rows: int, settings: Settings, why: str) -> Lengths:
    """The lengths of so many rows that are like sample rows."""
    train = max(1, round(rows * (1 - settings.validation_size - settings.test_size)))
    times = train / sampled.num_rows
    told = f"assumed: {plural(rows, 'row')} like the sample rows of the recipe ({sampled.told})"
    return replace(
        sampled,
        num_rows=min(train, settings.max_train_rows or train),
        validation_tokens=round(sampled.validation_tokens * times),
        test_rows=min(max(1, round(sampled.test_rows * times)), settings.max_test_rows or rows),
        test_tokens=round(sampled.test_tokens * times),
        told=told + (f"; {why}" if why else ""),
    )
