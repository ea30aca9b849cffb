"""What is asked for and what is in the folder -> what there is to do: rows as tokens, the base, where to go on from."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_finetune.card_check import check_docstring
from hf_finetune.chat import ChatFormat
from hf_finetune.checkpoints import is_over, last_whole, state_of
from hf_finetune.data.sources import Source
from hf_finetune.doctor import BEFORE_ROWS, BEFORE_TRAINING, Area, Subject, notes_of
from hf_finetune.errors import RecipeError, first_line
from hf_finetune.files import read_json, unreadable
from hf_finetune.folder import check_folder, held, holds_run
from hf_finetune.hub.rights import Target, check_base, check_target
from hf_finetune.interruption import Interrupted
from hf_finetune.layers import Settled
from hf_finetune.licences import adapter_license, noted, read_license
from hf_finetune.model import BaseModel, find_base_model, load_tokenizer
from hf_finetune.prepare import Encoded, Prepared, encode, in_words, prepare
from hf_finetune.processes import is_main, join, num_processes, release_others, share
from hf_finetune.progress import Progress, Session, duration, read_session
from hf_finetune.recipe import Recipe
from hf_finetune.resolve import find_card
from hf_finetune.run import (
    EVALUATION_SETTINGS,
    FREE_SETTINGS,
    Run,
    describe_computing,
    describe_hardware,
    describe_recipe,
    note_versions,
    now,
    refuse_another_base,
    told,
)
from hf_finetune.scoring import check_evaluation
from hf_finetune.settings import Settings

ROW_FILES = ("data.json", "splits/test.jsonl")
EVALUATION_FILES = ("report.json", "answers.jsonl")
"""What other commands read of the rows and of the evaluation: where one is gone, the run's command makes it again."""


@dataclass(frozen=True)
class Request:
    """What a run is asked for."""

    recipe: Recipe[Any]
    path_or_name: str
    source: Source
    settled: Settled
    folder: Path
    license: str | None
    """Of the adapter; None when it is not known (rows of the user's own)."""
    command: Sequence[str] = ()
    is_demo: bool = False
    overwrite: bool = False
    evaluated: dict[str, Any] = field(default_factory=dict)
    """What is evaluated without a training, and on which rows."""
    base_folder: Path | None = None
    """Where runs that ask one base the same test rows keep what it gives."""


@dataclass(frozen=True)
class Begun:
    """What the main process has prepared for all of them."""

    run: Run
    base: BaseModel
    chat: ChatFormat
    prepared: Prepared
    encoded: Encoded
    facts: dict[str, Any]
    """Of the rows, as prepared and as encoded: data.json."""
    checkpoint: Path | None
    """Where the training goes on from."""
    trains: bool
    """Whether there are steps to make."""
    evaluates: bool
    """Whether there are test rows to answer."""


@contextmanager
def opened(
    request: Request, last_files: Sequence[str], say: Callable[[str], None]
) -> Iterator[tuple[Run | None, bool, Progress | None]]:
    """Holds the folder and gives the run to make in it, whether that is one to go on with, and where its progress goes.

    There is no run in processes other than the main one, and no progress of a run that is finished and whose last
    files are there. How the session ends is recorded.

    Raises:
        RecipeError: when the folder cannot be used, or holds another run.
    """
    folder = request.folder
    if is_main():
        check_folder(folder, request.overwrite)
    with held(folder) if is_main() else nullcontext():
        run, goes_on = run_to_make(request) if is_main() else (None, False)
        if run and run.finished and all((folder / name).exists() for name in last_files):
            say(f"run       {folder}: is finished, there is nothing to do. --overwrite makes it again.")
            yield run, goes_on, None
            return
        if run and goes_on:
            record_stop(run, folder)
        progress = Progress(Session(now()), folder, say)
        try:
            yield run, goes_on, progress
        except BaseException as error:
            progress.session.ended = f"was stopped by {error}" if isinstance(error, Interrupted) else "failed"
            progress.session.reason = "" if isinstance(error, Interrupted) else first_line(error)
            raise
        finally:
            progress.close()
            progress.write()


def run_to_make(request: Request) -> tuple[Run, bool]:
    """The run to make, and whether that is one in the folder to go on with; nothing is written yet.

    An unfinished run that the very same command began is gone on with although that says --overwrite: it comes out
    the same, and who was interrupted types the same command again.

    Raises:
        RecipeError: when the folder holds another run, and --overwrite is not given.
    """
    asked = Run(
        command=list(request.command),
        recipe=describe_recipe(request.recipe, request.path_or_name),
        settings=request.settled.as_json(),
        base_model={},
        source=request.source.identity(),
        data={},
        license=request.license,
        is_own_data=request.source != request.recipe.dataset,
        is_demo=request.is_demo,
        evaluated=request.evaluated,
        num_processes=num_processes(),
    )
    if not holds_run(request.folder):
        return asked, False
    try:
        run = Run.read(request.folder)
    except RecipeError:
        if request.overwrite:
            return asked, False
        raise
    found = run.differences(asked)
    if request.overwrite and (run.finished or found or run.command != asked.command):
        return asked, False
    refuse_differences(request.folder, found, request.path_or_name)
    run.settings |= {name: asked.settings[name] for name in FREE_SETTINGS}
    return run, True


def refuse_differences(folder: Path, found: Sequence[str], path_or_name: str = "") -> None:
    """Stops where the run in the folder is another one than is asked for, of the recipe of that path or name.

    Raises:
        RecipeError: naming each of the differences that were found, if there are any.
    """
    if found:
        again = _way_to_keep_training(folder, found, path_or_name)
        raise RecipeError(
            f"{folder}: holds a run that was begun otherwise: {'; '.join(found)}. Start it as it was begun, "
            f"or name another folder with output_dir=FOLDER, or replace it with --overwrite{again}."
        )


def _way_to_keep_training(folder: Path, found: Sequence[str], path_or_name: str) -> str:
    """How an adapter that is there already can be evaluated otherwise, where only that is asked for."""
    if all(difference.split()[0] in EVALUATION_SETTINGS for difference in found):
        return "; hf-finetune evaluate --adapter FOLDER evaluates its adapter with others"
    only_recipe = len(found) == 1 and found[0].startswith("the recipe")
    if only_recipe and (folder / "adapter" / "adapter_config.json").exists():
        command = f"hf-finetune evaluate {path_or_name} --adapter {folder}"
        return f", which throws its training away; {command}, with the same --data and settings, keeps the training"
    return ""


def record_stop(run: Run, folder: Path) -> None:
    """Adds the session that was stopped to the run's record, before this one's progress takes its place."""
    stopped = read_session(folder)
    run.finished = ""
    if stopped:
        run.add_session(stopped)
    run.write(folder)


def begin(run: Run | None, goes_on: bool, request: Request, progress: Progress, say: Callable[[str], None]) -> Begun:
    """What the main process, the one that has a run, prepares alone, in all of them."""
    begun = _begin(run, goes_on, request, progress, say) if run else None
    if begun:
        release_others()
    join()
    return share(begun)


def _begin(run: Run, goes_on: bool, request: Request, progress: Progress, say: Callable[[str], None]) -> Begun:
    """The rows as tokens, the base model, and where to go on from; all that can fail on the way has been tried."""
    recipe, folder, settings = request.recipe, request.folder, request.settled.values
    check_docstring(run.recipe)
    if goes_on:
        check_circumstances(run, folder, settings, say)
    subject = Subject(request.settled, recipe, folder=folder, is_demo=request.is_demo)
    look_at(subject, BEFORE_ROWS, goes_on, say)
    prepared = prepare(recipe, request.source, settings, run.data.get("commit"), progress)
    check_evaluation(recipe, prepared.rows, settings)
    base = find_base_model(settings, run.base_model.get("commit"))
    if settings.hub_model_id:
        check_base(base.name, base.commit)
        check_target(Target(settings.hub_model_id, private=settings.hub_private_repo))
    run.data = prepared.facts["source"] | license_of_data(run, prepared.facts["source"])
    recorded = base.as_json()
    refuse_another_base(run, recorded.get("files", {}))
    run.base_model |= recorded | license_of_base(run, base)
    adapter_license(run.license, run.data, run.base_model)
    chat = ChatFormat.of(load_tokenizer(base))
    encoded = encode(recipe, prepared, chat, settings, progress)
    facts = prepared.facts | encoded.facts
    subject.base, subject.chat, subject.prepared, subject.encoded = base, chat, prepared, encoded
    subject.num_train_rows = len(encoded.train)
    look_at(subject, BEFORE_TRAINING, goes_on, say)
    if goes_on:
        check_same_rows(facts, folder)
    for line in in_words(facts):
        say(f"data      {line}")
    run.hardware, run.computing = describe_hardware(), describe_computing(settings)
    run.base_model |= {
        "has_chat_template": bool(chat.tokenizer.chat_template),
        "chat_template_sha256": chat.template_sha256,
        "stop_token_id": chat.ending[-1],
    }
    checkpoint = _resume(run, folder, say) if goes_on else None
    trains = not goes_on or not _is_trained(folder, checkpoint)
    evaluates = trains or not all((folder / name).exists() for name in EVALUATION_FILES)
    return Begun(run, base, chat, prepared, encoded, facts, checkpoint, trains, evaluates)


def look_at(subject: Subject, areas: Sequence[Area], goes_on: bool, say: Callable[[str], None]) -> None:
    """Looks at what takes no time to look at; what is told when a run begins is not told again when it goes on.

    Raises:
        RecipeError: with all faults, if there are any.
    """
    notes = notes_of(subject, areas)
    for note in [] if goes_on else notes:
        say(f"note      {note}")


def license_of_data(run: Run, source: dict[str, Any]) -> dict[str, Any]:
    """The data set's licence as its card gives it; what a run noted when it was begun stays."""
    on_hub = source["is_on_hub"]
    return noted(run.data) or read_license(find_card(source["name"], source["commit"], "data set") if on_hub else None)


def license_of_base(run: Run, base: BaseModel) -> dict[str, Any]:
    """The base's licence as its card gives it; what a run noted when it was begun stays."""
    local = Path(base.location) / "README.md"
    return noted(run.base_model) or read_license(
        find_card(base.name, base.commit, "base model") if base.commit else local
    )


def check_circumstances(run: Run, folder: Path, settings: Settings, say: Callable[[str], None]) -> None:
    """Whether the run in the folder can be gone on with here; libraries that have changed are told.

    Raises:
        RecipeError: when it was begun on another device, in another dtype, or shared out otherwise.
    """
    refuse_differences(folder, told(run.computing, describe_computing(settings)))
    for line in note_versions(run):
        say(f"note      {line}")


def check_same_rows(facts: dict[str, Any], folder: Path) -> None:
    """Whether the rows are those that the run in the folder was begun with.

    Raises:
        RecipeError: when they come out otherwise.
    """
    try:
        is_other = facts != read_json(folder / "data.json")
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise unreadable(folder / "data.json", error) from error
    if is_other:
        raise RecipeError(
            f"{folder}: its rows come out otherwise than when the run was begun: what the recipe imports, the base's "
            f"tokenizer or a library has changed. Name another folder with output_dir=FOLDER, or replace the run with "
            f"--overwrite."
        )


def _resume(run: Run, folder: Path, say: Callable[[str], None]) -> Path | None:
    """The checkpoint to go on from."""
    checkpoint = last_whole(folder / "checkpoints", say)
    total = f" of {state_of(checkpoint)['max_steps']:,} steps" if checkpoint else ""
    where = f"{checkpoint.name}{total}" if checkpoint else "the beginning: there is no whole checkpoint"
    before = "".join(f"; the last {last['ended']} after {duration(last['seconds'])}" for last in run.sessions[-1:])
    say(f"resume    goes on from {where} (session {len(run.sessions) + 1}{before})")
    return checkpoint


def _is_trained(folder: Path, checkpoint: Path | None) -> bool:
    return (folder / "adapter" / "adapter_config.json").exists() or (checkpoint is not None and is_over(checkpoint))
