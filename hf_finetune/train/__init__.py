"""Training: what is fed to TRL's trainer, and what is kept of it."""

from hf_finetune.train.trainer import train

__all__ = ["train"]
