"""Files that are written whole or not at all: under a temporary name first, then renamed."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import RecipeError, first_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def sync(path: Path) -> None:
    """Brings a file's bytes, or the names in a folder, from the cache to the disk, for a power cut may come."""
    if path.is_dir() and os.name != "posix":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends well and is removed when it does not.

    A file that was there before hands its permissions on.

    Raises:
        RecipeError: when the disk or the folder refuses the file.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if path.is_file():
            shutil.copymode(path, temporary)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with suppress(OSError):  # where the file could not be made, there is nothing to remove
            temporary.unlink()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well and is removed when it does not.

    What was there before is removed first: a kill between the two leaves neither, and the same command makes it again.
    """
    temporary = path.with_name(f".{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    umask = os.umask(0)
    os.umask(umask)
    mode = 0o666 & ~umask
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                file.chmod(mode)  # safetensors writes what nobody else may read
            sync(file)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Leaves `text` in `path`, UTF-8, its line ends as they are, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, value: Any) -> None:
    """Leaves `value` in `path` as indented JSON; NaN and infinity are refused: other JSON readers do not take them."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Leaves one JSON object a line in `path`."""
    write_text(
        path,
        "".join(json.dumps(row, ensure_ascii=False, allow_nan=False, default=str) + "\n" for row in rows),
    )


def write_picture(path: Path, figure: "Figure") -> None:
    """Leaves a matplotlib figure in `path` as PNG, whole or not at all."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png")


def append_jsonl(path: Path, row: Any) -> None:
    """Adds one JSON object as a line to `path`; a line cut off by a kill or a full disk is for the reader to drop."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    except OSError as error:
        raise _cannot_write(path, error) from error


def read_json(path: Path) -> Any:
    """What a JSON file of a run holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file that this package wrote."""
    lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines(): it also breaks at U+2028 inside a text
    return [json.loads(line) for line in lines if line]


def sha256(path: Path) -> str:
    """The hash of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    own = path.absolute()
    return next(one for one in (own, *own.parents) if one.exists())


def unreadable(path: Path, error: Exception) -> RecipeError:
    """The error on a file of a run that its command makes again."""
    if isinstance(error, FileNotFoundError):
        return RecipeError(f"{path}: is missing. Start the run's command again, which makes it.")
    return RecipeError(f"{path}: cannot be read ({first_line(error)}). Remove it and start the run's command again.")


def _cannot_write(path: Path, error: OSError) -> RecipeError:
    free = f" ({shutil.disk_usage(path.parent).free / 2**20:,.0f} MiB free)" if path.parent.exists() else ""
    return RecipeError(
        f"{path}: cannot be written: {error.strerror or error}{free}. "
        f"Make room or rights there and give the same command again, or name another place."
    )
