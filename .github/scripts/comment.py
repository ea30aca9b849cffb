"""Writes the figures that a pull request's workflow has left into one comment on it, which is made once, then changed.

It runs with a token that may write, on files that the pull request's code has written: so it takes checked numbers
from them, and a pull request's number only where that is of the commit whose workflow has ended.
"""

import os
import sys
from pathlib import Path
from typing import Any

from github_api import ask

from figures import Unfit, read_all, render

MARK = "<!-- hf_finetune: recipes -->"
"""The first line of the comment, by which it is found again."""
AUTHOR = "github-actions[bot]"
PAGES = 30
"""Of 100 comments each, at most."""


def number_in(file: Path) -> int:
    """The number of the pull request that the file names.

    Raises:
        Unfit: when it is none.
    """
    text = file.read_text(encoding="utf-8").strip() if file.stat().st_size < 20 else ""
    if not (text.isascii() and text.isdigit()):
        raise Unfit("the file pull_request holds no number")
    return int(text)


def is_of_this_run(pull_request: dict[str, Any]) -> bool:
    """Whether the workflow that has ended was of the commit that this pull request is at now."""
    head = pull_request["head"]
    repository = (head["repo"] or {}).get("full_name")
    return (pull_request["state"], head["sha"], repository) == (
        "open", os.environ["HEAD_SHA"], os.environ["HEAD_REPOSITORY"],
    )  # fmt: skip


def own_comment(number: int) -> int | None:
    """The id of the comment that is to be changed; None where there is none yet."""
    for page in range(1, PAGES + 1):
        comments = ask("GET", f"issues/{number}/comments?per_page=100&page={page}")
        for comment in comments:
            if comment["user"]["login"] == AUTHOR and comment["body"].startswith(MARK):
                return int(comment["id"])
        if len(comments) < 100:
            break
    return None


def main(folder: Path) -> str:
    """Write the comment from the files in a folder; what was done, in a sentence."""
    number = number_in(folder / "pull_request")
    body = f"{MARK}\n{render(read_all(folder))}\nOf commit {os.environ['HEAD_SHA']}.\n"
    if not is_of_this_run(ask("GET", f"pulls/{number}")):
        return f"No comment: pull request {number} is closed, or at another commit than these figures."
    known = own_comment(number)
    if known is None:
        ask("POST", f"issues/{number}/comments", {"body": body})
        return f"A new comment on pull request {number}."
    ask("PATCH", f"issues/comments/{known}", {"body": body})
    return f"The comment on pull request {number} is changed."


if __name__ == "__main__":
    try:
        sys.stdout.write(main(Path(sys.argv[1])) + "\n")
    except Unfit as error:
        sys.exit(f"::error::What the pull request's workflow has left is not fit for a comment: {error}")
