"""Settings against the number of rows: what is longer than the run, and what there are too few rows for."""

from collections.abc import Iterator

from hf_finetune.doctor.line import Line, ok, warning
from hf_finetune.doctor.subject import Subject
from hf_finetune.errors import plural

FEWEST_TEST_ROWS = 20
"""Fewer leave intervals so wide that a verdict is hardly ever more than "too few rows to tell"."""


def steps(subject: Subject) -> Iterator[Line]:
    """How many steps the run has, and whether that is more than one."""
    count, size = subject.steps, subject.settings.per_device_train_batch_size
    if not count:
        return
    if count == 1:
        yield warning(
            "the run has a single step: an adapter learns next to nothing in it",
            "more rows, a smaller per_device_train_batch_size, or another max_steps",
        )
    else:
        times = subject.settings.gradient_accumulation_steps
        batch = f"{size} x {times}" if times > 1 else str(size)
        yield ok(f"{plural(count, 'step')} of {batch} rows, {subject.steps_in_epoch:,} a pass")


def batch(subject: Subject) -> Iterator[Line]:
    """Whether a batch, or all that are added up for a step, has rows to be filled with."""
    values, rows = subject.settings, subject.num_train_rows
    if rows and values.per_device_train_batch_size > rows:
        yield warning(
            f"per_device_train_batch_size is {values.per_device_train_batch_size}, and there are "
            f"{plural(rows, 'training row')}: each pass is one step",
            f"per_device_train_batch_size={max(1, rows // 8)}",
        )
    elif rows and values.per_device_train_batch_size * values.gradient_accumulation_steps > rows:
        yield warning(
            f"gradient_accumulation_steps={values.gradient_accumulation_steps} adds up more than the "
            f"{plural(rows, 'training row')}: each pass is one step",
            "gradient_accumulation_steps=1",
        )


def eval_steps(subject: Subject) -> Iterator[Line]:
    """Whether the validation loss is taken at all."""
    values, count = subject.settings, subject.steps
    if count and values.eval_strategy == "steps" and values.eval_steps > count:
        yield warning(
            f"eval_steps is {values.eval_steps}, and the run has {plural(count, 'step')}: no validation loss "
            f"is taken before its end, so that there is no best checkpoint to choose",
            f"eval_steps={max(1, count // 5)}",
        )


def warmup(subject: Subject) -> Iterator[Line]:
    """Whether the learning rate is ever reached."""
    values, count = subject.settings, subject.steps
    if count and values.warmup_steps >= 1 and values.warmup_steps >= count > 1:
        yield warning(
            f"warmup_steps is {values.warmup_steps:g}, and the run has {plural(count, 'step')}: the learning "
            f"rate of {values.learning_rate:g} is never reached",
            "warmup_steps=0.1",
        )


def early_stopping(subject: Subject) -> Iterator[Line]:
    """Whether early stopping that was asked for can ever act."""
    values, count = subject.settings, subject.steps
    if not count or not values.early_stopping_patience or not subject.is_asked("early_stopping_patience"):
        return
    every = values.eval_steps if values.eval_strategy == "steps" else subject.steps_in_epoch
    evaluations = count // max(1, every)
    if evaluations <= values.early_stopping_patience + 1:
        yield warning(
            f"early_stopping_patience is {values.early_stopping_patience}, and there are "
            f"{plural(evaluations, 'evaluation')}: it can never end the run early",
            f"eval_strategy=steps eval_steps={max(1, count // 10)}",
        )


def logging(subject: Subject) -> Iterator[Line]:
    """Whether training_log.jsonl will hold a loss."""
    count = subject.steps
    if count and subject.settings.logging_steps > count:
        yield warning(
            f"logging_steps is {subject.settings.logging_steps}, and the run has {plural(count, 'step')}: the "
            f"log and the loss curve will hold no training loss",
            f"logging_steps={max(1, count // 5)}",
        )


def few_shot(subject: Subject) -> Iterator[Line]:
    """Whether there are as many training rows as are to be shown to the base."""
    asked, rows = subject.settings.few_shot, subject.num_train_rows
    if rows and asked > rows:
        yield warning(f"few_shot is {asked}, and there are {plural(rows, 'training row')} to show", "few_shot=4")


def test_rows(subject: Subject) -> Iterator[Line]:
    """Whether there are enough rows to measure with, and to choose a checkpoint with."""
    if subject.prepared is None:
        return
    rows = subject.prepared.facts["rows"]
    for split, what, size in (
        ("test", 'the verdict will be "too few rows to tell"', "test_size"),
        ("validation", "the best checkpoint is chosen by chance", "validation_size"),
    ):
        if rows[split] < FEWEST_TEST_ROWS:
            yield warning(f"the {split} split has {plural(rows[split], 'row')}: {what}", _more(subject, size))


def _more(subject: Subject, name: str) -> str:
    """How to get twenty rows and more into a split."""
    if subject.read and name.removesuffix("_size") in subject.read.splits:
        return f"give more rows in the {name.removesuffix('_size')} files"
    if name == "test_size" and (subject.settings.max_test_rows or FEWEST_TEST_ROWS) < FEWEST_TEST_ROWS:
        return "leave max_test_rows out"
    total = sum(subject.prepared.facts["rows"].values()) if subject.prepared else 0
    wanted = FEWEST_TEST_ROWS / total if total else 1.0
    return f"{name}={max(wanted, 0.1) * 1.1:.2f}, or more rows" if wanted < 0.4 else "give more rows: 200 at least"
