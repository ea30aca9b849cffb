"""`hf-finetune evaluate`: the report on an adapter or a merged model that is there already."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from hf_finetune.cli.run import exit_code, prepare_libraries, rows_source, says_what_to_run, settle_run
from hf_finetune.interruption import interruption
from hf_finetune.recipe import load_recipe


@click.command()
@says_what_to_run
@click.option(
    "--adapter", required=True, metavar="ID_OR_FOLDER", help="An adapter or merged model: a folder, or ID@REVISION."
)
@click.option("--all-rows", is_flag=True, help="Ask all rows, not the test split: for rows kept apart from training.")
@click.option("--overwrite", is_flag=True, help="Replace the evaluation in the output folder.")
@click.option("--baseline", type=click.Choice(["tfidf"]), help="A column that needs no GPU beside the models.")
def evaluate(recipe: str, settings: Sequence[str], demo: bool, data: str | None, config: str | None, adapter: str,
             all_rows: bool, overwrite: bool, baseline: str | None) -> int:  # fmt: skip
    """Ask an adapter or merged model, and its base, the test rows of RECIPE, and report as a run does.

    The test split is that of a run with the same rows and settings. Without --all-rows, an adapter that was trained on
    another split may have seen them.
    """
    from hf_finetune.settings import Layer
    from hf_finetune.tuned import find_tuned

    loaded = load_recipe(recipe)
    tuned = find_tuned(adapter)
    words = [*settings, *([f"baseline={baseline}"] if baseline else [])]
    settled = settle_run(loaded, words, config, demo, [Layer("adapter", tuned.base_settings)])
    prepare_libraries()
    from hf_finetune.begin import Request
    from hf_finetune.demo import BASE_MODEL
    from hf_finetune.evaluate_tuned import evaluate_tuned

    parts = [loaded.name, Path(tuned.name).name, *([Path(data).stem] if data else []), *(["all"] if all_rows else [])]
    folder = Path(settled.values.output_dir or f"evaluations/{'-'.join(parts)}")
    evaluated = tuned.identity() | {"rows": "all" if all_rows else "test"}
    source, command = rows_source(loaded, demo, data), [Path(sys.argv[0]).name, *sys.argv[1:]]
    click.echo(f"recipe    {loaded.name}: {type(loaded).__name__} of {recipe}")
    interruption.listen()
    is_demo = settled.values.model_name_or_path == str(BASE_MODEL)
    request = Request(loaded, recipe, source, settled, folder, None, command, is_demo, overwrite, evaluated)
    evaluate_tuned(request, tuned, all_rows, click.echo)
    click.echo("\n" + (folder / "report.md").read_text(encoding="utf-8"))
    click.echo(f"report    {folder}: report.html, report.md, answers.jsonl, run.json")
    return exit_code(folder)
