"""The recipes that ship with hf_finetune; installed as `hf_finetune_recipes`, so that they also run by name."""
