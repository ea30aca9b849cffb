"""What a run must reach: each gate held against its report."""

import math
from collections.abc import Mapping, Sequence

from hf_finetune.errors import RecipeError, nearest
from hf_finetune.intervals import gain_over
from hf_finetune.report import Gate, Report

AT_MOST = ("expected_calibration_error", "brier_score", "perplexity", "forgetting", "unreadable")
"""What a gate bounds from above; everything else from below."""
HINTS = {
    "gain_over_tfidf": "Ask for it with --baseline tfidf.",
    "gain_over_few_shot": "Ask for it with few_shot=4.",
    "forgetting": "Ask for it with measure_forgetting=true.",
}
ROUNDING = 1e-9
"""What a gate forgives: 0.82 - 0.80 is a little less than 0.02."""


def gate_values(report: Report) -> dict[str, float]:
    """All that a gate can be on, by name: the fine-tuned model's metrics, its gains, and `_low` ends of intervals."""
    primary = report.primary_metric
    values = dict(report.scores["tuned"]) | {f"{primary}_low": report.intervals["tuned"][0]}
    for column in ("base", "majority", "few_shot", "tfidf"):
        if column in report.scores:
            gain = gain_over(column)
            values |= {gain: report.gain_over(column), f"{gain}_low": report.intervals[gain][0]}
    by_class = report.by_class.get("tuned", {})
    values |= {
        f"{mark}_{label}": own[mark] for label, own in by_class.items() for mark in ("precision", "recall", "f1")
    }
    calibration = report.calibration.get("tuned", {})
    values |= {name: value for name, value in calibration.items() if isinstance(value, float)}
    values |= {f"pass@{k}": value for k, value in report.pass_at_k.get("tuned", {}).items()}
    values |= {"unreadable": report.unreadable["tuned"] / report.rows}
    values |= {"perplexity": report.perplexity["tuned"]} if report.perplexity else {}
    values |= {"forgetting": report.forgetting} if report.forgetting is not None else {}
    return values


def check_gates(report: Report, gates: Mapping[str, float]) -> list[Gate]:
    """Each gate, what was found, and whether it is held; what the run could not measure is missed."""
    values = gate_values(report)
    checked = []
    for name, required in gates.items():
        found, bound = values.get(name), "at most" if name in AT_MOST else "at least"
        room = math.inf if found is None else required - found if bound == "at most" else found - required
        checked.append(Gate(name, bound, required, found, found is not None and room >= -ROUNDING))
    return checked


def refuse_unmeasured(gates: Sequence[Gate], report: Report) -> None:
    """Stops where a gate is on what the report does not hold, or nobody can hold it.

    Raises:
        RecipeError: naming it, and the nearest name that there is; or where none can reach what is required.
    """
    for gate in gates:
        if gate.found is None:
            hint = HINTS.get(gate.name.removesuffix("_low")) or nearest(gate.name, gate_values(report))
            raise RecipeError(f"gates: this run does not measure {gate.name!r}. {hint}")
        if gate.bound == "at least" and gate.required > 1:
            raise RecipeError(f"gates: {gate.name} cannot be {gate.required:g}: marks lie in 0-1. Write 0.8 for 80 %.")
