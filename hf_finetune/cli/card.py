"""`hf-finetune card`: the model card of a run, written again."""

from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--show-rows", is_flag=True, help="Quote rows that are not public: a question, and remarks on rows.")
def card(folder: Path, show_rows: bool) -> None:
    """Write the model card of the run in the folder RUN again, from the files that the run has now.

    It goes to adapter/README.md and, where the adapter was merged, to merged/README.md. Rows of a file of your own are
    not quoted on it unless --show-rows says so.
    """
    from hf_finetune.card import write_card

    for path in write_card(folder, show_rows):
        click.echo(f"card      {path}")
