"""How long a run takes: its operations, its traffic to memory and its kernels, over what a GPU does in a second.

The operations, bytes and kernels are counted in a step of the model's own code; what a GPU does of its data sheet is
assumed, as no GPU has been measured here: expect the times to be off by a third either way.
"""

from dataclasses import dataclass
from math import ceil

from hf_finetune.estimate.gpus import Gpu
from hf_finetune.estimate.lengths import Lengths
from hf_finetune.estimate.memory import cache_bytes
from hf_finetune.estimate.shape import Shape
from hf_finetune.estimate.steps import Step
from hf_finetune.settings import Settings

PRODUCTS = 0.6
"""Of the data sheet's speed, in products of the sizes that are usual. The most that is reached in any size is 0.80 of
an H100 and 0.87 of an A100 (stas00/ml-engineering, compute/accelerator, "Maximum Achievable Matmul FLOPS"); whole
trainings of 1 to 7 billion parameters reach 0.40 to 0.46 of an H100 (mosaicml/llm-foundry,
scripts/train/benchmarking/README.md at 061f2c7)."""
BANDWIDTH = 0.8
"""Of the data sheet's bandwidth, in operations that read and write long vectors; an assumption."""
KERNEL_SECONDS = 10e-6
"""To start an operation from Python; below it a GPU waits. 5 to 15 microseconds; an assumption."""
START_SECONDS = 60.0
"""Until the first step: imports, rows, and the base from the disk of the machine. No download."""
LOAD_GB_PER_SECOND = 1.0
ANSWER_KERNELS = 40
"""Of a layer, for each token that is written."""
LONGER = 1.25
"""Answers may be a quarter longer than the longest gold one."""


@dataclass(frozen=True)
class Work:
    """What one device computes in a run."""

    step: Step
    """Of the batch that was traced."""
    scale: float
    """The tokens of the mean batch, over those of that one."""
    batches: int
    """Forward and backward passes."""
    updates: int
    """Steps of the optimiser."""
    dequantized: float
    """Bytes that are read and written in each batch to dequantise layers."""
    trained_bytes: float
    """Of the values that are trained, in float32."""
    shared_bytes: float
    """That go from GPU to GPU in each update."""
    gathered_bytes: float
    """That go from GPU to GPU in each batch."""


def batch_seconds(work: Work, gpu: Gpu) -> float:
    """The seconds of the mean batch's forward and backward pass."""
    products = work.step.flops * work.scale / (gpu.tflops * 1e12 * PRODUCTS)
    traffic = (work.step.moved * work.scale + work.dequantized) / (gpu.gb_per_second * 1e9 * BANDWIDTH)
    waiting = 0.0 if gpu.is_cpu else work.step.kernels * KERNEL_SECONDS
    return max(products + traffic, waiting) + work.gathered_bytes / (gpu.link_gb_per_second * 1e9)


def training_seconds(work: Work, gpu: Gpu) -> float:
    """The seconds of all batches and of the optimiser's steps."""
    update = 7 * work.trained_bytes / (gpu.gb_per_second * 1e9 * BANDWIDTH)
    update += work.shared_bytes / (gpu.link_gb_per_second * 1e9)
    return work.batches * batch_seconds(work, gpu) + work.updates * update


def evaluation_seconds(
    work: Work, shape: Shape, settings: Settings, lengths: Lengths, gpu: Gpu, weights: float, num_gpus: int,
    traced_tokens: int,
) -> float:  # fmt: skip
    """The seconds of the validations and of the answers of base, few-shot and fine-tuned model to the test rows."""
    forward = batch_seconds(work, gpu) / 2 / max(1.0, traced_tokens * work.scale)
    epochs = 1 if settings.max_steps > 0 else ceil(settings.num_train_epochs)
    columns = 2 + (settings.few_shot_draws if settings.few_shot else 0)
    seconds = forward * (epochs * lengths.validation_tokens + columns * lengths.test_tokens)
    if not lengths.is_closed:
        batches = ceil(lengths.test_rows / settings.per_device_eval_batch_size)
        tokens = batches * ceil(lengths.longest_answer * LONGER) * (columns + settings.num_samples)
        context = settings.per_device_eval_batch_size * lengths.test_tokens // max(1, lengths.test_rows)
        read = weights + work.dequantized / 2 + cache_bytes(shape, context, 2)
        waiting = 0.0 if gpu.is_cpu else ANSWER_KERNELS * shape.num_layers * KERNEL_SECONDS
        seconds += tokens * max(read / (gpu.gb_per_second * 1e9 * BANDWIDTH), waiting)
    return seconds / num_gpus


def start_seconds(plain_weights: float) -> float:
    """The seconds before the first step, for a base of so many bytes on the disk."""
    return START_SECONDS + plain_weights / (LOAD_GB_PER_SECOND * 1e9)
