"""All answers of a run as the page browses them: the kinds of rows to choose from, and a compact form of the texts."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hf_finetune.pictures import plain
from hf_finetune.report import MODELS, Report

KINDS = {
    "differ": "base and fine-tuned differ",
    "corrected": "fine-tuning corrected",
    "worse": "fine-tuning made it worse",
    "wrong": "fine-tuned wrong",
    "both_wrong": "both wrong",
    "unreadable": "unreadable",
    "few_shot": "few-shot right, fine-tuned wrong",
}
"""What the answers can be filtered by; a row's kinds are bits, in this order."""


def _kinds(row: Mapping[str, Any]) -> int:
    """The bits of the kinds that a row is of."""
    base, tuned, draws = row["base"], row["tuned"], row.get("few_shot") or []
    is_kind = {
        "differ": base["prediction"] != tuned["prediction"],
        "corrected": tuned["correct"] and not base["correct"],
        "worse": base["correct"] and not tuned["correct"],
        "wrong": not tuned["correct"],
        "both_wrong": not base["correct"] and not tuned["correct"],
        "unreadable": base["prediction"] is None or tuned["prediction"] is None,
        "few_shot": not tuned["correct"] and 2 * sum(draw["correct"] for draw in draws) > len(draws),
    }
    return sum(1 << bit for bit, kind in enumerate(KINDS) if is_kind[kind])


def counted_kinds(answers: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, int]]:
    """Title and number of rows of each kind; few-shot only where it was asked."""
    bits = [_kinds(row) for row in answers]
    shown = [k for k in KINDS if k != "few_shot" or any(row.get("few_shot") for row in answers)]
    index = {kind: bit for bit, kind in enumerate(KINDS)}
    return {kind: (KINDS[kind], sum(b >> index[kind] & 1 for b in bits)) for kind in shown}


def compact(report: Report, answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All answers for the browser: lists without names, the beginning that all prompts share given once."""
    columns = [c for c in report.columns if c in MODELS and answers and answers[0].get(c)]
    sets = {json.dumps([*(row["tuned"]["probabilities"] or {})]) for row in answers}
    choices = json.loads(next(iter(sets))) if len(sets) == 1 else []
    beginning = _shared_beginning([row["prompt"] for row in answers])
    return {
        "columns": [[column, plain(report.columns[column])] for column in columns],
        "kinds": [*KINDS],
        "choices": choices,
        "beginning": beginning,
        "are_sure": any(row["tuned"].get("probabilities") for row in answers),
        "rows": [
            [row["prompt"][len(beginning):], row["gold"], _kinds(row), *(_short(row.get(c), choices) for c in columns)]
            for row in answers
        ],
    }  # fmt: skip


def _shared_beginning(prompts: Sequence[str], shortest: int = 20) -> str:
    """What all prompts begin with, up to the end of a word; nothing where it is short."""
    if len(prompts) < 2:
        return ""
    first, last = min(prompts), max(prompts)
    same = next((i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    end = max(first.rfind(" ", 0, same), first.rfind("\n", 0, same)) + 1
    return first[:end] if end >= shortest else ""


def _short(given: Any, choices: Sequence[str]) -> Any:
    """An answer as `[text, mark, probabilities, loss, prediction]`, less empty ends; a list of them for draws.

    The mark is 1 for right, 0 for wrong, -1 for unreadable; the prediction is given where it is not the text itself.
    """
    if given is None or isinstance(given, list):
        return [_short(one, choices) for one in given or []]
    prediction, shares = given["prediction"], given.get("probabilities")
    mark = -1 if prediction is None else int(given["correct"])
    if shares:
        shares = {name: round(share, 4) for name, share in shares.items()}
        shares = [shares.get(choice) for choice in choices] if choices else shares
    said = None if prediction is None or str(prediction) == given["text"].strip() else _as_text(prediction)
    loss = given.get("gold_loss")
    parts = [given["text"], mark, shares, None if loss is None else round(loss, 3), said]
    while parts[-1] is None:
        parts.pop()
    return parts


def _as_text(prediction: Any) -> str:
    return prediction if isinstance(prediction, str) else json.dumps(prediction, ensure_ascii=False)
