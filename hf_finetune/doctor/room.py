"""Memory, disk, time and money: whether the run fits this machine, and what it takes there or on a rented one."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hf_finetune.doctor.data import whole_splits
from hf_finetune.doctor.line import Line, fault, ok, warning
from hf_finetune.doctor.subject import Subject
from hf_finetune.files import existing
from hf_finetune.model import free_memory
from hf_finetune.prepare import Encoded, Prepared
from hf_finetune.processes import cores, num_processes
from hf_finetune.progress import duration
from hf_finetune.settings import written

if TYPE_CHECKING:
    from hf_finetune.estimate import Estimate, Gpu, Lengths
    from hf_finetune.estimate.fit import Estimator

GIB = 2**30
LONG_SECONDS = 12 * 3600
"""From here on a run on a CPU is hardly meant."""


def memory(subject: Subject) -> Iterator[Line]:
    """Whether the run fits this machine's memory, and how long it takes there; what it costs elsewhere."""
    estimator = estimator_of(subject)
    if estimator is None:
        return
    gpu = this_device()
    own = estimator.estimate(gpu, num_processes(), _method(subject))
    where = "this machine's memory" if gpu.is_cpu else gpu.name
    if not own.fits:
        yield fault(
            f"it needs {own.peak_gib:.1f} GiB with one row at a time, and of {where} {gpu.memory_gib:.1f} are free",
            _what_fits(subject, estimator, gpu),
        )
        return
    asked = subject.settings.per_device_train_batch_size
    yield ok(
        f"memory: {own.peak_gib:.1f} GiB of {where} at most, {gpu.memory_gib:.1f} are free; "
        f"{own.batch} rows a step, up to {own.largest_batch} would fit"
    )
    if own.batch < asked:
        yield warning(
            f"per_device_train_batch_size={asked} does not fit {where}",
            f"per_device_train_batch_size={own.batch} gradient_accumulation_steps={own.accumulation}",
        )
    yield from _time(subject, estimator, own)


def disks(subject: Subject) -> Iterator[Line]:
    """Whether the disks have room for the checkpoints and for what is to be downloaded."""
    from huggingface_hub import constants

    estimator = estimator_of(subject)
    if estimator is None:
        return
    from hf_finetune.estimate.methods import adapter_parameters

    checkpoint = 3 * 4 * adapter_parameters(estimator.shape, subject.settings)
    needed = {
        "checkpoints": (subject.folder, checkpoint * (subject.settings.save_total_limit + 2)),
        "the base's weights": (Path(constants.HF_HUB_CACHE), subject.missing_bytes),
    }
    for what, (place, size) in needed.items():
        free = shutil.disk_usage(existing(place)).free
        if size > free:
            yield fault(
                f"{size / GIB:,.1f} GiB are needed for {what}, and {free / GIB:,.1f} are free at {place}",
                "make room there, or name another disk: "
                + ("output_dir=FOLDER" if what == "checkpoints" else "export HF_HOME=FOLDER"),
            )


def estimator_of(subject: Subject) -> "Estimator | None":
    """What estimates this run for any device; None where its base or its rows are not known."""
    recipe, base, prepared, encoded = subject.recipe, subject.base, subject.prepared, subject.encoded
    if recipe is None or base is None or subject.skeleton is None or prepared is None or encoded is None:
        return None
    if subject.estimator is None:
        from hf_finetune.estimate import counted_lengths, shape_of_model
        from hf_finetune.estimate.fit import Estimator

        lengths = as_of_all(counted_lengths(recipe, prepared, encoded), subject, prepared, encoded)
        subject.estimator = Estimator(shape_of_model(subject.skeleton, base.name), subject.settings, lengths)
    return subject.estimator


def as_of_all(part: "Lengths", subject: Subject, prepared: Prepared, encoded: Encoded) -> "Lengths":
    """The lengths of a run's whole splits, of which doctor has looked at a part of the rows."""
    whole = whole_splits(prepared.facts)
    test = min(whole["test"], subject.settings.max_test_rows or whole["test"])
    validation = len(encoded.validation) + encoded.facts["longer_than_max_length"]["validation"]
    return replace(
        part,
        num_rows=subject.num_train_rows,
        drawn=subject.drawn,
        validation_tokens=round(part.validation_tokens * whole["validation"] / validation),
        test_rows=test,
        test_tokens=round(part.test_tokens * test / part.test_rows),
    )


def this_device() -> "Gpu":
    """This machine's GPU, as the list knows it, or its CPU; with the memory that is free now."""
    import torch

    from hf_finetune.estimate import CPU, find_gpus
    from hf_finetune.estimate.gpus import gpu_of_device

    free = free_memory() / GIB
    if not torch.cuda.is_available():
        return replace(CPU, memory_gib=free, tflops=CPU.tflops * cores())
    name = torch.cuda.get_device_name()
    listed = gpu_of_device(name)
    if listed:
        return replace(listed, memory_gib=free)
    like = find_gpus(["A10G"])[0]  # of a GPU that is not listed, memory is known, and the rest of this order
    return replace(
        like,
        name=name,
        memory_gib=free,
        usd_an_hour=(),
        has_bfloat16=torch.cuda.is_bf16_supported(including_emulation=False),
    )


def _time(subject: Subject, estimator: "Estimator", own: "Estimate") -> Iterator[Line]:
    """How long the run takes here, and what it costs; without a GPU also what it would elsewhere."""
    price = subject.settings.price_per_hour
    cost = f", {price * own.seconds / 3600:.2f} USD" if price and own.seconds else ""
    if own.seconds and own.gpu.is_cpu and own.seconds > LONG_SECONDS:
        yield warning(f"without a GPU it takes about {duration(own.seconds)}", elsewhere(subject, estimator))
    elif own.seconds:
        yield ok(
            f"time: about {duration(own.seconds)}, at most{cost}" + (", on a CPU roughly" if own.gpu.is_cpu else "")
        )
    if own.gpu.is_cpu and not subject.is_demo and (own.seconds or 0) <= LONG_SECONDS:
        yield ok(elsewhere(subject, estimator))


def elsewhere(subject: Subject, estimator: "Estimator") -> str:
    """The GPU on which the run costs least, of those that it fits, with its time and price."""
    from hf_finetune.estimate import known_gpus

    found = [estimator.estimate(gpu, 1, _method(subject)) for gpu in known_gpus()]
    priced = [one for one in found if one.fits and one.price_usd is not None and one.seconds]
    if not priced:
        return "no GPU that is known holds it: share it out over several, hf-finetune launch --accelerate-config fsdp2"
    best = min(priced, key=lambda one: one.price_usd or 0)
    return f"on a rented {best.gpu.name}: {duration(best.seconds or 0)}, {best.price_usd:.2f} USD, batch {best.batch}"


def _what_fits(subject: Subject, estimator: "Estimator", gpu: "Gpu") -> str:
    """Settings with which the run fits the device, or else the GPU that it fits."""
    from hf_finetune.estimate.fit import Estimator

    values = subject.settings
    halves = [half for half in (values.max_length // 2, values.max_length // 4) if half >= 64]
    if not values.load_in_4bit and estimator.estimate(gpu, 1, "qlora").fits:
        return "load_in_4bit=true load_in_8bit=false"
    tried: list[dict[str, object]] = [{"optim": "paged_adamw_8bit", "lora_r": min(8, values.lora_r)}]
    if values.gradient_checkpointing is False:
        tried.insert(0, {"gradient_checkpointing": True})
    for change in tried:
        changed = values.model_copy(update=change)
        if Estimator(estimator.shape, changed, estimator.lengths).estimate(gpu, 1, _method(subject)).fits:
            return " ".join(f"{name}={written(value)}" for name, value in change.items())
    shorter = f"rows of {halves[0]} tokens at most (max_length={halves[0]}), " if halves and not gpu.is_cpu else ""
    return f"{shorter}a smaller base, or {elsewhere(subject, estimator)}"


def _method(subject: Subject) -> str:
    from hf_finetune.estimate import method_of

    return method_of(subject.settings)
