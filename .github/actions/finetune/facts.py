"""Tells the steps after this one what a run has come to, and puts its report into the job's summary."""

import json
import os
import sys
from pathlib import Path


def main(run: Path) -> None:
    """Write the outputs `run`, `metric`, `value` and `outcome`, and the summary; nothing where there is no report."""
    facts = {"run": str(run)}
    report = run / "report.json"
    if report.is_file():
        found = json.loads(report.read_text(encoding="utf-8"))
        metric = found["primary_metric"]
        facts |= {"metric": metric, "value": str(found["scores"]["tuned"][metric]), "outcome": found["outcome"]}
        with Path(os.environ["GITHUB_STEP_SUMMARY"]).open("a", encoding="utf-8") as summary:
            summary.write((run / "report.md").read_text(encoding="utf-8") + "\n")
    with Path(os.environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as outputs:
        outputs.writelines(f"{name}={one_line(value)}\n" for name, value in facts.items())


def one_line(value: str) -> str:
    """A value that cannot end its line and begin another output."""
    return " ".join(value.split())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
