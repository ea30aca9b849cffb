"""One request to the Hub, and what the sender may do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from email.message import Message
from typing import TYPE_CHECKING, Any

from loopback_hub.replies import Refused
from loopback_hub.repos import Repo, Tree
from loopback_hub.users import DISCUSS, READ, WRITE, Token

if TYPE_CHECKING:
    from loopback_hub.server import LoopbackHub


@dataclass
class Call:
    """A request: who asks, for what, with which fields in the path."""

    hub: LoopbackHub
    path: str
    query: dict[str, list[str]]
    headers: Message
    body: bytes
    token: Token | None
    fields: dict[str, str]

    @property
    def user(self) -> str | None:
        """Give back who asks."""
        return self.token.user if self.token else None

    @property
    def json(self) -> dict[str, Any]:
        """Give back the body as JSON."""
        parsed: dict[str, Any] = json.loads(self.body or b"{}")
        return parsed

    @property
    def repo_type(self) -> str:
        """Give back the type of the repository asked for."""
        return (self.fields.get("kind") or "models").removesuffix("s")

    @property
    def repo_id(self) -> str:
        """Give back the id of the repository asked for."""
        return self.fields["repo"]

    @property
    def resource(self) -> str:
        """Give back the repository asked for, as its page is called."""
        return resource(self.repo_type, self.repo_id)

    @property
    def url(self) -> str:
        """Give back the address of its page."""
        return f"{self.hub.endpoint}/{self.resource}"

    def known(self) -> Token:
        """Give back the token, without which there is no answer."""
        if self.token is None:
            raise Refused(401, "Invalid username or password.")
        return self.token

    def allowed(self, permission: str) -> bool:
        """Say whether the token passes on this right on the repository asked for."""
        namespace = self.repo_id.split("/")[0]
        return self.token is not None and self.token.allows(permission, namespace, self.resource)

    def repo(self, *, read: bool = False) -> Repo:
        """Give back the repository asked for, unless it is missing, hidden or (to read files) gated."""
        repo = self.hub.repos.get((self.repo_type, self.repo_id))
        entitled = self.user is not None and self.hub.may_read(self.user, self.repo_id)
        if repo is None or (repo.private and not (entitled and self.allowed(READ))):
            raise Refused(404 if self.user else 401, "Repository not found", "RepoNotFound")
        if read and repo.gated and not (entitled and (self.allowed(READ) or (self.token and not self.token.repo))):
            raise Refused(403 if self.user else 401, f"Access to {self.repo_id} is restricted.", "GatedRepo")
        return repo

    def writable(self, *, ref: str = "", pull: bool = False) -> Repo:
        """Give back the repository asked for if the sender may write to it, or may at least open a pull request."""
        repo, token = self.repo(), self.known()
        if self.hub.may_write(token.user, self.repo_type, self.repo_id) and self.allowed(WRITE):
            return repo
        mine = pull or any(request.ref == ref and request.author == token.user for request in repo.pulls)
        if mine and self.allowed(DISCUSS):
            return repo
        if token.repo is None and token.role == "read":
            raise Refused(403, "Forbidden: you must use a write token to upload to a repository.")
        raise Refused(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")

    def commit(self, repo: Repo) -> tuple[str, Tree]:
        """Give back sha and files of the commit named by the branch, tag or sha asked for."""
        revision = self.fields.get("revision") or "main"
        if (sha := repo.sha(revision)) is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha, repo.commits[sha]

    def asks(self, name: str) -> bool:
        """Say whether the query sets a switch."""
        return self.query.get(name, [""])[0].lower() in ("true", "1")


def resource(repo_type: str, repo_id: str) -> str:
    """Give back a repository as its page is called."""
    return repo_id if repo_type == "model" else f"{repo_type}s/{repo_id}"
