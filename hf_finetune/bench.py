"""What each gain of speed is worth on this machine: training steps with and without it, as a table and a picture."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from hf_finetune.chat import ChatFormat
from hf_finetune.data.sources import Source
from hf_finetune.errors import RecipeError, first_line, plural
from hf_finetune.files import write_json, write_picture, write_text
from hf_finetune.layers import Settled, check_machine
from hf_finetune.model import (
    BaseModel,
    adapter_config,
    explaining_full_memory,
    find_base_model,
    load_base_model,
    load_tokenizer,
)
from hf_finetune.prepare import Encoded, encode, prepare
from hf_finetune.progress import FILE, Progress, Session, peak_memory_gib, tracked
from hf_finetune.recipe import Recipe
from hf_finetune.run import describe_computing, describe_hardware, installed_versions, now
from hf_finetune.settings import Settings

Result = TypeVar("Result")

PLAIN: Mapping[str, Any] = {
    "supervised_only": False,
    "padding_free": False,
    "shared_prefix": False,
    "fused_lora": False,
    "dequantize_once": False,
    "gradient_checkpointing": True,
}
"""TRL's own computation, with its own default of gradient_checkpointing."""
GAINS = {name: "auto" if name in ("dequantize_once", "gradient_checkpointing") else True for name in PLAIN}


@dataclass(frozen=True)
class Measured:
    """Some training steps of one way."""

    way: str
    seconds: float
    """Of a step, the median: of the CPU where that is what trains, else by the clock."""
    rows_per_second: float
    tokens_per_second: float
    """Tokens of the rows, without padding, whether or not they are computed more than once, or shared."""
    peak_memory_gib: float
    losses: list[float]


@dataclass(frozen=True)
class Reached:
    """How far one way comes in the steps that fit into the time which is given to each."""

    way: str
    steps: int
    validation_loss: float


def ways() -> dict[str, dict[str, Any]]:
    """Plain, each gain alone, all but one, and all; the settings of each."""
    alone = {f"{name} alone": dict(PLAIN) | _with_what_it_needs(name) for name in GAINS}
    left_out = {f"all but {name}": GAINS | {name: PLAIN[name]} for name in GAINS}
    return {"plain": dict(PLAIN)} | alone | left_out | {"all": dict(GAINS)}


def bench(
    recipe: Recipe[Any], source: Source, settled: Settled, folder: Path, steps: int, rounds: int, seconds: int,
    say: Callable[[str], None], prepare_process: Callable[[], None],
) -> None:  # fmt: skip
    """Leaves bench.json, bench.md and bench.png in `folder`: the first rows of the recipe, trained in each way.

    Each way runs in a process of its own, which calls `prepare_process` first, `rounds` times, in turn; its best round
    counts. Then the plain way and all gains together each train the steps that fit into so many seconds, if any.

    Raises:
        RecipeError: when the rows or the base cannot be read, or there are too few rows.
    """
    settings = settled.values
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"{folder}: is a file. Name a folder with --output.")
    progress = Progress(Session(now()), folder, say)
    base, rows = _base_and_rows(recipe, source, settled, progress)
    folder.mkdir(parents=True, exist_ok=True)
    run = partial(run_way, base=base, rows=rows, settings=settings, prepare_process=prepare_process, say=say)
    try:
        best = _best_rounds(partial(run, measure), steps + 1, rounds, progress)
        reached = _reached_in(seconds, best, partial(run, reach), progress)
    finally:
        (folder / FILE).unlink(missing_ok=True)  # a bench that was stopped is not gone on with
    measured = list(best.values())
    facts = {
        "recipe": recipe.name,
        "base_model": base.name,
        "rows_a_step": _rows_a_step(settings),
        "steps": steps,
        "rounds": rounds,
        "ways": [asdict(one) for one in measured],
        "seconds": seconds,
        "reached": [asdict(one) for one in reached],
        **_circumstances(settled),
    }
    table = _write_results(folder, facts, measured, reached)
    say("\n" + table)


def _base_and_rows(
    recipe: Recipe[Any], source: Source, settled: Settled, progress: Progress
) -> tuple[BaseModel, Encoded]:
    """The base, and the recipe's rows as its tokens.

    Raises:
        RecipeError: when one of them cannot be read, this machine lacks something, or the rows are too few.
    """
    settings = settled.values
    prepared = prepare(recipe, source, settings)
    check_machine(settled)
    base = find_base_model(settings)
    rows = encode(recipe, prepared, ChatFormat.of(load_tokenizer(base)), settings, progress)
    if len(rows.train) < 2 * _rows_a_step(settings):
        raise RecipeError(f"bench: {len(rows.train)} training rows are too few. Give more, or a smaller batch.")
    return base, rows


def _best_rounds(
    run: Callable[[str, int], Measured | None], steps: int, rounds: int, progress: Progress
) -> dict[str, Measured]:
    """The quickest round of each way that runs here, by way.

    Raises:
        RecipeError: when none does.
    """
    best: dict[str, Measured] = {}
    for way in tracked(list(ways()) * rounds, progress, "bench", "runs"):
        measured = run(way, steps)
        if measured and (way not in best or measured.seconds < best[way].seconds):
            best[way] = measured
    if not best:
        raise RecipeError("bench: nothing of it runs here. Take a smaller batch, or a smaller base.")
    return best


def _reached_in(
    seconds: int, best: Mapping[str, Measured], run: Callable[[str, int], Reached | None], progress: Progress
) -> list[Reached]:
    """How far the plain way and all gains together come in so many seconds; nothing for 0."""
    compared = [way for way in ("plain", "all") if seconds and way in best]
    found = [
        run(way, max(1, int(seconds / best[way].seconds)))
        for way in tracked(compared, progress, "bench quality", "runs")
    ]
    return [one for one in found if one]


def _write_results(
    folder: Path, facts: Mapping[str, Any], measured: Sequence[Measured], reached: Sequence[Reached]
) -> str:
    """The table, after all facts are left as JSON, the table as Markdown and the speeds as a picture."""
    write_json(folder / "bench.json", facts)
    table = as_markdown(measured, reached, facts["seconds"])
    write_text(folder / "bench.md", table)
    draw(measured, folder / "bench.png")
    return table


def _circumstances(settled: Settled) -> dict[str, Any]:
    """On what, with what, and under which settings the steps were trained."""
    return {
        "hardware": describe_hardware(),
        "computing": describe_computing(settled.values),
        "versions": installed_versions(),
        "settings": settled.as_json(),
    }


def _rows_a_step(settings: Settings) -> int:
    return settings.per_device_train_batch_size * settings.gradient_accumulation_steps


def run_way(
    work: Callable[[str, BaseModel, Encoded, Settings], Result], way: str, steps: int, *, base: BaseModel,
    rows: Encoded, settings: Settings, prepare_process: Callable[[], None], say: Callable[[str], None],
) -> Result | None:  # fmt: skip
    """What `work` finds in so many steps of a way; None, and it is said why, where that does not run here.

    In a process of its own: its memory is this way's alone, and nothing that was patched stays.
    """
    changed = {"max_steps": steps, "num_train_epochs": 1.0, "eval_strategy": "steps", "eval_steps": 10**9}
    one = settings.model_copy(update=ways()[way] | changed | {"logging_steps": 1, "report_to": ["none"]})
    try:
        with ProcessPoolExecutor(1, get_context("spawn"), prepare_process) as alone:
            return alone.submit(work, way, base, rows, one).result()
    except (RecipeError, BrokenProcessPool) as error:
        say(f"{way}: left out, as it does not run here: {first_line(error)}")
        return None


def measure(way: str, base: BaseModel, rows: Encoded, settings: Settings) -> Measured:
    """Trains `settings.max_steps` steps; the first is not counted, since it warms up."""
    few = Encoded(rows.train, rows.validation[:1], rows.train_lines, rows.facts)
    with tempfile.TemporaryDirectory() as folder:
        trainer, clock = _train(base, few, settings, Path(folder))
    size = _rows_a_step(settings)
    batches = trainer.train_batches.batches(0)[settings.gradient_accumulation_steps :][: len(clock.seconds) - 1]
    tokens = [len(rows.train[row]["input_ids"]) for batch in batches for row in batch]
    seconds = median(clock.seconds[1:])
    mean_tokens = sum(tokens) / len(tokens)
    return Measured(way, seconds, size / seconds, size * mean_tokens / seconds, peak_memory_gib(), clock.losses)


def reach(way: str, base: BaseModel, rows: Encoded, settings: Settings) -> Reached:
    """Trains `settings.max_steps` steps, after which the trainer takes the loss of the validation rows."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, _ = _train(base, rows, settings, Path(folder))
    return Reached(way, settings.max_steps, trainer.state.best_metric)


def _train(base: BaseModel, rows: Encoded, settings: Settings, folder: Path) -> tuple[Any, Any]:
    """A trainer that has trained, and the clock that watched it."""
    import torch

    from hf_finetune.train.trainer import RecipeTrainer

    model = load_base_model(base, settings)
    adapter = adapter_config(model, settings)
    progress = Progress(Session(now()), folder, lambda line: None)
    trainer = RecipeTrainer(model, load_tokenizer(base), rows, adapter, settings, folder, progress, None)
    trainer.fitting.why_fixed = "in a bench a way whose batches do not fit is left out"
    clock = _clock(torch.cuda.is_available())
    trainer.add_callback(clock)
    with explaining_full_memory("Take a smaller batch."):
        trainer.train()
    return trainer, clock


def as_markdown(results: Sequence[Measured], reached: Sequence[Reached] = (), seconds: int = 0) -> str:
    """A line a way: how many times the speed of the first one, which is the plain one if it runs, and what it took.

    Below it, how far each came in the steps that fit into so many seconds.
    """
    plain = results[0]
    lines = [
        "| way | speed | seconds a step | rows/s | tokens/s | peak memory (GiB) | loss apart from the first |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        apart = max(abs(one - other) for one, other in zip(result.losses, plain.losses, strict=True))
        cells = [
            result.way,
            f"{plain.seconds / result.seconds:.2f}",
            f"{result.seconds:.3f}",
            f"{result.rows_per_second:.1f}",
            f"{result.tokens_per_second:,.0f}",
            f"{result.peak_memory_gib:.2f}",
            f"{apart:.0e}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    came = [f"{one.way} {plural(one.steps, 'step')}, validation loss {one.validation_loss:.4f}" for one in reached]
    lines += ["", f"In the steps that fit into {seconds} seconds: {'; '.join(came)}."] if came else []
    return "\n".join([*lines, ""])


def draw(results: Sequence[Measured], picture: Path) -> None:
    """Leaves a PNG of the speed of each way, as a multiple of the plain one's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.35 * len(results) + 1), layout="constrained")
    axes = figure.add_subplot()
    speeds = [results[0].seconds / result.seconds for result in results]
    bars = axes.barh([result.way for result in results], speeds)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("speed of a training step, plain = 1")
    write_picture(picture, figure)


def _with_what_it_needs(name: str) -> dict[str, Any]:
    needed = {"shared_prefix": ("padding_free", "shared_prefix")}.get(name, (name,))
    return {one: GAINS[one] for one in needed}


def _clock(on_gpu: bool) -> Any:
    """A callback that notes the seconds and the loss of each step."""
    import torch
    from transformers import TrainerCallback

    def now_in_seconds() -> float:
        if on_gpu:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    class Clock(TrainerCallback):  # type: ignore[misc]  # transformers exports it untyped
        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.losses: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = now_in_seconds()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(now_in_seconds() - self.began)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **__: Any) -> None:
            self.losses += [logs["loss"]] if "loss" in (logs or {}) else []

    return Clock()
