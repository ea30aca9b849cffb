"""Large files: each lies in a folder under its sha256, and comes and goes in pieces."""

import hashlib
import shutil
import threading
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from loopback_hub.replies import Refused
from loopback_hub.repos import LfsFile

PIECE = 1 << 20


class Storage:
    """The objects of all repositories."""

    def __init__(self, folder: Path) -> None:
        """Begin empty."""
        self.folder = folder
        self.expected: dict[str, int] = {}  # sha256 to size, of what the Hub allowed to come
        self.received: Counter[str] = Counter()  # bytes that came for each sha256, those lost on the way included
        self.lock = threading.Lock()

    def __contains__(self, oid: str) -> bool:
        """Say whether an object is here."""
        return self.path(oid).exists()

    def path(self, oid: str) -> Path:
        """Give back where an object lies."""
        return self.folder / oid

    def size(self, oid: str) -> int:
        """Give back how many bytes an object has."""
        return self.path(oid).stat().st_size

    def read(self, oid: str) -> bytes:
        """Give back an object's bytes."""
        return self.path(oid).read_bytes()

    def add(self, source: bytes | Path) -> LfsFile:
        """Put an object here, past all requests."""
        oid = sha256(pieces(source) if isinstance(source, Path) else [source])
        if isinstance(source, Path):
            shutil.copyfile(source, self.path(oid))
        else:
            self.path(oid).write_bytes(source)
        return LfsFile(oid, self.size(oid))

    def counted(self, oid: str, body: Iterable[bytes]) -> Iterator[bytes]:
        """Count what passes for an object."""
        for piece in body:
            with self.lock:
                self.received[oid] += len(piece)
            yield piece

    def receive(self, oid: str, body: Iterable[bytes]) -> None:
        """Keep a body as an object if it is the one whose coming was announced."""
        if oid not in self.expected:
            raise Refused(403, "Request has expired")
        came = self.folder / f"{oid}.{uuid.uuid4().hex}"
        try:
            write(came, self.counted(oid, body))
            self.keep(oid, came)
        finally:
            came.unlink(missing_ok=True)

    def receive_part(self, oid: str, number: int, body: Iterable[bytes]) -> str:
        """Keep a part of an object, and give back its ETag."""
        came = self.folder / f"{oid}.{uuid.uuid4().hex}"
        try:
            write(came, self.counted(oid, body))
            return f'"{sha256(pieces(came))[:32]}"'
        finally:
            if came.exists():
                came.replace(self.part(oid, number))

    def part(self, oid: str, number: int) -> Path:
        """Give back where a part of an object lies."""
        return self.folder / f"{oid}.part-{number}"

    def complete(self, oid: str, etags: dict[int, str]) -> None:
        """Make an object of its parts, named by number and ETag."""
        paths = [self.part(oid, number) for number in range(1, len(etags) + 1)]
        if not all(path.exists() for path in paths):
            raise Refused(400, "One or more of the specified parts could not be found.")
        if etags != {n: f'"{sha256(pieces(path))[:32]}"' for n, path in enumerate(paths, start=1)}:
            raise Refused(400, "The part's entity tag may not match the specified entity tag.")
        whole = self.folder / f"{oid}.{uuid.uuid4().hex}"
        try:
            write(whole, (piece for path in paths for piece in pieces(path)))
            self.keep(oid, whole)
        finally:
            for path in (whole, *paths):
                path.unlink(missing_ok=True)

    def keep(self, oid: str, came: Path) -> None:
        """Give a file its place if its size and its sha256 are those announced."""
        if came.stat().st_size != self.expected.get(oid):
            raise Refused(400, "The size of the upload is not the one announced.")
        if sha256(pieces(came)) != oid:
            raise Refused(400, "The provided 'x-amz-checksum-sha256' header does not match what was computed.")
        came.replace(self.path(oid))


def pieces(path: Path) -> Iterator[bytes]:
    """Read a file piece by piece."""
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def write(path: Path, body: Iterable[bytes]) -> None:
    """Write a file piece by piece."""
    with path.open("wb") as file:
        for piece in body:
            file.write(piece)


def sha256(body: Iterable[bytes]) -> str:
    """Give back the sha256 of a body."""
    digest = hashlib.sha256()
    for piece in body:
        digest.update(piece)
    return digest.hexdigest()
