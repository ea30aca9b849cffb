"""The steps of a run, in order. Each leaves a file; whoever outgrows this copies it: the steps are plain functions."""

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hf_finetune.card import write_card
from hf_finetune.chat import ChatFormat
from hf_finetune.data.sources import Source
from hf_finetune.evaluate import Report, evaluate
from hf_finetune.model import (
    BaseModel,
    adapter_config,
    compute_dtype,
    find_base_model,
    load_adapter,
    load_base_model,
    load_tokenizer,
    save_adapter,
)
from hf_finetune.prepare import Encoded, Prepared, encode, in_words, prepare, write_splits
from hf_finetune.recipe import Recipe
from hf_finetune.run import Run, check_folder, describe_recipe, now, peak_memory_gib, start_folder
from hf_finetune.settings import Settings, Settled, check_machine


def run_recipe(
    recipe: Recipe[Any],
    path_or_name: str,
    source: Source,
    settled: Settled,
    folder: Path,
    license: str | None,
    command: Sequence[str] = (),
    is_demo: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> Report:
    """Prepares, trains, evaluates and writes the card; everything that can fail does so before training begins.

    `license` is the adapter's, None when it is not known (rows of the user's own).

    Raises:
        RecipeError: a mistake in the data, the base model's name, the settings or the folder.
    """
    settings = settled.values
    check_folder(folder, overwrite)
    prepared = prepare(recipe, source, settings)
    check_machine(settled)
    base = find_base_model(settings)
    chat = ChatFormat.of(load_tokenizer(base))
    encoded = encode(recipe, prepared, chat, settings.max_length)
    run = Run(
        command=list(command),
        recipe=describe_recipe(recipe, path_or_name),
        settings=settled.as_json(),
        base_model={
            "name": base.name,
            "revision": base.revision,
            "commit": base.commit,
            "has_chat_template": bool(chat.tokenizer.chat_template),
            "stop_token_id": chat.ending[-1],
        },
        data=prepared.facts["source"],
        license=license,
        is_own_data=source != recipe.dataset,
        is_demo=is_demo,
    )
    facts = prepared.facts | encoded.facts
    for line in in_words(facts):
        say(f"data      {line}")
    run.training = _train(run, base, chat, prepared, encoded, settings, folder, facts, say)

    # What is evaluated is what was written: the adapter is loaded from its files, on a fresh base.
    model = load_adapter(load_base_model(base, settings), folder / "adapter")
    report = evaluate(model, chat, recipe, prepared.rows["train"], prepared.rows["test"], settings, folder)
    run.finished = now()
    run.write(folder)
    write_card(folder)
    return report


def _train(
    run: Run,
    base: BaseModel,
    chat: ChatFormat,
    prepared: Prepared,
    encoded: Encoded,
    settings: Settings,
    folder: Path,
    facts: dict[str, Any],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """What the training took; leaves the run's first files, then the adapter and the loss curve, in `folder`."""
    from hf_finetune.train import train  # here, since it imports all of TRL: a fault above is told in a second
    from hf_finetune.train.curve import draw_loss_curve

    model = load_base_model(base, settings)
    adapter = adapter_config(model, settings)
    say(f"model     {base.name}, {model.get_memory_footprint() / 2**20:,.0f} MiB on {model.device.type}")
    start_folder(folder)
    write_splits(prepared, facts, folder)
    run.write(folder)
    trained = train(model, chat.tokenizer, encoded.train, encoded.validation, adapter, settings, folder)
    save_adapter(trained.model, base, folder / "adapter")
    draw_loss_curve(folder / "training_log.jsonl", folder / "loss_curve.png")
    training = trained.facts | {
        "dtype": str(compute_dtype(settings)).removeprefix("torch."),
        "peak_memory_gib": round(peak_memory_gib(), 2),
    }
    del trained, model
    gc.collect()  # TRL and accelerate tie the model into a cycle, which would keep it on the GPU beside the next one
    return training
