"""Any adapter or merged model, put to a recipe's test rows beside its base, as a run's own adapter is."""

import gc
from collections.abc import Callable

from hf_finetune.begin import Request, opened
from hf_finetune.chat import ChatFormat
from hf_finetune.data.splits import SPLITS
from hf_finetune.errors import plural
from hf_finetune.evaluate import Evaluation
from hf_finetune.files import write_json
from hf_finetune.folder import start_folder
from hf_finetune.model import (
    BaseModel,
    dequantize_if_asked,
    find_base_model,
    load_adapter,
    load_base_model,
    load_tokenizer,
)
from hf_finetune.pipeline import finish, gate_again
from hf_finetune.prepare import prepare
from hf_finetune.progress import Progress
from hf_finetune.run import Run, describe_computing, describe_hardware
from hf_finetune.scoring import check_evaluation
from hf_finetune.settings import Settings, check_machine
from hf_finetune.tuned import Tuned


def evaluate_tuned(request: Request, tuned: Tuned, all_rows: bool, say: Callable[[str], None] = print) -> None:
    """Leaves the report on a fine-tuned model that is there already: on the test split, or on all rows.

    Raises:
        RecipeError: a mistake in the data, the base model's name, the settings or the folder; an adapter that does not
            fit its base.
        Interrupted: by a signal; the same request goes on.
    """
    with opened(request, request.folder / "report.html", say) as (run, goes_on, progress):
        if run and progress:
            _evaluate(run, goes_on, request, tuned, all_rows, progress, say)
        elif run:
            gate_again(run, request)


def _evaluate(
    run: Run, goes_on: bool, request: Request, tuned: Tuned, all_rows: bool, progress: Progress,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    folder, settings, recipe = request.folder, request.settled.values, request.recipe
    prepared = prepare(recipe, request.source, settings, run.data.get("commit"))
    rows = {"test": [row for name in SPLITS for row in prepared.rows[name]]} if all_rows else prepared.rows
    check_machine(request.settled)
    check_evaluation(recipe, rows, settings)
    base = find_base_model(settings, run.base_model.get("commit"))
    tuned.check_base(base)
    run.hardware, run.computing, run.data = describe_hardware(), describe_computing(settings), prepared.facts["source"]
    run.base_model = {"name": base.name, "revision": base.revision, "commit": base.commit}
    if not goes_on:
        start_folder(folder)
    run.write(folder)
    write_json(folder / "data.json", prepared.facts)
    say(f"data      {plural(len(rows['test']), 'row')} of {prepared.facts['source']['name']}")
    evaluation = Evaluation(ChatFormat.of(load_tokenizer(base)), recipe, rows, settings, folder, progress)
    _ask(evaluation, base, tuned, settings)
    evaluation.write()
    finish(run, progress, folder)


def _ask(evaluation: Evaluation, base: BaseModel, tuned: Tuned, settings: Settings) -> None:
    """Puts the rows to the base, then to the fine-tuned model; whole weights are loaded once the base is gone."""
    model = load_base_model(base, settings)
    dequantize_if_asked(model, settings)
    if tuned.is_adapter:
        model = load_adapter(model, tuned.folder)
        with model.disable_adapter():
            evaluation.ask_base(model)
        evaluation.ask_tuned(model)
        return
    evaluation.ask_base(model)
    del model
    gc.collect()
    evaluation.ask_tuned(load_base_model(tuned.weights, settings, as_saved=True))
