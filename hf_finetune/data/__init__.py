"""From a source to checked rows in three splits, before any model is loaded."""

from hf_finetune.data.sources import HubDataset, LocalFile, Located, Source

__all__ = ["HubDataset", "LocalFile", "Located", "Source"]
