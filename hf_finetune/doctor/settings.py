"""Settings that contradict each other, or that nobody means; no row is needed to see it."""

import importlib.util
from collections.abc import Callable, Iterator

from hf_finetune.doctor.line import Line, fault, ok, warning
from hf_finetune.doctor.subject import Subject
from hf_finetune.errors import plural
from hf_finetune.processes import cores
from hf_finetune.settings import Settings, written

RATES = (5e-6, 5e-3)
"""Learning rates between which LoRA is trained; QLoRA (arXiv:2305.14314, table 9) takes 1e-4 and 2e-4."""
SCALES = (0.25, 8.0)
"""What the adapter is usually multiplied by: lora_alpha / lora_r."""
MANY_EPOCHS = 30
INNER = ("auto", "sdpa", "eager")
"""Attention that takes rows end to end and keeps them apart."""

Unused = tuple[str, Callable[[Settings], bool], str, str]
UNUSED: tuple[Unused, ...] = (
    ("eval_steps", lambda s: s.eval_strategy == "epoch", "eval_strategy is epoch", "add eval_strategy=steps"),
    ("num_train_epochs", lambda s: s.max_steps > 0, "max_steps ends the run", "leave max_steps out"),
    ("bnb_4bit_quant_type", lambda s: not s.load_in_4bit, "load_in_4bit is false", "add load_in_4bit=true"),
    ("use_bnb_nested_quant", lambda s: not s.load_in_4bit, "load_in_4bit is false", "add load_in_4bit=true"),
    ("dequantize_once", lambda s: not s.load_in_4bit, "load_in_4bit is false", "add load_in_4bit=true"),
    ("shared_prefix", lambda s: s.shared_prefix and not s.padding_free, "padding_free is off", "add padding_free=true"),
    ("few_shot_draws", lambda s: s.few_shot == 0, "few_shot is 0", "add few_shot=4"),
    ("temperature", lambda s: s.num_samples == 0, "num_samples is 0", "add num_samples=8"),
    ("warmup_steps", lambda s: s.lr_scheduler_type == "constant", "lr_scheduler_type is constant",
     "lr_scheduler_type=constant_with_warmup"),
    ("run_name", lambda s: s.report_to == ["none"], "report_to is none", "add report_to=trackio"),
    ("hub_private_repo", lambda s: s.hub_private_repo and not s.hub_model_id, "nothing is pushed",
     "add hub_model_id=OWNER/NAME"),
    ("group_by", lambda s: s.group_by == "length" and s.padding_free, "padding_free leaves no padding to save",
     "leave group_by out"),
)  # fmt: skip
"""Settings, when they have no effect, why, and what gives them one."""


def without_effect(subject: Subject) -> Iterator[Line]:
    """Settings that the user gave and that others leave without effect."""
    values = subject.settings
    for name, is_unused, why, fix in UNUSED:
        if subject.is_asked(name) and is_unused(values):
            yield warning(f"{name}={written(getattr(values, name))} has no effect, as {why}", f"{fix}, or leave it out")


def rows_apart(subject: Subject) -> Iterator[Line]:
    """Whether rows that are laid end to end are kept apart by the attention that is asked for."""
    values = subject.settings
    if values.padding_free and values.attn_implementation not in INNER:
        both = "padding_free and shared_prefix" if values.shared_prefix else "padding_free"
        yield warning(
            f"{both} need an attention that keeps rows apart, and attn_implementation is "
            f"{values.attn_implementation}: rows will be filled up to one length instead, which is slower",
            "attn_implementation=auto",
        )
    if values.padding_free and values.neftune_noise_alpha is not None:
        yield warning(
            "padding_free is left out with neftune_noise_alpha, whose noise depends on a row's length",
            "leave neftune_noise_alpha out, or add padding_free=false",
        )


def learning_rate(subject: Subject) -> Iterator[Line]:
    """Whether the learning rate is one that LoRA learns with."""
    rate, (low, high) = subject.settings.learning_rate, RATES
    if rate == 0:
        yield warning("learning_rate is 0: nothing is learnt", "learning_rate=2e-4")
    elif subject.settings.optim != "sgd" and not low <= rate <= high:
        what = "far above" if rate > high else "far below"
        why = "the loss will hardly fall, or be no number" if rate > high else "the adapter will hardly change"
        yield warning(
            f"learning_rate is {rate:g}, {what} what LoRA is trained with ({low:g} to {high:g}): {why}",
            "learning_rate=2e-4",
        )


def scale(subject: Subject) -> Iterator[Line]:
    """Whether the adapter is multiplied by a usual factor."""
    values, (low, high) = subject.settings, SCALES
    factor = values.lora_alpha / (values.lora_r**0.5 if values.use_rslora else values.lora_r)
    if not values.use_rslora and not low <= factor <= high:
        yield warning(
            f"lora_alpha / lora_r is {factor:g}, and {low:g} to {high:g} is usual: it multiplies the adapter",
            f"lora_alpha={2 * values.lora_r}",
        )


def epochs(subject: Subject) -> Iterator[Line]:
    """Whether the run's length is one that somebody can mean."""
    values = subject.settings
    if values.max_steps == 0:
        yield warning(
            "max_steps is 0, which is no limit: the run goes on for num_train_epochs",
            "leave max_steps out, or give a number",
        )
    if values.num_train_epochs > MANY_EPOCHS and values.max_steps <= 0:
        yield warning(
            f"num_train_epochs is {values.num_train_epochs:g}: after so many passes rows are known by heart",
            "num_train_epochs=3",
        )
    if values.lora_dropout >= 0.5:
        yield warning(
            f"lora_dropout is {values.lora_dropout:g}: at least half of the adapter's input is dropped",
            "lora_dropout=0.05",
        )


def shares(subject: Subject) -> Iterator[Line]:
    """Whether enough rows are left to learn from."""
    values = subject.settings
    left = 1 - values.validation_size - values.test_size
    if left < 0.5:
        yield warning(
            f"validation_size and test_size leave {left:.0%} of the rows to learn from",
            "validation_size=0.1 test_size=0.1",
        )
    if values.near_duplicate_similarity < 0.5:
        yield warning(
            f"near_duplicate_similarity is {values.near_duplicate_similarity:g}: prompts that share less "
            f"than half of their words would count as the same",
            "near_duplicate_similarity=0.8",
        )


def trackers(subject: Subject) -> Iterator[Line]:
    """Whether the experiment trackers are installed."""
    for name in subject.settings.report_to:
        if name != "none" and importlib.util.find_spec(name) is None:
            yield fault(f"report_to is {name}, which is not installed", f"pip install 'hf_finetune[{name}]'")
    if "none" in subject.settings.report_to and len(subject.settings.report_to) > 1:
        given = ", ".join(subject.settings.report_to)
        yield warning(f"report_to is {given}: none stands beside others", "leave none out")


def baseline(subject: Subject) -> Iterator[Line]:
    """Whether what the baseline needs is installed."""
    if subject.settings.baseline == "tfidf" and importlib.util.find_spec("sklearn") is None:
        yield fault("baseline is tfidf, and scikit-learn is not installed", "pip install 'hf_finetune[tfidf]'")


def workers(subject: Subject) -> Iterator[Line]:
    """Whether there are cores for the data loader's processes."""
    asked = subject.settings.dataloader_num_workers
    if asked > cores():
        yield warning(
            f"dataloader_num_workers is {asked} on {plural(cores(), 'core')}", f"dataloader_num_workers={cores() // 2}"
        )


def price(subject: Subject) -> Iterator[Line]:
    """Whether the run can say what it has cost."""
    if subject.settings.price_per_hour is None and not subject.is_demo:
        yield ok("price_per_hour is not set: run.json will not say what the run has cost")
