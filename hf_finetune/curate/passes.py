"""How far a pass over the data is, and how long it took."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

LINE_SECONDS = 30.0
Say = Callable[[str], None]


@dataclass
class Passes:
    """Tells how far each pass is, and how long each took in this session."""

    say: Say
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def begun(self, name: str, unit: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Inside, what is given is told how many units are done: a bar on a terminal, else a line now and then."""
        from tqdm.auto import tqdm

        started = told = time.monotonic()
        bar = tqdm(total=total, desc=name, unit=unit, dynamic_ncols=True, delay=1, disable=not sys.stderr.isatty())

        def advance(done: int) -> None:
            nonlocal told
            bar.update(done - bar.n if not bar.disable else 0)
            if bar.disable and time.monotonic() - told >= LINE_SECONDS:
                told = time.monotonic()
                self.say(f"{name:9} {done:,}{f' of {total:,}' if total else ''} {unit}")

        try:
            yield advance
        finally:
            bar.close()
            self.seconds[name] = time.monotonic() - started
