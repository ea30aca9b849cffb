"""The files that would be pushed, loaded and asked in a process that has nothing of this package."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hf_finetune.errors import RecipeError, first_line
from hf_finetune.files import read_json
from hf_finetune.interruption import interruption
from hf_finetune.ship.finished import Finished

SCRIPT = Path(__file__).parent / "clean_process.py"
_NOT_ITS_OWN = (
    "PYTHONPATH", "ACCELERATE_", "TORCHELASTIC_", "FSDP_", "RANK", "LOCAL_", "WORLD_SIZE", "GROUP_", "ROLE_", "MASTER_"
)  # fmt: skip
"""What a launcher tells the processes of a run, and the clean one is none."""
REASON = 200
"""Characters of what an interpreter says that ends at once: some repeat the whole script."""


def ask_in_clean_process(finished: Finished, part: str, asked: dict[str, Any], python: str) -> dict[str, Any]:
    """What a clean process finds, in a folder of its own with the files that would be pushed.

    They lie in it under their Hub id, once they have one: the card's snippet finds them by it, and asks no Hub. A base
    that is a folder here lies there under its name, as the card's reader would have it.

    Raises:
        RecipeError: when it cannot be started, lacks a package, or the card's snippet fails in it.
    """
    from accelerate.utils import release_memory

    folder = finished.folder / part
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "pushed"
        pushed = place / finished.run.published.get(part, ".")
        pushed.mkdir(parents=True)
        for path in folder.iterdir():
            _place(path, pushed / path.name)
        base = finished.base()
        if not base.commit:
            _place(Path(base.location), place / base.name)
        release_memory()  # of the GPU, what this process no longer uses
        output = Path(name) / "given.json"
        environment = {key: value for key, value in os.environ.items() if not key.startswith(_NOT_ITS_OWN)}
        asked = asked | {"output": str(output)}
        try:
            done = subprocess.run(
                [_absolute(python), "-c", SCRIPT.read_text(encoding="utf-8")], cwd=place, env=environment,
                input=json.dumps(asked), capture_output=True, encoding="utf-8", errors="replace", check=False,
            )  # fmt: skip
        except OSError as error:
            raise RecipeError(
                f"--python {python}: cannot be started ({error.strerror}). Name an interpreter."
            ) from error
        interruption.stop_if_requested()
        if not output.is_file():
            reason = (done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"])[0][-REASON:]
            raise RecipeError(
                f"{python}: ended without loading {folder} ({reason}). If it is a Python with torch, transformers "
                f"and peft, start it again; else name such a one with --python."
            )
        given: dict[str, Any] = read_json(output)
    if given.get("error", "").startswith(("ModuleNotFoundError", "ImportError", "PackageNotFoundError")):
        raise RecipeError(
            f"{python}: lacks what the card's snippet needs ({first_line(given['error'])}). Install it there, or name "
            f"another interpreter with --python."
        )
    if "error" in given:
        raise RecipeError(f"{folder}: the card's snippet fails: {first_line(given['error'])}. Mend what it loads.")
    return given


def _place(path: Path, target: Path) -> None:
    """Puts a file or folder where the clean process looks for it; as a copy where links are not allowed."""
    try:
        target.symlink_to(path.resolve())
    except OSError:
        shutil.copytree(path, target) if path.is_dir() else shutil.copy(path, target)


def _absolute(python: str) -> str:
    """An interpreter's path from anywhere; a name stays one that is looked up."""
    return os.path.abspath(python) if Path(python).name != python else python
