"""Routes of pull requests."""

from typing import Any

from loopback_hub.calls import Call
from loopback_hub.reading import API
from loopback_hub.replies import Refused, Reply
from loopback_hub.repos import PullRequest, Repo

PAGE = 10
CLOSED = ("closed", "merged")


def list_discussions(call: Call) -> Reply:
    """List the pull requests of a type, status and author, the newest first."""
    wanted = {name: call.query.get(name, ["all"])[0] for name in ("type", "status", "author")}
    found = [
        described(call, pull)
        for pull in reversed(call.repo().pulls)
        if wanted["type"] in ("all", "pull_request")
        and wanted["status"] in ("all", "closed" if pull.status in CLOSED else "open")
        and ("author" not in call.query or pull.author == wanted["author"])
    ]
    start = PAGE * int(call.query.get("p", ["0"])[0])
    return 200, {"discussions": found[start : start + PAGE], "count": len(found), "start": start}, {}


def get_discussion(call: Call) -> Reply:
    """Tell about one pull request and its commits."""
    repo = call.repo()
    pull = numbered(call, repo)
    commits = [commit for commit in repo.history if commit.ref == pull.ref]
    events = [
        {
            "id": commit.sha,
            "type": "commit",
            "createdAt": commit.date,
            "author": {"name": commit.author},
            "data": {"subject": commit.title, "oid": commit.sha},
        }
        for commit in commits
    ]
    changes = {"base": f"refs/heads/{pull.base}", "mergeCommitId": pull.merged_as}
    told = {"events": events, "changes": changes, "filesWithConflicts": [], "diff": ""}
    return 200, {**described(call, pull), **told}, {}


def create_discussion(call: Call) -> Reply:
    """Open a pull request without commits, as a draft."""
    repo = call.writable(pull=True)
    if not call.json.get("pullRequest"):
        raise Refused(400, "Only pull requests are kept.")
    pull = repo.open_pull(call.json["title"], call.known().user, repo.branches["main"])
    pull.status = "draft"
    return 200, {"num": pull.number, "pullRequest": True, "url": f"{call.url}/discussions/{pull.number}"}, {}


def merge(call: Call) -> Reply:
    """Merge a pull request."""
    with call.hub.lock:
        repo = call.writable()
        pull = numbered(call, repo)
        if pull.status in CLOSED:
            raise Refused(400, "This pull request is closed.")
        repo.merge(pull.number, call.known().user)
    return 200, {}, {}


def numbered(call: Call, repo: Repo) -> PullRequest:
    """Give back the pull request asked for."""
    number = int(call.fields["number"])
    if not 0 < number <= len(repo.pulls):
        raise Refused(404, "Discussion not found")
    return repo.pulls[number - 1]


def described(call: Call, pull: PullRequest) -> dict[str, Any]:
    """Give back what lists tell about a pull request."""
    return {
        "num": pull.number,
        "title": pull.title,
        "author": {"name": pull.author},
        "createdAt": pull.date,
        "status": pull.status,
        "isPullRequest": True,
        "repo": {"name": call.repo_id, "type": call.repo_type},
    }


ROUTES = [
    ("GET", API + "/discussions", list_discussions),
    ("POST", API + "/discussions", create_discussion),
    ("GET", API + "/discussions/(?P<number>\\d+)", get_discussion),
    ("POST", API + "/discussions/(?P<number>\\d+)/merge", merge),
]
