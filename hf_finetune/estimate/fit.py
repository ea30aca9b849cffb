"""Which training fits which GPU, with which batch, and what it takes there: memory, time and money."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import ceil
from typing import Any

from hf_finetune.errors import RecipeError
from hf_finetune.estimate.counting import Counter
from hf_finetune.estimate.formula import LOGITS_BYTES
from hf_finetune.estimate.gpus import Gpu
from hf_finetune.estimate.lengths import Lengths
from hf_finetune.estimate.memory import (
    FRAGMENTATION,
    GIB,
    Memory,
    cache_bytes,
    context_gib,
    itemsize_of,
    trained_bytes,
    weights_bytes,
)
from hf_finetune.estimate.methods import METHODS, method_of, trainable_parameters, with_method
from hf_finetune.estimate.shape import Shape
from hf_finetune.estimate.speed import Work, evaluation_seconds, start_seconds, training_seconds
from hf_finetune.estimate.steps import Kind, Steps
from hf_finetune.settings import Settings

LARGEST_BATCH = 512
SAFE = 0.95
"""Of a GPU's memory: an estimate may be off by the rest, and more."""
CHECKPOINTED = {0: "no layer", 4: "one layer in 4", 2: "one layer in 2", 1: "all layers"}
"""Which layers compute their activations again."""


@dataclass(frozen=True)
class Estimate:
    """What a training takes on one kind of GPU."""

    gpu: Gpu
    num_gpus: int
    method: str
    sharing: str
    """How several GPUs work together: ddp, each with all of the base; fsdp, each with a part; nothing for one."""
    batch: int
    """Rows a step on one GPU: the recipe's, or the most that fit; 1 where none does."""
    accumulation: int
    """Batches added up before the weights change, so that a step learns from as many rows as the recipe says."""
    checkpointed: str
    """Which layers compute their activations again."""
    is_dequantized: bool
    """Whether layers in 4 bits are held as the numbers they stand for, which is quicker, as there is room for it."""
    memory: Memory
    fits: bool
    largest_batch: int
    """The largest power of two that fits, of the longest rows; 0 where none does."""
    steps: int
    evaluation_batch: int
    """Rows at a time while answers are written: the recipe's, or the most that fit; 1 where none does."""
    seconds: float | None
    """Of the whole run, at most: early stopping may end it sooner. None where it does not fit."""
    price_usd: float | None
    """None where it does not fit, or where no price is known."""

    @property
    def peak_gib(self) -> float:
        """The most memory at any moment."""
        return self.memory.peak_gib

    def as_json(self) -> dict[str, Any]:
        """All of it, as plain values."""
        own = {name: value for name, value in vars(self).items() if name not in ("gpu", "memory")}
        parts = {name: round(value, 3) for name, value in asdict(self.memory).items()}
        return {"gpu": self.gpu.name, **own, "peak_gib": round(self.peak_gib, 3), "memory_gib": self.gpu.memory_gib} | {
            "memory": parts
        }


def estimate(
    shape: Shape, settings: Settings, lengths: Lengths, gpu: Gpu, num_gpus: int = 1, method: str | None = None
) -> Estimate:
    """What the training takes on so many of those GPUs; by the method that the settings ask for, or another one.

    Raises:
        RecipeError: when the base has none of the layers that an adapter is asked for on.
    """
    return Estimator(shape, settings, lengths).estimate(gpu, num_gpus, method or method_of(settings))


class Estimator:
    """Estimates of one model on one set of rows, for any GPU and method; steps are counted once for all."""

    def __init__(self, shape: Shape, settings: Settings, lengths: Lengths) -> None:
        self.shape, self.settings, self.lengths = shape, settings, lengths
        self.counter = Counter(shape, settings, lengths)

    def estimate(self, gpu: Gpu, num_gpus: int, method: str) -> Estimate:
        """What the method takes on so many of those GPUs: each with all of the base, or with a part if need be."""
        if method not in METHODS:
            raise RecipeError(f"method {method!r}: is none of {', '.join(METHODS)}. Choose one of them.")
        found = [_Case(self, gpu, num_gpus, method, sharing).estimate() for sharing in _sharings(num_gpus)]
        return next((one for one in found if one.fits), found[-1])


def _sharings(num_gpus: int) -> Sequence[str]:
    return ("ddp", "fsdp") if num_gpus > 1 else ("",)


class _Case:
    """One GPU, method and way of sharing."""

    def __init__(self, estimator: Estimator, gpu: Gpu, num_gpus: int, method: str, sharing: str) -> None:
        self.shape, self.lengths, self.counter = estimator.shape, estimator.lengths, estimator.counter
        self.settings = with_method(estimator.settings, method)
        self.gpu, self.num_gpus, self.method, self.sharing = gpu, num_gpus, method, sharing
        self.itemsize = itemsize_of(gpu, self.settings)
        self.kind = self._kind()
        self.share = num_gpus if sharing == "fsdp" else 1
        """How many GPUs hold a part each of weights, gradients and the optimiser's state."""
        self.held = weights_bytes(self.shape, self.settings, method, self.itemsize)
        self.trained = trained_bytes(self.shape, self.settings, method, self.itemsize)
        self.is_dequantized = self._dequantizes()

    def estimate(self) -> Estimate:
        wanted, settings = self.settings.per_device_train_batch_size, self.settings
        sizes = [2**power for power in range(10) if 2**power <= min(LARGEST_BATCH, max(1, self.lengths.num_rows))]
        largest = next((size for size in reversed(sizes) if self._fits(size)), 0)
        batch = wanted if self._fits(wanted) else min(wanted, largest) or 1
        accumulation = ceil(wanted * settings.gradient_accumulation_steps / batch)
        every, fits = self._checkpointing(batch), largest > 0
        work = self._work(batch, accumulation, every)
        seconds = self._seconds(work, batch) if fits else None
        price = self.gpu.price(self.num_gpus)
        return Estimate(
            gpu=self.gpu,
            num_gpus=self.num_gpus,
            method=self.method,
            sharing=self.sharing,
            batch=batch,
            accumulation=accumulation,
            checkpointed=CHECKPOINTED[every],
            is_dequantized=self.is_dequantized,
            memory=self._memory(batch, every),
            fits=fits,
            largest_batch=largest,
            steps=work.updates,
            evaluation_batch=self._evaluation_batch,
            seconds=seconds,
            price_usd=None if seconds is None or price is None else seconds / 3600 * price,
        )

    def _kind(self) -> Kind:
        import torch

        settings, gpu, is_full = self.settings, self.gpu, self.method == "full"
        is_plain = not settings.use_dora and self.method != "lora8" and self.sharing != "fsdp"
        # Of heads without groups the memory-efficient kernel keeps what the flash one does: one trace is enough.
        is_flash = (gpu.has_flash and self.itemsize == 2) or self.shape.kv_heads == self.shape.heads
        return Kind(
            dtype=torch.float32 if self.itemsize == 4 else torch.bfloat16,
            is_full=is_full,
            attention="cpu" if gpu.is_cpu else "flash" if is_flash else "efficient",
            is_packed=settings.padding_free,
            is_fused=settings.fused_lora and is_plain and not is_full,
        )

    def _dequantizes(self) -> bool:
        """Whether the 4-bit layers are held as plain numbers, as `model.dequantize_if_asked` decides it."""
        if self.method != "qlora" or self.sharing == "fsdp":
            return False
        if self.settings.dequantize_once != "auto":
            return self.settings.dequantize_once
        free = self._room() - self.held
        return self.itemsize * self.shape.quantized_parameters <= free / 4

    def _room(self) -> float:
        """The bytes of the GPU that tensors can have."""
        return (self.gpu.memory_gib - context_gib(self.gpu, self.num_gpus)) * GIB

    def _base_bytes(self) -> float:
        """The bytes of the base while it is trained."""
        return self.itemsize * self.shape.num_parameters if self.is_dequantized else self.held / self.share

    def _checkpointing(self, size: int) -> int:
        """One layer in how many computes its activations again, none for 0, as the trainer decides it."""
        asked = self.settings.gradient_checkpointing
        if asked != "auto":
            return int(asked)
        if self.sharing == "fsdp":
            return 1
        steps, (adapter, gradients, state) = self.counter.steps(self.kind, size), self.trained
        room = (self._room() - self._base_bytes() - adapter - gradients - state) / 1.5
        unshared = max(1.0, self.counter.tokens(size) / steps.num_tokens)
        return next((every for every in (0, 4, 2) if steps.step(every).kept * unshared <= room), 1)

    def _fits(self, size: int) -> bool:
        return self._memory(size, self._checkpointing(size)).peak_gib <= SAFE * self.gpu.memory_gib

    def _memory(self, size: int, every: int) -> Memory:
        adapter, gradients, state = (own / self.share / GIB for own in self.trained)
        peak = self.counter.steps(self.kind, size).step(every).peak / GIB
        logits = min(peak, LOGITS_BYTES * self.counter.labels(size) * self.shape.vocabulary / GIB)
        return Memory(
            weights=self._base_bytes() / GIB,
            adapter=adapter,
            gradients=gradients,
            optimizer=state,
            activations=peak - logits,
            logits=logits,
            workspace=self._workspace() / GIB,
            context=context_gib(self.gpu, self.num_gpus),
            fragmentation=0.0 if self.gpu.is_cpu else FRAGMENTATION * (peak + self._workspace() / GIB),
            evaluation=self._evaluation(self._evaluation_batch),
        )

    def _workspace(self) -> float:
        """The bytes of the layer that is dequantised, of what is gathered from other GPUs, and of what is summed up."""
        shape, vocabulary = self.shape, float(self.itemsize * self.shape.hidden * self.shape.vocabulary)
        is_few_bits = self.method in ("qlora", "lora8") and not self.is_dequantized
        own = float(self.itemsize * shape.largest_quantized) if is_few_bits else 0.0
        own += vocabulary if self.method == "full" else 0.0  # a new gradient of the head, before it is added up
        if self.sharing == "ddp":
            return own + self.trained[1]  # the buckets in which DDP sums up gradients
        if self.sharing == "fsdp":
            return own + vocabulary + 2 * self.held / shape.num_layers
        return own

    @cached_property
    def _evaluation_batch(self) -> int:
        """The rows at a time that fit while answers are given: as many as asked for, or half, or half of that."""
        size = self.settings.per_device_eval_batch_size
        while size > 1 and self._evaluation(size) > SAFE * self.gpu.memory_gib:
            size //= 2
        return size

    def _evaluation(self, size: int) -> float:
        """GiB while answers are given: the base as it is held, the cache, a pass without gradients, the scores."""
        shape, lengths, itemsize = self.shape, self.lengths, self.itemsize
        length = len(lengths.longest(1)[0]["input_ids"])
        shown = self.settings.few_shot * lengths.train_tokens // lengths.num_rows
        if lengths.is_closed:  # the examples are computed and kept once, and four choices count as a row
            tokens, cached, scored = 2 * size * length, shown, 4 * size
        else:
            tokens = size * min(length + shown, shape.max_positions or length + shown)
            cached, scored = tokens, size
        passing = tokens * itemsize * (3 * shape.intermediate + 4 * shape.hidden)
        scores = scored * shape.vocabulary * (itemsize + 8)
        dynamic = cache_bytes(shape, cached, itemsize) + passing + scores + itemsize * shape.largest_quantized
        is_full = self.method == "full"
        held = itemsize * shape.num_parameters if is_full else self.held + self.trained[0]
        spoiled = 0.0 if self.gpu.is_cpu else FRAGMENTATION
        return (held / self.share + dynamic * (1 + spoiled)) / GIB + context_gib(self.gpu, self.num_gpus)

    def _work(self, size: int, accumulation: int, every: int) -> Work:
        steps = self.counter.steps(self.kind, size)
        batches, updates = self.counter.batches(size, self.num_gpus, accumulation)
        parts = (self.num_gpus - 1) / self.num_gpus
        trainable = trainable_parameters(self.shape, self.settings, self.method)
        return Work(
            step=steps.step(every),
            scale=self.counter.mean_tokens(self.kind, size) / steps.num_tokens,
            batches=batches,
            updates=updates,
            dequantized=self._dequantized(steps, every),
            trained_bytes=4.0 * trainable,
            shared_bytes=2 * 4.0 * trainable * parts,
            gathered_bytes=3 * self.held * parts if self.sharing == "fsdp" else 0.0,
        )

    def _dequantized(self, steps: Steps, every: int) -> float:
        """The bytes that are read and written to dequantise each layer forward, backward, and where it is run again."""
        if self.method != "qlora" or self.is_dequantized:
            return 0.0
        passes = 2 + (1 / every if every else 0.0)
        return passes * (0.5 + self.itemsize) * self.shape.quantized_parameters

    def _seconds(self, work: Work, size: int) -> float:
        traced = self.counter.steps(self.kind, size).num_tokens
        plain = 2.0 * self.shape.num_parameters
        return (
            start_seconds(plain)
            + training_seconds(work, self.gpu)
            + evaluation_seconds(
                work, self.shape, self.settings, self.lengths, self.gpu, self.held, self.num_gpus, traced
            )
        )
