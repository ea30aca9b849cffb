"""Files -> one commit or pull request in a repo of the Hub, whole or not at all, however often it is tried."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from hf_finetune.errors import RecipeError
from hf_finetune.hub.client import TRIES, client, explaining, is_transient, overtaken, patiently, status, wait
from hf_finetune.hub.rights import Target, check_target, refuse_other_form
from hf_finetune.interruption import without_waiting

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import GitRefs, RepoFile

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.safetensors.index.json")
"""Files that hold weights or pickles."""
TEXTS = (
    "config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*",
    "merges.txt", "tekken.json", "*.model", "*.jinja", "chat_template.json", "preprocessor_config.json",
    "processor_config.json",
)  # fmt: skip
"""Files that libraries load beside weights; of both kinds, those that are pushed replace all that are there."""
DATA = ("data/*",)
"""Files of a data set: those that are pushed replace all that are there."""


OVERTAKEN = frozenset({409, 412})
"""Answers after which one looks who has changed the branch: it may have been this push, by a commit thought lost."""


@dataclass(frozen=True)
class LocalFile:
    """A file that is sent, with the ids under which the Hub knows its bytes."""

    path: Path

    @property
    def sha256(self) -> str:
        """Of its bytes, as LFS and Xet have it."""
        return self._ids[0]

    @property
    def blob_id(self) -> str:
        """Git's id of its bytes."""
        return self._ids[1]

    @cached_property
    def _ids(self) -> tuple[str, str]:
        """Both of the same bytes, so that a file that changes while it is sent is found out."""
        hashed, in_git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % self.size)
        with self.path.open("rb") as file:
            while block := file.read(2**20):
                hashed.update(block)
                in_git.update(block)
        return hashed.hexdigest(), in_git.hexdigest()

    @cached_property
    def size(self) -> int:
        """In bytes."""
        return self.path.stat().st_size

    def is_the_same(self, remote: "RepoFile") -> bool:
        """Whether a file on the Hub has the same bytes."""
        if remote.size != self.size:
            return False
        return remote.lfs.sha256 == self.sha256 if remote.lfs else remote.blob_id == self.blob_id


Files = Mapping[str, LocalFile]
"""By the path in the repo."""


@dataclass(frozen=True)
class Changes:
    """What a push would do to a repo."""

    added: Sequence[str]
    replaced: Sequence[str]
    unchanged: Sequence[str]
    removed: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.added or self.replaced or self.removed)


@dataclass(frozen=True)
class Published:
    """What is on the Hub now."""

    url: str
    commit: str
    is_new: bool
    """Whether this push made it; else it was there already."""


@dataclass(frozen=True)
class _Place:
    """Where a commit goes: a revision, the commit it has now, and its page."""

    revision: str
    head: str
    url: str
    opens_pull_request: bool = False


def changes(files: Files, target: Target) -> Changes:
    """What a push would do, without doing it.

    Raises:
        RecipeError: as `check_target` does.
    """
    if check_target(target) is None:
        return Changes(sorted(files), [], [], [])
    api = client()
    with explaining(target.repo_id):
        heads = _heads(api, target)
        start = heads.get(target.branch, heads.get("main"))
        place = _place(api, files, target, start) if start else None
        return _difference(files, _tree(api, target, place.head) if place else {}, target)


def publish(files: Files, target: Target, description: str, say: Callable[[str], None] = print) -> Published:
    """Leaves exactly these files, and no others that are loaded, in a repo, by one commit or pull request.

    Whatever fails on the way, the repo has either what it had or all of this, and the same call finishes it: what is
    there already is not sent again, and no second commit or pull request is made of it.

    Raises:
        RecipeError: when it cannot be done, with what to do.
    """
    api, repo = client(), check_target(target)
    with explaining(target.repo_id):
        if repo is None:
            patiently(
                lambda: api.create_repo(
                    target.repo_id, repo_type=target.repo_type, private=target.private or None, exist_ok=True
                )
            )
            say(f"created   {target.page}{', private' if target.private else ''}")
        if target.gated and not (repo and repo.gated):
            patiently(lambda: api.update_repo_settings(target.repo_id, repo_type=target.repo_type, gated="auto"))
        done = _commit(api, files, target, description)
        wrong = _difference(files, _tree(api, target, done.commit), target)
        if wrong:
            names = ", ".join([*wrong.added, *wrong.replaced, *wrong.removed])
            raise RecipeError(
                f"push to {target.repo_id}: what is there now is not what was sent: {names}. "
                f"Look at {done.url} and push again."
            )
        if target.tag is not None:
            _tag(api, target, target.tag, done.commit)
    return done


def title_of(files: Files, target: Target) -> str:
    """The title of the commit; the same for the same files alone, so that a pull request of them is found again."""
    content = "".join(f"{name}\0{file.sha256}\n" for name, file in sorted(files.items()))
    what = {"adapter": "adapter", "merged": "merged weights", "data": "data set"}[target.form]
    return f"Publish {what} {hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _commit(api: "HfApi", files: Files, target: Target, description: str) -> Published:
    """Makes the one commit; after a failure it looks first whether that was made."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    begun_at, failure = "", Exception()
    for attempt in range(TRIES + 1):
        place = _place(api, files, target, _head(api, target))
        tree = _tree(api, target, place.head)
        refuse_other_form(target, tree)
        found = _difference(files, tree, target)
        if not found:
            return Published(place.url, place.head, is_new=bool(begun_at))
        if begun_at and place.head != begun_at:
            raise overtaken(target.repo_id)
        if attempt == TRIES:
            raise failure
        begun_at = place.head
        _refuse_taken_tag(api, target)
        sent = [*found.added, *found.replaced]
        operations: list[Any] = [CommitOperationAdd(name, str(files[name].path)) for name in sent]
        operations += [CommitOperationDelete(name, is_folder=False) for name in found.removed]
        try:
            made = without_waiting(partial(
                api.create_commit, target.repo_id, operations, repo_type=target.repo_type,
                commit_message=title_of(files, target), commit_description=description, revision=place.revision,
                parent_commit=place.head, create_pr=place.opens_pull_request,
            ))  # fmt: skip
        except Exception as error:
            if not is_transient(error) and status(error) not in OVERTAKEN:
                raise
            failure = error
            wait(attempt, error)
        else:
            return Published(made.pr_url or made.commit_url, made.oid, is_new=True)
    raise AssertionError("the last look returns or raises")


def _head(api: "HfApi", target: Target) -> str:
    """The commit of the branch, which is made where it is not there."""
    heads = _heads(api, target)
    if target.branch not in heads:
        patiently(
            lambda: api.create_branch(target.repo_id, repo_type=target.repo_type, branch=target.branch, exist_ok=True)
        )
        heads = _heads(api, target)
    if target.branch not in heads:
        raise RecipeError(f"push to {target.repo_id}: its branch {target.branch!r} cannot be made. Make it on the Hub.")
    return heads[target.branch]


def _heads(api: "HfApi", target: Target) -> dict[str, str]:
    return {branch.name: branch.target_commit for branch in _refs(api, target).branches}


def _place(api: "HfApi", files: Files, target: Target, head: str) -> _Place:
    """Where the commit goes: the branch whose head is given, or a pull request, which may be open already."""
    branch = _Place(target.branch, head, f"{target.page}/tree/{quote(target.branch, safe='')}")
    if not target.as_pull_request or not _difference(files, _tree(api, target, head), target):
        return branch
    asked = {"discussion_type": "pull_request", "discussion_status": "open"}
    opened = patiently(
        lambda: list(api.get_repo_discussions(target.repo_id, repo_type=target.repo_type, **asked))  # type: ignore[arg-type]
    )
    pulls = {pull.ref: pull.target_commit for pull in _refs(api, target).pull_requests or []}
    for one in opened:
        ref = one.git_reference or ""
        is_same = one.title == title_of(files, target) and ref in pulls
        if is_same and not _difference(files, _tree(api, target, pulls[ref]), target):
            return _Place(ref, pulls[ref], one.url)
    return replace(branch, opens_pull_request=True)


def _refs(api: "HfApi", target: Target) -> "GitRefs":
    return patiently(
        lambda: api.list_repo_refs(
            target.repo_id, repo_type=target.repo_type, include_pull_requests=target.as_pull_request
        )
    )


def _tree(api: "HfApi", target: Target, commit: str) -> dict[str, "RepoFile"]:
    """The files of a commit by their paths."""
    from huggingface_hub.hf_api import RepoFile

    entries = api.list_repo_tree(  # which is patient by itself
        target.repo_id, repo_type=target.repo_type, recursive=True, revision=commit
    )
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _difference(files: Files, tree: Mapping[str, "RepoFile"], target: Target) -> Changes:
    """What must be done to a repo's files so that they are these; files that nothing loads stay."""
    there = {name for name in files if name in tree}
    same = {name for name in there if files[name].is_the_same(tree[name])}
    others = tree.keys() - files.keys()
    replaced = DATA if target.form == "data" else (*WEIGHTS, *TEXTS)
    return Changes(
        sorted(files.keys() - there),
        sorted(there - same),
        sorted(same),
        sorted(name for name in others if any(fnmatch(name, pattern) for pattern in replaced)),
    )


def _tag(api: "HfApi", target: Target, tag: str, commit: str) -> None:
    """Tags a commit, unless it is tagged so already."""
    if _tags(api, target).get(tag) != commit:
        patiently(
            lambda: api.create_tag(target.repo_id, repo_type=target.repo_type, tag=tag, revision=commit, exist_ok=True)
        )
        if _tags(api, target).get(tag) != commit:
            raise _taken(target)


def _tags(api: "HfApi", target: Target) -> dict[str, str]:
    return {tag.name: tag.target_commit for tag in _refs(api, target).tags}


def _refuse_taken_tag(api: "HfApi", target: Target) -> None:
    if target.tag and target.tag in _tags(api, target):
        raise _taken(target)


def _taken(target: Target) -> RecipeError:
    return RecipeError(
        f"push to {target.repo_id}: the tag {target.tag!r} is on another commit there. Name another with --tag."
    )
