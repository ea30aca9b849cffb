"""Whether files may be pushed to a repo of the Hub: asked long before anything is sent, and without any effect."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from hf_finetune.errors import RecipeError
from hf_finetune.hub.client import client, endpoint, explaining, is_transient, page, patiently

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo

Form = Literal["adapter", "merged", "data"]

WRITERS = frozenset({"write", "admin", "contributor"})
"""Roles in an organisation that may create a repo."""
OTHER_FORM: dict[str, frozenset[str]] = {
    "adapter": frozenset({"config.json", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"}),
    "merged": frozenset({"adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"}),
    "data": frozenset(),
}
"""What a repo holds that is of another form than what is pushed: libraries would load that instead."""
_NO_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[./-]|^refs/|^@$|/\.|\.lock(/|$)|[./]$|^$")
"""What Git refuses in the name of a branch or a tag (git-check-ref-format), and what would be no branch of its own."""


@dataclass(frozen=True)
class Target:
    """Where on the Hub files go, and how."""

    repo_id: str
    form: Form = "adapter"
    private: bool = False
    gated: bool = False
    branch: str = "main"
    as_pull_request: bool = False
    tag: str | None = None

    @property
    def repo_type(self) -> str:
        """As the Hub calls what it is a repo of."""
        return "dataset" if self.form == "data" else "model"

    @property
    def page(self) -> str:
        """Its address."""
        return page(f"datasets/{self.repo_id}" if self.form == "data" else self.repo_id)


def check_target(target: Target) -> "ModelInfo | DatasetInfo | None":
    """The repo, when files may be pushed there now; None where there is none yet and it may be made.

    Only reads: whoever is about to train for hours asks this first.

    Raises:
        RecipeError: no or a bad token, no right to write, a bad name, a repo of another form or visibility, no network.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import RepositoryNotFoundError

    check_names(target)
    if constants.HF_HUB_OFFLINE:
        raise RecipeError(f"push to {target.repo_id}: HF_HUB_OFFLINE is set. Unset it, or write the push to a folder.")
    api, confined = client(), os.environ.get("HF_OIDC_RESOURCE")
    with explaining(target.repo_id):
        if confined and confined not in (target.repo_id, target.repo_id.split("/")[0]):
            raise RecipeError(
                f"push to {target.repo_id}: HF_OIDC_RESOURCE is {confined!r}, and its token is for that alone. "
                f"Set it to {target.repo_id}, or unset it and set HF_TOKEN."
            )
        if confined:
            _exchange_identity()
        user = {} if confined else patiently(lambda: api.whoami(cache=True))
        try:
            repo = patiently(lambda: _info(target))
        except RepositoryNotFoundError:
            repo = None
        if repo is None:
            _refuse_to_create(target, user, confined)
            return None
        if repo.id != target.repo_id:
            raise RecipeError(f"push to {target.repo_id}: the repo is called {repo.id} now. Push to that.")
        writes = target.gated or not target.as_pull_request  # a pull request may be opened by whoever reads
        patiently(lambda: api.auth_check(target.repo_id, repo_type=target.repo_type, write=writes))
        _refuse_another_kind(target, repo)
    return repo


def check_names(target: Target) -> None:
    """Whether repo, branch and tag are names that the Hub can have.

    Raises:
        RecipeError: naming the one that is none.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(target.repo_id)
        is_name = target.repo_id.count("/") == 1
    except HFValidationError:
        is_name = False
    if not is_name:
        raise RecipeError(f"push to {target.repo_id!r}: is no name of a repo. Write it as owner/name.")
    for option, name, what in (("--revision", target.branch, "a branch"), ("--tag", target.tag, "a tag")):
        if name is not None and _NO_REF.search(name):
            raise RecipeError(f"push to {target.repo_id}: {option} {name!r} is no name of {what}. Name another.")


def _info(target: Target) -> "ModelInfo | DatasetInfo":
    """What the Hub tells of a repo."""
    kind = "dataset" if target.form == "data" else "model"
    return cast("ModelInfo | DatasetInfo", client().repo_info(target.repo_id, repo_type=kind))


def _exchange_identity() -> None:
    """Has the client take a token for the workflow's identity, which it keeps.

    Raises:
        OIDCError: when it gets none.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError, OIDCError

    try:
        patiently(get_token)
    except HfHubHTTPError as error:
        if is_transient(error):
            raise
        raise OIDCError(error.server_message or str(error)) from None


def _refuse_to_create(target: Target, user: Mapping[str, Any], confined: str | None) -> None:
    """Stops where a repo that is not there cannot be made."""
    what, owner = f"push to {target.repo_id}", target.repo_id.split("/")[0]
    if confined:
        raise RecipeError(
            f"{what}: there is no such repo, and a token by OIDC cannot create one. Create it on the Hub, with this "
            f"workflow as its trusted publisher, and push again."
        )
    if target.branch != "main" or target.as_pull_request:
        raise RecipeError(
            f"{what}: there is no such repo to have a branch or a pull request. Leave --revision or --create-pr out."
        )
    roles = {user["name"]: "admin"} | {org["name"]: org.get("roleInOrg") for org in user.get("orgs", [])}
    if owner not in roles:
        known = ", ".join(sorted(roles))
        raise RecipeError(f"{what}: {user['name']!r} cannot create a repo of {owner!r}. Name one of: {known}.")
    token = user.get("auth", {}).get("accessToken", {})
    scopes = token.get("fineGrained", {}).get("scoped", [])
    allowed = [scope["entity"].get("name") for scope in scopes if "repo.write" in scope.get("permissions", [])]
    is_fine = token.get("role") == "fineGrained"
    if roles[owner] not in WRITERS or token.get("role") == "read" or (is_fine and owner not in allowed):
        raise RecipeError(
            f"{what}: this token has no right to create a repo of {owner!r}. "
            f"Make one that may write there at {endpoint()}/settings/tokens."
        )


def _refuse_another_kind(target: Target, repo: "ModelInfo | DatasetInfo") -> None:
    """Stops where a repo is not what the files are for."""
    what = f"push to {target.repo_id}"
    if target.private and not repo.private:
        raise RecipeError(
            f"{what}: the repo is public, and --private is about a new one. "
            f"Make it private at {target.page}/settings, or name another."
        )
    if target.branch == "main":
        refuse_other_form(target, [file.rfilename for file in repo.siblings or []])


def refuse_other_form(target: Target, names: Iterable[str]) -> None:
    """Stops where the files of a branch are of another form than what is pushed.

    Raises:
        RecipeError: naming one of them.
    """
    other = OTHER_FORM[target.form] & set(names)
    if other:
        held = "a whole model" if target.form == "adapter" else "an adapter"
        raise RecipeError(
            f"push to {target.repo_id}: the repo holds {held} ({min(other)}), which libraries would load instead. "
            f"Name another repo."
        )


def check_base(name: str, commit: str | None) -> None:
    """Whether others can load what an adapter belongs to.

    Raises:
        RecipeError: when the base is a folder of this machine.
    """
    if not commit:
        raise RecipeError(
            f"base model {name!r}: is a folder of this machine, so nobody else could load an adapter for it. "
            f"Push the base to the Hub first and train on that, or leave the push out."
        )
