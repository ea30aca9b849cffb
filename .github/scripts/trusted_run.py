"""Refuses a workflow run whose artifact anybody may have written: what a run names, publishing executes."""

import os
import re
import sys

from github_api import ask


def main(run_id: str) -> str:
    """What is wrong with a workflow run as the source of what is published; empty where nothing is."""
    if not re.fullmatch(r"[0-9]{1,20}", run_id):
        return f"{run_id!r} is no id of a workflow run: take the number in its address."
    found = ask("GET", f"actions/runs/{run_id}")
    where = (found["head_repository"] or {}).get("full_name")
    if found["event"].startswith("pull_request") or where != os.environ["GITHUB_REPOSITORY"]:
        return f"Workflow run {run_id} is of a pull request or of {where}: take one of this repository's own branches."
    return ""


if __name__ == "__main__":
    fault = main(sys.argv[1])
    if fault:
        sys.exit(f"::error::{fault}")
