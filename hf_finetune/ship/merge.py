"""A finished run -> `merged/`, weights that were compared with its adapter, and in report.json what was found."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.asking import Given, ask, marked
from hf_finetune.chat import ChatFormat
from hf_finetune.errors import RecipeError, plural
from hf_finetune.files import sha256, whole_folder, write_jsonl
from hf_finetune.interruption import interruption
from hf_finetune.intervals import bootstrap_intervals, gain_over
from hf_finetune.model import BaseModel, load_adapter, load_base_model
from hf_finetune.run import refuse_another_base
from hf_finetune.ship.finished import Finished
from hf_finetune.ship.merged_weights import Way, write_merged
from hf_finetune.ship.published import fault_of_template, faults_of_training, foreign_files, in_a_line
from hf_finetune.ship.readable import make_readable
from hf_finetune.tuned import check_vocabulary

if TYPE_CHECKING:
    import torch

ANSWERS = "merged_answers.jsonl"
"""What merged weights gave to each test row: text, and what the gold answer cost."""
COMPARED_ROWS = 32
COMPARED_TOKENS = 1024
"""Of the prompts, and of the gold answers, of so many test rows; the logits of a token may take half a megabyte."""

Text = tuple[list[int], list[int]]
"""The tokens of a prompt and of its gold answer."""


def merge(
    finished: Finished, way: Way, dtype: str, shard_bytes: int, max_kl: float, say: Callable[[str], None] = print
) -> None:
    """Leaves the run's adapter merged into its base in `merged/`, and in the report how like the adapter it is.

    Raises:
        RecipeError: when the base or the adapter cannot be read, or the merged weights are too unlike the adapter:
            then nothing is left.
    """
    import torch

    faults = faults_of_training(finished, finished.adapter)
    if faults:
        raise RecipeError(f"{finished.adapter}: {in_a_line(faults)}")
    base, chat, folder = finished.base(), finished.chat(), finished.folder / "merged"
    refuse_another_base(finished.run, {} if base.commit else base.hashes())
    if other := fault_of_template(finished, chat):
        raise RecipeError(f"base model {base.name!r}: {other}")
    if foreign := foreign_files(folder, "merged"):
        raise RecipeError(f"{folder}: holds {foreign[0]}, which merging again would remove. Move that elsewhere first.")
    if not (finished.settings.load_in_4bit or finished.settings.load_in_8bit):
        way = "full precision"  # that is what was evaluated
    with whole_folder(folder) as temporary:
        say(f"merge     {base.name} and the adapter, {way}, {dtype}")
        write_merged(base, finished.adapter, finished.settings, way, getattr(torch, dtype), shard_bytes, temporary)
        make_readable(temporary, finished.run.base_model["stop_token_id"])
        say(f"compare   with the adapter, on {plural(len(finished.rows), 'test row')}")
        interruption.stop_if_requested()
        found, lines = _compared(finished, base, chat, temporary, dtype)
        interruption.stop_if_requested()
        _refuse_another_model(finished, found, max_kl)
        files = {path.name: sha256(path) for path in sorted(temporary.glob("*.safetensors"))}
    (finished.folder / "verified.json").unlink(missing_ok=True)  # it was of other weights
    write_jsonl(finished.folder / ANSWERS, lines)
    facts = {"way": way, "dtype": dtype, **found, "files": files}
    replace(finished.report, merged=facts).write(finished.folder)


def _compared(
    finished: Finished, base: BaseModel, chat: ChatFormat, merged: Path, dtype: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How like the adapter merged weights are, in what they foretell and in the task's metrics; and their answers."""
    recipe, rows = finished.recipe, finished.rows
    some = rows[:COMPARED_ROWS]
    texts = [(chat.prompt_ids(recipe.prompt(row)), chat.completion_ids(recipe.completion(row))) for row in some]
    before = _foretold_by_adapter(finished, base, texts)
    gc.collect()  # else both models would be in memory
    after, given = _asked(finished, chat, merged, dtype, texts)
    answers = [marked(recipe, row, own).prediction for row, own in zip(rows, given, strict=True)]
    adapter = [recipe.parse(line["tuned"]["text"]) for line in finished.answers]
    intervals = bootstrap_intervals(recipe, rows, {"tuned": [answers], "adapter": [adapter]})
    found = {
        "likeness": {part: _likeness(before[part], after[part]) for part in before},
        "scores": recipe.score(rows, answers),
        "rows": len(rows),
        "interval": intervals[gain_over("adapter")],
    }
    return found, [{"text": own.text or "", "gold_loss": own.gold_loss} for own in given]


def _foretold_by_adapter(finished: Finished, base: BaseModel, texts: Sequence[Text]) -> dict[str, "torch.Tensor"]:
    return _foretold(load_adapter(load_base_model(base, finished.settings), finished.adapter), texts)


def _asked(
    finished: Finished, chat: ChatFormat, merged: Path, dtype: str, texts: Sequence[Text]
) -> tuple[dict[str, "torch.Tensor"], list[Given]]:
    """What merged weights foretell, and what they give to the test rows."""
    settings = finished.settings.model_copy(update={"dtype": dtype, "num_samples": 0})
    model = load_base_model(BaseModel("merged", str(merged), None, None), settings, as_saved=True)
    check_vocabulary(model, chat, "merged")
    foretold = _foretold(model, texts)
    recipe, rows = finished.recipe, finished.rows
    return foretold, ask(model, chat, recipe, rows, finished.report.max_new_tokens, settings, name="merged")


def _foretold(model: Any, texts: Sequence[Text]) -> dict[str, "torch.Tensor"]:
    """What a model foretells inside the prompts and the answers: log-probabilities, (tokens, vocabulary) each."""
    import torch

    model.eval()
    every_in_prompts = ceil(sum(len(prompt) for prompt, _ in texts) / COMPARED_TOKENS)
    every_in_answers = ceil(sum(len(answer) for _, answer in texts) / COMPARED_TOKENS)
    found: dict[str, list[torch.Tensor]] = {"prompts": [], "answers": []}
    for prompt, answer in texts:
        ids = torch.tensor([prompt + answer], device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        begins = len(prompt) - 1  # the prompt's last token foretells the answer's first
        for part, own in {
            "prompts": logits[:begins:every_in_prompts], "answers": logits[begins::every_in_answers]
        }.items():  # fmt: skip
            found[part].append(own.float().log_softmax(-1).cpu())
    return {part: torch.cat(own) for part, own in found.items()}


def _likeness(before: "torch.Tensor", after: "torch.Tensor") -> dict[str, float]:
    """The mean KL divergence in nats of what is foretold after from before, and how often the first choice is one."""
    divergence = float((before.exp() * (before - after)).sum(-1).mean())
    return {
        "kl_per_token": max(0.0, divergence),  # sums round below zero
        "top1_agreement": float((before.argmax(-1) == after.argmax(-1)).float().mean()),
        "tokens": len(before),
    }


def _refuse_another_model(finished: Finished, found: dict[str, Any], max_kl: float) -> None:
    """Stops where merged weights are not the model that was evaluated."""
    metric, (_, high) = finished.report.primary_metric, found["interval"]
    measured = finished.report.scores["tuned"][metric]
    divergences = {part: own["kl_per_token"] for part, own in found["likeness"].items()}
    faults = [
        f"KL divergence {divergence:.2g} nats a token in {part}, not at most {max_kl:g}"
        for part, divergence in divergences.items()
        if not divergence <= max_kl  # NaN is none
    ]
    if high < 0:
        faults.append(f"{metric} {found['scores'][metric]:.3f}, the adapter's is {measured:.3f}")
    if faults:
        folder = finished.folder / "merged"
        kept = "What was merged before stays" if folder.exists() else "Nothing is kept"
        raise RecipeError(
            f"{folder}: the merged weights are another model than the adapter: {'; '.join(faults)}. {kept}. "
            f"Ship the adapter, or merge otherwise."
        )
