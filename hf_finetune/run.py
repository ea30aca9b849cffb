"""What was run, on what and with what: the facts that run.json keeps."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hf_finetune.errors import RecipeError, first_line
from hf_finetune.files import read_json, sha256, write_json
from hf_finetune.model import compute_dtype
from hf_finetune.processes import sharding
from hf_finetune.progress import Session
from hf_finetune.recipe import ENTRY_POINT_GROUP, Recipe, installed_recipe, is_path, owner, recipe_file
from hf_finetune.settings import Settings, written

LIBRARIES = (
    "hf_finetune torch transformers trl peft accelerate bitsandbytes datasets evaluate huggingface_hub tokenizers"
).split()


FREE_SETTINGS = (
    "output_dir", "run_name", "report_to", "per_device_eval_batch_size", "save_total_limit", "price_per_hour",
    "keep_tokens", "gates", "hub_model_id", "hub_private_repo",
)  # fmt: skip
"""Settings that may be others when a run is gone on with: what is trained and answered does not depend on them."""
EVALUATION_SETTINGS = (
    "few_shot", "few_shot_draws", "baseline", "num_samples", "temperature", "measure_forgetting", "max_test_rows",
)  # fmt: skip
"""Settings that only the evaluation reads."""

SESSION_FACTS = (
    "started", "seconds", "training_seconds", "first_step", "last_step", "peak_memory_gib", "energy_wh", "gains",
    "used", "ended",
)  # fmt: skip


@dataclass
class Run:
    """The record of a run; `run.json` in its folder is this and nothing else."""

    command: list[str]
    recipe: dict[str, Any]
    """Name, class, docstring, where it was loaded from, and the hash of its file."""
    settings: dict[str, dict[str, Any]]
    """Value and origin of each setting."""
    base_model: dict[str, Any]
    """Id, revision, commit, the hashes of the weights `files` of a local folder, the licence on its card, whether it
    has a chat template, and the id of the token that its answers stop at."""
    source: dict[str, Any]
    """Where the rows were asked from: a file's name and hash, or a data set's id and revision."""
    data: dict[str, Any]
    """Where the rows came from: revision and the commit it was resolved to, files and their hashes, licence."""
    license: str | None
    """What is claimed for the adapter; None when it was trained on rows of the user's own and nothing is known of
    theirs."""
    is_own_data: bool
    """Whether other rows than the recipe's data set were used."""
    is_demo: bool = False
    published: dict[str, str] = field(default_factory=dict)
    """The Hub ids of `adapter` and `merged` weights, once they were chosen: the cards name them."""
    pushed: dict[str, str] = field(default_factory=dict)
    """The commits that were pushed last, by Hub id."""
    are_rows_shown: bool = False
    """Whether the cards may quote rows that are not public."""
    evaluated: dict[str, Any] = field(default_factory=dict)
    """Where nothing was trained: the adapter or model that was evaluated, its files' hashes, and on which rows."""
    num_processes: int = 1
    computing: dict[str, str] = field(default_factory=dict)
    """Device, dtype, and what shares the model out: others would make another result."""
    versions: dict[str, str] = field(default_factory=lambda: installed_versions())
    """Of Python and the libraries; `1.0, then 1.1` where a run was gone on with under another one."""
    hardware: dict[str, Any] = field(default_factory=dict)
    started: str = field(default_factory=lambda: now())
    finished: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    """Steps, epochs, the best step and its loss, trainable parameters."""
    totals: dict[str, Any] = field(default_factory=dict)
    """Sessions, steps, seconds, cost, energy and peak memory over all sessions: a step made twice counts twice."""
    sessions: list[dict[str, Any]] = field(default_factory=list)
    """Each stretch of the run until it ended or was stopped: steps, seconds, how it ended."""

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """The record of a run's folder.

        Raises:
            RecipeError: when the folder holds no run.
        """
        try:
            return cls(**read_json(folder / "run.json"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RecipeError(f"{folder}: holds no run. Name a folder such as those in runs/.") from error
        except (OSError, ValueError, TypeError) as error:
            raise RecipeError(
                f"{folder / 'run.json'}: is damaged, or of another version of hf_finetune ({first_line(error)}). "
                f"Name another folder, or replace the run with --overwrite."
            ) from error

    def write(self, folder: Path) -> None:
        """Leaves run.json in the folder."""
        write_json(folder / "run.json", asdict(self))

    def add_session(self, session: Session) -> None:
        """Adds a session that has ended, or replaces the record of the same one, and sums what all of them took."""
        kept = [earlier for earlier in self.sessions if earlier["started"] != session.started]
        self.sessions = [*kept, {name: getattr(session, name) for name in SESSION_FACTS}]
        price = self.settings["price_per_hour"]["value"]
        seconds = sum(earlier["seconds"] for earlier in self.sessions)
        noted = [earlier.get("energy_wh") for earlier in self.sessions]  # not in older runs
        energy = [own for own in noted if own is not None]
        self.totals = {
            "sessions": len(self.sessions),
            "steps": sum(earlier["last_step"] - earlier["first_step"] for earlier in self.sessions),
            "seconds": round(seconds, 1),
            "training_seconds": round(sum(earlier["training_seconds"] for earlier in self.sessions), 1),
            "peak_memory_gib": max(earlier["peak_memory_gib"] for earlier in self.sessions),
            "energy_wh": round(sum(energy), 3) if len(energy) == len(noted) else None,
            "cost_usd": None if price is None else round(seconds / 3600 * price, 4),
        }

    def differences(self, now: "Run") -> list[str]:
        """What would make going on with this run another run: each with what it was and what it is now."""
        found = []
        if (self.recipe["name"], self.recipe["sha256"]) != (now.recipe["name"], now.recipe["sha256"]):
            found.append(f"the recipe {self.recipe['name']!r} ({self.recipe['loaded_from']}) has been changed")
        found += told(values_of(self), values_of(now))
        if self.source != now.source:
            found.append(f"the rows were {_named(self.source)}, are {_named(now.source)}")
        if self.evaluated != now.evaluated:
            found.append(f"what it evaluates was {_tuned(self.evaluated)}, is {_tuned(now.evaluated)}")
        if self.num_processes != now.num_processes:
            found.append(f"the number of processes was {self.num_processes}, is {now.num_processes}")
        return found


def describe_recipe(recipe: Recipe[Any], path_or_name: str) -> dict[str, Any]:
    """What run.json says of the recipe; never an absolute path."""
    by_path = is_path(path_or_name)
    origin = Path(path_or_name).name if by_path else f"{ENTRY_POINT_GROUP}: {owner(installed_recipe(path_or_name))}"
    return {
        "name": recipe.name,
        "class": type(recipe).__name__,
        "docstring": type(recipe).__doc__ or "",
        "language": recipe.language,
        "primary_metric": recipe.primary_metric,
        "loaded_from": origin,
        "sha256": sha256(recipe_file(recipe)),
    }


def installed_versions(libraries: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """The version of Python and of each library that is installed."""
    found = {"python": platform.python_version()}
    for library in libraries:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def describe_hardware() -> dict[str, Any]:
    """Processor, cores, memory and GPUs of this machine."""
    import psutil
    import torch

    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu_name(),
        "cores": psutil.cpu_count(logical=True),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [{"name": gpu.name, "memory_gib": round(gpu.total_memory / 2**30, 1)} for gpu in gpus],
        "platform": f"{platform.system()} {platform.machine()}",
    }


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def refuse_another_base(run: Run, files: Mapping[str, str]) -> None:
    """Stops where the weights of a local base are no longer those that the run was begun with.

    Raises:
        RecipeError: naming a file that is another one.
    """
    known = run.base_model.get("files", files)  # older runs did not note them
    other = sorted(name for name in known.keys() | files.keys() if known.get(name) != files.get(name))
    if other:
        raise RecipeError(
            f"base model {run.base_model['name']!r}: {other[0]} in its folder is not the file that the run was begun "
            f"with. Put that back, or train again in another folder."
        )


def told(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`NAME was OLD, is NEW` for each value that is another one now."""
    names = sorted(before.keys() | now.keys())
    return [f"{n} was {before.get(n)}, is {now.get(n)}" for n in names if before.get(n) != now.get(n)]


def note_versions(run: Run) -> list[str]:
    """Notes in the run which libraries have changed since it was begun; a line for each."""
    before = {name: found.split(", then ")[-1] for name, found in run.versions.items()}
    now = {name: found for name, found in installed_versions().items() if name in before}
    for name in now:
        if before[name] != now[name]:
            run.versions[name] += f", then {now[name]}"
    return [f"{line}: the last digits of the result may differ" for line in told({n: before[n] for n in now}, now)]


def describe_computing(settings: Settings) -> dict[str, str]:
    """What the numbers are computed on, in what, and shared out by what."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = str(compute_dtype(settings)).removeprefix("torch.")
    return {"device": device, "dtype": dtype, "sharding": sharding() or "none"}


def values_of(run: Run) -> dict[str, str]:
    """The settings that decide the result; one that there was not yet when the run was begun has its default."""
    values = Settings().model_dump() | {name: setting["value"] for name, setting in run.settings.items()}
    if run.is_demo:  # it ships with the package, wherever that is imported from
        values["model_name_or_path"] = "the demonstration model"
    return {name: written(value) for name, value in values.items() if name not in FREE_SETTINGS}


def _named(source: dict[str, Any]) -> str:
    if "files" in source:
        return ", ".join(f"{name} ({mark[:12]})" for name, mark in source["files"].items())
    name = source.get("file") or source.get("id") or source.get("source")
    mark = source.get("sha256", source.get("revision", ""))
    return f"{name} ({mark[:12]})" if mark else str(name)


def _tuned(evaluated: dict[str, Any]) -> str:
    if not evaluated:
        return "its own adapter"
    mark = evaluated["commit"] or next(iter(evaluated["files"].values()))
    return f"{evaluated['name']} ({mark[:12]}) on {evaluated['rows']} rows"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
