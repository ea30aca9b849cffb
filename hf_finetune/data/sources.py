"""Where rows come from: a data set on the Hub, pinned to a commit when it is read, or a file of the user's own."""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

from hf_finetune.errors import RecipeError, nearest
from hf_finetune.files import sha256
from hf_finetune.resolve import explaining_refusals, resolve_commit

TEXTUAL = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".ndjson")
READABLE = (*TEXTUAL, ".parquet", ".arrow", ".feather", ".xlsx", ".zip")
COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
"""Suffixes of compressors, with Arrow's names of them: before one stands that of a text."""
BESIDE_ROWS = (
    "dataset_info.json", "dataset_dict.json", "dataset_infos.json", "state.json", "data_card.json", "rejected.jsonl",
    "changed.jsonl",
)  # fmt: skip
"""What `datasets`, and `hf-finetune prepare`, write beside the rows of a data set."""


def suffix_of(name: str) -> str:
    """What a file's name ends with, in small letters: `.csv`, or `.csv.gz` with a compressor's suffix."""
    path = Path(name.lower())
    return f"{Path(path.stem).suffix}{path.suffix}" if path.suffix in COMPRESSED else path.suffix


def is_readable(name: str) -> bool:
    """Whether rows are read from files of such a name."""
    suffix = suffix_of(name)
    return suffix in READABLE or (Path(suffix).stem in TEXTUAL and Path(suffix).suffix in COMPRESSED)


SPLIT_OF = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
"""What files of a split are called, as `datasets` takes it; `eval` means the one to some and the other to others."""


HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?(/(?P<file>[\w./*?\[\]-]+))?")


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
    prefix: str = ""
    """Begins the names of its files, where another source that is read with it has files of the same names."""

    @property
    def file_names(self) -> dict[Path, str]:
        """Each path's bare name, or its path below the folder common to all where two bare names are the same."""
        if len({path.name for path in self.paths}) == len(self.paths):
            return {path: self.prefix + path.name for path in self.paths}
        names = below_common_folder(self.paths)
        return {path: self.prefix + name for path, name in zip(self.paths, names, strict=True)}

    @cached_property
    def splits(self) -> dict[Path, str]:
        """The split of each path that is named after one: `train-00000-of-00002.parquet`, `test/rows.csv`."""
        names = zip(self.paths, below_common_folder(self.paths), strict=True)
        words = {path: set(re.split(r"[^a-z]+", name.lower())) for path, name in names}
        named = {path: {SPLIT_OF[word] for word in own if word in SPLIT_OF} for path, own in words.items()}
        return {path: splits.pop() for path, splits in named.items() if len(splits) == 1}

    @property
    def comes_split(self) -> bool:
        """Whether files of a training and of a test split are among them."""
        return {"train", "test"} <= set(self.splits.values())


def below_common_folder(paths: Sequence[Path]) -> list[str]:
    """Of each path what stands below the folder that is common to all."""
    common = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    return [path.absolute().relative_to(common).as_posix() for path in paths]


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
    """A file: jsonl, json, csv (its delimiter is found), parquet, Arrow, xlsx, or `text@label` lines in a .txt.

    Those that are text may be compressed (.gz, .zst, .bz2), and one may lie in a .zip.
    """

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
            raise RecipeError(f"{self.path}: is a folder. Name a file of rows in it, or write LocalFolder(...).")
        if not path.is_file():
            siblings = [p.name for p in path.parent.glob("*") if is_readable(p.name)] if path.parent.is_dir() else []
            hint = nearest(path.name, siblings) if siblings else "Check the path."
            raise RecipeError(f"{self.path}: there is no such file. {hint}")
        return Located((path,), path.name, member=self.member)


@dataclass(frozen=True)
class LocalFolder(Source):
    """All readable files in a folder and those below it, in the order of their names; they must be of one kind."""

    path: str

    def identity(self) -> dict[str, Any]:
        """The files' names and hashes: never their folder's."""
        located = self.locate()
        return {"files": {name: sha256(path) for path, name in located.file_names.items()}}

    def locate(self) -> Located:
        """The files; hidden ones, and those that `datasets` writes beside the rows, are no rows."""
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            raise RecipeError(f"{self.path}: there is no such folder. Check the path.")
        files = sorted(path for path in folder.rglob("*") if path.is_file() and self._holds_rows(path, folder))
        kinds = sorted({suffix_of(path.name) for path in files})
        if not files:
            raise RecipeError(f"{self.path}: holds no readable file. Known: {', '.join(READABLE)}.")
        if len(kinds) > 1:
            raise RecipeError(f"{self.path}: holds files of several kinds ({', '.join(kinds)}). Name the file to read.")
        return Located(tuple(files), folder.absolute().name)

    @staticmethod
    def _holds_rows(path: Path, folder: Path) -> bool:
        is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        is_about = path.name in BESIDE_ROWS or path.stem.upper() in ("README", "LICENSE", "LICENCE")
        return is_readable(path.name) and not is_hidden and not is_about


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
            other="Name one that it has with HubDataset(file=...).", instead="give rows with --data PATH",
        ):  # fmt: skip
            names = self.file_names(commit)
            paths = [hf_hub_download(self.id, name, repo_type="dataset", revision=commit) for name in names]
        return Located(tuple(map(Path, paths)), self.id, self.revision, commit, self.member)

    def file_names(self, commit: str) -> list[str]:
        """The files of the repo that are read, at that commit.

        Raises:
            RecipeError: when none of them can be, or they are of several kinds.
        """
        if self.file and not any(sign in self.file for sign in "*?["):
            return [self.file]
        from huggingface_hub import HfApi

        listed = sorted(HfApi().list_repo_files(self.id, repo_type="dataset", revision=commit))
        readable = [name for name in listed if is_readable(name) and Path(name).name not in BESIDE_ROWS]
        chosen = [name for name in readable if fnmatch(name, self.file or "*")]
        if not chosen:
            raise RecipeError(
                f"data set {self.id!r}: no readable file matches {self.file or '*'!r}. "
                f"It holds: {', '.join(listed) or 'nothing'}. Name one with HubDataset(file=...)."
            )
        if len({suffix_of(name) for name in chosen}) > 1:
            raise RecipeError(
                f"data set {self.id!r}: holds files of several kinds ({', '.join(chosen)}). "
                f"Say which to read with HubDataset(file=...)."
            )
        return chosen


def source_of(named: str) -> Source:
    """What a user means by a path, or by a Hub id: `FILE`, `FOLDER`, `OWNER/NAME`, `OWNER/NAME@REVISION`.

    Below an id a file or a pattern may stand: `OWNER/NAME/data/train-*.parquet`. What is on this disk goes first.

    Raises:
        RecipeError: when it can be neither.
    """
    path = Path(named).expanduser()
    if path.is_dir():
        return LocalFolder(named)
    id_and_file = HUB_ID.fullmatch(named)
    if path.is_file() or (is_readable(named) and (id_and_file is None or id_and_file["file"] is None)):
        return LocalFile(named)
    if id_and_file is None:
        raise RecipeError(f"{named}: is no file, no folder and no Hub id (OWNER/NAME). Check the path.")
    return HubDataset(id_and_file["id"], id_and_file["revision"] or "main", id_and_file["file"] or "")


def is_here(source: Source) -> bool:
    """Whether a source's rows are on this machine: a file of the user's own, or in the Hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(source, HubDataset):
        return True
    if not source.file or any(sign in source.file for sign in "*?["):
        return False
    kept = try_to_load_from_cache(source.id, source.file, revision=source.revision, repo_type="dataset")
    return isinstance(kept, str)
