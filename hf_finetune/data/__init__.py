"""From a source to checked rows in three splits, before any model is loaded."""

from hf_finetune.data.sources import HubDataset, LocalFile, LocalFolder, Located, Source, source_of

__all__ = ["HubDataset", "LocalFile", "LocalFolder", "Located", "Source", "source_of"]
