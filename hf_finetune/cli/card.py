"""`hf-finetune card`: the model card of a run, written again."""

from dataclasses import replace
from pathlib import Path

import click

from hf_finetune.errors import RecipeError


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--show-rows/--hide-rows", default=None, help="Quote rows that are not public: a question, and remarks on rows."
)
def card(folder: Path, show_rows: bool | None) -> None:
    """Write the model card of the run in the folder RUN again, from the files that the run has now.

    It goes to adapter/README.md and, where the adapter was merged, to merged/README.md. Rows of a file of your own are
    not quoted on it unless --show-rows says so, which the run keeps in mind. What was written into a card by hand is
    lost: words of your own belong into the recipe's docstring, which the card quotes.
    """
    from hf_finetune.card import write_card
    from hf_finetune.folder import held
    from hf_finetune.run import Run

    run = Run.read(folder)
    if not run.finished and not run.evaluated:
        raise RecipeError(f"{folder}: the run is not finished. Start its command again, so that it ends.")
    if run.training and not (folder / "adapter" / "adapter_model.safetensors").is_file():
        raise RecipeError(f"{folder / 'adapter'}: holds no weights. Start the run's command again, which makes them.")
    with held(folder):
        if show_rows is not None and show_rows != run.are_rows_shown:
            replace(run, are_rows_shown=show_rows).write(folder)
        for path in write_card(folder):
            click.echo(f"card      {path}")
