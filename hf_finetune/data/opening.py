"""A file, maybe compressed or in an archive -> its bytes, and its text whatever the encoding: never read as a whole."""

import codecs
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path
from typing import IO, BinaryIO, TextIO

from hf_finetune.data.sources import COMPRESSED, READABLE, is_readable, suffix_of
from hf_finetune.errors import RecipeError, first_line

HEAD = 4 * 2**20
"""Bytes of a file from which its encoding is told."""
MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
MEND = "hf_finetune.mend"


def _mend(error: UnicodeError) -> tuple[str, int]:
    """What stands for bytes that a text's encoding has not: what Windows-1252, or else latin-1, has for them."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    wrong = error.object[error.start : error.end]
    if error.encoding.startswith("utf-16"):
        return "\ufffd", error.end
    try:
        return wrong.decode("cp1252"), error.end
    except UnicodeDecodeError:
        return wrong.decode("latin-1"), error.end


codecs.register_error(MEND, _mend)


def encoding_of(head: bytes, is_whole: bool = True) -> str:
    """UTF-8 (with or without a byte order mark), UTF-16, Windows-1252, or else latin-1: what the first bytes are in."""
    for mark, encoding in MARKS.items():
        if head.startswith(mark):
            return encoding
    if len(head) > 3 and (zeros := head[:400].count(0)) * 3 > len(head[:400]):
        return "utf-16-le" if head[1:400:2].count(0) * 2 > zeros else "utf-16-be"  # without a mark
    for encoding in ("utf-8", "cp1252"):
        try:
            codecs.getincrementaldecoder(encoding)().decode(head, is_whole)
        except UnicodeDecodeError:
            continue
        return encoding
    return "latin-1"  # which decodes any bytes


@contextmanager
def opened(path: Path, name: str, member: str | None = None) -> Iterator[tuple[str, BinaryIO]]:
    """The name of the file that holds the rows, less a compressor's suffix, and its bytes.

    Raises:
        RecipeError: a file that cannot be opened or unpacked, also while it is read.
    """
    try:
        with path.open("rb") as file:
            if path.suffix.lower() == ".zip":
                with _unzipped(file, name, member) as (inner, content):
                    yield inner, _inflated(inner, content)
            else:
                yield name, _inflated(name, file)
    except OSError as error:
        if error.strerror:
            raise RecipeError(f"{name}: cannot be read: {error.strerror}. Check its rights.") from error
        raise RecipeError(f"{name}: cannot be unpacked ({first_line(error)}). Fetch or write it again.") from error


def text_of(content: BinaryIO, newline: str | None = "\n") -> TextIO:
    """The text of a file, decoded as it is read; None as `newline` makes every kind of line end a line feed."""
    head = content.read(HEAD)
    encoding = encoding_of(head, is_whole=len(head) < HEAD)
    return io.TextIOWrapper(io.BufferedReader(_Joined(head, content), 2**18), encoding, MEND, newline)


class _Joined(io.RawIOBase):
    """Bytes that were read already, then the rest of the file."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self.head, self.rest = memoryview(head), rest

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any buffer
        """The number of bytes that were put into the buffer."""
        part = self.head[: len(buffer)] if self.head else self.rest.read(len(buffer))
        self.head = self.head[len(part) :] if self.head else self.head
        buffer[: len(part)] = part
        return len(part)


def _inflated(name: str, content: BinaryIO) -> BinaryIO:
    """The bytes of a file that a compressor has made smaller; those of any other as they are."""
    codec = COMPRESSED.get(Path(name).suffix.lower())
    if codec is None:
        return content
    import pyarrow

    inflated: BinaryIO = pyarrow.CompressedInputStream(pyarrow.PythonFile(content, "r"), codec)
    return inflated


@contextmanager
def _unzipped(file: BinaryIO, shown: str, member: str | None) -> Iterator[tuple[str, BinaryIO]]:
    try:
        with _archive(file, shown) as archive:
            names = archive.namelist()
            readable = [one for one in names if is_readable(one) and not one.startswith("__MACOSX/")]
            if member is None and len(readable) == 1:
                member = readable[0]
            if member not in names:
                if not readable:
                    raise RecipeError(f"{shown}: holds no readable file. Known: {', '.join(READABLE)}.")
                wanted = f"has no {member!r}" if member else "holds several files"
                raise RecipeError(f"{shown}: {wanted}. Name one with member=: {', '.join(readable)}.")
            with _member(archive, member, shown) as content:
                yield Path(member).name, content
    except (zipfile.BadZipFile, zlib.error, LZMAError, EOFError) as error:
        raise _not_whole(shown) from error


def _archive(file: BinaryIO, shown: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except MemoryError:
        raise
    except Exception as error:  # a spoilt list of its files may mean anything: a place before the file, a later version
        raise _not_whole(shown) from error


def _member(archive: zipfile.ZipFile, member: str, shown: str) -> BinaryIO:
    try:
        return archive.open(member)  # type: ignore[return-value]  # IO[bytes], which can be read as a file
    except RuntimeError as error:  # also NotImplementedError
        advice = "Pack it again with deflate (as zip does), without a password."
        raise RecipeError(f"{shown}: cannot be unpacked ({first_line(error)}). {advice}") from error
    except MemoryError:
        raise
    except Exception as error:
        raise _not_whole(shown) from error


def _not_whole(shown: str) -> RecipeError:
    return RecipeError(f"{shown}: is not a whole zip archive. Fetch it again.")


def known_suffix(name: str) -> str:
    """The suffix that says what a file holds, such as `.jsonl` of `rows.jsonl.gz`.

    Raises:
        RecipeError: when files of that name are not read here.
    """
    if not is_readable(name) or suffix_of(name) == ".zip":
        shown = suffix_of(name) or "no suffix"
        raise RecipeError(
            f"{Path(name).name}: {shown} is not a format read here. Known: {', '.join(READABLE)}; "
            f"those that are text also as {', '.join(COMPRESSED)}."
        )
    return Path(name.lower()).with_suffix("").suffix if Path(name).suffix.lower() in COMPRESSED else suffix_of(name)
