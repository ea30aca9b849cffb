"""The environment's software: Python and packages against what this package needs, and what hides them."""

import importlib.util
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from hf_finetune.doctor.line import Line, fault, ok, warning
from hf_finetune.doctor.subject import Subject
from hf_finetune.errors import plural
from hf_finetune.run import installed_versions

TOLD = ("torch", "transformers", "trl", "peft", "bitsandbytes")
"""Libraries whose versions stand on the page."""
IMPORTED = (
    "accelerate bitsandbytes click datasets evaluate filelock httpx2 huggingface_hub jinja2 matplotlib numpy packaging "
    "peft psutil pyarrow pydantic safetensors sacrebleu sqlglot tokenizers torch tqdm transformers trl yaml"
).split()
"""What a run imports."""
NOT_FOR_RUNS = ("ftfy", "openpyxl", "phonenumbers", "python_stdnum", "rensa")
"""What only `prepare` needs, and tables that are read with it."""
TRACKERS = ("trackio", "mlflow", "tensorboard")
"""What transformers takes for installed as soon as there is a folder of that name."""


def python(subject: Subject) -> Iterator[Line]:
    """Whether this Python is one that the package runs on."""
    found = installed_versions(TOLD)
    needed = _requires_python()
    if needed and not SpecifierSet(needed).contains(found["python"], prereleases=True):
        yield fault(f"Python is {found['python']}, and hf_finetune needs {needed}", "Make an environment with another.")
    else:
        yield ok(", ".join(f"{name} {found[name]}" for name in ("python", *TOLD) if name in found))


def versions(subject: Subject) -> Iterator[Line]:
    """Whether each package that is needed is there, in a version that is known to work."""
    needed = needed_packages()
    if not needed:
        yield warning(
            "hf_finetune is not installed as a package, so that versions cannot be checked",
            "pip install -e . in its folder",
        )
        return
    wrong = 0
    for requirement in needed:
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            found = ""
        if not found or not _is_known_to_work(requirement, found):
            wrong += 1
            what = f"{found}, and {requirement.specifier} is needed" if found else "not installed"
            line = fault if _cannot_work(requirement, found) else warning
            yield line(f"{requirement.name} is {what}", f"pip install '{requirement.name}{requirement.specifier}'")
    if not wrong:
        yield ok(f"all {plural(len(needed), 'package')} that are needed are there, in versions that are known to work")


def shadows(subject: Subject) -> Iterator[Line]:
    """Whether something in the working directory is imported in a package's place, or would be by `python -m`."""
    here = Path.cwd()
    is_searched = any(Path(place or ".").resolve() == here.resolve() for place in sys.path)
    for name in (*IMPORTED, *TRACKERS):
        file, folder = here / f"{name}.py", here / name
        found = next((path for path in (file, folder) if path.exists()), None)
        is_module = file.is_file() or (folder / "__init__.py").is_file()
        if found and is_module and _is_installed(name, here):
            line, when = (fault, "") if is_searched else (warning, " by python -m and by hf-finetune launch")
            yield line(
                f"{found.name} in this folder would be imported instead of the package {name}{when}", _away(found)
            )
        elif found and name in TRACKERS and not _is_installed(name, here):
            line = fault if name in subject.settings.report_to else warning
            yield line(f"{found.name} in this folder will be taken for {name}, which is not installed", _away(found))


def needed_packages() -> list[Requirement]:
    """What this package needs, as its metadata say; nothing where it is not installed."""
    try:
        given = metadata("hf_finetune").get_all("Requires-Dist") or []
    except PackageNotFoundError:
        return []
    requirements = map(Requirement, given)
    return [one for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]


def _is_known_to_work(requirement: Requirement, found: str) -> bool:
    """Whether a version is in the range; a build before a release, as vendors' containers have them, counts as that."""
    return requirement.specifier.contains(Version(found).base_version)


def _cannot_work(requirement: Requirement, found: str) -> bool:
    """Whether a run cannot do with what is there: a newer version may work, and not all packages are for runs."""
    least = [Version(one.version) for one in requirement.specifier if one.operator == ">="]
    is_older = not found or any(Version(Version(found).base_version) < one for one in least)
    return is_older and requirement.name.replace("-", "_").lower() not in NOT_FOR_RUNS


def _requires_python() -> str | None:
    try:
        given: str | None = metadata("hf_finetune")["Requires-Python"]
    except PackageNotFoundError:
        return None
    return given


def _is_installed(name: str, here: Path) -> bool:
    """Whether a package is there besides a folder of its name here."""
    elsewhere = [place for place in sys.path if Path(place or ".").resolve() != here.resolve()]
    return importlib.machinery.PathFinder.find_spec(name, elsewhere) is not None


def _away(path: Path) -> str:
    return f"mv {path.name} my_{path.name}, or start the run in another folder"
