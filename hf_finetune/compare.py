"""Runs side by side: settings that differ, metrics with their intervals, the same test rows in pairs, time and cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_finetune.errors import RecipeError, first_line, plural
from hf_finetune.files import read_jsonl, write_text
from hf_finetune.intervals import mcnemar, mean_interval
from hf_finetune.pictures import Intervals, Mark, intervals, page_template
from hf_finetune.progress import duration
from hf_finetune.rendering import template
from hf_finetune.report import FEWEST_CHANGED, FEWEST_ROWS, Report
from hf_finetune.run import Run, values_of

GENERATOR = '<meta name="generator" content="hf_finetune">'
"""Stands in every page."""

Answered = dict[tuple[str, str], bool]
"""Question and gold answer of each test row, and whether the fine-tuned model has it right."""
Table = dict[str, list[str]]
"""A cell for each run, by what it is of."""


@dataclass(frozen=True)
class Pair:
    """The fine-tuned models of two runs on the test rows that both were asked."""

    first: str
    second: str
    rows: int
    only_first: int
    """Rows that only the first has right."""
    only_second: int
    low: float
    high: float
    """95 % interval of how much larger the second's share of right answers is."""

    @property
    def p_value(self) -> float:
        """McNemar's exact test."""
        return mcnemar(self.only_first, self.only_second)

    @property
    def verdict(self) -> str:
        """Which one is better, in a sentence."""
        if not self.rows:
            return (
                f"{self.first} and {self.second} were not asked the same test rows: they cannot be compared in pairs."
            )
        can_tell = self.rows >= FEWEST_ROWS and self.only_first + self.only_second >= FEWEST_CHANGED
        better = (
            f"{self.second} is better than {self.first}" if can_tell and self.low > 0
            else f"{self.first} is better than {self.second}" if can_tell and self.high < 0
            else f"No measurable difference between {self.first} and {self.second}"
        )  # fmt: skip
        return (
            f"{better}: of {plural(self.rows, 'same test row')}, {self.second} has {self.only_second} right that "
            f"{self.first} has wrong, and the other way round {self.only_first} (McNemar's exact test: "
            f"p = {self.p_value:.2g}; share right of {self.second} less that of {self.first}: 95 % interval "
            f"{self.low:+.3f} to {self.high:+.3f})."
        )


@dataclass(frozen=True)
class Comparison:
    """What runs have reached, side by side."""

    names: list[str]
    """The runs' folders, as short as tells them apart."""
    reached: Table
    """Metrics of the fine-tuned models, time, memory and cost."""
    differing: Table
    """Settings, rows, base model and versions that are not the same in all."""
    pairs: list[Pair]
    """Each later run beside the first."""
    metric: str
    """The primary metric; empty where the runs have not the same one."""
    scores: Intervals
    """That metric of each run."""

    def as_markdown(self) -> str:
        """The comparison as tables for a terminal or a pull request."""
        return template("compare.md.jinja", trim_blocks=True).render(comparison=self) + "\n"

    def as_html(self) -> str:
        """The comparison as one page with everything in it."""
        return page_template("compare.html.jinja").render(
            comparison=self, title=f"Runs side by side: {', '.join(self.names)}"
        )  # fmt: skip


def compare_runs(folders: Sequence[Path]) -> Comparison:
    """The finished runs of the folders side by side, in the order in which they are given.

    Raises:
        RecipeError: when a folder holds no run, or one that has no report yet, or is given twice.
    """
    if len(folders) < 2:
        raise RecipeError("compare: needs two runs or more. Name their folders.")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RecipeError("compare: a run is named twice. Name each once.")
    runs = [Run.read(folder) for folder in folders]
    reports = [Report.read(folder) for folder in folders]
    names = _names(folders)
    answered = [_answered(folder) for folder in folders]
    metrics = {report.primary_metric for report in reports}
    return Comparison(
        names=names,
        reached=_reached(runs, reports),
        differing=_differing(runs),
        pairs=[_pair(names[0], name, answered[0], own) for name, own in zip(names[1:], answered[1:], strict=True)],
        metric=metrics.pop() if len(metrics) == 1 else "",
        scores=_scores(names, reports),
    )


def write_html(comparison: Comparison, path: Path) -> None:
    """Leaves the comparison as a page; a file that is no page of this package is not replaced.

    Raises:
        RecipeError: when there is such a file, or the disk refuses.
    """
    if path.is_dir() or (path.exists() and GENERATOR not in path.read_text(encoding="utf-8", errors="replace")):
        raise RecipeError(f"{path}: is there already, and is no page of hf_finetune. Name another file.")
    write_text(path, comparison.as_html())


def _names(folders: Sequence[Path]) -> list[str]:
    """The last part of each folder, or the whole path where these are the same."""
    last = [folder.resolve().name for folder in folders]
    return last if len(set(last)) == len(last) else [str(folder) for folder in folders]


def _scores(names: Sequence[str], reports: Sequence[Report]) -> Intervals:
    return intervals([
        Mark("tuned", name, report.scores["tuned"][report.primary_metric], report.intervals["tuned"])
        for name, report in zip(names, reports, strict=True)
    ])  # fmt: skip


def _reached(runs: Sequence[Run], reports: Sequence[Report]) -> Table:
    """What each run has come to, a line a figure; empty cells where a run has none."""
    columns = [_figures(run, report) for run, report in zip(runs, reports, strict=True)]
    names = dict.fromkeys(name for column in columns for name in column)
    return {name: [column.get(name, "") for column in columns] for name in names}


def _figures(run: Run, report: Report) -> dict[str, str]:
    primary, totals = report.primary_metric, run.totals
    low, high = report.intervals["tuned"]
    found = {"recipe": report.recipe, "verdict": report.outcome, "test rows": f"{report.rows:,}"}
    found[primary] = f"{report.scores['tuned'][primary]:.3f} ({low:.3f} to {high:.3f})"
    low, high = report.intervals["gain"]
    found["gain over the base"] = f"{report.gain_over('base'):+.3f} ({low:+.3f} to {high:+.3f})"
    found |= {name: f"{value:.3f}" for name, value in report.scores["tuned"].items() if name != primary}
    calibration = report.calibration.get("tuned", {})
    found |= {"calibration error": f"{calibration['expected_calibration_error']:.3f}"} if calibration else {}
    found |= {"perplexity": f"{report.perplexity['tuned']:.2f}"} if "tuned" in report.perplexity else {}
    found |= {"forgetting (nats)": f"{report.forgetting:+.3f}"} if report.forgetting is not None else {}
    found |= {"gates missed": ", ".join(gate.name for gate in report.missed) or "none"} if report.gates else {}
    if run.training:
        found["steps"] = f"{run.training['steps']:,}"
        found["trained parameters"] = f"{run.training['trainable_parameters']:,}"
        found |= {"training time": duration(totals["training_seconds"])} if totals else {}
    if totals:
        found["time in all"] = duration(totals["seconds"])
        found["peak memory"] = f"{totals['peak_memory_gib']:.2f} GiB"
        energy = totals.get("energy_wh")
        found |= {"energy of the GPUs": f"{energy:.2f} Wh"} if energy is not None else {}
        found |= {"cost": f"{totals['cost_usd']:.2f} USD"} if totals["cost_usd"] is not None else {}
    return found


def _differing(runs: Sequence[Run]) -> Table:
    """What runs were made with, where that is not the same in all."""
    columns = [_made_with(run) for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    table = {name: [str(column.get(name, "")) for column in columns] for name in names}
    return {name: cells for name, cells in table.items() if len(set(cells)) > 1}


def _made_with(run: Run) -> dict[str, Any]:
    gpus = run.hardware.get("gpus") or [{"name": run.hardware.get("cpu", "")}]
    return {
        "recipe file": run.recipe["sha256"][:12],
        "rows from": f"{run.data.get('name', '')} {_digest(run.data)}".strip(),
        "base model": f"{run.base_model.get('name')} {(run.base_model.get('commit') or '')[:12]}".strip(),
        "evaluated": run.evaluated.get("name", "its own adapter"),
        "processes": run.num_processes,
        "hardware": gpus[0]["name"],
        **values_of(run),
        **run.computing,
        **{f"{library} (version)": number for library, number in run.versions.items()},
    }


def _digest(data: Mapping[str, Any]) -> str:
    return str(data.get("commit") or next(iter(data.get("files", {"": ""}).values()), ""))[:12]


def _answered(folder: Path) -> Answered:
    try:
        rows = read_jsonl(folder / "answers.jsonl")
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{folder / 'answers.jsonl'}: cannot be read ({first_line(error)}). Start the run's command again with "
            f"--overwrite, or leave the run out."
        ) from error
    return {(row["prompt"], row["gold"]): bool(row["tuned"]["correct"]) for row in rows}


def _pair(first: str, second: str, of_first: Answered, of_second: Answered) -> Pair:
    both = [row for row in of_first if row in of_second]
    differences = [float(of_second[row]) - float(of_first[row]) for row in both]
    low, high = mean_interval(differences) if both else (0.0, 0.0)
    return Pair(first, second, len(both), differences.count(-1.0), differences.count(1.0), low, high)
