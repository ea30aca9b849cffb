"""Fine-tuning recipes for the Accelerate launcher and the Hugging Face Hub: what you ship is what you measured."""

from hf_finetune.data.sources import HubDataset, LocalFile, LocalFolder
from hf_finetune.errors import RecipeError
from hf_finetune.recipe import Recipe, load_recipe, register
from hf_finetune.testing import check_recipe

__all__ = ["HubDataset", "LocalFile", "LocalFolder", "Recipe", "RecipeError", "check_recipe", "load_recipe", "register"]
