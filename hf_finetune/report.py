"""What a comparison of base, few-shot and fine-tuned model found: `report.json`, its verdict, and `report.md`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

from hf_finetune.errors import plural
from hf_finetune.files import read_json, write_json, write_text
from hf_finetune.rendering import template

Answers = Sequence["Answer"]


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
    found: float
    held: bool


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact test, two-sided: the p-value of the rows that only the one or only the other model has right.

    Where the models are as good, each such row is as likely to be the one's as the other's (McNemar 1947).
    """
    changed, fewer = only_first + only_second, min(only_first, only_second)
    return min(1.0, float(2 * Fraction(sum(comb(changed, n) for n in range(fewer + 1)), 2**changed)))


@dataclass(frozen=True)
class Report:
    """How base, few-shot and fine-tuned model did on the test rows; `report.json` is this and nothing else.

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
    unreadable: dict[str, int]
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
    """Of base and fine-tuned model, on answers to general questions that have nothing to do with the task: nats a
    token, and the 95 % interval of the rise."""
    gates: list[Gate] = field(default_factory=list)

    @property
    def gain(self) -> float:
        """Fine-tuned less base, in the primary metric."""
        return self.gain_over("base")

    def gain_over(self, column: str) -> float:
        """Fine-tuned less another column, in the primary metric."""
        return self.scores["tuned"][self.primary_metric] - self.scores[column][self.primary_metric]

    @property
    def p_value(self) -> float:
        """How likely as uneven a change is where fine-tuning changes nothing."""
        return mcnemar(self.corrected, self.spoiled)

    @property
    def outcome(self) -> str:
        """The verdict in a word or two: `helped`, `no measurable gain` or `worse`."""
        low, high = self.intervals["gain"]
        return "helped" if low > 0 else "worse" if high < 0 else "no measurable gain"

    @property
    def verdict(self) -> str:
        """Did fine-tuning help, measurably? And would examples in the prompt, or plain TF-IDF, have done as well?"""
        low, high = self.intervals["gain"]
        name = self.primary_metric
        change = f"{name} {self.scores['base'][name]:.3f} -> {self.scores['tuned'][name]:.3f}"
        interval = f"95 % interval of the difference {low:+.3f} to {high:+.3f}, {plural(self.rows, 'test row')}"
        found = f"{change} ({interval})."
        if self.outcome == "worse":
            return f"Fine-tuning made it worse: {found} Do not use this adapter."
        start = "Fine-tuning helped" if self.outcome == "helped" else "No measurable gain from fine-tuning"
        return " ".join([f"{start}: {found}", *self._beside()])

    def _beside(self) -> list[str]:
        """A sentence on each of the cheaper ways that were tried: is fine-tuning better than it?"""
        examples = f"the base with {plural(self.few_shot_examples, 'example')} in the prompt"
        ways = {"few_shot": (examples, "use few-shot"), "tfidf": ("TF-IDF with logistic regression", "use that")}
        return [self._beside_one(column, *way) for column, way in ways.items() if column in self.scores]

    def _beside_one(self, column: str, way: str, advice: str) -> str:
        low, high = self.intervals[f"gain_over_{column}"]
        found = (
            f"{self.scores[column][self.primary_metric]:.3f}, 95 % interval of the difference {low:+.3f} to {high:+.3f}"
        )
        if low > 0:
            return f"It is {'also ' if self.outcome == 'helped' else ''}better than {way} ({found})."
        if high < 0:
            return f"But {way} is better ({found}): {advice}."
        if self.outcome == "helped":
            return f"But {way} is as good ({found}): {advice}."
        return f"{way[0].upper()}{way[1:]} is as good ({found})."

    @property
    def forgetting(self) -> float | None:
        """By how much fine-tuning raised the loss on general questions, in nats a token; None when not measured."""
        return self.general_loss["tuned"] - self.general_loss["base"] if self.general_loss else None

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
    def draws(self) -> str:
        """A sentence on the draws of examples."""
        each = ", ".join(f"{score:.3f}" for score in self.few_shot_scores)
        shown = plural(len(self.few_shot_scores), "draw")
        shown = f"the mean of {shown}" if len(self.few_shot_scores) > 1 else shown
        return (
            f"In the {self.few_shot_examples}-shot column the base was shown training rows before each question: "
            f"{shown} ({self.primary_metric} {each})."
        )

    @property
    def worse_classes(self) -> dict[str, tuple[float, float]]:
        """The labels whose F1 is lower after fine-tuning, and what it was and is."""
        if not self.by_class:
            return {}
        base, tuned = ({label: own["f1"] for label, own in self.by_class[c].items()} for c in ("base", "tuned"))
        return {label: (base[label], tuned[label]) for label in self.labels if tuned[label] < base[label]}

    @property
    def missed(self) -> list[Gate]:
        """The gates that are not held."""
        return [gate for gate in self.gates if not gate.held]

    @classmethod
    def read(cls, folder: Path) -> "Report":
        """The report in a run's folder."""
        values = read_json(folder / "report.json")
        return cls(**values | {"gates": [Gate(**gate) for gate in values.get("gates", [])]})

    def write(self, folder: Path) -> None:
        """Leaves report.md in the folder, then report.json, which says that the evaluation is done."""
        write_text(folder / "report.md", self.as_markdown())
        write_json(folder / "report.json", asdict(self))

    def as_markdown(self) -> str:
        """The comparison as a page for a terminal or a pull request."""
        return template("report.md.jinja", keep_trailing_newline=True).render(report=self)
