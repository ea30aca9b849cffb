"""Prints the names of this repository's recipes as the job's output `recipes`: the matrix of the workflow."""

import json
import sys
from pathlib import Path


def names(folder: Path) -> list[str]:
    """The recipes in a folder, in order."""
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


if __name__ == "__main__":
    sys.stdout.write(f"recipes={json.dumps(names(Path('recipes')))}\n")
