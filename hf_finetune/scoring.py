"""Answers of base, few-shot and fine-tuned model to the same rows -> the report: how good each is, and how sure."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from hf_finetune import metrics
from hf_finetune.baseline import check_baseline
from hf_finetune.errors import RecipeError
from hf_finetune.gates import check_gates, refuse_unmeasured
from hf_finetune.intervals import RESAMPLES, bootstrap_intervals
from hf_finetune.marks import checked_metrics
from hf_finetune.progress import Progress
from hf_finetune.recipe import Recipe, marks_each_row, shares_choices
from hf_finetune.report import Answer, Answers, Report
from hf_finetune.settings import Settings


def make_report(
    recipe: Recipe[Any], train: Sequence[Any], test: Sequence[Any], answers: Mapping[str, Sequence[Answers]], *,
    max_new_tokens: int = 0, gold_tokens: Sequence[int] = (), num_examples: int = 0, num_samples: int = 0,
    general_loss: Mapping[str, float] | None = None, notes: Sequence[str] = (), resamples: int = RESAMPLES,
    progress: Progress | None = None,
) -> Report:  # fmt: skip
    """The report on answers to the same rows: a list of them of each column, or one for each draw of `num_examples`.

    `gold_tokens` are the tokens of each row's gold completion; `num_samples` the answers sampled to each row.
    """
    is_closed = all(recipe.choices(row) is not None for row in test)
    labels = list(recipe.choices(test[0]) or ()) if shares_choices(recipe, test) else []
    majority = Counter(recipe.completion(row) for row in train).most_common(1)[0][0] if labels and train else None
    given: dict[str, Sequence[Answers]] = (
        {"majority": [[Answer(majority, recipe.parse(majority), False)] * len(test)]} if majority else {}
    )
    given |= answers
    predictions = {name: [[answer.prediction for answer in draw] for draw in draws] for name, draws in given.items()}
    own = {name: [_scores(recipe, test, draw, is_closed, labels) for draw in draws] for name, draws in given.items()}
    gold = [recipe.completion(row) for row in test]
    base, tuned = answers["base"][0], answers["tuned"][0]
    return Report(
        recipe=recipe.name,
        primary_metric=recipe.primary_metric,
        rows=len(test),
        answered_by="likelihood of the choices" if is_closed else "greedy generation",
        scores={name: _means(draws) for name, draws in own.items()},
        intervals=bootstrap_intervals(
            recipe, test, predictions, resamples=resamples, progress=progress
        ),
        unreadable={name: mean(draw.count(None) for draw in predictions[name]) for name in answers},
        corrected=sum(t.correct and not b.correct for b, t in zip(base, tuned, strict=True)),
        spoiled=sum(b.correct and not t.correct for b, t in zip(base, tuned, strict=True)),
        majority_answer=majority,
        example_prompt=recipe.prompt(test[0]),
        max_new_tokens=max_new_tokens,
        few_shot_examples=num_examples if "few_shot" in answers else 0,
        few_shot_scores=[draw[recipe.primary_metric] for draw in own.get("few_shot", [])],
        labels=labels,
        by_class={name: _by_class(recipe, gold, draws, labels) for name, draws in given.items()} if labels else {},
        confusion={name: _confusion(recipe, gold, draws, labels) for name, draws in given.items()} if labels else {},
        calibration={name: found for name, draws in given.items() if (found := _calibration(gold, draws))},
        perplexity=_perplexity(answers, gold_tokens),
        pass_at_k={name: found for name, draws in given.items() if (found := _pass_at_k(num_samples, draws))},
        general_loss=dict(general_loss or {}),
        is_right_or_wrong=is_closed or all(
            math.isclose(own[name][0][recipe.primary_metric], mean(answer.correct for answer in answers[name][0]))
            for name in ("base", "tuned")
        ),
        notes=list(notes),
        mark_rows=_mark_rows(recipe, test),
    )  # fmt: skip


def check_evaluation(recipe: Recipe[Any], rows: Mapping[str, Sequence[Any]], settings: Settings) -> None:
    """Makes the report of models that answer all test rows right, so that what is wrong is told before the training.

    Raises:
        RecipeError: when a gate is on something that this run will not measure, or answers cannot be had as asked for.
    """
    test = rows["test"]
    is_closed = all(recipe.choices(row) is not None for row in test)
    if settings.num_samples and is_closed:
        raise RecipeError(
            "num_samples: this recipe's answers are chosen, not written, so none are sampled. Leave it out."
        )
    if settings.baseline == "tfidf":
        check_baseline(recipe, rows)
    train = rows.get("train", ())
    gold = [_gold_answer(recipe, row, settings.num_samples) for row in test]
    columns = [
        "base",
        "tuned",
        *(["few_shot"] if settings.few_shot and train else []),
        *filter(None, [settings.baseline]),
    ]
    report = make_report(
        recipe, train, test, {name: [gold] for name in columns}, gold_tokens=[1] * len(test),
        num_samples=settings.num_samples, resamples=2,
        general_loss={"base": 0.0, "tuned": 0.0} if settings.measure_forgetting else None,
    )  # fmt: skip
    refuse_unmeasured(check_gates(report, settings.gates), report)


def _gold_answer(recipe: Recipe[Any], row: Any, num_samples: int) -> Answer:
    gold, choices = recipe.completion(row), recipe.choices(row)
    probabilities = None if choices is None else {choice: float(choice == gold) for choice in choices}
    return Answer(gold, recipe.parse(gold), True, probabilities, 0.0, num_samples or None)


def _scores(
    recipe: Recipe[Any], rows: Sequence[Any], answers: Answers, is_closed: bool, labels: Sequence[str]
) -> dict[str, float]:
    """The recipe's own marks after general ones: of closed answers, or of texts."""
    general = _closed_scores(recipe, rows, answers, labels) if is_closed else _text_scores(recipe, rows, answers)
    return general | checked_metrics(recipe, rows, [answer.prediction for answer in answers])


def _closed_scores(
    recipe: Recipe[Any], rows: Sequence[Any], answers: Answers, labels: Sequence[str]
) -> dict[str, float]:
    """Accuracy and, where all rows share their choices, macro-F1."""
    references, predictions = [str(recipe.parse(recipe.completion(row))) for row in rows], _named(answers)
    accuracy = {"accuracy": metrics.accuracy(references, predictions)}
    return accuracy | ({"macro_f1": metrics.macro_f1(references, predictions)} if labels else {})


def _text_scores(recipe: Recipe[Any], rows: Sequence[Any], answers: Answers) -> dict[str, float]:
    """Likeness to the gold completions; ROUGE only where it sees letters: it knows a to z and digits alone."""
    references, texts = [recipe.completion(row) for row in rows], [answer.text for answer in answers]
    is_latin = any(re.search("[a-z0-9]", reference.lower()) for reference in references)
    return {
        "exact_match": metrics.exact_match(references, texts),
        **({"rougeL": metrics.rouge(references, texts)["rougeL"]} if is_latin else {}),
        "chrf": metrics.chrf(references, texts),
        "readable_rate": metrics.readable_rate([answer.prediction for answer in answers]),
    }


def _mark_rows(recipe: Recipe[Any], test: Sequence[Any]) -> dict[str, int]:
    """How many rows have each of the marks that not all have."""
    if not marks_each_row(recipe):
        return {}
    counts = Counter(name for row in test for name in recipe.mark(row, recipe.parse(recipe.completion(row))))
    return {name: count for name, count in counts.items() if count < len(test)}


def _named(answers: Answers) -> list[str | None]:
    """The predictions as names of classes."""
    return [None if answer.prediction is None else str(answer.prediction) for answer in answers]


def _by_class(
    recipe: Recipe[Any], gold: Sequence[str], draws: Sequence[Answers], labels: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and rows of each label; the mean over the draws."""
    found = [metrics.by_class(gold, _as_labels(recipe, draw, labels)) for draw in draws]
    nothing = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "rows": 0}
    return {label: _means([own.get(label, nothing) for own in found]) for label in labels}


def _confusion(
    recipe: Recipe[Any], gold: Sequence[str], draws: Sequence[Answers], labels: Sequence[str]
) -> list[list[int]]:
    """Gold labels by answered labels and unreadable answers, over all draws."""
    return metrics.confusion_matrix(
        [label for _ in draws for label in gold],
        [label for draw in draws for label in _as_labels(recipe, draw, labels)],
        labels,
    )


def _as_labels(recipe: Recipe[Any], answers: Answers, labels: Sequence[str]) -> list[str | None]:
    """The choice that each answer is read as."""
    by_reading = {str(recipe.parse(label)): label for label in labels}
    return [None if name is None else by_reading.get(name) for name in _named(answers)]


def _calibration(gold: Sequence[str], draws: Sequence[Answers]) -> dict[str, Any] | None:
    """How far the probabilities can be believed, over all draws; None for answers that have none."""
    pairs = [(label, a.probabilities) for draw in draws for label, a in zip(gold, draw, strict=True) if a.probabilities]
    if not pairs:
        return None
    references, probabilities = [label for label, _ in pairs], [p for _, p in pairs]
    return {
        "expected_calibration_error": metrics.expected_calibration_error(references, probabilities),
        "brier_score": metrics.brier_score(references, probabilities),
        "reliability": metrics.reliability(references, probabilities),
        "selective": metrics.selective_accuracy(references, probabilities),
    }


def _perplexity(answers: Mapping[str, Sequence[Answers]], tokens: Sequence[int]) -> dict[str, float]:
    """Of the gold completions, by column, on the rows where all that take their loss have one."""
    losses = {name: [[a.gold_loss for a in draw] for draw in draws] for name, draws in answers.items()}
    asked = {name: draws for name, draws in losses.items() if any(loss is not None for draw in draws for loss in draw)}
    rows = [n for n in range(len(tokens)) if all(draw[n] is not None for draws in asked.values() for draw in draws)]
    found = {
        name: metrics.perplexity(
            [draw[n] or 0.0 for draw in draws for n in rows], [tokens[n] for n in rows] * len(draws)
        )
        for name, draws in asked.items()
        if rows
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _pass_at_k(num_samples: int, draws: Sequence[Answers]) -> dict[str, float] | None:
    """Pass@k for k = 1, 2, 4 ... up to the number of samples; None where none were drawn."""
    correct = [a.correct_samples for draw in draws for a in draw if a.correct_samples is not None]
    if not correct or not num_samples:
        return None
    ks = [2**power for power in range(num_samples.bit_length())]
    return {str(k): metrics.pass_at_k([num_samples] * len(correct), correct, k) for k in ks}


def _means(marks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: mean(one[name] for one in marks) for name in marks[0]}
