"""What a comparison of base, few-shot and fine-tuned model found: `report.json`, its verdict, and `report.md`."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hf_finetune.errors import RecipeError, first_line, plural
from hf_finetune.files import read_json, write_json, write_text
from hf_finetune.intervals import RESAMPLES, gain_over, mcnemar
from hf_finetune.rendering import template

Answers = Sequence["Answer"]

MODELS = ("tfidf", "base", "few_shot", "tuned")
"""The columns that answer row by row."""
CONCLUSIONS = ("outcome", "verdict", "p_value")
"""What report.json has beside the report, for programs."""
FEWEST_ROWS = 20
"""With fewer, percentile intervals of two equal models exclude zero too often: in a tenth of the trials with 5 rows."""
FEWEST_CHANGED = 6
"""With fewer rows that only one of two models has right, no unevenness is significant: 2 / 2**5 is above 0.05."""


@dataclass(frozen=True)
class Answer:
    """One model's answer to one row."""

    text: str
    prediction: Any
    """What the recipe's parse() reads in the text; None when it cannot."""
    correct: bool
    probabilities: dict[str, float] | None = None
    """Closed answers: each choice's share of the likelihood."""
    gold_loss: float | None = None
    """What the gold completion and its end cost the model: minus their log-likelihood, in nats."""
    correct_samples: int | None = None
    """Of the answers that were sampled, those that are right."""


@dataclass(frozen=True)
class Gate:
    """What a run must reach, and whether it has."""

    name: str
    bound: str
    """`at least` or `at most`."""
    required: float
    found: float | None
    """None where the run could not measure it."""
    held: bool

    @property
    def shown(self) -> str:
        """What was found, with as many digits as tell a miss from what is required."""
        if self.found is None:
            return "not measured"
        texts = (f"{self.found:.{digits}f}" for digits in range(4, 12))
        return next((text for text in texts if self.held or float(text) != self.required), str(self.found))


@dataclass(frozen=True)
class Report:
    """How base, few-shot and fine-tuned model did on the test rows; `report.json` is this, and what follows from it.

    Columns are `majority` (always the most frequent training answer), `tfidf`, `base`, `few_shot` (the mean over the
    draws of examples) and `tuned`; what was not asked for, or has no meaning for a recipe's answers, is left out.
    """

    recipe: str
    primary_metric: str
    rows: int
    answered_by: str
    """`likelihood of the choices` or `greedy generation`."""
    scores: dict[str, dict[str, float]]
    """Metrics in 0-1 of each column; more is better."""
    intervals: dict[str, list[float]]
    """95 % bootstrap intervals of the primary metric: of each model, and of the paired differences `gain`, fine-tuned
    less base, `gain_over_few_shot` and `gain_over_tfidf`."""
    unreadable: dict[str, float]
    """Answers that the recipe cannot read; the mean over the draws."""
    corrected: int
    """Rows the base had wrong and the fine-tuned model has right."""
    spoiled: int
    """Rows the base had right and the fine-tuned model has wrong."""
    majority_answer: str | None
    example_prompt: str
    max_new_tokens: int
    few_shot_examples: int = 0
    """Training rows that the base is shown before a question in the column `few_shot`."""
    few_shot_scores: list[float] = field(default_factory=list)
    """The primary metric of each draw of them."""
    labels: list[str] = field(default_factory=list)
    """The choices, where all rows have the same."""
    by_class: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """Of each column and label: precision, recall, F1, and the rows whose gold answer it is."""
    confusion: dict[str, list[list[int]]] = field(default_factory=dict)
    """Of each column, a line a gold label and in it the answers by label; the last number is unreadable ones."""
    calibration: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of each column with probabilities: expected calibration error, Brier score, reliability, selective accuracy."""
    perplexity: dict[str, float] = field(default_factory=dict)
    """Of the gold completions, a token."""
    pass_at_k: dict[str, dict[str, float]] = field(default_factory=dict)
    """How likely one of k sampled answers is right (Chen et al. 2021), by k."""
    general_loss: dict[str, float] = field(default_factory=dict)
    """Of base and fine-tuned model, on the answers to general questions that have nothing to do with the task: the mean
    of each answer's nats a token, and `low` and `high`, the 95 % interval of the rise."""
    mark_rows: dict[str, int] = field(default_factory=dict)
    """Of the marks that not every row has, how many rows have them."""
    gates: list[Gate] = field(default_factory=list)
    is_right_or_wrong: bool = True
    """Whether the primary metric counts right answers, so that only rows whose mark changes change it."""
    notes: list[str] = field(default_factory=list)
    """What a reader must know to believe the figures."""
    merged: dict[str, Any] = field(default_factory=dict)
    """Of the weights with the adapter merged in: how they were made (`way`, `dtype`), their `likeness` to the adapter
    in `prompts` and in `answers` (`kl_per_token`, `top1_agreement`, over `tokens`), their `scores` on the test `rows`,
    the `interval` of the paired difference in the primary metric, merged less adapter, and the hashes of their `files`;
    empty when not merged."""

    def gain_over(self, column: str) -> float:
        """Fine-tuned less another column, in the primary metric."""
        return self.scores["tuned"][self.primary_metric] - self.scores[column][self.primary_metric]

    @property
    def p_value(self) -> float:
        """How likely as uneven a change is where fine-tuning changes nothing."""
        return mcnemar(self.corrected, self.spoiled)

    @property
    def outcome(self) -> str:
        """The verdict in a few words: `helped`, `no measurable gain`, `worse` or `too few rows to tell`."""
        low, high = self.intervals["gain"]
        if self.rows < FEWEST_ROWS:
            return "too few rows to tell"
        if low <= 0 <= high:
            return "no measurable gain"
        if self.is_right_or_wrong and self.corrected + self.spoiled < FEWEST_CHANGED:
            return "too few rows to tell"
        return "helped" if low > 0 else "worse"

    @property
    def verdict(self) -> str:
        """Did fine-tuning help, measurably? And would examples in the prompt, or plain TF-IDF, have done as well?"""
        low, high = self.intervals["gain"]
        name = self.primary_metric
        change = f"{name} {self.scores['base'][name]:.3f} -> {self.scores['tuned'][name]:.3f}"
        interval = f"95 % interval of the difference {low:+.3f} to {high:+.3f}, {plural(self.rows, 'test row')}"
        none = ", none of the fine-tuned model's answers could be read" if self.unreadable["tuned"] == self.rows else ""
        found = f"{change} ({interval}{none})."
        if self.outcome == "too few rows to tell":
            changed = plural(self.corrected + self.spoiled, "row")
            return f"Too few rows to tell: {found} {changed} changed from wrong to right or back. Give more test rows."
        if self.outcome == "worse":
            return f"Fine-tuning made it worse: {found} Do not use this adapter."
        start = "Fine-tuning helped" if self.outcome == "helped" else "No measurable gain from fine-tuning"
        return " ".join([f"{start}: {found}", *self._beside()])

    def _beside(self) -> list[str]:
        """A sentence on each cheaper way that was tried: is fine-tuning better? Of one answer always, only if not."""
        examples = f"the base with {plural(self.few_shot_examples, 'example')} in the prompt"
        ways = {
            "majority": (f"always answering `{self.majority_answer}`", "there is nothing to be had from a model yet"),
            "few_shot": (examples, "use few-shot, which needs no training"),
            "tfidf": (self.tfidf, "use that, which needs no GPU"),
        }
        tried = [column for column in ways if gain_over(column) in self.intervals]
        if "majority" in tried and self.intervals[gain_over("majority")][0] > 0:
            tried.remove("majority")
        return [self._beside_one(column, *ways[column]) for column in tried]

    def _beside_one(self, column: str, way: str, advice: str) -> str:
        low, high = self.intervals[gain_over(column)]
        found = (
            f"{self.scores[column][self.primary_metric]:.3f}, 95 % interval of the difference {low:+.3f} to {high:+.3f}"
        )
        if low > 0:
            return f"It is {'also ' if self.outcome == 'helped' else ''}better than {way} ({found})."
        if high < 0:
            return f"But {way} is better ({found}): {advice}."
        if self.outcome == "helped":
            return f"But it is not measurably better than {way} ({found}): {advice}, unless more test rows show a gain."
        return f"Nor is it measurably better than {way} ({found})."

    @property
    def forgetting(self) -> float | None:
        """By how much fine-tuning raised the loss on general questions, in nats a token; None when not measured."""
        return self.general_loss["tuned"] - self.general_loss["base"] if self.general_loss else None

    def titled(self, metric: str) -> str:
        """A metric as it stands in a table: with what it is first of all, or on how few rows it rests."""
        if metric == self.primary_metric:
            return f"{metric} (primary)"
        return f"{metric} ({plural(self.mark_rows[metric], 'row')})" if metric in self.mark_rows else metric

    @property
    def columns(self) -> dict[str, str]:
        """The names in `scores`, in the order in which they are shown, and the Markdown title of each."""
        titles = {
            "majority": f"always `{self.majority_answer}`",
            "tfidf": "TF-IDF",
            "base": "base",
            "few_shot": f"base, {self.few_shot_examples}-shot",
            "tuned": "fine-tuned",
        }
        return {name: title for name, title in titles.items() if name in self.scores}

    @property
    def tfidf(self) -> str:
        """What TF-IDF gave: it writes nothing of its own."""
        is_open = self.answered_by == "greedy generation"
        return "the answer of the nearest training row (TF-IDF)" if is_open else "TF-IDF with logistic regression"

    @property
    def draws(self) -> str:
        """A sentence on the draws of examples."""
        each = ", ".join(f"{score:.3f}" for score in self.few_shot_scores)
        shown = plural(len(self.few_shot_scores), "draw")
        shown = f"the mean of {shown}" if len(self.few_shot_scores) > 1 else shown
        return (
            f"In the {self.few_shot_examples}-shot column the base was shown training rows before each question: "
            f"{shown} ({self.primary_metric} {each}). Its intervals take these draws as given."
        )

    @property
    def worse_classes(self) -> dict[str, tuple[float, float]]:
        """What fell of each label, such as `recall of up`, and what it was and is."""
        if not self.by_class:
            return {}
        base, tuned = self.by_class["base"], self.by_class["tuned"]
        marks = [(label, mark) for label in self.labels for mark in ("recall", "f1") if tuned[label]["rows"]]
        return {
            f"{mark.replace('f1', 'F1')} of {label}": (base[label][mark], tuned[label][mark])
            for label, mark in marks
            if tuned[label][mark] < base[label][mark]
        }

    @property
    def missed(self) -> list[Gate]:
        """The gates that are not held."""
        return [gate for gate in self.gates if not gate.held]

    @classmethod
    def read(cls, folder: Path) -> "Report":
        """The report in a run's folder.

        Raises:
            RecipeError: when there is none, or it is damaged.
        """
        try:
            values = read_json(folder / "report.json")
            values = {name: value for name, value in values.items() if name not in CONCLUSIONS}
            report = cls(**values | {"gates": [Gate(**gate) for gate in values.get("gates", [])]})
            if not all(math.isfinite(score) for scores in report.scores.values() for score in scores.values()):
                raise ValueError("a score is no number")
            return report
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RecipeError(f"{folder}: has no report. Start the run's command again, so that it ends.") from error
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise RecipeError(
                f"{folder / 'report.json'}: is damaged, or of another version of hf_finetune ({first_line(error)}). "
                f"Remove it and start the run's command again."
            ) from error

    def write(self, folder: Path) -> None:
        """Leaves report.md in the folder, then report.json, which says that the evaluation is done."""
        write_text(folder / "report.md", self.as_markdown())
        write_json(folder / "report.json", asdict(self) | {name: getattr(self, name) for name in CONCLUSIONS})

    def as_markdown(self) -> str:
        """The comparison as a page for a terminal or a pull request."""
        return template("report.md.jinja", keep_trailing_newline=True).render(report=self, resamples=RESAMPLES)
