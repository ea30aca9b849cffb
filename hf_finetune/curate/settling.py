"""The index of all rows -> what becomes of each: dropped and why, or the split that it is in. No text is held."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_finetune.curate.plan import SHARES, Plan
from hf_finetune.curate.rows import column
from hf_finetune.curate.similar import Flags, Parents, Similar, roots, unite
from hf_finetune.curate.sketches import Hashes, Numbers, mixed
from hf_finetune.data.splits import FEWEST, SPLITS

Codes = NDArray[np.uint8]


class Fate(IntEnum):
    """What becomes of a row that was read well."""

    KEPT = 0
    EXACT_DUPLICATE = 1
    CONTRADICTORY = 2
    NEAR_DUPLICATE = 3
    NEAR_TEST = 4
    """General data that is nearly the same as a row to validate or test with."""
    NOT_DRAWN = 5
    """General data beyond the share that is mixed in."""

    @property
    def check(self) -> str:
        """What the reason is called."""
        return self.name.lower()


@dataclass(frozen=True)
class Settled:
    """Of each row, in their order."""

    fate: Codes
    split: Codes
    """The number of its split in SPLITS, where it is kept."""
    twin: Parents
    """The row for whose sake it was dropped: the first of the same, or of those it contradicts or nearly equals."""
    facts: dict[str, Any]

    @property
    def kept(self) -> Flags:
        """Which rows are in the data set."""
        kept: Flags = self.fate == Fate.KEPT
        return kept

    def of(self, split: str) -> Flags:
        """Which rows are in a split."""
        rows: Flags = self.kept & (self.split == SPLITS.index(split))
        return rows


def settle(
    folders: Sequence[Path], feeds: NDArray[np.uint16], similar: Similar, plan: Plan, has_labels: bool
) -> Settled:
    """What becomes of each row; `feeds` has the number of the source of each."""
    count = len(feeds)
    rows = column(folders, "row")
    fate, twin = np.zeros(count, dtype=np.uint8), np.arange(count, dtype=np.int32)
    facts = _drop_exact(rows, fate, twin, plan) | _drop_contradictory(folders, rows, fate, twin, plan)
    facts |= _near_duplicates(fate, twin, similar, plan)
    clusters = similar.first.copy()
    if plan.group:
        _join_equal(clusters, column(folders, "group"), fate)
        clusters = roots(clusters, np.arange(count))
    labels = column(folders, "label") if has_labels else np.zeros(count, dtype=np.uint64)
    is_own = (fate == Fate.KEPT) & np.isin(feeds, [n for n, feed in enumerate(plan.feeds) if feed.mix is None])
    split = np.zeros(count, dtype=np.uint8)
    facts |= _split(split, is_own, clusters, labels, rows, plan.seed)
    facts |= _mix(fate, split, is_own, clusters, feeds, rows, plan)
    return Settled(fate, split, twin, facts)


def _drop_exact(rows: Hashes, fate: Codes, twin: Parents, plan: Plan) -> dict[str, Any]:
    """Of the same rows the first stays."""
    _, first, group = np.unique(rows, return_index=True, return_inverse=True)
    again = first[group] != np.arange(len(rows))
    if plan.fix != "none" and Fate.EXACT_DUPLICATE.check not in plan.keep:
        fate[again], twin[again] = Fate.EXACT_DUPLICATE, first[group][again]
    return {"exact_duplicates": int(again.sum())}


def _drop_contradictory(
    folders: Sequence[Path], rows: Hashes, fate: Codes, twin: Parents, plan: Plan
) -> dict[str, Any]:
    """Where a question that has one answer has two, nobody knows which is right: none stays. Of open ones all stay."""
    questions, prompts = column(folders, "question"), column(folders, "prompt")
    several, first = _with_several(questions, rows, fate)
    if Fate.CONTRADICTORY.check not in plan.keep:
        fate[several], twin[several] = Fate.CONTRADICTORY, first[several]
    open_ones, _ = _with_several(np.where(questions == 0, prompts, np.uint64(0)), rows, fate)
    return {"contradictory": int(several.sum()), "several_answers": int(open_ones.sum())}


def _with_several(keys: Hashes, values: Hashes, fate: Codes) -> tuple[Flags, Numbers]:
    """Which kept rows have a key under which there are several values; and the first other row under the key."""
    places = np.flatnonzero((fate == Fate.KEPT) & (keys != 0))
    found, other = np.zeros(len(keys), dtype=bool), np.arange(len(keys))
    if not len(places):
        return found, other
    order = places[np.lexsort((places, keys[places]))]
    starts = np.flatnonzero(np.concatenate([[True], keys[order][1:] != keys[order][:-1]]))
    sizes = np.diff(np.concatenate([starts, [len(order)]]))
    differs = np.maximum.reduceat(values[order], starts) != np.minimum.reduceat(values[order], starts)
    found[order] = np.repeat(differs, sizes)
    first, second = order[starts], order[np.minimum(starts + 1, len(order) - 1)]
    leader = np.repeat(first, sizes)
    other[order] = np.where(leader == order, np.repeat(second, sizes), leader)
    return found, other


def _near_duplicates(fate: Codes, twin: Parents, similar: Similar, plan: Plan) -> dict[str, Any]:
    """How many rows have a near-duplicate; if they are to go, the first of those that are connected stays."""
    kept = np.flatnonzero(fate == Fate.KEPT)
    sizes = np.bincount(similar.first[kept], minlength=len(fate))
    facts = {
        "near_duplicates": int(sizes[sizes > 1].sum()),
        "near_duplicate_groups": int((sizes > 1).sum()),
        "largest_group": int(sizes.max(initial=0)),
        "texts": similar.texts,
        "pairs_compared": similar.compared,
        "texts_in_crowded_buckets": similar.crowded,
    }
    if Fate.NEAR_DUPLICATE.check in plan.drop:
        first = np.full(len(fate), len(fate), dtype=np.int64)
        np.minimum.at(first, similar.first[kept], kept)
        again = kept[first[similar.first[kept]] != kept]
        fate[again], twin[again] = Fate.NEAR_DUPLICATE, first[similar.first[again]]
    return facts


def _join_equal(clusters: Parents, keys: Hashes, fate: Codes) -> None:
    """Connects the rows with equal keys."""
    places = np.flatnonzero((fate == Fate.KEPT) & (keys != 0))
    _, first, group = np.unique(keys[places], return_index=True, return_inverse=True)
    unite(clusters, places, places[first[group]])


def _split(split: Codes, is_own: Flags, clusters: Parents, labels: Hashes, rows: Hashes, seed: int) -> dict[str, Any]:
    """Assigns whole clusters to splits, each label's by the shares; all rows to the first where there are too few."""
    own = np.flatnonzero(is_own)
    ids, first, group = np.unique(clusters[own], return_index=True, return_inverse=True)
    sizes = np.bincount(group, minlength=len(ids))
    leaders = own[first]
    order = mixed(rows[leaders] ^ mixed(np.array([seed], dtype=np.uint64)))
    codes = assign(sizes, labels[leaders], order, SHARES)
    enough = len(ids) >= FEWEST and len(np.unique(codes)) == len(SPLITS)
    if enough:
        split[own] = codes[group]
    return {"independent_groups": len(ids), "is_split": bool(enough), "largest_split_group": int(sizes.max(initial=0))}


def assign(sizes: Numbers, strata: Hashes, order: Hashes, shares: Mapping[str, float]) -> Codes:
    """The number of the split of each cluster, as `data.splits` assigns them: in each stratum by the shares.

    It differs from that in one way, for millions of rows: clusters of one row, which most are, are dealt out together
    by what each split still lacks. `order` stands for chance, and for the clusters' rows alone: the order in which rows
    come does not count.
    """
    wanted = np.array([1 - sum(shares.values()), *(shares[name] for name in SPLITS[1:])])
    lacking = np.zeros(len(SPLITS))  # carried on: strata too small to divide even each other out
    codes = np.zeros(len(sizes), dtype=np.uint8)
    ordered = np.lexsort((order, -sizes, strata))
    ends = np.flatnonzero(strata[ordered][1:] != strata[ordered][:-1]) + 1
    for stratum in np.split(ordered, ends) if len(sizes) else []:
        lacking += wanted * sizes[stratum].sum()
        is_open = strata[stratum[0]] == 0
        for cluster in stratum[sizes[stratum] > 1]:  # large ones first: the small ones even it out
            size = sizes[cluster]
            fits = lacking >= size
            code = int(np.argmax(np.where(fits, lacking / wanted, -np.inf) if is_open and fits.any() else lacking))
            codes[cluster] = code
            lacking[code] -= size
        ones = stratum[sizes[stratum] == 1]
        parts = _parts(lacking, len(ones))
        codes[ones] = np.repeat(np.arange(len(SPLITS)), parts)
        lacking -= parts
    return codes


def _parts(lacking: NDArray[np.float64], count: int) -> Numbers:
    """So many rows in whole parts, by what each split lacks (the largest remainders get what is left over)."""
    open_places = np.clip(lacking, 0, None)
    exact = open_places * count / open_places.sum() if open_places.sum() > 0 else np.array([count, 0.0, 0.0])
    parts: Numbers = np.floor(exact).astype(np.int64)
    for code in np.argsort(parts - exact, kind="stable")[: count - parts.sum()]:
        parts[code] += 1
    return parts


def _mix(
    fate: Codes, split: Codes, is_own: Flags, clusters: Parents, feeds: NDArray[np.uint16], rows: Hashes, plan: Plan
) -> dict[str, Any]:
    """Draws general data for the training split, none of it near a row that is validated or tested with."""
    mixes = {number: feed.mix for number, feed in enumerate(plan.feeds) if feed.mix is not None}
    if not mixes:
        return {}
    held_out = np.zeros(len(fate), dtype=bool)
    held_out[clusters[is_own & (split > 0)]] = True
    training = int((is_own & (split == 0)).sum())
    told = []
    for number, share in mixes.items():
        mine = np.flatnonzero((feeds == number) & (fate == Fate.KEPT))
        near = held_out[clusters[mine]]
        fate[mine[near]] = Fate.NEAR_TEST
        mine = mine[~near]
        wanted = round(share / (1 - sum(mixes.values())) * training)
        drawn = np.argsort(mixed(rows[mine] ^ mixed(np.array([plan.seed], dtype=np.uint64))), kind="stable")
        fate[mine[drawn[wanted:]]] = Fate.NOT_DRAWN
        told.append({"source": plan.feeds[number].name, "share": share, "wanted": wanted,
                     "rows": min(wanted, len(mine)), "near_test": int(near.sum())})  # fmt: skip
    return {"mixed_in": told}
