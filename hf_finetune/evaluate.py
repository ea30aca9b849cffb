"""Base and fine-tuned model on the same test rows -> a report: report.json, report.md, answers.jsonl."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hf_finetune.chat import ChatFormat
from hf_finetune.errors import plural
from hf_finetune.files import read_json, write_json, write_jsonl, write_text
from hf_finetune.generate import choice_probabilities, generate_texts
from hf_finetune.model import explaining_full_memory
from hf_finetune.processes import everyones, is_main, own_share, together
from hf_finetune.progress import Progress
from hf_finetune.recipe import Recipe, shares_choices
from hf_finetune.settings import Settings

RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Answer:
    """One model's answer to one row."""

    text: str
    prediction: Any
    """What the recipe's parse() reads in the text; None when it cannot."""
    correct: bool
    probabilities: dict[str, float] | None = None
    """Closed answers: each choice's share of the likelihood."""


@dataclass(frozen=True)
class Report:
    """How base and fine-tuned model did on the test rows; `report.json` is this and nothing else."""

    recipe: str
    primary_metric: str
    rows: int
    answered_by: str
    """`likelihood of the choices` or `greedy generation`."""
    scores: dict[str, dict[str, float]]
    """Metrics of `base`, `tuned` and, for closed answers, `majority`: always the most frequent training answer."""
    intervals: dict[str, list[float]]
    """95 % bootstrap intervals of the primary metric: `base`, `tuned`, and their paired difference `gain`."""
    unreadable: dict[str, int]
    corrected: int
    """Rows the base had wrong and the fine-tuned model has right."""
    spoiled: int
    """Rows the base had right and the fine-tuned model has wrong."""
    majority_answer: str | None
    example_prompt: str
    max_new_tokens: int

    @property
    def verdict(self) -> str:
        """One sentence: did fine-tuning help, measurably?"""
        low, high = self.intervals["gain"]
        name = self.primary_metric
        change = f"{name} {self.scores['base'][name]:.3f} -> {self.scores['tuned'][name]:.3f}"
        interval = f"95 % interval of the difference {low:+.3f} to {high:+.3f}, {plural(self.rows, 'test row')}"
        if low > 0:
            return f"Fine-tuning helped: {change} ({interval})."
        if high < 0:
            return f"Fine-tuning made it worse: {change} ({interval}). Do not use this adapter."
        return f"No measurable gain from fine-tuning: {change} ({interval})."

    @property
    def columns(self) -> dict[str, str]:
        """The names in `scores`, in the order in which they are shown, and the Markdown title of each."""
        titles = {"majority": f"always `{self.majority_answer}`", "base": "base", "tuned": "fine-tuned"}
        return {name: title for name, title in titles.items() if name in self.scores}

    @classmethod
    def read(cls, folder: Path) -> "Report":
        """The report in a run's folder."""
        return cls(**read_json(folder / "report.json"))

    def write(self, folder: Path) -> None:
        """Leaves report.md in the folder, then report.json, which says that the evaluation is done."""
        write_text(folder / "report.md", self.as_markdown())
        write_json(folder / "report.json", asdict(self))

    def as_markdown(self) -> str:
        """The comparison as a page for a terminal or a pull request."""
        lines = [
            f"# {self.recipe}: base and fine-tuned model on the same {plural(self.rows, 'test row')}",
            "",
            self.verdict,
            "",
            "| metric | " + " | ".join(self.columns.values()) + " |",
            "|---|" + "---:|" * len(self.columns),
        ]
        for metric in self.scores["tuned"]:
            cells = [f"{self.scores[column][metric]:.3f}" for column in self.columns]
            lines.append(f"| {metric}{' (primary)' if metric == self.primary_metric else ''} | {' | '.join(cells)} |")
        low, high = self.intervals["tuned"]
        lines += [
            "",
            f"Fine-tuned {self.primary_metric}: 95 % interval {low:.3f} to {high:.3f} "
            f"({RESAMPLES:,} bootstrap resamples of the test rows).",
            f"Of {plural(self.rows, 'row')}, fine-tuning corrected {self.corrected} and spoiled {self.spoiled}. "
            f"Unreadable answers: base {self.unreadable['base']}, fine-tuned {self.unreadable['tuned']}.",
            f"Answers by {self.answered_by}; every answer is in answers.jsonl.",
            "",
        ]
        return "\n".join(lines)


def evaluate(
    model: Any, chat: ChatFormat, recipe: Recipe[Any], train: Sequence[Any], test: Sequence[Any], settings: Settings,
    folder: Path, progress: Progress | None = None,
) -> None:  # fmt: skip
    """Asks a model with its adapter loaded; the adapter is switched off for the base, on for the fine-tuned.

    Each process asks for its share of the rows; the main one leaves answers.jsonl, report.md and report.json in
    `folder`.
    """
    max_new_tokens = longest_answer(chat, [recipe.completion(row) for row in (*train, *test)])
    with explaining_full_memory("Halve per_device_eval_batch_size and start the same command again."):
        with model.disable_adapter():
            base = answer(model, chat, recipe, test, max_new_tokens, settings, progress, "base")
        tuned = answer(model, chat, recipe, test, max_new_tokens, settings, progress, "tuned")
    if not is_main():
        return
    report = compare(recipe, train, test, base, tuned, max_new_tokens)
    rows = zip(test, base, tuned, strict=True)
    write_jsonl(
        folder / "answers.jsonl",
        [
            {
                "prompt": recipe.prompt(row),
                "gold": recipe.completion(row),
                "base": asdict(b),
                "tuned": asdict(t),
            }
            for row, b, t in rows
        ],
    )
    report.write(folder)


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


def compare(
    recipe: Recipe[Any],
    train: Sequence[Any],
    test: Sequence[Any],
    base: Sequence[Answer],
    tuned: Sequence[Answer],
    max_new_tokens: int,
) -> Report:
    """The report on two lists of answers to the same rows."""
    is_closed = all(recipe.choices(row) is not None for row in test)
    one_set = shares_choices(recipe, test)
    majority = Counter(recipe.completion(row) for row in train).most_common(1)[0][0] if one_set else None
    predictions = {"base": [a.prediction for a in base], "tuned": [a.prediction for a in tuned]}
    if majority is not None:
        predictions = {"majority": [recipe.parse(majority)] * len(test)} | predictions
    return Report(
        recipe=recipe.name,
        primary_metric=recipe.primary_metric,
        rows=len(test),
        answered_by="likelihood of the choices" if is_closed else "greedy generation",
        scores={name: _scores(recipe, test, given, is_closed) for name, given in predictions.items()},
        intervals=bootstrap_intervals(recipe, test, predictions["base"], predictions["tuned"]),
        unreadable={name: sum(p is None for p in predictions[name]) for name in ("base", "tuned")},
        corrected=sum(t.correct and not b.correct for b, t in zip(base, tuned, strict=True)),
        spoiled=sum(b.correct and not t.correct for b, t in zip(base, tuned, strict=True)),
        majority_answer=majority,
        example_prompt=recipe.prompt(test[0]),
        max_new_tokens=max_new_tokens,
    )


def bootstrap_intervals(
    recipe: Recipe[Any], rows: Sequence[Any], base: Sequence[Any], tuned: Sequence[Any], seed: int = 0
) -> dict[str, list[float]]:
    """95 % percentile intervals of the primary metric for base, tuned, and their paired difference (`gain`).

    Both models are marked on the same resampled rows (Efron and Tibshirani 1993, chapter 13), so the rows' difficulty
    cancels.
    """
    chance = random.Random(seed)
    drawn: dict[str, list[float]] = {"base": [], "tuned": [], "gain": []}
    for _ in range(RESAMPLES):
        sample = chance.choices(range(len(rows)), k=len(rows))
        some = [rows[i] for i in sample]
        for name, predictions in (("base", base), ("tuned", tuned)):
            drawn[name].append(recipe.score(some, [predictions[i] for i in sample])[recipe.primary_metric])
        drawn["gain"].append(drawn["tuned"][-1] - drawn["base"][-1])
    tail = round(RESAMPLES * (1 - CONFIDENCE) / 2)
    return {name: [sorted(values)[tail], sorted(values)[-1 - tail]] for name, values in drawn.items()}


def _scores(recipe: Recipe[Any], rows: Sequence[Any], predictions: Sequence[Any], is_closed: bool) -> dict[str, float]:
    """The recipe's own marks; for closed answers also accuracy and macro-F1, through the modules of `evaluate`."""
    return (_closed_scores(recipe, rows, predictions) if is_closed else {}) | recipe.score(rows, predictions)


def _closed_scores(recipe: Recipe[Any], rows: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
    from hf_finetune.metrics.modules.accuracy.accuracy import Accuracy
    from hf_finetune.metrics.modules.macro_f1.macro_f1 import MacroF1

    references = [str(recipe.parse(recipe.completion(row))) for row in rows]
    given = ["" if prediction is None else str(prediction) for prediction in predictions]
    marks: dict[str, float] = {}
    for metric in (Accuracy(keep_in_memory=True), MacroF1(keep_in_memory=True)):
        marks |= metric.compute(references=references, predictions=given)
    return marks


def _marked(recipe: Recipe[Any], row: Any, text: str, probabilities: dict[str, float] | None) -> Answer:
    prediction = recipe.parse(text)
    return Answer(text, prediction, recipe.correct(row, prediction), probabilities)
