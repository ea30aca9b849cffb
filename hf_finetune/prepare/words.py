"""What data.json says of the rows, in words: for the screen and the report."""

from collections.abc import Mapping
from typing import Any

from hf_finetune.data.splits import SPLITS
from hf_finetune.errors import SHOWN_FAULTS, plural


def in_words(facts: Mapping[str, Any]) -> list[str]:
    """What data.json says, in lines for the screen: how many rows, which left and why."""
    rows = facts["rows"]
    lines = [f"{plural(facts['rows_read'], 'row')} from {facts['source']['name']}: " + ", ".join(
        f"{rows[name]:,} {name}" for name in SPLITS
    ) + (", as its files are named" if "splits_given" in facts else "")]  # fmt: skip
    left = {
        "exact duplicates": facts["exact_duplicates_dropped"],
        "with contradictory answers": facts["contradictory_dropped"],
        "near-duplicates of rows in another split": facts.get("near_other_splits_dropped", 0),
        f"longer than {facts['max_length']} tokens": sum(facts["longer_than_max_length"].values())
        - facts["longer_than_max_length"]["test"],
    }
    if any(left.values()):
        lines.append("left out: " + ", ".join(f"{count:,} {why}" for why, count in left.items() if count))
    lines += oddities_in_words(facts)
    if facts.get("train_rows_of_test_groups"):
        shared = plural(facts["train_rows_of_test_groups"], "training row")
        lines.append(f"test rows share their group with {shared}")
    if facts["near_duplicates"]:
        lines.append(
            f"{facts['near_duplicates']:,} near-duplicates (token Jaccard >= "
            f"{facts['near_duplicate_similarity']:g}) kept on one side of the split"
        )
    return lines


def oddities_in_words(facts: Mapping[str, Any]) -> list[str]:
    """Which rows were left out as they are broken or cannot be marked, and the recipe's remarks."""
    meant = {column: f" (did you mean {field}?)" for column, field in facts.get("columns_meant", {}).items()}
    unused = [f"{column}{meant.get(column, '')}" for column in facts.get("columns_not_used", ())]
    lines = [f"columns not used: {', '.join(unused)}"] if unused else []
    for name, what in (("faulty", "left out as they are broken"), ("unmarkable", "left out of the test split")):
        if name in facts:
            lines += [f"{plural(facts[name]['rows'], 'row')} {what}:", *(f"  {one}" for one in _first(facts[name]))]
    return [*lines, *facts.get("remarks", ())]


def notes_on_rows(facts: Mapping[str, Any]) -> list[str]:
    """What a reader of the report must know of rows that are not in it."""
    broken, unmarkable = (facts[name]["rows"] if name in facts else 0 for name in ("faulty", "unmarkable"))
    told = [f"{plural(broken, 'row')} that are broken"] if broken else []
    told += [f"{plural(unmarkable, 'test row')} to which no answer can be marked"] if unmarkable else []
    return [f"Left out: {' and '.join(told)}; data.json names them."] if told else []


def _first(faults: Mapping[str, Any]) -> list[str]:
    """The first faults, and how many more there are."""
    shown = faults["first"][:SHOWN_FAULTS]
    more = faults["rows"] - len(shown)
    return [*shown, *([f"(and {more:,} more; see data.json)"] if more else [])]
