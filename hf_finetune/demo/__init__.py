"""The small base model and the sample rows that ship with the package: no network, no GPU, no token."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_finetune.errors import RecipeError

FOLDER = Path(__file__).parent
BASE_MODEL = FOLDER / "demo-base"
LICENSE = "apache-2.0"
"""Of the sample rows and the base model, and so of an adapter made of them."""

SETTINGS: Mapping[str, Any] = {
    "model_name_or_path": str(BASE_MODEL),
    "learning_rate": 2e-3,  # a model of 4 million parameters wants ten times a large one's
    "num_train_epochs": 6,
    "lora_dropout": 0.0,
}
"""What the demonstration model needs otherwise than a real one."""


def rows_file(recipe_name: str) -> Path:
    """The sample rows of a recipe.

    Raises:
        RecipeError: when the package has none for it.
    """
    path = find_rows(recipe_name)
    if path is None:
        raise RecipeError(f"--demo: there are no sample rows for {recipe_name!r}. Give some with --data PATH.")
    return path


def find_rows(recipe_name: str) -> Path | None:
    """The sample rows of a recipe, where the package has some."""
    path = FOLDER / f"{recipe_name}.jsonl"
    return path if path.is_file() else None
