"""`hf-finetune advise`: is fine-tuning the right tool for a task at all?"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hf_finetune.errors import RecipeError

if TYPE_CHECKING:
    from hf_finetune.advise import Situation
    from hf_finetune.report import Report

FREQUENCIES = "never, yearly, monthly, weekly or daily"


@click.command()
@click.argument("recipe_or_run", required=False)
@click.option("--facts-change", metavar="HOW_OFTEN", help=f"How often facts change: {FREQUENCIES}.")
@click.option("--examples", type=int, metavar="N", help="Labelled examples there are.")
@click.option("--requests-per-day", type=int, metavar="N", help="How often it will be asked.")
@click.option("--latency-ms", type=int, metavar="MS", help="How long an answer may take.")
@click.option("--private/--no-private", default=None, help="Whether texts must stay on machines of your own.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def advise(recipe_or_run: str | None, facts_change: str | None, examples: int | None, requests_per_day: int | None,
           latency_ms: int | None, private: bool | None, as_json: bool) -> None:  # fmt: skip
    """Say whether to fine-tune, to prompt, or to look facts up, and why.

    On a terminal what is not given is asked. Of a finished run's folder the measured figures count more than the
    answers; of a recipe whose rows are on this machine, they are counted.
    """
    from hf_finetune.advise import Situation, check_situation, in_lines
    from hf_finetune.advise import advise as advised

    report, counted = _known(recipe_or_run)
    examples = counted if examples is None else examples
    given = Situation(facts_change, examples, requests_per_day, latency_ms, private)
    if sys.stdin.isatty() and not as_json:
        given = _asked(given)
    if report is None or any(value is not None for value in vars(given).values()):
        check_situation(given)
    advice = advised(given, report)
    click.echo(json.dumps(advice.as_json(), indent=2) if as_json else "\n".join(in_lines(advice)))


def _known(recipe_or_run: str | None) -> "tuple[Report | None, int | None]":
    """The report of a run's folder, or the number of a recipe's rows; neither where nothing is named.

    Raises:
        RecipeError: when it is neither a finished run nor a recipe.
    """
    from hf_finetune.report import Report

    if recipe_or_run is None:
        return None, None
    if Path(recipe_or_run).is_dir():
        return Report.read(Path(recipe_or_run)), None
    from hf_finetune.recipe import load_recipe

    return None, _rows_of(load_recipe(recipe_or_run))


def _rows_of(recipe: Any) -> int | None:
    """The rows of a recipe's data set, where it is on this machine."""
    from dataclasses import fields

    from hf_finetune.data.reading import read_records
    from hf_finetune.data.sources import is_here

    if not is_here(recipe.dataset):
        return None
    return len(read_records(recipe.dataset.locate(), [field.name for field in fields(recipe.row_type())]))


def _asked(given: "Situation") -> "Situation":
    """The answers, after asking for those that are not given; an empty one says nothing."""
    from dataclasses import replace

    questions: dict[str, tuple[str, Callable[[str], Any]]] = {
        "facts_change": (f"How often do the facts in the answers change ({FREQUENCIES})?", str),
        "examples": ("How many labelled examples are there?", _number),
        "requests_per_day": ("How many requests a day?", _number),
        "latency_ms": ("How many milliseconds may an answer take?", _number),
        "private": ("Must the texts stay on machines of your own (yes, no)?", _yes),
    }
    for name, (question, read) in questions.items():
        if getattr(given, name) is None:
            text = click.prompt(question, default="", show_default=False, prompt_suffix=" ").strip()
            given = replace(given, **{name: read(text) if text else None})
    return given


def _number(text: str) -> int:
    try:
        return int(text.replace(",", ""))
    except ValueError:
        raise RecipeError(f"advise: {text!r} is no whole number. Write one, such as 500.") from None


def _yes(text: str) -> bool:
    if text.lower() not in ("y", "yes", "n", "no"):
        raise RecipeError(f"advise: {text!r} is neither yes nor no. Write one of them.")
    return text.lower().startswith("y")
