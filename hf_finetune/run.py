"""What was run, on what and with what: the facts that run.json keeps."""

import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hf_finetune.errors import RecipeError
from hf_finetune.files import read_json, sha256, write_json
from hf_finetune.recipe import ENTRY_POINT_GROUP, Recipe, installed_recipe, is_path, owner, recipe_file

LIBRARIES = (
    "hf_finetune torch transformers trl peft accelerate bitsandbytes datasets evaluate huggingface_hub tokenizers"
).split()


RUN_FILES = (
    "run.json data.json splits checkpoints training_log.jsonl loss_curve.png adapter answers.jsonl "
    "report.json report.md"
).split()
"""What a run leaves in its folder, and so what --overwrite removes."""


@dataclass
class Run:
    """The record of a run; `run.json` in its folder is this and nothing else."""

    command: list[str]
    recipe: dict[str, Any]
    """Name, class, docstring, where it was loaded from, and the hash of its file."""
    settings: dict[str, dict[str, Any]]
    """Value and origin of each setting."""
    base_model: dict[str, Any]
    """Id, revision, commit, whether it has a chat template, and the id of the token its answers stop at."""
    data: dict[str, Any]
    """Source, revision and the commit it was resolved to."""
    license: str | None
    """Of the adapter; None when it was trained on rows of the user's own and nothing is known of theirs."""
    is_own_data: bool
    """Whether other rows than the recipe's data set were used."""
    is_demo: bool = False
    versions: dict[str, str] = field(default_factory=lambda: installed_versions())
    hardware: dict[str, Any] = field(default_factory=lambda: describe_hardware())
    started: str = field(default_factory=lambda: now())
    finished: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    """Steps, epochs, seconds, peak memory, trainable parameters."""

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """The record of a run's folder.

        Raises:
            RecipeError: when the folder holds no run.
        """
        try:
            return cls(**read_json(folder / "run.json"))
        except FileNotFoundError as error:
            raise RecipeError(f"{folder}: holds no run. Name the folder that a run printed at its end.") from error

    def write(self, folder: Path) -> None:
        """Leaves run.json in the folder."""
        write_json(folder / "run.json", asdict(self))


def check_folder(folder: Path, overwrite: bool) -> None:
    """Whether the run's folder can be made; nothing is written yet.

    Raises:
        RecipeError: when it holds a run that may not be replaced, or something else, or cannot be written.
    """
    holds_run = (folder / "run.json").is_file()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not (holds_run and overwrite):
        if overwrite:
            raise RecipeError(f"{folder}: holds no run, so --overwrite leaves it alone. Name another with output_dir=.")
        holds = "holds a run already" if holds_run else "is there already and is not empty"
        raise RecipeError(f"{folder}: {holds}. Name another with output_dir=FOLDER, or replace it with --overwrite.")
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        reason = "no right to write there" if nearest.is_dir() else "that is a file"
        raise RecipeError(f"{folder}: cannot be made in {nearest}: {reason}. Name another with output_dir=FOLDER.")


def start_folder(folder: Path) -> None:
    """Makes the run's folder, without what an earlier run left there; files that no run writes stay.

    Raises:
        RecipeError: when the disk refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder / name for name in RUN_FILES):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    except OSError as error:
        raise RecipeError(
            f"{folder}: cannot be made: {error.strerror}. Name another with output_dir=FOLDER."
        ) from error


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


def peak_memory_gib() -> float:
    """The largest memory of this process so far: on the GPU where there is one, else resident on the CPU, in GiB."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 2**30
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
