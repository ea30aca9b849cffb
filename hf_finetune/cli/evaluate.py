"""`hf-finetune evaluate`: the report on an adapter or a merged model that is there already."""

from collections.abc import Sequence
from pathlib import Path

import click

from hf_finetune.cli.run import (
    exit_code,
    name_of_rows,
    prepare_libraries,
    request_of,
    says_what_to_run,
    settle_run,
    takes_baseline,
)
from hf_finetune.recipe import load_recipe


@click.command()
@says_what_to_run
@click.option(
    "--adapter", required=True, metavar="ID_OR_FOLDER", help="An adapter or merged model: a folder, or ID@REVISION."
)
@click.option("--all-rows", is_flag=True, help="Ask all rows, not the test split: for rows kept apart from training.")
@click.option("--overwrite", is_flag=True, help="Replace the evaluation in the output folder.")
@takes_baseline
def evaluate(recipe: str, settings: Sequence[str], demo: bool, data: str | None, config: str | None, adapter: str,
             all_rows: bool, overwrite: bool, baseline: str | None) -> int:  # fmt: skip
    """Ask an adapter or merged model, and its base, the test rows of RECIPE, and report as a run does.

    The test split is that of a run with the same rows and settings. Without --all-rows, an adapter that was trained on
    another split may have seen them.
    """
    from hf_finetune.layers import Layer
    from hf_finetune.tuned import find_tuned

    loaded = load_recipe(recipe)
    tuned = find_tuned(adapter)
    settled = settle_run(loaded, settings, config, demo, baseline, [Layer("adapter", tuned.base_settings)])
    prepare_libraries()
    from hf_finetune.evaluate_tuned import evaluate_tuned

    click.echo(f"recipe    {loaded.name}: {type(loaded).__name__} of {recipe}")
    parts = [
        loaded.name,
        Path(tuned.name).name,
        *([name_of_rows(data)] if data else []),
        *(["all"] if all_rows else []),
    ]
    evaluated = tuned.identity() | {"rows": "all" if all_rows else "test"}
    request = request_of(loaded, recipe, settled, demo, data, f"evaluations/{'-'.join(parts)}", overwrite, evaluated)
    evaluate_tuned(request, tuned, all_rows, click.echo)
    folder = request.folder
    click.echo("\n" + (folder / "report.md").read_text(encoding="utf-8"))
    click.echo(f"report    {folder}: report.html, report.md, answers.jsonl, run.json")
    return exit_code(folder)
