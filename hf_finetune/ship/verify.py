"""What is to be pushed, loaded in a clean process as its card says: does it give the run's figures again?"""

import math
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_finetune.card import write_card
from hf_finetune.chat import ChatFormat
from hf_finetune.errors import RecipeError, plural
from hf_finetune.files import read_jsonl, write_json
from hf_finetune.recipe import Recipe
from hf_finetune.ship.finished import Finished
from hf_finetune.ship.in_clean_process import ask_in_clean_process
from hf_finetune.ship.merge import ANSWERS
from hf_finetune.ship.published import (
    fault_of_template,
    faults_of_adapter,
    faults_of_merged,
    hashes_of,
    in_a_line,
    snippets_of,
)

RECORD = "verified.json"
SAMPLE = 32
"""Test rows that are asked again."""
TOLERANCE = {"float32": 0.002, "bfloat16": 0.05, "float16": 0.02}
"""By how many nats the loss of a gold answer of one token may differ: sums in another order do. Of several tokens it is
the square root of their number times as many, or that share of the loss if that is more."""
QUANTISED_TOLERANCE = 0.05
"""bitsandbytes multiplies by 4-bit weights in bfloat16 on processors that can, whatever dtype is asked for."""
TURNED = 0.1
"""Share of the answers that may be right where the run's was wrong, or the reverse."""


@dataclass(frozen=True)
class Sample:
    """Test rows, and what was measured on them."""

    rows: Sequence[Any]
    answers: Sequence[dict[str, Any]]
    """What adapter or merged weights gave: text, and what the gold answer cost."""
    base: Sequence[dict[str, Any]]
    """What the base gave."""
    choices: Sequence[Sequence[str]] | None
    """The closed answers of each row; None: open ones."""


def verify(finished: Finished, num_rows: int, python: str | None = None, say: Callable[[str], None] = print) -> None:
    """Leaves verified.json: what was loaded of the run, by which versions, and which figures it gave again.

    `python` is another interpreter, with transformers and peft of other versions: what it finds is told, and not kept.

    Raises:
        RecipeError: naming each fault of what would be pushed; then there is no verified.json, and no card tells of it.
    """
    try:
        record = _verified(finished, num_rows, python or sys.executable, say)
    except RecipeError:
        if not python:
            _take_back(finished.folder)
        raise
    if not python:
        write_json(finished.folder / RECORD, record)


def _take_back(folder: Path) -> None:
    """Removes verified.json, and from the cards what they say after it."""
    if (folder / RECORD).is_file():
        (folder / RECORD).unlink()
        with suppress(RecipeError):  # what is told is why it was taken back
            write_card(folder)


def _verified(finished: Finished, num_rows: int, python: str, say: Callable[[str], None]) -> dict[str, Any]:
    """What verified.json says of the adapter and the merged weights, when nothing is wrong with them."""
    folder, chat = finished.folder, finished.chat()
    record: dict[str, Any] = {}
    parts = ("adapter", *(["merged"] if (folder / "merged").is_dir() else []))
    for part in parts:  # what can be seen at once comes before what takes minutes
        faults = (faults_of_adapter if part == "adapter" else faults_of_merged)(finished, folder / part)
        if faults:
            raise RecipeError(f"{folder / part}: {in_a_line(faults)}")
    for part in parts:
        say(f"verify    {folder / part}, in a process without hf_finetune")
        sample = _sample(finished, part, num_rows)
        asked = _asked(finished, chat, sample, folder / part)
        given = ask_in_clean_process(finished, part, asked, python)
        record[part] = _checked(finished, chat, sample, part, asked, given)
        say(f"          {_in_words(record[part])}")
        if part == "adapter":
            record |= _of_several(finished, asked, python)
    return record


def _sample(finished: Finished, part: str, num_rows: int) -> Sample:
    """So many of the test rows, evenly from first to last."""
    total = len(finished.rows)
    count = min(num_rows, total)
    numbers = [number * total // count for number in range(count)]
    given = [line["tuned"] for line in finished.answers] if part == "adapter" else _answers_of_merged(finished)
    every = [finished.recipe.choices(row) for row in finished.rows]
    closed = [own for own in every if own is not None]
    return Sample(
        [finished.rows[number] for number in numbers],
        [given[number] for number in numbers],
        [finished.answers[number]["base"] for number in numbers],
        [closed[number] for number in numbers] if len(closed) == total else None,
    )


def _answers_of_merged(finished: Finished) -> list[dict[str, Any]]:
    """What the merged weights gave when they were compared with the adapter."""
    try:
        found = read_jsonl(finished.folder / ANSWERS)
    except (OSError, ValueError):
        found = []
    if len(found) != len(finished.rows):
        raise RecipeError(f"{finished.folder / ANSWERS}: is missing or damaged. Merge again: hf-finetune merge RUN.")
    return found


def _asked(finished: Finished, chat: ChatFormat, sample: Sample, folder: Path) -> dict[str, Any]:
    """What the clean process is asked."""
    recipe = finished.recipe
    wanted = sample.choices or [[recipe.completion(row)] for row in sample.rows]
    return {
        "snippet": snippets_of(folder)[0],
        "rows": [
            {"prompt": recipe.prompt(row), "completions": [chat.completion_ids(one) for one in own]}
            for row, own in zip(sample.rows, wanted, strict=True)
        ],
        "generates": sample.choices is None,
        "max_new_tokens": finished.report.max_new_tokens,
        "stop_token_id": finished.run.base_model["stop_token_id"],
    }


def _checked(
    finished: Finished, chat: ChatFormat, sample: Sample, part: str, asked: dict[str, Any], given: dict[str, Any]
) -> dict[str, Any]:
    """What verified.json says of a part, when it gives the run's figures again."""
    folder, recipe = finished.folder / part, finished.recipe
    faults = [*_faults_of_loading(folder, part, given), *_faults_of_asking(finished, chat, asked, given)]
    measured = [line["gold_loss"] for line in sample.answers]
    losses, tokens = _gold_losses(finished, sample, asked, given)
    tolerances = [_tolerance(finished, part) * math.sqrt(count) for count in tokens]
    faults += _faults_of_losses(sample, measured, losses, tolerances, part)
    said = [line["text"] for line in sample.answers], _answers(chat, sample, given)
    was, now = ([recipe.parse(text) for text in texts] for texts in said)
    faults += _faults_of_answers(recipe, sample, was, now)
    metric, example = recipe.primary_metric, finished.rows[0]  # the one that the snippet asks
    if faults:
        raise RecipeError(f"{folder}: {in_a_line(faults)} Do not push it.")
    return {
        "files": hashes_of(folder, part),
        "snippet": asked["snippet"],
        "answer": given["printed"].rstrip("\n"),
        "gold": recipe.completion(example),
        "is_right": recipe.correct(example, recipe.parse(given["printed"].strip())),
        "rows": len(sample.rows),
        "metric": metric,
        "measured": recipe.score(sample.rows, was)[metric],
        "reproduced": recipe.score(sample.rows, now)[metric],
        "same_answers": sum(one.strip() == other.strip() for one, other in zip(*said, strict=True)),
        "largest_loss_difference": max(
            (abs(own - was) for own, was in zip(losses, measured, strict=True) if was is not None), default=0.0
        ),
        "versions": given["versions"],
    }


def _tolerance(finished: Finished, part: str) -> float:
    """By how much a part's losses may differ from those that the run measured."""
    if part == "merged":
        return TOLERANCE[finished.report.merged["dtype"]]
    is_quantised = finished.settings.load_in_4bit or finished.settings.load_in_8bit
    return max(TOLERANCE[finished.dtype], QUANTISED_TOLERANCE if is_quantised else 0.0)


def _faults_of_loading(folder: Path, part: str, given: dict[str, Any]) -> list[str]:
    """What loading alone shows: tensors that went astray, embeddings too few, weights that are quantised."""
    faults = []
    if given["highest_token"] >= given["embeddings"]:
        faults.append(
            f"its tokenizer has {given['highest_token'] + 1:,} tokens, the model has embeddings for "
            f"{given['embeddings']:,}."
        )
    if part == "merged":
        return [*faults, *(["it was loaded quantised, as its config says."] if given["quantised"] else [])]
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        held = set(file.keys())
    if given["keys"] is None:
        return [*faults, "the snippet's model has no adapter: it was not loaded."]
    lacking, unknown = sorted(set(given["keys"]) - held), sorted(held - set(given["keys"]))
    faults += (
        [f"it lacks {plural(len(lacking), 'tensor')} that PEFT looks for, such as {lacking[0]}."] if lacking else []
    )
    faults += [f"{plural(len(unknown), 'tensor')}, such as {unknown[0]}, fit no layer."] if unknown else []
    own = [row["losses"][0] for row in given["rows"]]
    same = all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(own, given["without_adapter"], strict=True))
    return [*faults, *(["the adapter changes nothing: the base alone gives the same."] if same else [])]


def _faults_of_asking(finished: Finished, chat: ChatFormat, asked: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """Whether questions become the tokens that they were in training."""
    if other := fault_of_template(finished, chat):
        return [f"of the base, {other}"]
    pairs = zip(asked["rows"], given["rows"], strict=True)
    other = sum(chat.prompt_ids(row["prompt"]) != own["prompt_ids"] for row, own in pairs)
    return (
        [f"{plural(other, 'question')} become other tokens than in training: another chat template."] if other else []
    )


def _gold_losses(
    finished: Finished, sample: Sample, asked: dict[str, Any], given: dict[str, Any]
) -> tuple[list[float], list[int]]:
    """What the gold completion costs in each row, in nats, and how many tokens it has."""
    golds = [finished.recipe.completion(row) for row in sample.rows]
    choices = sample.choices or [[gold] for gold in golds]
    places = [list(own).index(gold) for own, gold in zip(choices, golds, strict=True)]
    losses = [row["losses"][place] for row, place in zip(given["rows"], places, strict=True)]
    return losses, [len(row["completions"][place]) for row, place in zip(asked["rows"], places, strict=True)]


def _answers(chat: ChatFormat, sample: Sample, given: dict[str, Any]) -> list[str]:
    """What the clean process answered: the likeliest choice, or the text, without what the template begins it with."""
    if sample.choices is None:
        return [row["text"].removeprefix(chat.lead.strip()).strip() for row in given["rows"]]
    pairs = zip(given["rows"], sample.choices, strict=True)
    return [choices[row["losses"].index(min(row["losses"]))] for row, choices in pairs]


def _of_several(finished: Finished, asked: dict[str, Any], python: str) -> dict[str, Any]:
    """What verified.json says of several adapters on one base: here the one, twice; nothing where the card does not.

    Raises:
        RecipeError: when the card's snippet fails.
    """
    snippet = next((one for one in snippets_of(finished.adapter) if "adapter_names=" in one), None)
    if snippet is None:
        return {}
    found = ask_in_clean_process(finished, "adapter", asked | {"snippet": snippet, "rows": []}, python)
    seen = {"files": hashes_of(finished.adapter, "adapter"), "snippet": snippet}
    return {"several": seen | {"answer": found["printed"].rstrip("\n"), "versions": found["versions"]}}


def _faults_of_answers(recipe: Recipe[Any], sample: Sample, was: Sequence[Any], now: Sequence[Any]) -> list[str]:
    """Whether as many rows are right; where two answers are about as likely, another sum may turn one row in ten."""
    pairs = zip(sample.rows, was, now, strict=True)
    turned = sum(recipe.correct(row, one) != recipe.correct(row, other) for row, one, other in pairs)
    if turned <= max(1, len(sample.rows) * TURNED):
        return []
    return [f"{plural(turned, 'answer')} of {len(sample.rows)} that the run marked right are wrong, or the reverse."]


def _faults_of_losses(
    sample: Sample, measured: Sequence[float | None], losses: Sequence[float], tolerances: Sequence[float], part: str
) -> list[str]:
    """Whether gold answers cost what was measured; merged weights may be the base's alone."""
    known = [(was, own, most) for was, own, most in zip(measured, losses, tolerances, strict=True) if was is not None]
    off = [(was, own) for was, own, most in known if not abs(own - was) <= most * max(1.0, was)]
    if not off:
        return []
    was, own = max(off, key=lambda pair: abs(pair[1] - pair[0]))
    base = [line["gold_loss"] for line in sample.base]
    is_base = part == "merged" and all(
        one is not None and math.isclose(one, own, rel_tol=0.05) for one, own in zip(base, losses, strict=True)
    )
    why = " The weights are the base's: nothing was merged." if is_base else ""
    return [
        f"{plural(len(off), 'gold answer')} of {len(known)} cost another loss than the run measured, such as {own:.3f} "
        f"nats for {was:.3f}.{why}"
    ]


def _in_words(found: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    off = f"no loss differs by more than {found['largest_loss_difference']:.2g} nats"
    same = f"{found['same_answers']:,} answers the same"
    shown = f"{found['metric']} {found['reproduced']:.3f} on {plural(found['rows'], 'row')}"
    return f"{shown}, measured {found['measured']:.3f}; {same}; {off} ({versions})"
