"""What was found and made -> the facts of a prepared data set, from which its card and its page are written."""

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_finetune.curate.checking import MOST_LABELS, Source, Tally
from hf_finetune.curate.chunks import CHANGED, REJECTED
from hf_finetune.curate.plan import Plan
from hf_finetune.curate.settling import Fate, Settled
from hf_finetune.curate.shapes import Shape
from hf_finetune.curate.writing import Written, lengths
from hf_finetune.data.layouts import CALLED
from hf_finetune.data.splits import SPLITS
from hf_finetune.files import sha256
from hf_finetune.pictures import Axis

BARS = 20
"""About as many bars has a histogram; its last one has all that is longer."""
DROPPED = (Fate.EXACT_DUPLICATE, Fate.CONTRADICTORY, Fate.NEAR_DUPLICATE, Fate.NEAR_TEST)

SPLIT_ANEW = "; its files are named after train and test, and all rows are split anew (a run with --data keeps them)"


def card_facts(
    folder: Path, plan: Plan, fingerprint: str, name: str, sources: Sequence[Source], tallies: Mapping[int, Tally],
    total: Tally, settled: Settled, leaks: Mapping[str, Any], shape: Shape, written: Written, chunks: Sequence[Path],
) -> dict[str, Any]:  # fmt: skip
    """All that data_card.json says; nothing in it depends on when or where or by how many processes it was made.

    `tallies` are those of the sources by their numbers, and `total` is all of them.
    """
    dropped = Counter({fate.check: int((settled.fate == fate).sum()) for fate in DROPPED})
    rejected = {check: count for check, count in (total.rejected + dropped).most_common() if count}
    rows = {split: int(settled.of(split).sum()) for split in SPLITS}
    units = [unit for unit in ("characters", "words", "tokens") if unit != "tokens" or plan.base]
    return {
        "name": name,
        "made_by": f"hf_finetune {version('hf_finetune')}",
        "fingerprint": fingerprint,
        "license": plan.license,
        "languages": list(plan.languages),
        "options": plan.options(),
        "sources": [_source(plan, number, sources[number], tallies) for number in range(len(plan.feeds))],
        "layout": {"shape": shape.name, "columns": [*shape.columns, "source"], "read_by": shape.trainer,
                   "task": shape.task, "command": shape.command},
        "rows": {"read": total.read, "kept": int(settled.kept.sum()), "rejected": sum(rejected.values()),
                 "not_drawn": int((settled.fate == Fate.NOT_DRAWN).sum()), "changed": total.changed_rows, **rows},
        "rejected": rejected,
        "stayed": _stayed(total),
        "changed": dict(total.changed.most_common()),
        "notes": total.notes,
        "examples": total.examples | written.dropped,
        **settled.facts,
        "leakage": dict(leaks),
        "lengths": {unit: _lengths(dict(lengths(chunks, settled, unit))) for unit in units},
        "labels": _labels(written.labels),
        "sources_by_split": {split: dict(counts) for split, counts in written.sources.items()},
        "first_rows": written.examples,
        "files": {
            path: {"bytes": (folder / path).stat().st_size, "sha256": sha256(folder / path)}
            for path in [*written.files, REJECTED, CHANGED]
        },
    }  # fmt: skip


def _source(plan: Plan, number: int, source: Source, tallies: Mapping[int, Tally]) -> dict[str, Any]:
    facts, layout = tallies.get(number, Tally()), source.layout
    return {
        **plan.feeds[number].as_json(),
        "forms": list(source.forms),
        "layout": CALLED[layout.kind],
        "fields": dict(layout.columns),
        "reason": layout.reason + (SPLIT_ANEW if plan.feeds[number].located.comes_split else ""),
        "rows_read": facts.read,
        "rows_usable": facts.kept,
    }


def _stayed(total: Tally) -> dict[str, int]:
    """Of each check the rows that it found something in and that stayed all the same."""
    left = {check: count - total.rejected_by.get(check, 0) for check, count in total.found.most_common()}
    return {check: count for check, count in left.items() if count > 0}


def _labels(counted: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    """How many rows of each split have each label; nothing where there are too many to be labels."""
    names = sorted({label for own in counted.values() for label in own})
    if len(names) > MOST_LABELS:
        return {}
    return {split: {name: own[name] for name in names} for split, own in counted.items()}


def _lengths(by_split: Mapping[str, NDArray[np.int64]]) -> dict[str, Any]:
    """Median, 95th and 99th percentile, longest and sum of each split; and bars of a histogram that all share."""
    if not by_split:
        return {}
    usual = float(np.quantile(np.concatenate(list(by_split.values())), 0.99))
    ticks = Axis.over([0, max(usual, BARS)], steps=BARS).ticks
    counts = {
        name: [int(((own >= low) & (own < high)).sum()) for low, high in pairwise(ticks)]
        for name, own in by_split.items()
    }
    longer = {name: int((own >= ticks[-1]).sum()) for name, own in by_split.items()}
    return {
        "splits": {name: _of_split(own) for name, own in by_split.items()},
        "histogram": {"edges": ticks, "counts": counts, "longer": longer},
    }


def _of_split(own: NDArray[np.int64]) -> dict[str, int]:
    usual, most, nearly_all = np.quantile(own, (0.5, 0.95, 0.99)).astype(int).tolist()
    return {"median": usual, "p95": most, "p99": nearly_all, "longest": int(own.max()), "sum": int(own.sum())}
