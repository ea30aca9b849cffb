"""`hf-finetune compare`: runs side by side."""

from collections.abc import Sequence
from pathlib import Path

import click


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...", type=click.Path(path_type=Path))
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Also leave it as a page.")
def compare(runs: Sequence[Path], html: Path | None) -> None:
    """Show runs side by side: metrics with intervals, the same test rows in pairs, settings that differ, time, cost.

    RUN is a folder such as those in runs/; the first one is what the others are compared with.
    """
    from hf_finetune.compare import compare_runs, write_html

    comparison = compare_runs(runs)
    click.echo(comparison.as_markdown(), nl=False)
    if html:
        write_html(comparison, html)
        click.echo(f"\npage      {html}")
