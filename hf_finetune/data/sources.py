"""Where rows come from: a data set on the Hub, pinned to a commit when it is read, or a file of the user's own."""

import os
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, is_dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from hf_finetune.errors import RecipeError, nearest
from hf_finetune.files import sha256
from hf_finetune.resolve import explaining_refusals, resolve_commit

READABLE = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".zip")


@dataclass(frozen=True)
class Located:
    """Files on this disk that hold the rows, and where they came from."""

    paths: tuple[Path, ...]
    name: str
    """What the user calls the source: a Hub id or a file name, never an absolute path."""
    revision: str | None = None
    commit: str | None = None
    """The Hub commit the files were read at; None for a local file."""
    member: str | None = None
    """The file to read inside a zip archive."""

    @property
    def file_names(self) -> dict[Path, str]:
        """Each path's bare name, or its path below the folder common to all where two bare names are the same."""
        if len({path.name for path in self.paths}) == len(self.paths):
            return {path: path.name for path in self.paths}
        common = Path(os.path.commonpath([path.absolute().parent for path in self.paths]))
        return {path: path.absolute().relative_to(common).as_posix() for path in self.paths}


class Source(ABC):
    """Something that can put rows on this disk."""

    @abstractmethod
    def locate(self) -> Located:
        """The files of the source, downloaded if need be.

        Raises:
            RecipeError: when they are not there, cannot be reached or may not be read.
        """

    def identity(self) -> dict[str, Any]:
        """What tells its rows from those of another source before they are read."""
        return {"source": type(self).__name__, **(asdict(self) if is_dataclass(self) else {})}

    def at(self, commit: str | None) -> "Source":
        """The same source at a commit that it was read at before; itself where there are no commits."""
        return self


@dataclass(frozen=True)
class LocalFile(Source):
    """A file: jsonl, json, csv (its delimiter is found), parquet, `text@label` lines in a .txt, or one in a zip."""

    path: str
    member: str | None = None
    """The file to read inside a zip archive; not needed when it holds one readable file."""

    def identity(self) -> dict[str, Any]:
        """The file's name and hash: never its folder."""
        located = self.locate()
        return {"file": located.name, "sha256": sha256(located.paths[0]), "member": self.member}

    def locate(self) -> Located:
        """The file itself."""
        path = Path(self.path).expanduser()
        if path.is_dir():
            raise RecipeError(f"{self.path}: is a folder. Name a file of rows in it.")
        if not path.is_file():
            siblings = [p.name for p in path.parent.glob("*") if p.suffix in READABLE] if path.parent.is_dir() else []
            hint = nearest(path.name, siblings) if siblings else "Check the path."
            raise RecipeError(f"{self.path}: there is no such file. {hint}")
        return Located((path,), path.name, member=self.member)


@dataclass(frozen=True)
class HubDataset(Source):
    """A data set repo on the Hub; its loading scripts are never run, its files are read."""

    id: str
    revision: str = "main"
    """A branch, tag or commit; it is resolved to a commit at run time and recorded in run.json."""
    file: str = ""
    """The file to read, or a pattern such as `data/train-*.parquet`; empty: all readable files, if of one kind."""
    member: str | None = None
    """The file to read inside a zip archive."""

    def at(self, commit: str | None) -> "HubDataset":
        """The same data set at that commit, wherever its branch is now."""
        return replace(self, revision=commit) if commit else self

    def locate(self) -> Located:
        """The files at the resolved commit, from the local cache when they are there."""
        from huggingface_hub import hf_hub_download

        commit = resolve_commit(self.id, self.revision, "data set")
        with explaining_refusals(
            self.id, self.revision, "data set", file=self.file,
            other="Name one that it has with HubDataset(file=...).", instead="give rows with --data FILE",
        ):  # fmt: skip
            names = self._file_names(commit)
            paths = [hf_hub_download(self.id, name, repo_type="dataset", revision=commit) for name in names]
        return Located(tuple(map(Path, paths)), self.id, self.revision, commit, self.member)

    def _file_names(self, commit: str) -> list[str]:
        if self.file and not any(sign in self.file for sign in "*?["):
            return [self.file]
        from huggingface_hub import HfApi

        listed = sorted(HfApi().list_repo_files(self.id, repo_type="dataset", revision=commit))
        readable = [name for name in listed if Path(name).suffix in READABLE]
        chosen = [name for name in readable if fnmatch(name, self.file or "*")]
        if not chosen:
            raise RecipeError(
                f"data set {self.id!r}: no readable file matches {self.file or '*'!r}. "
                f"It holds: {', '.join(listed) or 'nothing'}. Name one with HubDataset(file=...)."
            )
        if len({Path(name).suffix for name in chosen}) > 1:
            raise RecipeError(
                f"data set {self.id!r}: holds files of several kinds ({', '.join(chosen)}). "
                f"Say which to read with HubDataset(file=...)."
            )
        return chosen


def is_here(source: Source) -> bool:
    """Whether a source's rows are on this machine: a file of the user's own, or in the Hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(source, HubDataset):
        return True
    if not source.file or any(sign in source.file for sign in "*?["):
        return False
    kept = try_to_load_from_cache(source.id, source.file, revision=source.revision, repo_type="dataset")
    return isinstance(kept, str)
