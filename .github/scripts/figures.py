"""What a recipe's run has come to beside the main branch's, as numbers, and as Markdown.

`collect` is run by the pull request's own job, on the pull request's code. `render` needs the standard library alone:
the main branch's code runs it once more, on numbers that it checks, before anything is written into a comment.
"""

import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

TITLE = "### The recipes on the demonstration model"
AGAINST = ("main", "card", "nothing")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_@]{0,40}")
COMMIT = re.compile(r"[0-9a-f]{40}|")
LARGEST = 64 * 1024
"""Bytes of a file of figures."""
MOST = 50
"""Recipes, and gates of each."""


class Unfit(Exception):
    """Figures that are none: a file that this module has not written."""


@dataclass(frozen=True)
class Score:
    """The primary metric of a fine-tuned model on its test rows, with its 95 % interval."""

    value: float
    low: float
    high: float
    rows: int

    @property
    def shown(self) -> str:
        """The score for a table."""
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Pair:
    """Both fine-tuned models on the test rows that both were asked."""

    rows: int
    only_before: int
    """Rows that only main's model has right."""
    only_after: int
    p_value: float
    """McNemar's exact test."""


@dataclass(frozen=True)
class Gate:
    """What a run must reach, and whether it has."""

    name: str
    bound: str
    required: float
    found: float | None
    held: bool

    @property
    def shown(self) -> str:
        """The gate in a sentence."""
        found = "not measured" if self.found is None else f"{self.found:.4g}"
        return f"{self.name} is {found}, not {self.bound} {self.required:.4g}"


@dataclass(frozen=True)
class Figures:
    """One recipe's run beside what it is compared with."""

    recipe: str
    against: str
    """`main`: a run of the main branch; `card`: the reference card in model_cards/; or `nothing`."""
    commit: str = ""
    """The commit of that run of the main branch."""
    metric: str = ""
    before: Score | None = None
    after: Score | None = None
    """None where the run has not come to its end."""
    pair: Pair | None = None
    gates: list[Gate] = field(default_factory=list)

    @property
    def missed(self) -> list[Gate]:
        """The gates that are not held."""
        return [gate for gate in self.gates if not gate.held]


def collect(recipe: str, run: Path, main: Path, card: Path) -> Figures:
    """The run's figures beside those of main's run, or of the reference card where there is none."""
    against = "main" if (main / "report.json").is_file() else "card" if (card / "report.json").is_file() else "nothing"
    commit = (main / "commit").read_text(encoding="utf-8").strip() if against == "main" else ""
    if not (run / "report.json").is_file():
        return Figures(recipe, against, commit)
    report = read_report(run)
    earlier = {"main": main, "card": card}.get(against)
    before = read_report(earlier) if earlier else None
    return Figures(
        recipe, against, commit, report["primary_metric"],
        before=score(before) if before and before["primary_metric"] == report["primary_metric"] else None,
        after=score(report),
        pair=pair(main, run) if against == "main" else None,
        gates=[Gate(**gate) for gate in report["gates"]],
    )  # fmt: skip


def read_report(folder: Path) -> dict[str, Any]:
    """The report in a run's folder."""
    found: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return found


def score(report: dict[str, Any]) -> Score:
    """The primary metric in a report."""
    low, high = report["intervals"]["tuned"]
    return Score(report["scores"]["tuned"][report["primary_metric"]], low, high, report["rows"])


def pair(before: Path, after: Path) -> Pair | None:
    """The two runs on the rows that both were asked; None where they have none in common."""
    from hf_finetune.compare import compare_runs
    from hf_finetune.errors import RecipeError

    try:
        (found,) = compare_runs([before, after]).pairs
    except RecipeError:  # main's report is of another version
        return None
    return Pair(found.rows, found.only_first, found.only_second, found.p_value) if found.rows else None


def render(figures: Sequence[Figures]) -> str:
    """The figures as Markdown, for a job's summary and a comment."""
    lines = [TITLE, "", "| recipe | metric | before | now | difference | gates |", "|---|---|---|---|---:|---|"]
    lines += [row(one) for one in figures]
    lines += ["", *(f"- `{one.recipe}`: {remark(one)}" for one in figures), ""]
    return "\n".join(lines)


def row(one: Figures) -> str:
    """A line of the table."""
    change = f"{one.after.value - one.before.value:+.3f}" if one.after and one.before else ""
    gates = f"{len(one.missed)} of {len(one.gates)} missed" if one.missed else f"{len(one.gates)} held"
    cells = [
        f"`{one.recipe}`",
        f"`{one.metric}`" if one.metric else "",
        one.before.shown if one.before else "",
        one.after.shown if one.after else "not finished",
        change,
        gates if one.gates else "none" if one.after else "",
    ]
    return f"| {' | '.join(cells)} |"


def remark(one: Figures) -> str:
    """What the figures were compared with, row by row where that is possible, and the gates that were missed."""
    beside = {
        "main": f"before is the main branch at {one.commit[:12]}",
        "card": f"before is the reference card in model_cards/{one.recipe}, for no run of the main branch was kept",
        "nothing": "there is nothing to compare with: neither a run of the main branch nor a reference card",
    }
    parts = [beside[one.against]]
    if one.pair:
        verdict = "a measurable difference" if one.pair.p_value < 0.05 else "no measurable difference"
        parts.append(
            f"of the same {one.pair.rows} test rows {one.pair.only_after} are right now that were wrong, and "
            f"{one.pair.only_before} wrong that were right (McNemar's exact test: p = {one.pair.p_value:.2g}): "
            f"{verdict}"
        )
    parts += [f"gate missed: {gate.shown}" for gate in one.missed]
    return "; ".join(parts) + "."


def checked(found: Any) -> Figures:
    """Figures from JSON that anybody may have written: names, numbers and nothing else.

    Raises:
        Unfit: what is wrong.
    """
    try:
        fields = dict(found)
        one = Figures(
            recipe=named(fields["recipe"]),
            against=one_of(fields["against"], AGAINST),
            commit=matching(fields["commit"], COMMIT),
            metric=named(fields["metric"]) if fields["metric"] != "" else "",
            before=Score(**numbers(fields["before"], Score)) if fields["before"] is not None else None,
            after=Score(**numbers(fields["after"], Score)) if fields["after"] is not None else None,
            pair=Pair(**numbers(fields["pair"], Pair)) if fields["pair"] is not None else None,
            gates=[checked_gate(gate) for gate in fields["gates"]],
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Unfit(f"no figures: {error!r}") from error
    if len(one.gates) > MOST:
        raise Unfit(f"{len(one.gates)} gates")
    return one


def checked_gate(found: Any) -> Gate:
    """A gate from JSON that anybody may have written."""
    required, measured = number(found["required"]), found["found"]
    return Gate(
        named(found["name"]),
        one_of(found["bound"], ("at least", "at most")),
        required,
        None if measured is None else number(measured),
        found["held"] is True,
    )


def named(text: Any) -> str:
    """A name that is one."""
    return matching(text, NAME)


def matching(text: Any, pattern: re.Pattern[str]) -> str:
    """A text that is all of a pattern."""
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise ValueError("a text that is no name")
    return text


def one_of(text: Any, allowed: Sequence[str]) -> str:
    """A text that is one of these."""
    if text not in allowed:
        raise ValueError("a text that is not allowed")
    return str(text)


def number(value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e9:
        raise ValueError("no number")
    return value


def numbers(found: Any, kind: type[Score] | type[Pair]) -> dict[str, Any]:
    """The numbers that a score or a pair is made of, no other ones."""
    if set(found) != set(kind.__dataclass_fields__):
        raise ValueError(f"no {kind.__name__}")
    return {name: number(value) for name, value in found.items()}


def read_all(folder: Path) -> list[Figures]:
    """The checked figures of all files below a folder, by recipe.

    Raises:
        Unfit: one that is too large, or holds something else; too many; or two of one recipe.
    """
    files = sorted(folder.rglob("*.json"))
    if len(files) > MOST or any(file.is_symlink() or file.stat().st_size > LARGEST for file in files):
        raise Unfit("too many files, or one that is too large or a link")
    try:
        values = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    except ValueError as error:
        raise Unfit(f"no JSON: {error}") from error
    found = {one.recipe: one for one in map(checked, values)}
    if len(found) < len(files):
        raise Unfit("two files of one recipe")
    return [found[recipe] for recipe in sorted(found)]


def main(words: Sequence[str]) -> None:
    """`collect RECIPE RUN MAIN CARD FILE` writes figures, `render FOLDER` prints those in a folder as Markdown."""
    command, *rest = words
    if command == "collect":
        recipe, run, earlier, card, file = rest
        path = Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        figures = collect(recipe, Path(run), Path(earlier), Path(card))
        path.write_text(json.dumps(asdict(figures), allow_nan=False) + "\n", encoding="utf-8")
        sys.stdout.write(render([figures]))
    else:
        sys.stdout.write(render(read_all(Path(rest[0]))))


if __name__ == "__main__":
    main(sys.argv[1:])
