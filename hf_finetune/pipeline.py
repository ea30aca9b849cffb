"""The steps of a run, in order. Each leaves a file; whoever outgrows this copies it: the steps are plain functions."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hf_finetune.card import write_card
from hf_finetune.chat import ChatFormat
from hf_finetune.data.sources import Source
from hf_finetune.evaluate import Report, evaluate
from hf_finetune.model import (
    compute_dtype,
    find_base_model,
    load_adapter,
    load_base_model,
    load_tokenizer,
    save_adapter,
)
from hf_finetune.prepare import encode, in_words, prepare, write_splits
from hf_finetune.recipe import Recipe
from hf_finetune.run import (
    Run,
    check_folder,
    describe_recipe,
    now,
    peak_memory_gib,
    start_folder,
)
from hf_finetune.settings import Settled, check_against_run


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
    """Prepares, trains, evaluates and writes the card; everything that can fail does so before the model is loaded.

    `license` is the adapter's, None when it is not known (rows of the user's own).

    Raises:
        RecipeError: a mistake in the data, the base model's name, the settings or the folder.
    """
    settings = settled.values
    check_folder(folder, overwrite)
    prepared = prepare(recipe, source, settings)
    base = find_base_model(settings)
    tokenizer = load_tokenizer(base)
    chat = ChatFormat.of(tokenizer)
    encoded = encode(recipe, prepared, chat, settings.max_length)
    facts = prepared.facts | encoded.facts
    check_against_run(settled, len(encoded.train))
    start_folder(folder)
    write_splits(prepared, facts, folder)
    run = Run(
        command=list(command),
        recipe=describe_recipe(recipe, path_or_name),
        settings=settled.as_json(),
        base_model={"name": base.name, "revision": base.revision, "commit": base.commit},
        data=facts["source"],
        license=license,
        is_own_data=source != recipe.dataset,
        is_demo=is_demo,
    )
    run.write(folder)
    for line in in_words(facts):
        say(f"data      {line}")

    from hf_finetune.train import train  # here, since it imports all of TRL: a fault above is told in a second
    from hf_finetune.train.curve import draw_loss_curve

    model = load_base_model(base, settings)
    say(f"model     {base.name}, {model.get_memory_footprint() / 2**20:,.0f} MiB on {model.device.type}")
    trained = train(model, tokenizer, encoded.train, encoded.validation, settings, folder)
    save_adapter(trained.model, base, folder / "adapter")
    draw_loss_curve(folder / "training_log.jsonl", folder / "loss_curve.png")
    run.training = trained.facts | {
        "dtype": str(compute_dtype(settings)).removeprefix("torch."),
        "peak_memory_gib": round(peak_memory_gib(), 2),
    }
    del trained, model

    # What is evaluated is what was written: the adapter is loaded from its files, on a fresh base.
    model_with_adapter = load_adapter(load_base_model(base, settings), folder / "adapter")
    report = evaluate(model_with_adapter, chat, recipe, prepared.rows["train"], prepared.rows["test"], settings, folder)
    run.finished = now()
    run.write(folder)
    write_card(folder)
    return report
