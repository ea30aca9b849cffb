"""Any adapter or merged model, put to a recipe's test rows beside its base, as a run's own adapter is."""

import gc
from collections.abc import Callable

from hf_finetune.begin import EVALUATION_FILES, Request, check_circumstances, check_same_rows, opened
from hf_finetune.chat import ChatFormat
from hf_finetune.errors import RecipeError, plural
from hf_finetune.evaluate import Evaluation
from hf_finetune.files import write_json
from hf_finetune.folder import holds_run, start_folder
from hf_finetune.layers import check_machine
from hf_finetune.model import (
    BaseModel,
    dequantize_if_asked,
    find_base_model,
    load_adapter,
    load_base_model,
    load_tokenizer,
)
from hf_finetune.pipeline import finish, gate_again
from hf_finetune.prepare import notes_on_rows, oddities_in_words, prepare, prepare_unsplit
from hf_finetune.progress import Progress
from hf_finetune.run import Run, describe_computing, describe_hardware
from hf_finetune.scoring import check_evaluation
from hf_finetune.settings import Settings
from hf_finetune.tuned import Tuned, check_vocabulary

UNKNOWN = "Whether the fine-tuned model was trained on some of these test rows is not known."
"""What the report says where only a run's own record could tell."""
AS_SAVED = (
    "The base was asked with quantised weights, the fine-tuned model with its weights as they were saved: part of the "
    "difference is that."
)


def evaluate_tuned(request: Request, tuned: Tuned, all_rows: bool, say: Callable[[str], None] = print) -> None:
    """Leaves the report on a fine-tuned model that is there already: on the test split, or on all rows.

    Raises:
        RecipeError: a mistake in the data, the base model's name, the settings or the folder; an adapter that does not
            fit its base.
        Interrupted: by a signal; the same request goes on.
    """
    _refuse_other_folders(request, tuned)
    with opened(request, ("report.html", "data.json", *EVALUATION_FILES), say) as (run, goes_on, progress):
        if run and progress:
            _evaluate(run, goes_on, request, tuned, all_rows, progress, say)
        elif run:
            gate_again(run, request)


def _refuse_other_folders(request: Request, tuned: Tuned) -> None:
    """Stops before --overwrite would remove what was trained."""
    folder = request.folder
    if tuned.folder.resolve().is_relative_to(folder.resolve()):
        raise RecipeError(f"{folder}: holds what is to be evaluated. Name another folder with output_dir=FOLDER.")
    if request.overwrite and holds_run(folder) and not Run.read(folder).evaluated:
        raise RecipeError(f"{folder}: holds a run with a training. Name another folder with output_dir=FOLDER.")


def _evaluate(
    run: Run, goes_on: bool, request: Request, tuned: Tuned, all_rows: bool, progress: Progress,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    folder, settings, recipe = request.folder, request.settled.values, request.recipe
    if goes_on:
        check_circumstances(run, folder, settings, say)
    tuned.check_base(settings.model_name_or_path)
    commit = run.data.get("commit")
    prepared = (
        prepare_unsplit(recipe, request.source, settings, commit, progress) if all_rows
        else prepare(recipe, request.source, settings, commit, progress)
    )  # fmt: skip
    if goes_on:
        check_same_rows(prepared.facts, folder)
    tuned.check_rows(prepared.rows["test"])
    check_machine(request.settled)
    check_evaluation(recipe, prepared.rows, settings)
    base = find_base_model(settings, run.base_model.get("commit"))
    chat = ChatFormat.of(load_tokenizer(base))
    own_chat = tuned.chat(chat)
    run.hardware, run.computing, run.data = describe_hardware(), describe_computing(settings), prepared.facts["source"]
    run.base_model = base.as_json()
    if not goes_on:
        start_folder(folder)
    run.write(folder)
    write_json(folder / "data.json", prepared.facts)
    counted = f"{plural(len(prepared.rows['test']), 'row')} of {prepared.facts['source']['name']}"
    for line in (counted, *oddities_in_words(prepared.facts)):
        say(f"data      {line}")
    if not all((folder / name).exists() for name in EVALUATION_FILES):
        evaluation = Evaluation(chat, recipe, prepared.rows, settings, folder, progress)
        _ask(evaluation, base, tuned, own_chat, settings)
        evaluation.write([*_notes(tuned, all_rows, settings), *notes_on_rows(prepared.facts)])
    finish(run, progress, request)


def _notes(tuned: Tuned, all_rows: bool, settings: Settings) -> list[str]:
    """What a reader of the report must know."""
    quantised = not tuned.is_adapter and (settings.load_in_4bit or settings.load_in_8bit)
    return [*([UNKNOWN] if not all_rows and not tuned.train_rows else []), *([AS_SAVED] if quantised else [])]


def _ask(evaluation: Evaluation, base: BaseModel, tuned: Tuned, own_chat: ChatFormat, settings: Settings) -> None:
    """Puts the rows to the base, then to the fine-tuned model; whole weights are loaded once the base is gone."""
    model = load_base_model(base, settings)
    dequantize_if_asked(model, settings)
    if tuned.is_adapter:
        evaluation.ask_both(load_adapter(model, tuned.folder))
        return
    evaluation.ask_base(model)
    del model
    gc.collect()
    whole = load_base_model(tuned.weights, settings, as_saved=True)
    check_vocabulary(whole, own_chat, tuned.name)
    evaluation.ask_tuned(whole, own_chat)
