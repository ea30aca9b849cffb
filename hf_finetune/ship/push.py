"""A finished run -> the Hub, or a folder that is carried to where the Hub can be reached; verified before it goes."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_finetune.card import verified_parts, write_card
from hf_finetune.errors import RecipeError, first_line, plural
from hf_finetune.files import read_json, whole_folder, write_json
from hf_finetune.hub.publish import Files, LocalFile, changes, publish
from hf_finetune.hub.rights import Form, Target, check_base, check_target
from hf_finetune.ship.finished import Finished
from hf_finetune.ship.published import faults_of_adapter, faults_of_merged, files_of, hashes_of, in_a_line, snippets_of
from hf_finetune.ship.verify import SAMPLE, verify

BUNDLE = "bundle.json"


@dataclass(frozen=True)
class Bundle:
    """What is pushed: of each form its Hub id and its files; and what the commit says."""

    names: Mapping[Form, str]
    files: Mapping[Form, Files]
    description: str

    @property
    def forms(self) -> list[Form]:
        """Adapter first, so that the card of the merged weights never names a repo that is not there."""
        return sorted(self.names)


def names_of(repo_id: str, merged: bool) -> dict[Form, str]:
    """The Hub ids of what is pushed: merged weights are a sibling of their adapter."""
    return {"adapter": repo_id, **({"merged": f"{repo_id}-merged"} if merged else {})}


def ready(
    finished: Finished, names: Mapping[Form, str], verifies: bool = True, say: Callable[[str], None] = print
) -> Bundle:
    """The run's cards with the names that it will have, and its files, which a clean process has loaded as they say.

    It is not loaded where `verifies` is false: then this is to look at, and not to push.

    Raises:
        RecipeError: when a gate is missed, a base is nobody else's, or anything is wrong with the files.
    """
    folder = finished.folder
    refuse_unfit(finished, "merged" in names)
    published: dict[str, str] = dict(names.items())
    merged = finished.run.published.get("merged")
    if merged == names_of(names["adapter"], True)["merged"] and merged in finished.run.pushed:
        published["merged"] = merged  # they were pushed before, and are still there
    if finished.run.published != published:
        run = replace(finished.run, published=published)
        run.write(folder)
        finished = replace(finished, run=run)
        write_card(folder)
    if verifies and not _is_verified(finished, names):
        verify(finished, SAMPLE, say=say)
    write_card(folder)
    files = {
        form: {path.relative_to(folder / form).as_posix(): LocalFile(path) for path in files_of(folder / form, form)}
        for form in names
    }
    return Bundle(names, files, _description(finished))


def check_rights(names: Mapping[Form, str], order: Target) -> None:
    """Whether all of it may be pushed, before any is.

    Raises:
        RecipeError: when it may not.
    """
    for form, name in names.items():
        check_target(replace(order, repo_id=name, form=form))


def push(bundle: Bundle, order: Target, say: Callable[[str], None] = print) -> dict[str, str]:
    """Leaves the adapter, and merged weights, in their repos; `order` says how, for both. Their commits are given back.

    Raises:
        RecipeError: when the Hub or the network refuses; the same call finishes what was begun.
    """
    check_rights(bundle.names, order)
    done = {}
    for form in bundle.forms:
        files, target = bundle.files[form], replace(order, repo_id=bundle.names[form], form=form)
        say(f"push      {form} to {target.repo_id}, {_size(files)}")
        published = publish(files, target, bundle.description, say)
        say(f"{'pushed' if published.is_new else 'is there':9} {published.url}")
        done[target.repo_id] = published.commit
    return done


def tell_changes(bundle: Bundle, order: Target, say: Callable[[str], None] = print) -> None:
    """Tells what a push would do, and does nothing."""
    for form in bundle.forms:
        files, target = bundle.files[form], replace(order, repo_id=bundle.names[form], form=form)
        found = changes(files, target)
        say(f"would push {form} to {target.repo_id}, {_size(files)}")
        for what in ("added", "replaced", "unchanged", "removed"):
            for name in getattr(found, what):
                say(f"  {what:9} {name}" + (f"  {files[name].size:,} bytes" if name in files else ""))


def check_place(folder: Path) -> None:
    """Whether `write_bundle` may write there.

    Raises:
        RecipeError: when something else is there.
    """
    if folder.exists() and not (folder / BUNDLE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise RecipeError(f"{folder}: is there already and holds something else. Name another folder.")


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Leaves all that is pushed in a folder, which `read_bundle` reads on another machine.

    Raises:
        RecipeError: when the folder holds something else, or the disk refuses.
    """
    check_place(folder)
    with whole_folder(folder) as temporary:
        for form, files in bundle.files.items():
            for name, file in files.items():
                (temporary / form / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.path, temporary / form / name)
        hashes = {form: {name: file.sha256 for name, file in files.items()} for form, files in bundle.files.items()}
        facts = {"names": dict(bundle.names), "description": bundle.description, "files": hashes}
        write_json(temporary / BUNDLE, facts)


def read_bundle(folder: Path) -> Bundle:
    """What `write_bundle` left in a folder.

    Raises:
        RecipeError: when a file is missing, or another one than was verified.
    """
    try:
        facts: dict[str, Any] = read_json(folder / BUNDLE)
        names, description, known = facts["names"], facts["description"], facts["files"]
        files = {form: {name: LocalFile(folder / form / name) for name in known[form]} for form in names}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(
            f"{folder / BUNDLE}: cannot be read ({first_line(error)}). Write the folder again."
        ) from error
    for form, own in files.items():
        for name, file in own.items():
            if not file.path.is_file() or file.sha256 != known[form][name]:
                raise RecipeError(
                    f"{file.path}: is missing, or not the file that was verified. Write the folder again."
                )
    return Bundle(names, files, description)


def refuse_unfit(finished: Finished, merged: bool) -> None:
    """Stops where a run is not to be published.

    Raises:
        RecipeError: a gate is missed, the base is a folder of this machine, or there are no merged weights.
    """
    folder, base = finished.folder, finished.run.base_model
    if finished.report.missed:
        names = ", ".join(gate.name for gate in finished.report.missed)
        raise RecipeError(
            f"{folder}: has missed its gates ({names}), so it is not pushed. Mend it, or change the gates."
        )
    check_base(base["name"], base["commit"])
    if merged and not (finished.report.merged and (folder / "merged").is_dir()):
        raise RecipeError(f"{folder}: has no merged weights. Make them with hf-finetune merge {folder}.")


def _is_verified(finished: Finished, names: Mapping[Form, str]) -> bool:
    """Whether verified.json is of the files and the snippets that are there now."""
    folder, parts = finished.folder, verified_parts(finished.folder)
    for form in names:
        faults = (faults_of_adapter if form == "adapter" else faults_of_merged)(finished, folder / form)
        if faults:
            raise RecipeError(f"{folder / form}: {in_a_line(faults)}")
        seen = parts.get(form, {})
        if seen.get("snippet") != snippets_of(folder / form)[0] or seen["files"] != hashes_of(folder / form, form):
            return False
    return True


def _description(finished: Finished) -> str:
    """What the commit says: whence the files come, and what they reached."""
    report, run = finished.report, finished.run
    figure = f"{report.primary_metric} {report.scores['tuned'][report.primary_metric]:.3f}"
    return (
        f"Recipe {run.recipe['name']} by hf_finetune {run.versions['hf_finetune']}: {figure} on "
        f"{plural(report.rows, 'test row')}. Loaded in a clean process before it was pushed."
    )


def _size(files: Files) -> str:
    size = sum(file.size for file in files.values())
    return f"{plural(len(files), 'file')}, {size / 1e6:,.1f} MB"
