"""Prompts and answers -> training rows as token ids; many are kept, so that the next run on them begins sooner."""

import hashlib
import inspect
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from hf_finetune.chat import PROBE, ChatFormat
from hf_finetune.errors import RecipeError
from hf_finetune.files import whole_file
from hf_finetune.packing import NO_LOSS
from hf_finetune.progress import Progress, tracked

WORTH_KEEPING = 5_000
"""Rows: to tokenise fewer takes less than two seconds."""
MOST_BYTES = 2 * 2**30
"""Of more, the files that were not read for the longest time go."""

DAMAGED = (OSError, ValueError, TypeError, LookupError, EOFError, NotImplementedError, BadZipFile, zlib.error)
"""What numpy raises for a file that is not there or not whole."""

Example = dict[str, list[int]]


def tokenize(
    chat: ChatFormat, texts: Sequence[tuple[str, str]], keep: bool, progress: Progress | None = None
) -> list[Example]:
    """`input_ids` and `labels` of each prompt and its answer, as `ChatFormat.example` gives them.

    `keep`: where there are many, they are read from a file below HF_HOME that the same texts and tokenizer left there.
    """
    kept = _file_of(chat, texts) if keep and len(texts) >= WORTH_KEEPING else None
    if kept is not None and (found := _read(kept, len(texts))) is not None:
        return found
    examples = [chat.example(prompt, answer) for prompt, answer in tracked(texts, progress, "tokenise", "rows")]
    if kept is not None:
        with suppress(RecipeError, OSError):  # a full or read-only disk only costs the time to tokenise again
            _write(kept, examples)
    return examples


def _file_of(chat: ChatFormat, texts: Sequence[tuple[str, str]]) -> Path | None:
    """Where the tokens of just these texts are kept; None for a tokenizer that cannot be told from another."""
    from huggingface_hub.constants import HF_HOME

    backend = getattr(chat.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    probe = chat.example(PROBE, PROBE)["input_ids"]  # what is around each text; some templates write the date there
    versions = [version("tokenizers"), version("transformers"), inspect.getsource(ChatFormat)]
    content = hashlib.sha256(backend.to_str().encode())
    for part in ([chat.tokenizer.chat_template, probe, versions], *texts):
        content.update(json.dumps(part).encode() + b"\n")
    return Path(HF_HOME) / "hf_finetune" / "tokens" / f"{content.hexdigest()}.npz"


def _read(file: Path, num_rows: int) -> list[Example] | None:
    """What `_write` left, if it is there and whole."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as kept:
            ids, ends, starts = (kept[name].tolist() for name in ("ids", "ends", "answer_starts"))
    except DAMAGED:
        return None
    with suppress(OSError):
        os.utime(file)
    if not len(ends) == len(starts) == num_rows:
        return None
    rows = [ids[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return [
        {"input_ids": row, "labels": [NO_LOSS] * start + row[start:]} for row, start in zip(rows, starts, strict=True)
    ]


def _write(file: Path, examples: Sequence[Mapping[str, Sequence[int]]]) -> None:
    lengths = [len(row["input_ids"]) for row in examples]
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with whole_file(file) as temporary, temporary.open("wb") as opened:
        np.savez(
            opened,
            ids=np.array([token for row in examples for token in row["input_ids"]], dtype=np.int32),
            ends=np.cumsum(lengths),
            answer_starts=np.array([_answer_start(row["labels"]) for row in examples]),
        )
    total = 0
    for other in sorted(file.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True):
        total += other.stat().st_size
        if total > MOST_BYTES:
            other.unlink()


def _answer_start(labels: Sequence[int]) -> int:
    return next((place for place, label in enumerate(labels) if label != NO_LOSS), len(labels))
