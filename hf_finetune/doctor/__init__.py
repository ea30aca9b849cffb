"""Whether a run will work, looked at before it: all that is wrong at once, each with what mends it."""

from collections.abc import Iterable, Iterator, Sequence

from hf_finetune.doctor import (
    base,
    contract,
    data,
    device,
    hub,
    lengths,
    room,
    row_checks,
    settings,
    software,
    tokenizer,
    training,
    variables,
    weights,
)
from hf_finetune.doctor.examination import Area, lines_of
from hf_finetune.doctor.line import DEFECT, Line
from hf_finetune.doctor.subject import Subject
from hf_finetune.errors import RecipeError, plural

__all__ = ["AREAS", "BEFORE_ROWS", "BEFORE_TRAINING", "Area", "Line", "Subject", "examine", "notes_of"]

AREAS = (
    Area("environment", (
        software.python, software.versions, software.shadows, variables.offline, variables.tokens,
        variables.gpus_shut_out, variables.slow_variables, variables.unread_variables, variables.endpoint,
        variables.caches, variables.launcher, variables.accelerate_config, device.gpu, device.dtype, device.attention,
        device.quantiser, device.disk,
    )),
    Area("recipe", (contract.contract, contract.docstring)),
    Area("settings", (
        settings.without_effect, settings.rows_apart, settings.learning_rate, settings.scale, settings.epochs,
        settings.shares, settings.trackers, settings.baseline, settings.workers, settings.price,
    )),
    Area("base model", (
        base.found, base.architecture, base.quantised_already, base.quantised_part, base.adapter, base.packing,
        device.overflow, weights.files, weights.whole, tokenizer.tokenizer, tokenizer.stop, tokenizer.markers,
        tokenizer.system, tokenizer.double_bos, tokenizer.prompts_differ,
    )),
    Area("data", (
        data.rows, data.columns, data.shares, row_checks.single_rows, data.duplicates, data.balance, data.leakage,
        data.measured, contract.contract_on_data, data.data_licence, base.licence,
    )),
    Area("training", (
        training.encoded, tokenizer.vocabulary, training.supervised, training.unknown, training.read_back,
        training.choices_differ, base.context, lengths.steps, lengths.batch, lengths.eval_steps, lengths.warmup,
        lengths.early_stopping, lengths.logging, lengths.few_shot, lengths.test_rows,
    )),
    Area("memory and cost", (room.memory, room.disks)),
    Area("Hub", (hub.base_can_be_loaded, hub.rights)),
)  # fmt: skip
"""All that is looked at, in the order of the page."""

BEFORE_ROWS = (
    Area("environment", (
        software.versions, software.shadows, variables.tokens, variables.gpus_shut_out, variables.slow_variables,
        variables.unread_variables, variables.caches, device.dtype, device.attention, device.quantiser, device.disk,
    )),
    Area("settings", (
        settings.without_effect, settings.learning_rate, settings.scale, settings.epochs, settings.shares,
        settings.trackers, settings.baseline, settings.workers,
    )),
)  # fmt: skip
"""What a run looks at first: it takes no time and needs no row."""
BEFORE_TRAINING = (
    Area("base model", (
        base.architecture, base.quantised_already, base.adapter, device.overflow, weights.whole, tokenizer.vocabulary,
        tokenizer.stop, tokenizer.markers, tokenizer.double_bos,
    )),
    Area("training", (
        training.supervised, base.context, lengths.steps, lengths.batch, lengths.eval_steps, lengths.warmup,
        lengths.early_stopping, lengths.logging, lengths.few_shot, lengths.test_rows,
    )),
)  # fmt: skip
"""What a run looks at once it has its rows and its base, before it loads any weights."""


def examine(subject: Subject, areas: Sequence[Area] = AREAS) -> Iterator[tuple[str, list[Line]]]:
    """The name of each area and what was found there, as soon as it has been looked at."""
    for area in areas:
        yield area.name, lines_of(area, subject)


def notes_of(subject: Subject, areas: Sequence[Area]) -> list[str]:
    """What a run tells before it goes on, a line for each warning; a defect of a check is none of the run's.

    Raises:
        RecipeError: with all faults, if there are any.
    """
    found = [line for _, lines in examine(subject, areas) for line in lines]
    refuse([line for line in found if line.level == "fault" and line.fix != DEFECT])
    return [f"{line.text} ({line.fix})" for line in found if line.level == "warning" or line.fix == DEFECT]


def refuse(faults: Sequence[Line]) -> None:
    """Stops where there are faults.

    Raises:
        RecipeError: with all of them.
    """
    if faults:
        raise RecipeError(in_one(faults))


def in_one(faults: Iterable[Line]) -> str:
    """All faults in one message."""
    told = [f"{fault.area}: {fault.text}. {sentence(fault.fix)}" for fault in faults]
    return told[0] if len(told) == 1 else "\n".join([f"{plural(len(told), 'fault')} before the training:", *(
        f"  {one}" for one in told
    )])  # fmt: skip


def sentence(fix: str) -> str:
    """What mends a fault, as a sentence; a command stays as it is typed."""
    return f"{fix[:1].upper()}{fix[1:]}." if " " in fix and not fix.startswith(("pip ", "export ", "mv ")) else fix
