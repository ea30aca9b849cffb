"""Base, few-shot and fine-tuned model answer the same test rows: report.json, report.md, answers.jsonl."""

import math
import random
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import Any

from hf_finetune.asking import Given, ask, marked
from hf_finetune.baseline import tfidf_answers
from hf_finetune.chat import ChatFormat
from hf_finetune.errors import plural, told_where
from hf_finetune.files import read_json, read_jsonl, write_json, write_jsonl
from hf_finetune.gates import check_gates
from hf_finetune.generate import log_likelihoods
from hf_finetune.intervals import mean_interval
from hf_finetune.model import explaining_full_memory
from hf_finetune.processes import everyones, is_main, own_share, share, together
from hf_finetune.progress import Progress
from hf_finetune.recipe import Recipe
from hf_finetune.report import MODELS, Answer
from hf_finetune.scoring import make_report
from hf_finetune.settings import Settings

GENERAL_QUESTIONS = Path(__file__).parent / "data" / "general.jsonl"
"""Questions and answers that have nothing to do with any recipe, to measure what fine-tuning has a model forget."""
KEPT = "evaluation"
"""The folder of what models have given until the report is there."""


class Evaluation:
    """The same test rows put to several models, which need not be in memory at the same time.

    Several processes each put their share. What a model has given is kept in the folder: after a stop it is not asked
    again.
    """

    def __init__(
        self, chat: ChatFormat, recipe: Recipe[Any], rows: Mapping[str, Sequence[Any]], settings: Settings,
        folder: Path, progress: Progress, base_folder: Path | None = None,
    ) -> None:  # fmt: skip
        """Takes the rows by split, of which there may be none but `test`.

        Runs that ask one base the same test rows keep what it gives in one `base_folder`.
        """
        self.base_folder = base_folder or folder / KEPT
        self.chat, self.recipe, self.rows, self.settings = chat, recipe, rows, settings
        self.folder, self.progress = folder, progress
        self.answers: dict[str, list[list[Answer]]] = {}
        self.general_losses: dict[str, list[float | None]] = {}
        self.num_examples = 0
        self.max_new_tokens = longest_answer(
            chat, [recipe.completion(r) for r in (*rows.get("train", ()), *rows["test"])]
        )

    def ask_base(self, model: Any) -> None:
        """Asks the base model, without and with examples before each question."""
        self.answers["base"] = [self._ask(model, self.chat, "base")]
        train, test = self.rows.get("train", ()), self.rows["test"]
        draws = few_shot_chats(model, self.chat, self.recipe, train, test, self.max_new_tokens, self.settings)
        if draws:
            self.num_examples = len(draws[0].examples)
            self.answers["few_shot"] = [self._ask(model, chat, f"few-shot {n}") for n, chat in enumerate(draws, 1)]
        if train and self.num_examples < self.settings.few_shot:
            shown = plural(self.num_examples, "example")
            why = "there are no more training rows" if self.num_examples == len(train) else (
                "no more fit into the base's context beside the longest question"
            )  # fmt: skip
            self.progress.tell(f"few-shot: {shown} of the {self.settings.few_shot:,} asked for, as {why}.")
        self._ask_general(model, "base")

    def ask_tuned(self, model: Any, chat: ChatFormat | None = None) -> None:
        """Asks the fine-tuned model, in a chat format of its own if it has one."""
        self.answers["tuned"] = [self._ask(model, chat or self.chat, "tuned")]
        self._ask_general(model, "tuned")

    def ask_both(self, model: Any) -> None:
        """Asks the base model, which is one with an adapter that is turned off, then the fine-tuned one."""
        with model.disable_adapter():
            self.ask_base(model)
        self.ask_tuned(model)

    def write(self, notes: Sequence[str] = ()) -> None:
        """Leaves answers.jsonl, report.md and report.json, when all models have been asked."""
        if not is_main():
            return
        if self.settings.baseline == "tfidf":
            self.answers["tfidf"] = [tfidf_answers(self.recipe, self.rows)]
        report = make_report(
            self.recipe, self.rows.get("train", ()), self.rows["test"],
            {column: self.answers[column] for column in MODELS if column in self.answers},
            max_new_tokens=self.max_new_tokens,
            gold_tokens=[len(self.chat.completion_ids(self.recipe.completion(row))) for row in self.rows["test"]],
            num_examples=self.num_examples, num_samples=self.settings.num_samples, general_loss=self._general_loss(),
            notes=notes, progress=self.progress,
        )  # fmt: skip
        write_jsonl(self.folder / "answers.jsonl", self._lines())
        replace(report, gates=check_gates(report, self.settings.gates)).write(self.folder)

    def _ask(self, model: Any, chat: ChatFormat, name: str) -> list[Answer]:
        """A model's answers to the test rows."""
        test = self.rows["test"]
        arguments = (chat, self.recipe, test, self.max_new_tokens, self.settings, self.progress, name)
        kept = self._kept(name, lambda: [asdict(given) for given in ask(model, *arguments)])
        return [
            self._marked(number, row, Given(**given))
            for number, (row, given) in enumerate(zip(test, kept, strict=True), 1)
        ]

    def _marked(self, number: int, row: Any, given: Given) -> Answer:
        with told_where(f"recipe {self.recipe.name!r}: test split: row {number}"):
            return marked(self.recipe, row, given)

    def _ask_general(self, model: Any, name: str) -> None:
        """Takes what a model loses on the answers to general questions, in nats a token of each."""
        if not self.settings.measure_forgetting:
            return

        def losses() -> list[float | None]:
            own = own_share(read_jsonl(GENERAL_QUESTIONS))
            questions, answers = [row["question"] for row in own], [[row["answer"]] for row in own]
            size, stage = self.settings.per_device_eval_batch_size, f"general questions, {name}"
            likelihoods = log_likelihoods(model, self.chat, questions, answers, size, self.progress, stage)
            tokens = [len(self.chat.completion_ids(answer)) for (answer,) in answers]
            found = [-nats / count for (nats,), count in zip(likelihoods, tokens, strict=True)]
            return together(everyones([loss if math.isfinite(loss) else None for loss in found]))

        self.general_losses[name] = self._kept(f"general {name}", losses)

    def _kept(self, name: str, find: Callable[[], list[Any]]) -> list[Any]:
        """What was found before a stop, else what is found now, in all processes."""
        of_base = name in ("base", "general base")
        path = (self.base_folder if of_base else self.folder / KEPT) / f"{name} {self.max_new_tokens}.json"
        before = share(_read_kept(path) if is_main() else None)
        if before is not None:
            return before
        with explaining_full_memory("Take fewer num_samples, or a smaller base model."):
            found = find()
        if is_main():
            write_json(path, found)
        return found

    def _general_loss(self) -> dict[str, float] | None:
        """The mean loss of each model on the questions where both have one, and the 95 % interval of the rise."""
        if not self.general_losses:
            return None
        both = zip(self.general_losses["base"], self.general_losses["tuned"], strict=True)
        pairs = [(base, tuned) for base, tuned in both if base is not None and tuned is not None]
        if not pairs:
            return None
        low, high = mean_interval([tuned - base for base, tuned in pairs])
        return {
            "base": mean(base for base, _ in pairs), "tuned": mean(tuned for _, tuned in pairs), "low": low,
            "high": high,
        }  # fmt: skip

    def _lines(self) -> Iterator[dict[str, Any]]:
        """The lines of answers.jsonl: each row's question, gold answer, and the answers of each column."""
        for number, row in enumerate(self.rows["test"]):
            own = {name: [asdict(draw[number]) for draw in draws] for name, draws in self.answers.items()}
            few_shot = {"few_shot": own.pop("few_shot", [])}
            one_each = {name: own[name][0] for name in MODELS if name in own}
            yield {"prompt": self.recipe.prompt(row), "gold": self.recipe.completion(row)} | one_each | few_shot


def _read_kept(path: Path) -> list[Any] | None:
    """What is kept in a file; None where there is none, or it is damaged."""
    try:
        return list(read_json(path))
    except (OSError, ValueError, TypeError):
        return None


def few_shot_chats(
    model: Any, chat: ChatFormat, recipe: Recipe[Any], train: Sequence[Any], test: Sequence[Any], max_new_tokens: int,
    settings: Settings,
) -> list[ChatFormat]:  # fmt: skip
    """For each draw, the chat that shows examples from the training rows before a question.

    Where answers are closed, they are shown in turn. There are fewer examples where they would not fit into the base's
    context beside the longest question and its answer; none, if not even one does, or there are no training rows.
    """
    asked = min(settings.few_shot, len(train))
    if not asked:
        return []
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 10**9
    longest = max((recipe.prompt(row) for row in test), key=lambda prompt: len(chat.prompt_ids(prompt)))
    draws = [_drawn(recipe, train, asked, f"{settings.seed} {n}") for n in range(settings.few_shot_draws)]

    def chats(count: int) -> list[ChatFormat]:
        return [replace(chat, examples=tuple(rows[:count])) for rows in draws]

    def is_too_long(count: int) -> bool:
        return max(len(shown.prompt_ids(longest)) for shown in chats(count)) + max_new_tokens > context

    fitting = 0
    while fitting < asked and not is_too_long(min(asked, max(1, 2 * fitting))):
        fitting = min(asked, max(1, 2 * fitting))
    if fitting < asked:  # somewhere below twice as many they no longer fit
        fitting += bisect_left(range(fitting + 1, min(asked, 2 * fitting) + 1), True, key=is_too_long)
    return chats(fitting) if fitting else []


def _drawn(recipe: Recipe[Any], train: Sequence[Any], count: int, seed: str) -> list[tuple[str, str]]:
    """Prompts and answers of training rows, drawn by chance; of closed answers one after another."""
    rows = random.Random(seed).sample(list(train), len(train))
    by_answer: dict[str, list[Any]] = {}
    for row in rows:
        by_answer.setdefault(recipe.completion(row) if recipe.choices(row) is not None else "", []).append(row)
    turns = [own[turn] for turn in range(count) for own in by_answer.values() if turn < len(own)]
    return [(recipe.prompt(row), recipe.completion(row)) for row in turns[:count]]


def longest_answer(chat: ChatFormat, completions: Sequence[str]) -> int:
    """How many tokens an answer may have: those of the longest gold completion and a quarter more."""
    longest = max(len(chat.completion_ids(completion)) for completion in completions)
    return longest + max(1, longest // 4)
