"""`accelerate launch -m hf_finetune RECIPE [NAME=VALUE]...`, started in every process."""

from hf_finetune.cli import main_module

if __name__ == "__main__":
    main_module()
