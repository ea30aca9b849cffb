"""Tiny real parts that several tests share."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # no test reaches the real Hub; those that need one start a loopback Hub
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if "PYTEST_XDIST_WORKER" in os.environ:  # else each of two test processes, and what it starts, would take all cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts the tests with & has it ignored


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips the tests of a GPU on a machine that has none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.role == 'assistant' %}{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

SENTENCES = {
    "positive": "{} said profit rose {} % in the year",
    "negative": "{} said profit fell {} % in the year",
    "neutral": "{} said the meeting lasts {} hours",
}
NAMES = "Alba Brix Corvo Delft Ennis Farro Gault Hesse Imola Jarvo Kelso Lunde Mirov Norda Ostra Piran".split()


def sample_rows(count: int) -> list[dict[str, str]]:
    """Easy sentiment rows, `count` of each label, no two of which are near-duplicates."""
    return [
        {"sentence": text.format(f"{NAMES[i % 16]} {NAMES[i // 16]}{i} {NAMES[i * 7 % 16]}works", i), "label": label}
        for i in range(count)
        for label, text in SENTENCES.items()
    ]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """The path of a JSONL file of the rows."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_base(folder: Path, template: str | None = CHATML) -> Path:
    """A folder with a tiny random Llama (hidden 64, 2 layers) and a byte-level BPE tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([row["sentence"] + " " + row["label"] for row in sample_rows(20)], trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    wrapped.chat_template = template
    wrapped.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random base model."""
    return make_base(tmp_path_factory.mktemp("models") / "tiny-base")


def run_cli(*words: str, cwd: Path, module: bool = False, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The finished process of `hf-finetune WORDS`, or of `python -m hf_finetune WORDS`, in a clean folder."""
    start = "from hf_finetune.cli import main; main()"
    command = [sys.executable, "-m", "hf_finetune"] if module else [sys.executable, "-c", start]
    return subprocess.run(
        [*command, *words],
        cwd=cwd,
        env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


def imported(errors: str) -> set[str]:
    """The modules a process imported, from what it wrote on stderr under `PYTHONPROFILEIMPORTTIME=1`."""
    found = {line.rsplit("|", 1)[-1].strip() for line in errors.splitlines() if line.startswith("import time:")}
    assert "os" in found or "site" in found
    return found
