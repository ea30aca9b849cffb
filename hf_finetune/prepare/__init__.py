"""A recipe and its source -> rows in three splits, and their tokens."""

from hf_finetune.prepare.encoding import Encoded, encode
from hf_finetune.prepare.reading import Read, read_source
from hf_finetune.prepare.splitting import Prepared, prepare, prepare_read, prepare_unsplit, write_splits
from hf_finetune.prepare.words import in_words, notes_on_rows, oddities_in_words

__all__ = [
    "Encoded", "Prepared", "Read", "encode", "in_words", "notes_on_rows", "oddities_in_words", "prepare",
    "prepare_read", "prepare_unsplit", "read_source", "write_splits",
]  # fmt: skip
