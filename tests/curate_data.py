"""Rows of our own that several tests of data preparation share."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hf_finetune.curate.plan import Plan, find_feed

TOWNS = "Alba Brix Corvo Delft Ennis Farro Gault Hesse Imola Jarvo Kelso Lunde Mirov Norda Ostra Piran Quarn".split()
THINGS = "bridge harbour market tower library garden mill station theatre quarry chapel bakery dairy forge".split()
ASKED = "How old is|Who built|What colour is|When was someone last in|How tall is|Where exactly stands".split("|")


def questions(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Questions and answers, most of them unlike each other."""
    chance = random.Random(seed)
    rows = []
    for number in range(count):
        words = " ".join(chance.choice(THINGS + TOWNS).lower() for _ in range(8))
        what, where = chance.choice(THINGS), chance.choice(TOWNS)
        question = f"{chance.choice(ASKED)} the {what} of {where}, {words} {number}?"
        answer = f"It is told in book {number} of {chance.choice(TOWNS)}, on page {chance.randrange(900)}."
        rows.append({"question": question, "answer": answer})
    return rows


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    """The path of a file with a JSON value a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def plan_of(path: Path, **options: Any) -> Plan:
    """The plan for a file."""
    return Plan((find_feed(str(path)),), **options)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder with their bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
