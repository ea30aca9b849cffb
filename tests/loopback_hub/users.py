"""Who a token belongs to and what it may do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["write", "read", "fineGrained"]
READ, WRITE, DISCUSS, RUN = "repo.content.read", "repo.write", "discussion.write", "job.write"


@dataclass
class Token:
    """A token of a user: it passes on all of the user's rights, only those of reading, or only its scopes.

    `scopes` gives the permissions of a fine-grained token, by what they are for: a namespace, or a repository
    ("acme/model", "datasets/acme/rows"). `repo` confines a token to one repository, as those got by OIDC are.
    After `expires_after` requests every further one is refused.
    """

    user: str
    role: Role = "write"
    scopes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    repo: str | None = None
    expires_after: int | None = None
    used: int = 0

    def allows(self, permission: str, namespace: str, resource: str | None = None) -> bool:
        """Say whether the token passes on this right in a namespace, or on one repository in it."""
        if self.repo is not None:
            return self.repo == resource and permission in (READ, WRITE, DISCUSS)
        if self.role == "fineGrained":
            given = {right for entity in (namespace, resource or namespace) for right in self.scopes.get(entity, ())}
            return permission in given or (permission in (READ, DISCUSS) and WRITE in given)
        return self.role == "write" or permission == READ

    def described(self, organisations: Mapping[str, object]) -> dict[str, Any]:
        """Give back what whoami tells about the token itself."""
        scopes = {self.repo: [READ, WRITE]} if self.repo else self.scopes
        role = "fineGrained" if self.repo else self.role
        told: dict[str, Any] = {"displayName": "test", "role": role, "createdAt": "2026-01-01T00:00:00.000Z"}
        if role == "fineGrained":
            scoped = [
                {"entity": {"_id": f"id-{name}", **entity(name, organisations)}, "permissions": list(permissions)}
                for name, permissions in scopes.items()
            ]
            told["fineGrained"] = {"canReadGatedRepos": True, "global": [], "scoped": scoped}
        return told


def entity(name: str, organisations: Mapping[str, object]) -> dict[str, str]:
    """Give back type and name of what a scope is for."""
    if "/" not in name:
        return {"type": "org" if name in organisations else "user", "name": name}
    if name.startswith("datasets/"):
        return {"type": "dataset", "name": name.removeprefix("datasets/")}
    return {"type": "model", "name": name}
