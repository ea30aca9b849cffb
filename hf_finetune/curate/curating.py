"""The passes in order: sources -> chunks -> sketches -> near-duplicates -> splits -> the folder of the data set.

What a pass leaves lies in a hidden folder beside the output, each file whole or absent, until the output is there by
one rename: whatever stops a run, and whenever, the same command goes on, and ends with the same bytes.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_finetune.curate.checking import MOST_LABELS, Source, Tally
from hf_finetune.curate.chunks import PROMPTS, Batch, batches, chunk_folder, read_prompts, read_tally, write_chunk
from hf_finetune.curate.datacard import write_card
from hf_finetune.curate.facts import card_facts
from hf_finetune.curate.labels import rare_labels
from hf_finetune.curate.leakage import leakage
from hf_finetune.curate.passes import Passes, Say
from hf_finetune.curate.plan import Feed, Plan
from hf_finetune.curate.refusals import all_dropped, check_share_of_labels, no_row_left, no_row_read
from hf_finetune.curate.rows import from_json, hashed, read_rows
from hf_finetune.curate.settling import settle
from hf_finetune.curate.shapes import common_shape
from hf_finetune.curate.similar import Similar, find_similar
from hf_finetune.curate.sketches import Banding, sketch
from hf_finetune.curate.workers import in_order
from hf_finetune.curate.writing import write_rows
from hf_finetune.data.findings import expected_of
from hf_finetune.data.layouts import CALLED, KNOWN_COLUMNS, LOOKED_AT, detect
from hf_finetune.data.reading import forms_of, stream_located
from hf_finetune.data.records import Broken, Record
from hf_finetune.data.sources import suffix_of
from hf_finetune.data.splits import FEWEST, Boilerplate, boilerplate
from hf_finetune.errors import RecipeError, nearest, plural
from hf_finetune.files import read_json, whole_file, whole_folder, write_json
from hf_finetune.folder import held

CARD = "data_card.json"
INSTRUCTED = 20
"""Rows a prompt from which a handful of prompts are instructions, and no questions."""


def prepare_data(plan: Plan, folder: Path, workers: int, overwrite: bool = False, say: Say = print) -> dict[str, Any]:
    """Leaves the data set in `folder` and gives back its facts, those of data_card.json.

    Raises:
        RecipeError: a source that cannot be read, no row that can be learnt from, a folder that is not ours.
    """
    fingerprint = plan.fingerprint()
    ready = _ready(folder, fingerprint, overwrite)
    if ready:
        say(f"is there  {folder}: made of the same sources with the same options")
        return ready
    work, passes = work_folder(folder), Passes(say)
    opened = [_opened(feed, plan, is_main=number == 0) for number, feed in enumerate(plan.feeds)]
    sources = [source for source, _ in opened]
    with held(work, naming="-o DIR"):
        _begin(work, fingerprint, say)
        folders = _read(opened, plan, work, workers, passes)
        index = _sketch(plan, work, folders, workers, passes)
        facts = _finish(plan, folder, fingerprint, sources, folders, index, passes)
        _forget(work)
    shutil.rmtree(work, ignore_errors=True)
    say("took      " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in passes.seconds.items()))
    return facts


def work_folder(folder: Path) -> Path:
    """Where the intermediate files of an output lie."""
    return folder.with_name(f".{folder.name}.unfinished")


def _ready(folder: Path, fingerprint: str, overwrite: bool) -> dict[str, Any] | None:
    """The facts of what lies in the folder, where it is what is asked for.

    Raises:
        RecipeError: when it is anything else, and is not to be replaced.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        facts: dict[str, Any] = read_json(folder / CARD)
        found = facts["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        raise RecipeError(
            f"{folder}: is there already, and is no data set that this command wrote. Name another folder with -o."
        ) from None
    if found == fingerprint and not overwrite:
        return facts
    if not overwrite:
        raise RecipeError(
            f"{folder}: holds a data set of other sources or options. Name another with -o, or replace it: --overwrite."
        )
    return None


def _begin(work: Path, fingerprint: str, say: Say) -> None:
    """Goes on with what an earlier run of the same left; what another one left goes."""
    try:
        known = read_json(work / "plan.json")["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        known = None
    if known == fingerprint:
        chunks = sum(1 for path in (work / "chunks").glob("chunk-*") if path.is_dir())
        if chunks:
            say(f"goes on   with {plural(chunks, 'chunk')} of rows that {'is' if chunks == 1 else 'are'} in {work}")
        return
    if known is not None:
        say("afresh    what an earlier run left is of other sources or options")
    _forget(work)
    write_json(work / "plan.json", {"fingerprint": fingerprint})


def _forget(work: Path) -> None:
    """Takes all away but the lock, the plan first: what a kill leaves then is nobody's."""
    for name in ("plan.json", "read.json", "similar.npz"):
        (work / name).unlink(missing_ok=True)
    shutil.rmtree(work / "chunks", ignore_errors=True)


# Read: records to chunks


def _read(
    opened: Sequence[tuple[Source, Iterable[Record | Broken]]], plan: Plan, work: Path, workers: int, passes: Passes
) -> list[Path]:
    """The chunks of all sources, each made unless it is there."""
    sources = [source for source, _ in opened]
    chunks, done = work / "chunks", work / "read.json"
    if done.is_file():
        return [chunk_folder(chunks, number) for number in range(read_json(done)["chunks"])]
    files = file_names(plan)
    made: list[Path] = []
    read = 0

    def tasks() -> Iterator[Batch]:
        nonlocal read
        for batch in batches((records for _, records in opened), chunks):
            made.append(batch.folder)
            read += len(batch.records)
            advance(read)
            if not batch.folder.is_dir():
                yield batch

    with passes.begun("read", "rows") as advance:
        work_on = partial(_write_chunk, plan=plan, sources=sources, files=files)
        for _ in in_order(work_on, tasks(), workers):
            pass
    write_json(done, {"chunks": len(made)})
    return made


def _write_chunk(batch: Batch, plan: Plan, sources: Sequence[Source], files: Sequence[str]) -> None:
    write_chunk(batch, plan, sources[batch.feed], files)


def _opened(feed: Feed, plan: Plan, is_main: bool) -> tuple[Source, Iterable[Record | Broken]]:
    """What is learnt from the first records of a source, and all its records."""
    is_table = any(suffix_of(path.name).startswith((".csv", ".tsv")) for path in feed.located.paths)
    fields = KNOWN_COLUMNS if is_table else ()  # they help to find the delimiter
    with closing(stream_located(feed.located, fields)) as records:
        head = list(islice(records, LOOKED_AT))
    known = [one for one in head if isinstance(one, Record)]
    if not known:
        faults = (one for one in head if isinstance(one, Broken) and one.check != "duplicate_column")
        raise no_row_read(feed, next(faults, None))
    if is_main and plan.group and not any(plan.group in one.values for one in known):
        columns = list(dict.fromkeys(name for one in known for name in one.values))
        raise RecipeError(f"--group {plan.group}: {feed.name} has no such column. {nearest(plan.group, columns)}")
    layout = detect(known, plan.mapping if is_main else {})
    if is_main and plan.labels and layout.kind != "text_label":
        raise RecipeError(
            f"--labels: the rows of {feed.name} have none, as they are {CALLED[layout.kind]}. "
            f"Leave it out, or say which columns are meant: --map text=COLUMN --map label=COLUMN."
        )
    samples = [sample for record in known if (sample := layout.sample(record)[0])]
    labels = plan.labels if is_main else ()
    expected = expected_of(samples, labels, has_personal=not plan.mask_personal, region=plan.region)
    records = stream_located(feed.located, fields)  # which opens its file when it is read
    return Source(layout, expected, forms_of(feed.located, fields)), records


def file_names(plan: Plan) -> list[str]:
    """The files of all sources, as rows name them."""
    return list(dict.fromkeys(name for feed in plan.feeds for name in feed.located.file_names.values()))


# Sketch: what near-duplicates are found by


@dataclass(frozen=True)
class _Index:
    """What is known of the rows of all chunks."""

    tallies: dict[int, Tally]
    """By the number of the source."""
    feeds: NDArray[np.uint16]
    """Of each row the number of its source."""
    similar: Similar
    with_answers: bool
    """Whether rows are told apart by their answers too, as they have but a few prompts."""


def _sketch(plan: Plan, work: Path, folders: Sequence[Path], workers: int, passes: Passes) -> _Index:
    read = [read_tally(folder) for folder in folders]
    tallies: dict[int, Tally] = {}
    for feed, own in read:
        tallies.setdefault(feed, Tally()).add(own)
    if plan.labels and "unknown_label" not in (*plan.keep, *plan.drop):
        check_share_of_labels(plan, tallies[0])
    feeds = feed_of_rows(read)
    if not (feeds == 0).any():
        raise no_row_left(plan, tallies[0])
    banding = Banding.for_similarity(plan.similarity)
    shared, with_answers = _shared(folders, len(feeds))
    with passes.begun("sketch", "chunks", len(folders)) as advance:
        work_on = partial(_write_sketch, shared=shared, with_answers=with_answers, banding=banding, seed=plan.seed)
        for done, _ in enumerate(in_order(work_on, folders, workers), 1):
            advance(done)
    return _Index(tallies, feeds, _similar(plan, work, folders, banding, passes), with_answers)


def feed_of_rows(read: Sequence[tuple[int, Tally]]) -> NDArray[np.uint16]:
    """Of each row that has stayed the number of its source, from those of the chunks with what was met in each."""
    return np.repeat(np.array([feed for feed, _ in read], dtype=np.uint16), [own.kept for _, own in read])


def _shared(folders: Sequence[Path], rows: int) -> tuple[Boilerplate, bool]:
    """What prompts share, and whether they are so few instructions for so many rows that answers tell rows apart."""
    prompts: dict[int, str] = {}
    for folder in folders:
        prompts = dict(sorted((prompts | read_prompts(folder)).items())[:PROMPTS])
    with_answers = len(prompts) < FEWEST and (rows >= INSTRUCTED * len(prompts) or prompts.keys() == {hashed("")})
    return (Boilerplate() if with_answers else boilerplate(list(prompts.values()))), with_answers


def _write_sketch(folder: Path, shared: Boilerplate, with_answers: bool, banding: Banding, seed: int) -> None:
    """Leaves the sketch of a chunk's rows in its folder, unless it is there already."""
    if (sketched(folder)).is_dir():
        return
    samples = map(from_json, read_rows(folder))
    texts = [
        shared.without(one.prompt) if one.prompt and not with_answers else f"{one.prompt} {one.completion}"
        for one in samples
    ]
    with whole_folder(sketched(folder)) as into:
        sketch(texts, banding, seed).write(into)


def sketched(folder: Path) -> Path:
    """Where the sketch of a chunk lies."""
    return folder / "sketch"


def _similar(plan: Plan, work: Path, folders: Sequence[Path], banding: Banding, passes: Passes) -> Similar:
    """Which rows are alike; it is kept, as it takes long where there are many."""
    path = work / "similar.npz"
    if path.is_file():
        with np.load(path) as kept:
            return Similar(kept["first"], *map(int, kept["counts"]))
    with passes.begun("compare", "bands", banding.bands) as advance:
        found = find_similar([sketched(folder) for folder in folders], plan.similarity, advance)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, first=found.first, counts=np.array([found.compared, found.crowded, found.texts]))
    return found


# Finish: splits, files, card


def _finish(
    plan: Plan, folder: Path, fingerprint: str, sources: Sequence[Source], folders: Sequence[Path], index: _Index,
    passes: Passes,
) -> dict[str, Any]:  # fmt: skip
    total = Tally()
    for own in index.tallies.values():
        total.add(own)
    shape = common_shape(total.shapes)
    has_labels = shape.name == "label" and len(total.labels) <= MOST_LABELS
    sketches, files = [sketched(one) for one in folders], file_names(plan)
    with passes.begun("split", "passes"):
        settled = settle(folders, index.feeds, index.similar, plan, has_labels)
        if not settled.kept.any():
            raise all_dropped(plan, settled)
        rare = rare_labels(folders, settled, total.labels, files) if has_labels and not plan.labels else []
        leaks = leakage(folders, sketches, settled, index.with_answers, plan.similarity, plan.seed)
    with whole_folder(folder) as into:
        with passes.begun("write", "chunks", len(folders)) as advance:
            written = write_rows(into, folders, settled, index.feeds, files, shape, total.weighted > 0, plan, advance)
        facts = card_facts(
            into, plan, fingerprint, folder.name, sources, index.tallies, total, settled, leaks, shape, written, folders
        ) | {"rare_labels": rare}
        write_json(into / CARD, facts)
        write_card(into, facts)
    return facts
