"""A run's files -> report.html: one page with everything in it, made from those files and nothing else."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from hf_finetune.browsing import compact, counted_kinds
from hf_finetune.errors import plural
from hf_finetune.files import read_json, read_jsonl, write_text
from hf_finetune.intervals import gain_over
from hf_finetune.licences import adapter_license
from hf_finetune.pictures import UNIT, Axis, Chart, Intervals, Line, Mark, intervals, number, page_template, plain
from hf_finetune.report import Report

PICTURED = ("tfidf", "base", "tuned")
"""The columns with a confusion matrix and a curve."""

BINS = 20
"""About as many bars has a histogram."""


def write_page(folder: Path) -> Path:
    """Leaves report.html in a run's folder."""
    path = folder / "report.html"
    write_text(path, render_page(folder))
    return path


def render_page(folder: Path) -> str:
    """The page's text: the same bytes for the same files. Sections whose files or values are absent are left out."""
    report, answers = Report.read(folder), _lines(folder / "answers.jsonl")
    run, data = _json(folder / "run.json"), _json(folder / "data.json")
    return page_template("report.html.jinja").render(
        report=report,
        title=f"{report.recipe}: base and fine-tuned model",
        base=run.get("base_model", {}).get("name"),
        facts=_facts(run, data),
        scores=score_rows(report),
        gains=gain_rows(report),
        metrics=_metrics(report),
        reliability=_reliability(report),
        selective=_selective(report),
        loss=_loss(_lines(folder / "training_log.jsonl")),
        best_step=run.get("training", {}).get("best_step"),
        distribution=_distribution(report, data, answers),
        tokens=data.get("tokens", {}),
        lengths=_lengths(answers, are_open=not _labels(report, data)),
        worse=worse_metrics(report),
        kinds=counted_kinds(answers),
        answers=compact(report, answers),
        gold_labels=_labels(report, data),
    )  # fmt: skip


def score_rows(report: Report) -> Intervals:
    """The primary metric of each column."""
    scores, name = report.scores, report.primary_metric
    columns = report.columns.items()
    return intervals([Mark(c, plain(title), scores[c][name], report.intervals.get(c)) for c, title in columns])


def gain_rows(report: Report) -> Intervals:
    """What fine-tuning gains over each other model."""
    titles = {c: plain(title) for c, title in report.columns.items() if gain_over(c) in report.intervals}
    others = [column for column in ("base", "majority", "few_shot", "tfidf") if column in titles]
    marks = [Mark("tuned", f"over {titles[c]}", report.gain_over(c), report.intervals[gain_over(c)]) for c in others]
    return intervals(marks, are_gains=True)


@dataclass(frozen=True)
class Metric:
    """A line of the table of all metrics."""

    name: str
    values: Mapping[str, float | None]
    """By column."""
    note: str = ""
    digits: int = 3

    @property
    def is_worse(self) -> bool:
        """Whether the fine-tuned model is worse than the base."""
        base, tuned = self.values.get("base"), self.values.get("tuned")
        if base is None or tuned is None:
            return False
        return tuned > base if LESS_IS_BETTER in self.note else tuned < base


LESS_IS_BETTER = "less is better"


def _metrics(report: Report) -> list[Metric]:
    """All that is measured of each column."""
    scores, notes = report.scores, {report.primary_metric: "primary"}
    found = [
        Metric(name, {c: own.get(name) for c, own in scores.items()}, notes.get(name, "")) for name in scores["tuned"]
    ]
    passes = report.pass_at_k
    found += [Metric(f"pass@{k}", {c: own.get(k) for c, own in passes.items()}) for k in passes.get("tuned", {})]
    if report.calibration:
        for key, name in _CALIBRATION.items():
            found.append(Metric(name, {c: own[key] for c, own in report.calibration.items()}, LESS_IS_BETTER))
    if report.perplexity:
        found.append(Metric("perplexity", report.perplexity, LESS_IS_BETTER, digits=2))
    if report.general_loss:
        found.append(Metric("loss on general questions", report.general_loss, f"nats a token, {LESS_IS_BETTER}"))
    return [*found, Metric("unreadable answers", report.unreadable, LESS_IS_BETTER, digits=0)]


_CALIBRATION = {"expected_calibration_error": "calibration error", "brier_score": "Brier score"}


def _pictured(report: Report, values: Mapping[str, Any]) -> dict[str, str]:
    """Column and title of those of the columns with pictures that have values."""
    return {c: plain(title) for c, title in report.columns.items() if c in PICTURED and c in values}


def _reliability(report: Report) -> Chart:
    """How often answers of some confidence are right."""
    lines = []
    for column, title in _pictured(report, report.calibration).items():
        bins = [own for own in report.calibration[column].get("reliability", []) if own["rows"]]
        points = [(own["confidence"], own["accuracy"]) for own in bins]
        lines.append(Line(column, title, points, [own["rows"] for own in bins]))
    return Chart(UNIT, UNIT, [line for line in lines if line.points])


def _selective(report: Report) -> Chart:
    """How many answers are right where only the surest are taken."""
    lines = []
    for column, title in _pictured(report, report.calibration).items():
        points = [(p["coverage"], p["accuracy"]) for p in report.calibration[column].get("selective", [])]
        lines.append(Line(column, title, sorted(points)))
    return Chart(UNIT, UNIT, [line for line in lines if line.points])


def _loss(log: Sequence[Mapping[str, Any]]) -> Chart:
    """Training and validation loss by step."""
    lines = [
        Line(name, title, [(line["step"], line[key]) for line in log if line.get(key) is not None])
        for name, title, key in (("training", "training", "loss"), ("validation", "validation", "eval_loss"))
    ]
    steps, losses = zip(*[point for line in lines for point in line.points] or [(0, 0)], strict=True)
    return Chart(Axis.over([0, *steps]), Axis.over([0, *losses]), [line for line in lines if line.points])


def _labels(report: Report, data: Mapping[str, Any]) -> list[str]:
    """The closed answers that all rows share; of reports that do not name them, those that were trained on."""
    return report.labels or sorted({label for split in data.get("answers", {}).values() for label in split})


def _distribution(
    report: Report, data: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, int]]:
    """How many rows have each label: in each split, and as the models answer the test rows."""
    counts = {split: dict(own) for split, own in data.get("answers", {}).items()}
    labels = _labels(report, data)
    if not labels or not answers:
        return counts
    counts.setdefault("test", Counter(row["gold"] for row in answers))
    for column, title in _pictured(report, answers[0]).items():
        given = Counter(row[column]["text"] if row[column]["prediction"] is not None else None for row in answers)
        counts[f"answered by {title}"] = {label: given[label] for label in labels}
    return counts


@dataclass(frozen=True)
class Histogram:
    """How many texts have how many words."""

    name: str
    title: str
    bars: list[tuple[float, float, int]]
    """From, to, and the number of texts."""
    median: float
    longest: int


def _lengths(answers: Sequence[Mapping[str, Any]], are_open: bool) -> list[dict[str, Any]]:
    """Histograms of the words of prompts and, where answers are open, of gold completions and answers."""
    texts = [{"prompt": [row["prompt"] for row in answers]}]
    if are_open:
        own = {column: [row[column]["text"] for row in answers] for column in ("base", "tuned")}
        texts.append({"gold": [row["gold"] for row in answers], **own})
    return [_histograms(group) for group in texts] if answers else []


_TEXTS = {"prompt": "prompts", "gold": "gold completions", "base": "answers of the base",
          "tuned": "answers of the fine-tuned model"}  # fmt: skip


def _histograms(texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """One histogram a name, all with the same bins, which are whole words wide."""
    words = {name: [len(text.split()) for text in own] for name, own in texts.items()}
    longest = max(max(own) for own in words.values())
    edges = Axis.over([0, max(longest + 1, BINS)], steps=BINS).ticks
    made = []
    for name, own in words.items():
        bars = [(low, high, sum(low <= n < high for n in own)) for low, high in pairwise(edges)]
        made.append(Histogram(name, _TEXTS[name], bars, median(own), max(own)))
    axis = Axis.over([0, edges[-1]])
    return {"histograms": made, "axis": axis, "most": max(bar[2] for own in made for bar in own.bars)}


def worse_metrics(report: Report) -> list[Metric]:
    """What fine-tuning made worse, of all that is measured of both models."""
    classes = report.worse_classes.items()
    found = [Metric(what, {"base": base, "tuned": tuned}) for what, (base, tuned) in classes]
    return [*found, *(metric for metric in _metrics(report) if metric.is_worse)]


def _facts(run: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, str]:
    """What is known of how the run was made, a name and a few words each."""
    facts: dict[str, str] = {}
    if run:
        base, training, totals = (run.get(name, {}) for name in ("base_model", "training", "totals"))
        gpus = run.get("hardware", {}).get("gpus") or [{"name": run.get("hardware", {}).get("cpu")}]
        facts["base model"] = " at commit ".join(filter(None, [base.get("name"), base.get("commit")]))
        several = f", {run['num_processes']} processes" if run.get("num_processes", 1) > 1 else ""
        facts["hardware"] = f"{gpus[0]['name']}{several}" if gpus[0]["name"] else ""
        if training and totals:
            facts["training"] = f"{plural(training['steps'], 'step')}, {number(totals['training_seconds'], 0)} seconds"
            facts["trained parameters"] = number(training["trainable_parameters"])
            facts["peak memory"] = f"{number(totals['peak_memory_gib'], 2)} GiB"
        license = adapter_license(run.get("license"), run.get("data", {}), base)
        facts["licence of the adapter"] = license or ""
    if data:
        source = data["source"]
        facts["data"] = " at commit ".join(filter(None, [source["name"], source["commit"]]))
        facts["rows"] = ", ".join(f"{name} {number(count)}" for name, count in data["rows"].items())
    return {name: value for name, value in facts.items() if value}


def _json(path: Path) -> dict[str, Any]:
    """A file's object, empty where there is no file."""
    return dict(read_json(path)) if path.is_file() else {}


def _lines(path: Path) -> list[dict[str, Any]]:
    """A file's lines, none where there is no file."""
    return read_jsonl(path) if path.is_file() else []
