"""Estimates as a person reads them: a table, the parts of the memory, and what to take, in one line."""

from collections.abc import Sequence

from hf_finetune.estimate.fit import CHECKPOINTED, Estimate
from hf_finetune.estimate.methods import NAMES
from hf_finetune.estimate.shape import Shape
from hf_finetune.progress import duration
from hf_finetune.settings import Settings

HEADER = ("GPU", "method", "fits", "peak GiB", "batch", "largest", "runs again", "time", "USD")


def table(estimates: Sequence[Estimate]) -> str:
    """A line an estimate, under a header."""
    rows = [HEADER, *map(_cells, estimates)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    held = [
        "* its 4-bit layers are held as the numbers they stand for, as there is room: dequantize_once=false saves it"
    ]
    noted = held if any(one.is_dequantized for one in estimates) else []
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], *noted])


def about(shape: Shape, trainable: int, settings: Settings) -> str:
    """What the base is, and what of it is trained."""
    tied = "tied to the head" if shape.is_tied else "beside a head"
    return (
        f"{shape.architecture}, {billions(shape.num_parameters)} parameters in {shape.num_layers} layers of "
        f"{shape.hidden:,}; {billions(shape.quantized_parameters)} of them can be held in 4 bits, {shape.vocabulary:,} "
        f"words {tied}; the adapter (r={settings.lora_r}) has {billions(trainable)}"
    )


def parts(estimate: Estimate) -> str:
    """The parts of the memory of the moment with the most in training, and what evaluation takes."""
    memory = estimate.memory
    names = {
        "weights (dequantised)" if estimate.is_dequantized else "weights": memory.weights,
        "master copy" if estimate.method == "full" else "adapter": memory.adapter,
        "gradients": memory.gradients,
        "optimiser": memory.optimizer,
        "activations": memory.activations,
        "logits": memory.logits,
        "workspace": memory.workspace,
        "CUDA": memory.context,
        "fragmentation": memory.fragmentation,
    }
    shown = ", ".join(f"{name} {value:.2f}" for name, value in names.items() if value >= 0.005)
    return f"{shown}: {memory.training:.1f} GiB in training; {memory.evaluation:.1f} GiB in evaluation"


def best(estimates: Sequence[Estimate], method: str) -> Estimate | None:
    """The cheapest that fits, by the recipe's own method if that fits anywhere; the quickest where prices are equal."""
    fitting = [one for one in estimates if one.fits]
    own = [one for one in fitting if one.method == method] or fitting
    far = float("inf")
    return min(own, key=lambda one: (one.price_usd or far, one.seconds or far), default=None)


def suggestion(estimates: Sequence[Estimate], settings: Settings, method: str) -> str:
    """What to take, in one line, with the settings that it needs."""
    one = best(estimates, method)
    if one is None:
        least = min(estimates, key=lambda other: other.peak_gib)
        return (
            f"fits none of these: {NAMES[least.method]} needs {least.peak_gib:.1f} GiB on one GPU at least. Take a "
            f"larger GPU, several (--gpus N), a smaller base, or shorter rows (max_length)."
        )
    several = f"{one.num_gpus} x {one.gpu.name} ({one.sharing})" if one.num_gpus > 1 else one.gpu.name
    article = "" if one.num_gpus > 1 else "an " if one.gpu.name[0] in "AHLR" else "a "
    price = "" if one.price_usd is None else f", {one.price_usd:.2f} USD"
    how = "" if one.method == method else f", by {NAMES[one.method]} instead of {NAMES[method]}"
    changed = changes(one, settings, method)
    needed = f" with {' '.join(changed)}" if changed else ""
    return f"fits {article}{several} with batch {one.batch}{how}: {duration(one.seconds or 0)}{price}{needed}"


def changes(one: Estimate, settings: Settings, method: str) -> list[str]:
    """The settings that have to be changed for it, as they are written on the command line."""
    values: dict[str, object] = {}
    if one.batch != settings.per_device_train_batch_size:
        values |= {"per_device_train_batch_size": one.batch, "gradient_accumulation_steps": one.accumulation}
    if one.evaluation_batch != settings.per_device_eval_batch_size:
        values["per_device_eval_batch_size"] = one.evaluation_batch
    if one.method != method and one.method != "full":
        values |= {"load_in_4bit": str(one.method == "qlora").lower(), "load_in_8bit": "false"}
    return [f"{name}={value}" for name, value in values.items()]


def billions(count: int) -> str:
    """`1.54 billion`, `18.5 million`, `131,072`."""
    if count >= 10**9:
        return f"{count / 10**9:.2f} billion"
    return f"{count / 10**6:.1f} million" if count >= 10**6 else f"{count:,}"


def _cells(one: Estimate) -> tuple[str, ...]:
    name = f"{one.num_gpus} x {one.gpu.name}, {one.sharing}" if one.num_gpus > 1 else one.gpu.name
    method = NAMES[one.method] + ("*" if one.is_dequantized else "")
    batch = f"{one.batch}" + (f" x {one.accumulation}" if one.accumulation > 1 else "")
    again = "-" if one.checkpointed == CHECKPOINTED[0] else one.checkpointed
    peak = f"{one.peak_gib:.1f} of {one.gpu.memory_gib:.1f}"
    if not one.fits:
        return (name, method, "no", peak, *["-"] * 5)
    price = "?" if one.price_usd is None else f"{one.price_usd:.2f}"
    return (
        name, method, "yes", peak, batch, str(one.largest_batch), again, duration(one.seconds or 0), price,
    )  # fmt: skip
