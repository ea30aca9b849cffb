"""What an answer is made of."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Reply = tuple[int, Any, dict[str, str]]  # status, body (bytes, a slice of a file, or what to write as JSON), headers


class Refused(Exception):
    """A reply that says no; the client chooses its exception class by the code."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        """Keep the reply for the client."""
        super().__init__(message)
        line = " ".join(message.split()).encode("latin-1", "replace").decode("latin-1")  # what a header can hold
        named = {"X-Error-Code": code, "X-Error-Message": line, **headers}
        self.reply: Reply = status, {"error": message}, named


@dataclass(frozen=True)
class Slice:
    """A part of a file, to be sent without reading it into memory."""

    path: Path
    first: int
    length: int


def ranged(header: str, size: int) -> tuple[int, int, int, dict[str, str]]:
    """Give back status, first byte, length and headers for the range asked for of so many bytes."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", header)
    if asked is None or int(asked[1]) >= size:
        return 200, 0, size, {"Accept-Ranges": "bytes"}
    first, last = int(asked[1]), min(int(asked[2] or size), size - 1)
    return 206, first, last + 1 - first, {"Accept-Ranges": "bytes", "Content-Range": f"bytes {first}-{last}/{size}"}
