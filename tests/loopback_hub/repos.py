"""Repositories: their commits, branches, tags and pull requests."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any


@dataclass(frozen=True)
class LfsFile:
    """A large file in a commit: its bytes lie in the storage, under their sha256."""

    oid: str
    size: int

    @property
    def pointer(self) -> bytes:
        """Give back what git itself holds of the file."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.oid}\nsize {self.size}\n".encode()


Content = bytes | LfsFile
Tree = dict[str, Content]


@dataclass(frozen=True)
class Commit:
    """What the history tells about one commit."""

    sha: str
    parent: str | None
    title: str
    author: str
    ref: str
    message: str
    date: str


@dataclass
class PullRequest:
    """A pull request; its commits are at refs/pr/<number>."""

    number: int
    title: str
    author: str
    date: str
    base: str = "main"
    status: str = "open"
    merged_as: str | None = None

    @property
    def ref(self) -> str:
        """Give back where its commits are."""
        return f"refs/pr/{self.number}"


@dataclass
class Repo:
    """A repository: all its commits (path to content, by sha), and its branches and tags (name to sha)."""

    gated: bool | str = False
    private: bool = False
    commits: dict[str, Tree] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    history: list[Commit] = field(default_factory=list)  # every commit, in the order they were made
    pulls: list[PullRequest] = field(default_factory=list)
    pull_heads: dict[str, str] = field(default_factory=dict)  # refs/pr/<number> to sha
    creator: str = ""

    def commit(
        self,
        files: Mapping[str, Content],
        branch: str = "main",
        *,
        deleted: Collection[str] = (),
        title: str = "Add files",
        message: str = "",
        author: str = "",
        parent: str | None = None,
    ) -> str:
        """Put the files on top of what the branch (or the parent given) holds, and give back the new commit's sha."""
        heads = self.pull_heads if branch.startswith("refs/pr/") else self.branches
        parent = parent or heads.get(branch)
        held = self.commits[parent] if parent else {}
        tree = {path: held[path] for path in held if path not in deleted} | dict(files)
        blobs = sorted((path, content_id(content)) for path, content in tree.items())
        sha = hashlib.sha1(json.dumps([parent, blobs, title, len(self.history)]).encode()).hexdigest()
        self.commits[sha], heads[branch] = tree, sha
        self.history.append(Commit(sha, parent, title, author, branch, message, self.now()))
        return sha

    def now(self) -> str:
        """Give back a time that grows by a second with each commit."""
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=len(self.history))
        return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")

    def sha(self, revision: str) -> str | None:
        """Give back the commit that a branch, tag, pull request or sha names."""
        revision = revision.removeprefix("refs/heads/")
        named = self.branches.get(revision) or self.tags.get(revision) or self.pull_heads.get(revision) or revision
        return named if named in self.commits else None

    def log(self, sha: str | None) -> list[Commit]:
        """Give back a commit and all before it, the newest first."""
        by_sha, found = {commit.sha: commit for commit in self.history}, []
        while sha is not None:
            found.append(by_sha[sha])
            sha = found[-1].parent
        return found

    def open_pull(self, title: str, author: str, start: str, base: str = "main") -> PullRequest:
        """Open a pull request whose branch begins at a commit."""
        pull = PullRequest(len(self.pulls) + 1, title, author, self.now(), base)
        self.pulls.append(pull)
        self.pull_heads[pull.ref] = start
        return pull

    def merge(self, number: int, author: str = "") -> str:
        """Put what a pull request changed on its base, and give back the new commit's sha."""
        pull = self.pulls[number - 1]
        mine = [commit for commit in self.log(self.pull_heads[pull.ref]) if commit.ref == pull.ref]
        before = self.commits[mine[-1].parent] if mine and mine[-1].parent else {}
        after = self.commits[self.pull_heads[pull.ref]]
        changed = {path: content for path, content in after.items() if before.get(path) != content}
        title, gone = f"{pull.title} (#{number})", before.keys() - after.keys()
        pull.merged_as = self.commit(changed, pull.base, deleted=gone, title=title, author=author)
        pull.status = "merged"
        return pull.merged_as


def blob_id(data: bytes) -> str:
    """Give back git's id of a file with these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def content_id(content: Content) -> str:
    """Give back git's id of a file, which for a large one is that of its pointer."""
    return blob_id(content.pointer if isinstance(content, LfsFile) else content)


def content_size(content: Content) -> int:
    """Give back how many bytes a file has."""
    return content.size if isinstance(content, LfsFile) else len(content)


def pointed(content: Content, name: str) -> dict[str, Any]:
    """Give back what lists add for a large file: its sha256 by this name, and two sizes."""
    if not isinstance(content, LfsFile):
        return {}
    return {"lfs": {name: content.oid, "size": content.size, "pointerSize": len(content.pointer)}}


def entries(tree: Tree) -> list[dict[str, Any]]:
    """Give back the folders and files of a commit as the Hub lists them, by path."""
    folders = {parent.as_posix() for path in tree for parent in PurePosixPath(path).parents} - {"."}
    listed = [{"type": "directory", "path": p, "oid": blob_id(p.encode()), "size": 0} for p in folders]
    for path, content in tree.items():
        known = {"oid": content_id(content), "size": content_size(content), **pointed(content, "oid")}
        listed.append({"type": "file", "path": path, **known})
    return sorted(listed, key=lambda entry: str(entry["path"]))
