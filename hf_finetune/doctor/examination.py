"""Areas of small named checks, each of which is made whatever the others find."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from hf_finetune.doctor.line import Line, defect, told
from hf_finetune.doctor.subject import Subject
from hf_finetune.errors import RecipeError

Check = Callable[[Subject], Iterable[Line]]


@dataclass(frozen=True)
class Area:
    """Checks on one thing, in order: some leave in the subject what those after them look at."""

    name: str
    checks: Sequence[Check]


def lines_of(area: Area, subject: Subject) -> list[Line]:
    """The lines of all checks of an area; one that fails itself is a line too, and hides no other."""
    already = [line for line in subject.already if line.area == area.name]
    return [*already, *(line for check in area.checks for line in _lines(area, check, subject))]


def _lines(area: Area, check: Check, subject: Subject) -> Iterator[Line]:
    def named(line: Line) -> Line:
        return replace(line, area=area.name, check=check.__name__)

    try:
        yield from map(named, check(subject))
    except RecipeError as error:
        yield named(told(error))
    except Exception as error:  # noqa: BLE001  # a recipe's method may raise anything, and the page goes on
        yield named(defect(error, subject.recipe_file))
