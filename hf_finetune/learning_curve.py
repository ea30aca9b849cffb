"""Quality against the number of training rows: would more data help?"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hf_finetune.begin import Request
from hf_finetune.errors import RecipeError, plural
from hf_finetune.files import read_jsonl, write_json, write_picture, write_text
from hf_finetune.folder import holds_run
from hf_finetune.intervals import bootstrap_intervals
from hf_finetune.layers import Settled
from hf_finetune.model import find_base_model
from hf_finetune.pipeline import run_recipe
from hf_finetune.prepare import prepare
from hf_finetune.recipe import Recipe
from hf_finetune.report import Report
from hf_finetune.run import FREE_SETTINGS, describe_computing, describe_recipe

SMALL_GAIN = 0.03
"""A gain below this is not worth gathering rows for."""


@dataclass(frozen=True)
class Point:
    """What was reached with so many training rows."""

    rows: int
    score: float
    """The fine-tuned model's primary metric on the test rows, which are the same for all points."""
    low: float
    high: float
    """Its 95 % interval."""


@dataclass(frozen=True)
class Curve:
    """The points by number of rows, and what the last step between two of them brought."""

    recipe: str
    metric: str
    test_rows: int
    epochs: float
    base_score: float
    base_interval: Sequence[float]
    points: Sequence[Point]
    last_gain: Sequence[float]
    """The 95 % interval of what the most rows gain over the next fewer, paired over the test rows."""

    @property
    def verdict(self) -> str:
        """Whether the last rows that were added helped, measurably."""
        fewer, most = self.points[-2:]
        low, high = self.last_gain
        step = (
            f"from {fewer.rows:,} to {plural(most.rows, 'training row')} {self.metric} went {fewer.score:.3f} -> "
            f"{most.score:.3f} (95 % interval of the difference {low:+.3f} to {high:+.3f})"
        )
        if low > 0:
            return f"More rows have helped up to the end: {step}. Still more are worth a try."
        if high < 0:
            return f"The last rows have made it worse: {step}. Look at them, and try another seed."
        found = f"The last rows have brought no measurable gain: {step}."
        if high < SMALL_GAIN:
            return f"{found} More of the same kind are unlikely to bring much."
        return f"{found} More test rows would tell whether more training rows are worth it."

    def as_markdown(self) -> str:
        """The curve as a table."""
        lines = [
            f"# {self.recipe}: {self.metric} by number of training rows", "", self.verdict, "",
            f"| training rows | {self.metric} | 95 % interval |", "|---:|---:|---:|",
            f"| 0 (base) | {self.base_score:.3f} | {self.base_interval[0]:.3f} to {self.base_interval[1]:.3f} |",
            *(f"| {p.rows:,} | {p.score:.3f} | {p.low:.3f} to {p.high:.3f} |" for p in self.points), "",
            f"Each on the same {plural(self.test_rows, 'test row')}; fewer training rows are always part of more.",
            f"Each was trained once, with one seed, for {self.epochs:g} epochs at most: fewer rows make fewer steps.",
            "",
        ]  # fmt: skip
        return "\n".join(lines)


def learning_curve(request: Request, sizes: Sequence[int], say: Callable[[str], None]) -> Curve:
    """Makes a run for each number of training rows, in `rows-N` folders, and leaves the curve beside them.

    A number that is done already is not made again; without numbers an eighth, a quarter, half and all of the rows are
    taken.

    Raises:
        RecipeError: when there are not so many rows, and whatever a run raises.
    """
    folder, settled = request.folder, request.settled
    if settled.values.gates and settled.origins["gates"] != "recipe":
        raise RecipeError("learning-curve: gates are for runs, and are not looked at here. Leave gates= out.")
    if holds_run(folder):
        raise RecipeError(f"{folder}: holds a run. Name another folder with output_dir=FOLDER.")
    rows = prepare(request.recipe, request.source, settled.values).rows
    folders = {size: folder / f"rows-{size}" for size in _checked(sizes, len(rows["train"]))}
    base_folder = folder / "base" / _key(request)
    if request.overwrite:
        shutil.rmtree(base_folder, ignore_errors=True)
    for size, own in folders.items():
        say(f"\nrows      {size:,} of {plural(len(rows['train']), 'training row')}")
        run_recipe(replace(request, folder=own, settled=_with_rows(settled, size), base_folder=base_folder), say)
    curve = _curve(request, rows["test"], folders)
    write_json(folder / "learning_curve.json", asdict(curve))
    write_text(folder / "learning_curve.md", curve.as_markdown())
    draw(curve, folder / "learning_curve.png")
    return curve


def _curve(request: Request, test: Sequence[Any], folders: Mapping[int, Path]) -> Curve:
    """What the runs in the folders, by number of rows, have reached on the test rows."""
    recipe = request.recipe
    metric, reports = recipe.primary_metric, {size: Report.read(own) for size, own in folders.items()}
    *_, last = reports.values()
    fewer, most = (_predictions(recipe, own) for own in list(folders.values())[-2:])
    return Curve(
        recipe=recipe.name,
        metric=metric,
        test_rows=len(test),
        epochs=request.settled.values.num_train_epochs,
        base_score=last.scores["base"][metric],
        base_interval=last.intervals["base"],
        points=[Point(size, own.scores["tuned"][metric], *own.intervals["tuned"]) for size, own in reports.items()],
        last_gain=bootstrap_intervals(recipe, test, {"base": [fewer], "tuned": [most]})["gain"],
    )


def draw(curve: Curve, picture: Path) -> None:
    """Leaves a PNG of the points with their intervals, on a logarithmic axis of rows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    rows, scores = [p.rows for p in curve.points], [p.score for p in curve.points]
    # A percentile interval need not hold the score itself.
    errors = [[max(0, p.score - p.low) for p in curve.points], [max(0, p.high - p.score) for p in curve.points]]
    axes.errorbar(rows, scores, errors, marker="o", capsize=4, label="fine-tuned, 95 % interval")
    axes.axhline(curve.base_score, linestyle="--", color="gray", label="base")
    axes.set_xscale("log")
    axes.set_xticks(rows, [f"{count:,}" for count in rows])
    axes.minorticks_off()
    axes.set_xlabel("training rows")
    axes.set_ylabel(curve.metric)
    axes.grid(alpha=0.3)
    axes.legend()
    write_picture(picture, figure)


def _predictions(recipe: Recipe[Any], folder: Path) -> list[Any]:
    """What the fine-tuned model of a run answered, as the recipe reads it."""
    given = [line["tuned"] for line in read_jsonl(folder / "answers.jsonl")]
    return [None if answer["prediction"] is None else recipe.parse(answer["text"]) for answer in given]


def _checked(sizes: Sequence[int], available: int) -> list[int]:
    """The numbers of rows in their order."""
    chosen = sorted(set(sizes) or {max(1, available // part) for part in (8, 4, 2, 1)})
    outside = [size for size in chosen if not 1 <= size <= available]
    if outside:
        raise RecipeError(
            f"learning-curve: --sizes must lie in 1 to {available:,}, the rows of the training split. "
            f"Leave {outside[0]:,} out."
        )
    if len(chosen) < 2:
        raise RecipeError("learning-curve: one number of rows makes no curve. Give two or more, as in --sizes 100,300.")
    return chosen


def _key(request: Request) -> str:
    """Stands for all that decides what the base gives: others must not take it for theirs."""
    values = request.settled.values
    circumstances = [
        describe_recipe(request.recipe, request.path_or_name)["sha256"],
        request.source.identity(),
        {name: value for name, value in values.model_dump().items() if name not in FREE_SETTINGS},
        find_base_model(values).commit,
        describe_computing(values),
    ]
    return hashlib.sha256(json.dumps(circumstances, sort_keys=True).encode()).hexdigest()[:16]


def _with_rows(settled: Settled, size: int) -> Settled:
    changed: dict[str, Any] = {"max_train_rows": size, "gates": {}}
    origins = dict(settled.origins) | dict.fromkeys(changed, "learning-curve")
    return Settled(settled.values.model_copy(update=changed), origins)
