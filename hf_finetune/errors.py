"""The one error that a user is meant to see, and the words that help to mend it."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

SHOWN_FAULTS = 5


class RecipeError(Exception):
    """A mistake that the user can mend: `<where>: <what is wrong>. <what to do>.` Shown without a traceback."""


@contextmanager
def told_where(where: str) -> Iterator[None]:
    """Has an error begin with where it was met."""
    try:
        yield
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from error


def nearest(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """`Did you mean 'x'?` for the known name nearest to `name`, else `otherwise`, or the list of known names."""
    options = sorted(known)
    matches = get_close_matches(name, options, n=1, cutoff=0.6)
    if matches:
        return f"Did you mean {matches[0]!r}?"
    return otherwise or (f"Known: {', '.join(options)}." if options else "None is known.")


def many_faults(
    where: str, faults: Sequence[str], total: int, noun: str = "row", count: int | None = None
) -> RecipeError:
    """One error for all faults found: their number among `total` things, and the first five in full.

    `count` is their number where one of `faults` tells of several.
    """
    lines = [f"{where}: {plural(count or len(faults), 'fault')} in {plural(total, noun)}."]
    lines += [f"  {fault}" for fault in faults[:SHOWN_FAULTS]]
    if len(faults) > SHOWN_FAULTS:
        lines.append(f"  (and {len(faults) - SHOWN_FAULTS} more)")
    return RecipeError("\n".join(lines))


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without its full stop; the error's class where it has no text.

    Where that line only announces what follows, the next one stands with it.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    told = f"{lines[0]} {lines[1].strip()}" if lines[0].endswith(":") and lines[1:] else lines[0]
    return told.rstrip(".")


def plural(count: int, noun: str) -> str:
    """`1 row`, `2 rows`, `1,200 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
