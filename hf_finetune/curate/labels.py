"""Labels that few rows have and that are nearly a frequent one: nobody sees one wrong row among thousands."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_finetune.curate.rows import column, hashed
from hf_finetune.curate.settling import Settled
from hf_finetune.data.findings import RARE, meant_label


def rare_labels(
    folders: Sequence[Path], settled: Settled, labels: Mapping[str, int], files: Sequence[str]
) -> list[dict[str, Any]]:
    """Each label that another one, `RARE` times as frequent, is nearly like, with the first row that has it.

    The rows stay: `relevant` and `irrelevant` are both right.
    """
    found = []
    hashes, numbers, file_of = (column(folders, name) for name in ("label", "number", "file"))
    for own, count in labels.items():
        frequent = tuple(name for name, others in labels.items() if others > count * RARE)
        meant = meant_label(own, frequent, is_sure=False)
        if meant is None:
            continue
        for row in np.flatnonzero((hashes == hashed("label", own)) & settled.kept)[:1]:
            message = f"the label {own!r} stands in {count:,} of the rows, and {meant!r} in {labels[meant]:,}."
            place = {"file": files[file_of[row]], "row": int(numbers[row])}
            found.append({**place, "message": message, "advice": f"Did you mean {meant!r}?"})
    return found
