"""The steps of a run, in order; one whose file is there is left out. Whoever outgrows this copies it."""

import gc
import platform
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hf_finetune.begin import EVALUATION_FILES, ROW_FILES, Begun, Request, begin, opened
from hf_finetune.card import write_card
from hf_finetune.checkpoints import best_of, last_whole, state_of
from hf_finetune.errors import RecipeError
from hf_finetune.evaluate import KEPT, Evaluation
from hf_finetune.files import sha256
from hf_finetune.folder import holds_run, start_folder
from hf_finetune.gates import check_gates, refuse_unmeasured
from hf_finetune.model import (
    adapter_config,
    check_adapter,
    dequantize_if_asked,
    load_adapter,
    load_base_model,
    num_parameters,
    save_adapter,
)
from hf_finetune.page import write_page
from hf_finetune.prepare import notes_on_rows, write_splits
from hf_finetune.processes import is_main, sharding, share
from hf_finetune.progress import Progress
from hf_finetune.report import Report
from hf_finetune.run import Run, now
from hf_finetune.settings import Settings


def run_recipe(request: Request, say: Callable[[str], None] = print) -> None:
    """Prepares, trains, evaluates and writes the card; goes on where a run in the folder was stopped.

    Everything that can fail does so before the training begins. Of several processes, the main one prepares and
    writes; the others come in when there is something to compute.

    Raises:
        RecipeError: a mistake in the data, the base model's name, the settings or the folder; a run in the folder that
            was asked for otherwise.
        Interrupted: by a signal; the same request goes on.
    """
    with opened(request, ("adapter/README.md", "report.html", *ROW_FILES, *EVALUATION_FILES), say) as (
        run,
        goes_on,
        progress,
    ):
        if progress is None:
            if run:
                gate_again(run, request)
            return
        begun = begin(run, goes_on, request, progress, say)
        _train(begun, request, progress, say)
        _evaluate(begun, request, progress)
        if is_main():
            finish(begun.run, progress, request)


def _train(begun: Begun, request: Request, progress: Progress, say: Callable[[str], None]) -> None:
    """Leaves the run's first files, checkpoints and training log; then the best adapter and the loss curve."""
    folder, settings = request.folder, request.settled.values
    if begun.trains:
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        from hf_finetune.train import train  # here, since it imports all of TRL: a fault above is told in a second

        model = load_base_model(begun.base, settings)
        adapter = adapter_config(model, settings)
        if is_main():
            say(f"model     {begun.base.name}, {model.get_memory_footprint() / 2**20:,.0f} MiB on {model.device.type}")
            begun.run.base_model["parameters"] = num_parameters(model)
            _write_first_files(begun, request)
        share("first files")
        if not holds_run(folder):
            raise RecipeError(
                f"{folder}: the main process writes there, but {platform.node()} does not see it. "
                f"Name a folder on a disk that all machines share with output_dir=FOLDER."
            )
        train(model, begun.chat.tokenizer, begun.encoded, adapter, settings, folder, progress, begun.checkpoint)
        if sharding() == "DeepSpeed":
            unset_hf_deepspeed_config()  # else the model that is evaluated would be shared out as well
        del model
        gc.collect()  # TRL and accelerate tie the model into a cycle: it would stay on the GPU beside the next one
    elif is_main() and not all((folder / name).exists() for name in ROW_FILES):
        write_splits(begun.prepared, begun.facts, folder)
    if is_main() and not (folder / "adapter" / "adapter_config.json").exists():
        _keep_best(begun, settings, folder, say)
    share("trained")


def _write_first_files(begun: Begun, request: Request) -> None:
    """Leaves run.json, data.json and splits/; where no checkpoint is kept, what an earlier run left goes first."""
    folder = request.folder
    if begun.checkpoint is None:
        start_folder(folder)
    begun.run.write(folder)
    if not (folder / "data.json").exists():
        write_splits(begun.prepared, begun.facts, folder)


def _keep_best(begun: Begun, settings: Settings, folder: Path, say: Callable[[str], None]) -> None:
    """Leaves the adapter of the best checkpoint, the loss curve, and what the training took in run.json."""
    from hf_finetune.train.curve import draw_loss_curve

    last = last_whole(folder / "checkpoints", say)
    if last is None:
        raise RecipeError(f"{folder / 'checkpoints'}: none is whole. Mend the disk and start the same command again.")
    best, state = best_of(last), state_of(last)
    must_differ = sharding() is not None and settings.learning_rate > 0 and state["global_step"] > 1
    check_adapter(last, must_differ)
    trainable = check_adapter(best, must_differ=False)
    draw_loss_curve(folder / "training_log.jsonl", folder / "loss_curve.png")
    if state["global_step"] < state["max_steps"]:
        say(f"training  stopped early at step {state['global_step']:,}: the validation loss no longer fell")
    begun.run.training = {
        "steps": state["global_step"],
        "best_step": state["best_global_step"],
        "best_validation_loss": state["best_metric"],
        "epochs": round(state["epoch"], 2),
        "stopped_early": state["global_step"] < state["max_steps"],
        "adapter_sha256": sha256(best / "adapter_model.safetensors"),
        "trainable_parameters": trainable,
        "all_parameters": begun.run.base_model["parameters"] + trainable,
    }
    begun.run.write(folder)
    save_adapter(best, begun.base, folder / "adapter")


def _evaluate(begun: Begun, request: Request, progress: Progress) -> None:
    """Leaves the report. What is evaluated is what was written: the adapter's files, loaded on a fresh base."""
    if not begun.evaluates:
        return
    folder, settings = request.folder, request.settled.values
    rows, base_folder = begun.prepared.rows, request.base_folder
    evaluation = Evaluation(begun.chat, request.recipe, rows, settings, folder, progress, base_folder)
    base = load_base_model(begun.base, settings)
    dequantize_if_asked(base, settings)
    model = load_adapter(base, folder / "adapter")
    evaluation.ask_both(model)
    evaluation.write(notes_on_rows(begun.facts))
    share("evaluated")  # the others stay until the main process has all their answers


def finish(run: Run, progress: Progress, request: Request) -> None:
    """Leaves the page and, beside an adapter that was trained, the card; then the run is finished."""
    folder = request.folder
    progress.session.ended = "finished"
    progress.write()
    run.add_session(progress.session)
    run.write(folder)
    shutil.rmtree(folder / KEPT, ignore_errors=True)
    _hold_to_gates(run, request)


def gate_again(run: Run, request: Request) -> None:
    """Holds a finished run to other gates than those it was held to, if others are asked for.

    Raises:
        RecipeError: when one is on something that the run has not measured.
    """
    report, gates = Report.read(request.folder), request.settled.values.gates
    if {gate.name: gate.required for gate in report.gates} != gates:
        refuse_unmeasured(check_gates(report, gates), report)
        run.finished = ""  # what a kill would leave half written is written by the same command
        run.write(request.folder)
        _hold_to_gates(run, request)


def _hold_to_gates(run: Run, request: Request) -> None:
    """Leaves the report with the gates that are asked for, and what is made of it; then the run is finished."""
    folder, report = request.folder, Report.read(request.folder)
    checked = check_gates(report, request.settled.values.gates)
    if checked != report.gates:
        replace(report, gates=checked).write(folder)
    write_page(folder)
    if run.training:
        write_card(folder)
    run.finished = now()
    run.write(folder)
