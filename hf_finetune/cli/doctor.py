"""`hf-finetune doctor`: whether a run will work, on one page."""

import json
import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

import click

from hf_finetune.cli.recipes import rows_to_check_with
from hf_finetune.cli.run import (
    default_folder,
    layers_of,
    license_of,
    prepare_libraries,
    rows_source,
    says_what_to_run,
)
from hf_finetune.errors import RecipeError, plural
from hf_finetune.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from hf_finetune.doctor import Line, Subject
    from hf_finetune.doctor.training import Shown

WIDEST, NARROWEST = 100, 50
"""Characters in a line of the page."""
COLOURS = {"ok": "green", "warning": "yellow", "fault": "red"}
MARKS = "⟦", "⟧"
"""What stands around the tokens that carry loss, where there are no colours."""
MOST_SHOWN = 360
"""Characters that are shown of a long stretch."""


@click.command()
@says_what_to_run
@click.option("--push-to-hub", metavar="ID", help="Also ask the Hub whether the run may be pushed to this repo.")
@click.option("--download", is_flag=True, help="Download the data set to look at it, however large it is.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def doctor(recipe: str, settings: Sequence[str], demo: bool, data: str | None, config: str | None,
           push_to_hub: str | None, download: bool, as_json: bool) -> int:  # fmt: skip
    """Tell whether a run of RECIPE will work, what it will learn from, and what mends what is wrong.

    RECIPE, NAME=VALUE, --demo, --data and --config are those of the run. Nothing is trained, and no weights are
    loaded or downloaded. Exit code 1 where there is a fault.
    """
    prepare_libraries()
    quieten_transformers()
    from hf_finetune.doctor import examine
    from hf_finetune.doctor.training import shown

    words = [*settings, *([f"hub_model_id={push_to_hub}"] if push_to_hub else [])]
    subject = subject_of(recipe, words, config, demo, data)
    subject.may_download = download
    found: list[Line] = []
    for area, lines in examine(subject):
        found += lines
        if lines and not as_json:
            click.echo("\n".join([click.style(area, bold=True), *map(in_lines, lines), ""]), color=has_colours())
    rows, counts = shown(subject), {level: sum(line.level == level for line in found) for level in COLOURS}
    if as_json:
        click.echo(json.dumps(as_object(recipe, found, rows, counts), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join([*(show(row) for row in rows), verdict(counts)]), color=has_colours())
    return 1 if counts["fault"] else 0


def subject_of(path_or_name: str, words: Sequence[str], config: str | None, demo: bool, data: str | None) -> "Subject":
    """What is asked for, as far as it can be made out, with a fault for each part that cannot."""
    from hf_finetune.doctor import Subject
    from hf_finetune.layers import settle_what_can_be

    already: list[Line] = []
    recipe = loaded(path_or_name, already)
    layers = layers_of(recipe, readable(words, already), readable_config(config, already), demo)
    settled, faults = settle_what_can_be(layers)
    already += [as_fault(fault, "settings", "settings") for fault in faults]
    subject = Subject(settled, recipe, already=already)
    subject.is_demo = settled.values.model_name_or_path == demo_base()
    folder = settled.values.output_dir or default_folder(recipe.name if recipe else "", demo, data)
    subject.folder = Path(folder).expanduser()
    if recipe:
        try:
            subject.source = rows_source(recipe, demo, data)
        except RecipeError as error:
            already.append(as_fault(str(error), "data", "rows"))
        subject.license = license_of(recipe, subject.source, subject.is_demo, data) if subject.source else None
        subject.odd_rows = odd_rows(recipe, path_or_name)
        already += output(subject, path_or_name)
    return subject


def loaded(path_or_name: str, already: "list[Line]") -> Recipe[Any] | None:
    """The recipe; None, with a fault, where it cannot be loaded, for whatever reason."""
    from dataclasses import replace

    from hf_finetune.doctor.line import defect

    try:
        return load_recipe(path_or_name)
    except RecipeError as error:
        already.append(as_fault(str(error), "recipe", "load"))
    except Exception as error:  # noqa: BLE001  # a recipe's file may raise anything, and the page goes on
        already.append(replace(defect(error, path_or_name), area="recipe", check="load"))
    return None


def readable(words: Sequence[str], already: "list[Line]") -> list[str]:
    """The settings of the command line, less those that are none; of one that is given twice, the last."""
    from hf_finetune.layers import parse_assignments

    kept: dict[str, str] = {}
    for word in words:
        try:
            (name,) = parse_assignments([word]).values
        except RecipeError as error:
            already.append(as_fault(str(error), "settings", "command_line"))
            continue
        if name in kept:
            already.append(as_fault(f"command line: {name} is given twice. Give it once.", "settings", "command_line"))
        kept[name] = word
    return list(kept.values())


def readable_config(config: str | None, already: "list[Line]") -> str | None:
    """The YAML file of settings, where it can be read."""
    from hf_finetune.layers import read_yaml

    try:
        if config:
            read_yaml(Path(config))
    except RecipeError as error:
        already.append(as_fault(str(error), "settings", "config"))
        return None
    return config


def odd_rows(recipe: Recipe[Any], path_or_name: str) -> Path | None:
    """The rows that the recipe's author checks it with, where there are some."""
    try:
        return rows_to_check_with(recipe, path_or_name)
    except RecipeError:
        return None


def output(subject: "Subject", path_or_name: str) -> "list[Line]":
    """Whether the run's folder can take this run."""
    from hf_finetune.begin import Request, run_to_make
    from hf_finetune.doctor import Line
    from hf_finetune.folder import check_folder

    recipe, source = subject.recipe, subject.source
    if recipe is None or source is None:
        return []
    request = Request(recipe, path_or_name, source, subject.settled, subject.folder, subject.license,
                      is_demo=subject.is_demo)  # fmt: skip
    try:
        check_folder(subject.folder, overwrite=False)
        source.identity()
    except RecipeError as error:
        is_folder = str(error).startswith(str(subject.folder))
        return [as_fault(str(error), "settings", "output")] if is_folder else []  # else the rows' own fault
    try:
        run, goes_on = run_to_make(request)
    except RecipeError as error:
        return [as_fault(str(error), "settings", "output")]
    state = "holds this run, finished" if run.finished else "holds this run, which goes on" if goes_on else "is free"
    return [Line("ok", f"{subject.folder} {state}", area="settings", check="output")]


def as_fault(message: str, area: str, check: str) -> "Line":
    """The line of an error that was met before the areas are looked at."""
    from hf_finetune.doctor.line import Line, parted

    what, fix = parted(message)
    return Line("fault", what, fix, area, check)


def demo_base() -> str:
    """The folder of the demonstration model."""
    from hf_finetune.demo import BASE_MODEL

    return str(BASE_MODEL)


def in_lines(line: "Line") -> str:
    """A line of the page, folded to its width, what mends it below."""
    level = click.style(f"{line.level:8}", fg=COLOURS[line.level], bold=line.level == "fault")
    told = [f"  {level} {folded(line.text)}"]
    told += [f"           {click.style('->', fg=COLOURS[line.level])} {folded(line.fix, 14)}"] if line.fix else []
    return "\n".join(told)


def width() -> int:
    """The characters in a line of the page, as the terminal or COLUMNS has room for."""
    return min(WIDEST, max(NARROWEST, get_terminal_size((WIDEST, 0)).columns))


def folded(text: str, indent: int = 11) -> str:
    """A text in lines that fit on the page, all but the first indented."""
    own = [textwrap.wrap(part, width() - indent, break_long_words=False, break_on_hyphens=False) or [""]
           for part in text.split("\n")]  # fmt: skip
    return ("\n" + " " * indent).join(line for part in own for line in part)


def show(row: "Shown") -> str:
    """A training row as the model sees it, what carries loss in colour, or between marks."""
    what = "in green" if has_colours() else f"between {MARKS[0]} and {MARKS[1]}"
    head = click.style(f"line {row.line} of train.jsonl as it is trained, the loss on what stands {what}", bold=True)
    text = "".join(styled(cut(piece), is_learnt) for piece, is_learnt in row.pieces)
    wrapped = [textwrap.wrap(line, width() - 2, replace_whitespace=False, drop_whitespace=False, break_on_hyphens=False)
               if not has_colours() else [line] for line in text.split("\n")]  # fmt: skip
    return "\n".join([head, *(f"  {line}" for part in wrapped for line in part or [""]), ""])


def styled(text: str, is_learnt: bool) -> str:
    """A piece of a row as it is shown."""
    if not is_learnt:
        return text
    return click.style(text, fg="green", bold=True) if has_colours() else f"{MARKS[0]}{text}{MARKS[1]}"


def cut(text: str) -> str:
    """The beginning and the end of a long text."""
    half = MOST_SHOWN // 2
    return text if len(text) <= MOST_SHOWN else f"{text[:half]} [... {len(text) - 2 * half:,} more ...] {text[-half:]}"


def verdict(counts: dict[str, int]) -> str:
    """The last line of the page."""
    warnings = f"{plural(counts['warning'], 'warning')}" if counts["warning"] else ""
    if counts["fault"]:
        each = " and ".join(filter(None, [plural(counts["fault"], "fault"), warnings]))
        return click.style(f"{each}: this run would fail, or be worth nothing. Mend the faults first.", fg="red")
    if warnings:
        return click.style(f"no fault, {warnings}: this run will work.", fg="yellow")
    return click.style("no fault: this run will work.", fg="green")


def as_object(recipe: str, found: "Sequence[Line]", rows: "Sequence[Shown]", counts: dict[str, int]) -> dict[str, Any]:
    """What was found, for machines."""
    return {
        "recipe": recipe,
        "faults": counts["fault"],
        "warnings": counts["warning"],
        "lines": [asdict(line) for line in found],
        "shown": [
            {"line": row.line, "pieces": [{"text": text, "loss": is_learnt} for text, is_learnt in row.pieces]}
            for row in rows
        ],
    }


def has_colours() -> bool:
    """Whether what is printed goes to a terminal that shows colours."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def quieten_transformers() -> None:
    """Keeps transformers from saying beside the page what the page says."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
