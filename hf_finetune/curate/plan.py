"""What was asked for: the sources and the options, and with them all that a prepared data set depends on."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from hf_finetune.data.cleaning import Level
from hf_finetune.data.sources import Located, below_common_folder, source_of
from hf_finetune.errors import RecipeError
from hf_finetune.files import sha256

Format = Literal["parquet", "jsonl"]
SHARES = {"validation": 0.1, "test": 0.1}
OF_TOKENIZER = (
    "config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.*", "*.model",
    "*.tiktoken", "tekken.json", "chat_template*", "additional_chat_templates/*",
)  # fmt: skip
"""Files of a model's folder that say what its tokens are."""


@dataclass(frozen=True)
class Feed:
    """One source: files that are read one after the other, as one layout."""

    located: Located
    hashes: tuple[str, ...]
    """The SHA-256 of each file."""
    mix: float | None = None
    """Of general data: the share of the training rows that they are to be."""

    @property
    def name(self) -> str:
        """What the user calls it: a Hub id or a file name, never a path."""
        return self.located.name

    def as_json(self) -> dict[str, Any]:
        """What the card says of it."""
        where = self.located
        hub = {"revision": where.revision, "commit": where.commit} if where.commit else {}
        files = dict(zip(where.file_names.values(), self.hashes, strict=True))
        mix = {} if self.mix is None else {"mix": self.mix}
        return {"name": self.name, "is_on_hub": where.commit is not None, **hub, "files": files, **mix}


@dataclass(frozen=True)
class Plan:
    """What is made of which sources."""

    feeds: tuple[Feed, ...]
    """The data; then what is mixed in."""
    fix: Level = "safe"
    mask_personal: bool = False
    keep: tuple[str, ...] = ()
    """Checks whose rows stay."""
    drop: tuple[str, ...] = ()
    """Checks whose rows go."""
    mapping: Mapping[str, str] = field(default_factory=dict)
    """A field of the layout to the column that it is in."""
    labels: tuple[str, ...] = ()
    """All labels that there may be; none where they are those that are there."""
    region: str | None = None
    """The country whose telephone numbers are meant where none is named, such as `DE`."""
    group: str | None = None
    """The column whose equal values stay on one side of the split."""
    base: str | None = None
    """The model, by its id or folder, whose tokens are counted."""
    base_commit: str | None = None
    max_tokens: int | None = None
    similarity: float = 0.8
    seed: int = 42
    format: Format = "parquet"
    license: str | None = None
    languages: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """The same for the same sources and options, and for this version of the package alone."""
        asked = {name: value for name, value in asdict(self).items() if name != "feeds"} | {"base": self.base_name}
        feeds = [{"hashes": one.hashes, **one.as_json()} for one in self.feeds]
        content = json.dumps(
            [version("hf_finetune"), feeds, asked, self._tokenizer_hashes()], sort_keys=True, default=str
        )
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def base_name(self) -> str | None:
        """The model's id, or the name of its folder: never a path."""
        return Path(self.base).resolve().name if self.base and Path(self.base).is_dir() else self.base

    def _tokenizer_hashes(self) -> dict[str, str]:
        """Of a base's folder, which has no commit, the hash of each file that its tokens depend on."""
        folder = Path(self.base) if self.base else None
        if folder is None or not folder.is_dir():
            return {}
        files = {path for pattern in OF_TOKENIZER for path in folder.glob(pattern) if path.is_file()}
        return {path.relative_to(folder).as_posix(): sha256(path) for path in files}

    def options(self) -> dict[str, Any]:
        """What the card says of how it was made; a base's folder by its name alone."""
        return {
            "fix": self.fix, "mask_personal": self.mask_personal, "region": self.region, "keep": list(self.keep),
            "drop": list(self.drop), "map": dict(self.mapping), "labels": list(self.labels), "group": self.group,
            "base": self.base_name, "base_commit": self.base_commit, "max_tokens": self.max_tokens,
            "similarity": self.similarity, "seed": self.seed, "format": self.format,
        }  # fmt: skip


def find_feed(source: str, mix: float | None = None) -> Feed:
    """The files of a source: a file, a folder of files, or a data set on the Hub, maybe with @REVISION.

    Raises:
        RecipeError: when there is no such thing, or nothing in it can be read.
    """
    located = source_of(source).locate()
    return Feed(located, tuple(map(sha256, located.paths)), mix)


def find_feeds(source: str, mixes: Sequence[tuple[str, float]] = ()) -> tuple[Feed, ...]:
    """The data and what is mixed in, each with its share, under names by which they and their files can be told apart.

    Raises:
        RecipeError: when one is not there, cannot be read, or is given twice.
    """
    feeds = [find_feed(source), *(find_feed(name, share) for name, share in mixes)]
    given = [source, *(name for name, _ in mixes)]
    read: set[tuple[Path, ...]] = set()
    for name, feed in zip(given, feeds, strict=True):
        paths = tuple(path.resolve() for path in feed.located.paths)
        if paths in read:
            raise RecipeError(f"--mix {name}: its rows are given already. Name each source once.")
        read.add(paths)
    names = _with_folders(feeds, given)
    files = Counter(file for feed in feeds for file in feed.located.file_names.values())
    told = []
    for feed, name in zip(feeds, names, strict=True):
        own = feed.located
        is_clear = all(files[file] == 1 for file in own.file_names.values())
        is_one_file = own.commit is None and [path.name for path in own.paths] == [own.name]
        folder = name.removesuffix(own.name) if is_one_file else f"{name}/"
        told.append(replace(feed, located=replace(own, name=name, prefix="" if is_clear else folder)))
    return tuple(told)


def _with_folders(feeds: Sequence[Feed], given: Sequence[str]) -> list[str]:
    """The names of sources, with their folders, or the whole of what was given, where two have the same."""
    names = [feed.name for feed in feeds]
    twice = [number for number, name in enumerate(names) if names.count(name) > 1]
    here = [number for number in twice if feeds[number].located.commit is None]
    paths = [Path(given[number]).expanduser().absolute() for number in here]
    longer = {number: given[number] for number in twice} | dict(zip(here, _endings(paths), strict=True))
    return [longer.get(number, name) for number, name in enumerate(names)]


def _endings(paths: Sequence[Path]) -> list[str]:
    """Each path's end, of as few folders as tell the paths apart: more would tell where they lie."""
    below = [name.split("/") for name in below_common_folder(paths)] if paths else []
    counts = range(1, max(map(len, below), default=0) + 1)
    ends = (["/".join(parts[-count:]) for parts in below] for count in counts)
    return next((own for own in ends if len(set(own)) == len(paths)), [])
