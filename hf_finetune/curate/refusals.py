"""The errors where hardly a row, or none, would be left: each with the counts, and what to do."""

import numpy as np

from hf_finetune.curate.checking import Tally
from hf_finetune.curate.plan import Feed, Plan
from hf_finetune.curate.settling import Fate, Settled
from hf_finetune.data.records import Broken
from hf_finetune.errors import RecipeError, plural


def no_row_read(feed: Feed, first: Broken | None) -> RecipeError:
    """The error on a source of which no row could be read; `first` is the first fault in it."""
    if first is None:
        return RecipeError(f"{feed.name}: is empty: it holds no row. Name a file or folder with rows.")
    place = f"row {first.number} " if first.number else "it "
    return RecipeError(f"{feed.name}: holds no row that can be read: {place}{first.message} {first.advice}")


def check_share_of_labels(plan: Plan, tally: Tally) -> None:
    """Whether most rows have one of the given labels: else a label was forgotten, or all are spelt otherwise.

    Raises:
        RecipeError: when they have not.
    """
    other = tally.rejected_by["unknown_label"]
    if 2 * other > tally.read:
        one = tally.examples["unknown_label"][0]
        raise RecipeError(
            f"--labels {','.join(plan.labels)}: {other:,} of {plural(tally.read, 'row')} have another label and would "
            f"be dropped. {one['file']}, row {one['row']:,}: {one['message']} {one['advice']} Name all labels there "
            f"may be, or say that those rows are to go: --drop unknown_label."
        )


def no_row_left(plan: Plan, facts: Tally) -> RecipeError:
    """The error where each row has left for a fault of its own."""
    reasons = ", ".join(f"{check} {count:,}" for check, count in facts.rejected.most_common())
    lines = [f"{plan.feeds[0].name}: none of its {facts.read:,} rows can be learnt from ({reasons})."]
    for check, shown in list(facts.examples.items())[:3]:
        one = shown[0]
        lines.append(f"  {one['file']}, row {one['row']}: {check}: {one['message']} {one['advice']}")
    return RecipeError("\n".join([*lines, "Mend them, say with --map what a row is, or keep them with --keep CHECK."]))


def all_dropped(plan: Plan, settled: Settled) -> RecipeError:
    """The error where the rows that were left have all gone for the sake of others."""
    counts = {Fate(fate).check: int((settled.fate == fate).sum()) for fate in np.unique(settled.fate)}
    reasons = ", ".join(f"{check} {count:,}" for check, count in counts.items())
    return RecipeError(
        f"{plan.feeds[0].name}: no row is left ({reasons}). Mend them, or keep them with --keep {min(counts)}."
    )
