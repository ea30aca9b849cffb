"""What each gain of speed is worth at the size of real bases: random weights, rows of the lengths of three jobs.

On a machine with a GPU (the 8B shape takes 16 GB of disk while it runs); `--shapes tiny` is a trial of the script:

    python tests/gpu/waterfall.py --output waterfall.json

A row of a table is one switch of `hf-finetune bench`. The floor is the arithmetic that a step cannot do without, at the
speed of a large matrix product on this device.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click

from hf_finetune.bench import Measured, as_markdown, measure, run_way, ways
from hf_finetune.cli.run import prepare_libraries
from hf_finetune.demo import BASE_MODEL
from hf_finetune.files import write_json
from hf_finetune.model import find_base_model
from hf_finetune.prepare import Encoded
from hf_finetune.run import describe_hardware, installed_versions
from hf_finetune.settings import Settings

SHAPES: dict[str, dict[str, int]] = {
    "Llama-3.1-8B": {
        "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8,
    },
    "Qwen2.5-1.5B": {
        "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2,
    },
    "tiny": {
        "vocab_size": 4096, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2,
    },
}  # fmt: skip
JOBS = {  # tokens: what all rows begin with, the least and most of a question, of an answer; rows a batch
    "finsent": (28, (18, 46), (1, 3), 32),
    "SQL": (120, (10, 30), (25, 60), 16),
    "memo": (60, (150, 300), (150, 250), 8),
}


@contextmanager
def random_base(shape: str) -> Iterator[Path]:
    """A base of that shape with random weights, on disk for as long as the block."""
    folder = Path(tempfile.mkdtemp())
    try:
        shutil.copytree(BASE_MODEL, folder, dirs_exist_ok=True)
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:  # which leaves nothing on the GPU
            alone.submit(write_random_base, shape, folder).result()
        yield folder
    finally:
        shutil.rmtree(folder)


def write_random_base(shape: str, folder: Path) -> None:
    """Leaves weights of that shape in bfloat16."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        LlamaForCausalLM(LlamaConfig(**SHAPES[shape])).save_pretrained(folder)


def rows_of(job: str, vocabulary: int) -> list[dict[str, list[int]]]:
    """Rows of random tokens with the lengths of a job, the same each time."""
    import torch

    chance = torch.Generator().manual_seed(3)

    def tokens(low: int, high: int) -> list[int]:
        count = int(torch.randint(low, high + 1, (), generator=chance))
        drawn: list[int] = torch.randint(3, vocabulary, (count,), generator=chance).tolist()
        return drawn

    shared, question, answer, size = JOBS[job]
    start = tokens(shared, shared)
    pairs = [(start + tokens(*question), [*tokens(*answer), 2]) for _ in range(8 * size)]
    return [{"input_ids": asked + said, "labels": [-100] * len(asked) + said} for asked, said in pairs]


def product_speed() -> float:
    """Floating-point operations a second of a large matrix product here."""
    import torch

    on_gpu = torch.cuda.is_available()
    a = torch.ones(8192 if on_gpu else 1024, 8192 if on_gpu else 1024, device="cuda" if on_gpu else "cpu")
    a = a.bfloat16() if on_gpu else a
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        b = a @ a
        float(b[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - began)
    return float(2 * len(a) ** 3 / best)


def floor_seconds(rows: list[dict[str, list[int]]], shape: str, job: str, speed: float) -> float:
    """Of a step: the layers once forward and once backward for each token that a loss depends on, and the head."""
    base = SHAPES[shape]
    wide, kv = base["hidden_size"], base["hidden_size"] // base["num_attention_heads"] * base["num_key_value_heads"]
    layer = 2 * wide * wide + 2 * wide * kv + 3 * wide * base["intermediate_size"]
    shared, _, _, size = JOBS[job]
    own = sum(len(row["input_ids"]) - 1 - shared for row in rows) / len(rows) * size + shared
    labels = sum(label != -100 for row in rows for label in row["labels"]) / len(rows) * size
    return 4 * (own * layer * base["num_hidden_layers"] + labels * wide * base["vocab_size"]) / speed


def measured(folder: Path, shape: str, job: str, steps: int) -> list[Measured]:
    """Some steps of each way that runs here."""
    rows = rows_of(job, SHAPES[shape]["vocab_size"])
    encoded = Encoded(rows, rows, list(range(1, len(rows) + 1)), {})
    settings = Settings(model_name_or_path=str(folder), per_device_train_batch_size=JOBS[job][3], lora_dropout=0.0)
    run = partial(
        run_way, base=find_base_model(settings), rows=encoded, settings=settings, prepare_process=prepare_libraries,
        say=click.echo,
    )  # fmt: skip
    return [found for way in ways() if (found := run(measure, way, steps + 1))]


def main() -> None:
    """Prints a table for each shape and job, and leaves all of them in one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["Qwen2.5-1.5B", "Llama-3.1-8B"])
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--output", type=Path, default=Path("waterfall.json"))
    asked = parser.parse_args()
    prepare_libraries()
    speed = product_speed()
    about = {"hardware": describe_hardware(), "versions": installed_versions(), "product_flops_per_second": speed}
    tables: list[dict[str, Any]] = []
    for shape in asked.shapes:
        with random_base(shape) as folder:
            for job in asked.jobs:
                floor = floor_seconds(rows_of(job, SHAPES[shape]["vocab_size"]), shape, job, speed)
                results = measured(folder, shape, job, asked.steps)
                click.echo(f"\n{shape}, {job}, {JOBS[job][3]} rows; floor {floor:.4f} s\n\n{as_markdown(results)}")
                tables.append(
                    {"shape": shape, "job": job, "floor_seconds": floor, "ways": [asdict(one) for one in results]}
                )
                write_json(asked.output, about | {"tables": tables})


if __name__ == "__main__":
    main()
