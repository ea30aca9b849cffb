"""The facts of a prepared data set -> README.md, as the Hub shows it, and index.html, one page with pictures."""

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from hf_finetune.data.splits import SPLITS
from hf_finetune.errors import plural
from hf_finetune.files import write_text
from hf_finetune.page import Histogram
from hf_finetune.pictures import Axis, number, page_template
from hf_finetune.rendering import template

SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
         (10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"), (10**11, "10B<n<100B"),
         (10**12, "100B<n<1T"))  # fmt: skip
"""Rows below so many, and what the Hub calls such a size."""
SHOWN_TEXT = 600
"""Characters of a row that the page shows."""
OF_SPLIT = {"train": "tuned", "validation": "few_shot", "test": "tfidf"}
"""The colours of the page's style sheet."""
MEANINGS = {
    "exact_duplicate": "the same as an earlier row",
    "contradictory": "the same question with another answer, where it can have one alone",
    "near_duplicate": "nearly the same as an earlier row",
    "near_test": "general data nearly the same as a row that is held out",
    "too_long": "more tokens than --max-tokens",
}
"""Checks of this package; what those of single rows mean stands in their findings."""


def write_card(folder: Path, facts: Mapping[str, Any]) -> None:
    """Leaves README.md and index.html in the folder, made from the facts and nothing else."""
    write_text(folder / "README.md", render_readme(facts))
    write_text(folder / "index.html", render_page(facts))


def render_readme(facts: Mapping[str, Any]) -> str:
    """The data card: the same for the same facts."""
    made = template("dataset.md.jinja", {"thousands": number}, trim_blocks=True, lstrip_blocks=True)
    text = made.render(
        facts=facts, metadata=metadata(facts), splits=_splits(facts), meanings=_meanings(facts), unit=_unit(facts),
        options=_options(facts),
    )  # fmt: skip
    return re.sub(r"\n{3,}", "\n\n", text)  # where a section is left out


def render_page(facts: Mapping[str, Any]) -> str:
    """The page: the same for the same facts."""
    return page_template("dataset.html.jinja").render(
        facts=facts, title=f"{facts['name']}: a prepared data set", splits=_splits(facts), meanings=_meanings(facts),
        unit=_unit(facts), histograms=_histograms(facts), shown=_shown(facts), colours=OF_SPLIT,
        balance=_balance(facts), options=_options(facts),
    )  # fmt: skip


def metadata(facts: Mapping[str, Any]) -> str:
    """The card's YAML header, with keys and values that the Hub accepts."""
    from huggingface_hub import DatasetCardData

    kept = facts["rows"]["kept"]
    card = DatasetCardData(
        language=facts["languages"] or None,
        license=facts["license"],
        size_categories=next((name for limit, name in SIZES if kept < limit), "n>1T"),
        task_categories=[facts["layout"]["task"]],
        pretty_name=facts["name"],
        tags=["hf_finetune"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": name, "path": f"data/{name}-*"} for name in _splits(facts)],
            }
        ],
    )
    return str(card.to_yaml())


def _splits(facts: Mapping[str, Any]) -> dict[str, int]:
    """The rows of each split that has some."""
    return {name: facts["rows"][name] for name in SPLITS if facts["rows"][name]}


def _options(facts: Mapping[str, Any]) -> dict[str, str]:
    """The options that say something, in words."""
    told = {}
    for name, value in facts["options"].items():
        if isinstance(value, dict):
            value = [f"{field} is {column}" for field, column in value.items()]
        text = ", ".join(value) if isinstance(value, list) else "yes" if value is True else str(value)
        if text and value is not None and value is not False:
            told[name] = text
    return told


def _unit(facts: Mapping[str, Any]) -> str:
    """In what lengths are best told."""
    return "tokens" if "tokens" in facts["lengths"] else "words"


def _meanings(facts: Mapping[str, Any]) -> dict[str, str]:
    """What each check is about: for those of single rows in the words of the first finding."""
    found = {check: shown[0]["message"] for check, shown in facts["examples"].items() if shown}
    return {name: f"such as: {text}" for name, text in found.items()} | MEANINGS


def _histograms(facts: Mapping[str, Any]) -> dict[str, Any]:
    """One picture of lengths a split."""
    lengths = facts["lengths"][_unit(facts)]
    edges = lengths["histogram"]["edges"]
    made = []
    for name, counts in lengths["histogram"]["counts"].items():
        bars = [(low, high, count) for (low, high), count in zip(pairwise(edges), counts, strict=True)]
        own = lengths["splits"][name]
        made.append(Histogram(OF_SPLIT[name], f"rows of {name}", bars, own["median"], own["longest"]))
    most = [max((count for _, _, count in own.bars), default=1) or 1 for own in made]
    axis = Axis.over([0, edges[-1]])
    return {"groups": [{"histograms": [own], "axis": axis, "most": top} for own, top in zip(made, most, strict=True)]}


def _balance(facts: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Of each label its rows in each split, the most frequent first."""
    names = {name for own in facts["labels"].values() for name in own}
    totals = {name: sum(own.get(name, 0) for own in facts["labels"].values()) for name in names}
    ordered = sorted(names, key=lambda name: (-totals[name], name))
    return {name: {split: facts["labels"].get(split, {}).get(name, 0) for split in _splits(facts)} for name in ordered}


def _shown(facts: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The first rows of the training split, as pairs of a name and a text."""
    return [(f"row {number}", _texts(row)) for number, row in enumerate(facts["first_rows"].get("train", []), 1)]


def _texts(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    told = []
    for name, value in row.items():
        turns = value if isinstance(value, list) else [{"role": "", "content": str(value)}]
        for turn in turns:
            text = turn["content"]
            cut = f"{text[:SHOWN_TEXT]} ({plural(len(text) - SHOWN_TEXT, 'character')} more)"
            told.append((f"{name}: {turn['role']}" if turn["role"] else name, text if len(text) <= SHOWN_TEXT else cut))
    return told
