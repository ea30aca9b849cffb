"""Failures that a test plants."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from loopback_hub.server import LoopbackHub


@dataclass
class Fault:
    """A planted failure of the next `times` requests ("GET /api/...") that match `pattern`, once `skip` have passed.

    It strikes before the effect of the request, after it, or in the middle: half of the request's body (or, without
    one, half of the answer's) passes and the connection is cut. It waits `delay` seconds, calls `action`, and then
    answers `status`: 0 cuts the connection without an answer, None lets the request go on as if nothing were planted.
    The answer is the Hub's JSON, or the `page` that a gateway in between shows.
    """

    pattern: str
    status: int | None = None
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    moment: Literal["before", "middle", "after"] = "before"
    delay: float = 0.0
    action: Callable[[LoopbackHub], None] | None = None
    skip: int = 0
    page: bytes = b""

    def strike(self, hub: LoopbackHub) -> None:
        """Wait and act."""
        time.sleep(self.delay)
        if self.action is not None:
            self.action(hub)
