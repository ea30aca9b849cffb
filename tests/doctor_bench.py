"""A run that is in order, to plant one fault in: its folder, rows, base, recipe and settings."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from conftest import sample_rows, write_rows
from hf_finetune.cli.doctor import subject_of
from hf_finetune.doctor import AREAS, Area, Line, examine, room

RECIPE = Path(__file__).parent.parent / "recipes" / "finsent.py"
ODD_ROWS = Path(__file__).parent / "data" / "finsent.jsonl"


QUICK = tuple(area for area in AREAS if area.name != "memory and cost")
"""All but the estimate, which builds the base's graph anew for each kind of GPU."""
LOOKED_AT = {"memory": AREAS, "disk": (*QUICK, Area("memory and cost", (room.disks,)))}
"""The areas that are looked at for a plant of one area; for others, the quick ones."""


@dataclass
class Bench:
    """What doctor is asked about; in order until something is planted."""

    folder: Path
    base: Path
    monkeypatch: pytest.MonkeyPatch
    words: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=lambda: list(sample_rows(70)))
    recipe: str = str(RECIPE)
    data: str | None = "rows.jsonl"
    config: str | None = None

    def own_base(self) -> Path:
        """A copy of the base, to be spoiled, which the run then takes."""
        if self.base.parent != self.folder:
            self.base = Path(shutil.copytree(self.base, self.folder / "base"))
        return self.base

    def edit(self, name: str, **changes: Any) -> None:
        """Changes values of a JSON file of the base; None takes one out."""
        path = self.own_base() / name
        held = json.loads(path.read_text(encoding="utf-8")) | changes
        path.write_text(json.dumps({key: value for key, value in held.items() if value is not None}), encoding="utf-8")

    def template(self, text: str | None) -> None:
        """Gives the base another chat template, or none."""
        path = self.own_base() / "chat_template.jinja"
        path.unlink() if text is None else path.write_text(text, encoding="utf-8")

    def change_recipe(self, old: str, new: str) -> None:
        """Takes a recipe that is other than finsent in one place."""
        text = Path(self.recipe).read_text(encoding="utf-8")
        assert old in text
        path = self.folder / "recipes" / "own.py"
        (self.folder / "tests" / "data").mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(exist_ok=True)
        shutil.copy(ODD_ROWS, self.folder / "tests" / "data" / "finsent.jsonl")
        path.write_text(text.replace(old, new), encoding="utf-8")
        self.recipe = str(path)

    def file(self, name: str, text: str) -> str:
        """Leaves a text in the run's folder, and gives its name."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return name

    def lines(self, areas: Sequence[Area] = AREAS) -> list[Line]:
        """What doctor finds in these areas."""
        if self.data == "rows.jsonl" and not (self.folder / "rows.jsonl").exists():
            write_rows(self.folder / "rows.jsonl", self.rows)
        words = [f"model_name_or_path={self.base}", *self.words]
        subject = subject_of(self.recipe, words, self.config, False, self.data)
        return [line for _, own in examine(subject, areas) for line in own]


@dataclass(frozen=True)
class Plant:
    """A fault, how it is planted, and what doctor has to say of it."""

    area: str
    name: str
    plant: Callable[[Bench], object]
    level: str
    """`fault`, `warning`, or either."""
    told: str
    """A regular expression that the text of a line holds."""
    fix: str
    """One that what mends it holds."""

    def check(self, lines: Sequence[Line]) -> None:
        """Whether the fault is named, at its level, with its fix."""
        import re

        found = [line for line in lines if re.search(self.told, line.text)]
        assert found, "\n".join(f"{line.level}: {line.text}" for line in lines if line.level != "ok")
        assert any(line.level in self.level.split("|") and re.search(self.fix, line.fix) for line in found), found


def bench_in(folder: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench in a folder that is the working directory meanwhile."""
    monkeypatch.chdir(folder)
    yield Bench(folder, base, monkeypatch)
