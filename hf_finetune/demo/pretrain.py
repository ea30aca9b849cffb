"""Train the small model that the demonstration fine-tunes, from nothing but invented news.

python -m hf_finetune.demo.pretrain --output DIR [--steps N] [--threads N] [--seed S]
"""

from __future__ import annotations

import json
import math
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import click
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hf_finetune.demo.corpus import CHAT_SHARE, END, documents
from hf_finetune.demo.document import Document, Part

SPECIAL = [END, "<|im_start|>", "<|im_end|>"]
VOCABULARY = 4096
LENGTH = 256
BATCH_TOKENS = 1536
SHARED_ROWS = 0.15
# Beginning with very short documents is the quickest way to learn to tell good news from bad.
SIMPLE_DOCUMENTS = 50_000
# Names and figures are drawn by lot and cannot be foretold, so what is merely given counts for less.
GIVEN_WEIGHT = 0.1
PEAK_RATE = 2.5e-3
WARMUP = 200
COOL_DOWN = 0.3
TOKENIZER_DOCUMENTS = 60_000
HELD_OUT = 16
# Seeds this far apart never share documents in practice.
HELD_OUT_SEED = 1_000_003
SAVE_EVERY = 600.0
REPORT_EVERY = 60.0

CHAT_TEMPLATE = (
    "{%- for message in messages -%}\n"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}\n"
    "{%- if message['role'] == 'assistant' -%}\n"
    "{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}\n"
    "{%- else -%}\n"
    "{{- message['content'] + '<|im_end|>' -}}\n"
    "{%- endif -%}\n"
    "{{- '\\n' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}\n"
)


# One row of text: every token with the weight that its loss has.
Row = list[tuple[int, float]]


class Batch(NamedTuple):
    """Rows of equal length: token ids, and what the loss of each token counts for."""

    tokens: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True)
class Progress:
    """How far a training run has come."""

    planned: int
    steps: int
    tokens: int
    seed: int
    threads: int
    seconds: float
    held_out_loss: float


@click.command()
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write.")
@click.option("--steps", type=click.IntRange(min=1), default=5_600, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--seed", type=int, default=20, show_default=True)
def main(output: Path, steps: int, threads: int, seed: int) -> None:
    """Train the demonstration's base model and write it to a folder."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(seed)
    click.echo("training the tokenizer")
    tokenizer = train_tokenizer(seed)
    progress = train(new_model(), tokenizer, Progress(steps, 0, 0, seed, threads, 0.0, math.nan), output)
    click.echo(f"done: {progress.steps} steps, held-out loss {progress.held_out_loss:.4f}, in {output}")


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on invented documents."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = ("".join(part.text for part in doc) for doc in islice(documents(seed), TOKENIZER_DOCUMENTS))
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token=END,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def new_model() -> LlamaForCausalLM:
    """The model with random weights."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1024,
        initializer_range=0.05,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=SPECIAL.index("<|im_end|>"),
        pad_token_id=SPECIAL.index(END),
    )
    return LlamaForCausalLM(config)


def batches(tokenizer: PreTrainedTokenizerFast, stream: Iterator[Document], seed: int) -> Iterator[Batch]:
    """Batches of the documents; the rows of one batch are about equally long."""
    rng = random.Random(seed)
    while True:
        groups = list(_groups(sorted(_rows(tokenizer, stream, rng), key=len)))
        rng.shuffle(groups)
        yield from (_batch(group) for group in groups)


def _rows(tokenizer: PreTrainedTokenizerFast, stream: Iterator[Document], rng: random.Random) -> list[Row]:
    """A thousand or so rows: most hold one document, some a few, so that all positions are used."""
    counts = [rng.choice((2, 3, 4)) if rng.random() < SHARED_ROWS else 1 for _ in range(1024)]
    rows = [[part for doc in islice(stream, count) for part in [*doc, Part(END)]] for count in counts]
    ids = iter(tokenizer([part.text for row in rows for part in row], add_special_tokens=False)["input_ids"])
    return [
        [(token, 1.0 if part.follows else GIVEN_WEIGHT) for part in row for token in next(ids)][:LENGTH] for row in rows
    ]


def _groups(rows: list[Row]) -> Iterator[list[Row]]:
    """The rows, shortest first, in groups that fill a batch."""
    group: list[Row] = []
    for row in rows:
        if group and (len(group) + 1) * len(row) > BATCH_TOKENS:
            yield group
            group = []
        group.append(row)
    yield group


def _batch(rows: list[Row]) -> Batch:
    """The rows as one batch, the shorter ones filled up with tokens of no weight."""
    longest = len(rows[-1])
    full = torch.tensor([row + [(0, 0.0)] * (longest - len(row)) for row in rows])
    return Batch(full[:, :, 0].long(), full[:, :, 1])


def next_token_loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """The weighted mean of the cross-entropy of every token given those before it."""
    hidden = model.model(batch.tokens, use_cache=False).last_hidden_state[:, :-1]
    targets, weights = batch.tokens[:, 1:], batch.weights[:, 1:]
    # Only where there is a token to foretell: the output layer is a quarter of the work.
    there = weights > 0
    losses = torch.nn.functional.cross_entropy(model.lm_head(hidden[there]), targets[there], reduction="none")
    return (losses * weights[there]).sum() / weights.sum()


def held_out_loss(model: LlamaForCausalLM, batches: list[Batch]) -> float:
    """The loss on documents that training never sees."""
    model.eval()
    with torch.no_grad():
        losses = [next_token_loss(model, batch).item() for batch in batches]
    model.train()
    return sum(losses) / len(losses)


def rate(step: int, steps: int) -> float:
    """The learning rate at a step: a short climb, a level stretch, a fall to nearly nothing at the end."""
    if step < WARMUP:
        return PEAK_RATE * (step + 1) / WARMUP
    left = (steps - step) / (steps * COOL_DOWN)
    return PEAK_RATE * min(1.0, max(left, 0.02))


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, plan: Progress, output: Path) -> Progress:
    """The run's final state, after every step has been made and the folder written."""
    kept_apart = list(islice(batches(tokenizer, documents(plan.seed + HELD_OUT_SEED), plan.seed), HELD_OUT))
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    start = reported = saved = time.monotonic()
    stream = batches(tokenizer, documents(plan.seed, SIMPLE_DOCUMENTS), plan.seed)
    progress, tokens = plan, 0
    for step, batch in enumerate(islice(stream, plan.planned), 1):
        tokens += int((batch.weights > 0).sum())
        loss = one_step(model, optimiser, batch, rate(step - 1, plan.planned))
        now = time.monotonic()
        last = step == plan.planned
        if not last and now - reported < REPORT_EVERY:
            continue
        reported = now
        held = held_out_loss(model, kept_apart)
        progress = Progress(plan.planned, step, tokens, plan.seed, plan.threads, now - start, held)
        click.echo(f"step {step}/{plan.planned}  loss {loss:.3f}  held-out {held:.4f}  {now - start:.0f} s")
        if last or now - saved >= SAVE_EVERY:
            saved = now
            save(model, tokenizer, progress, output)
    return progress


def one_step(model: LlamaForCausalLM, optimiser: torch.optim.Optimizer, batch: Batch, learning_rate: float) -> float:
    """The loss of a batch, after the weights have been moved to lower it."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate
    loss = next_token_loss(model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return loss.item()


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, progress: Progress, output: Path) -> None:
    """Nothing: writes the folder under another name and renames it, so that it is never half there."""
    fresh, stale = (output.with_name(output.name + ending) for ending in (".new", ".old"))
    for folder in (fresh, stale):
        shutil.rmtree(folder, ignore_errors=True)
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = GenerationConfig(
        eos_token_id=model.config.eos_token_id, pad_token_id=model.config.pad_token_id, do_sample=False
    )
    copy.bfloat16().save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    tidy(fresh)
    (fresh / "README.md").write_text(card(model, progress), encoding="utf-8")
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.exists():
        output.rename(stale)
    for path in fresh.iterdir():
        path.chmod(0o644)
    fresh.rename(output)
    shutil.rmtree(stale, ignore_errors=True)


def tidy(folder: Path) -> None:
    """Nothing: takes out of the saved settings what only concerns the machine that wrote them."""
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    for key in ("is_local", "local_files_only", "name_or_path", "backend"):
        settings.pop(key, None)
    # The name that every release of the library knows.
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def card(model: LlamaForCausalLM, progress: Progress) -> str:
    """The model card, with the figures of this run."""
    template = (Path(__file__).parent / "text" / "card.md").read_text(encoding="utf-8")
    return template.format(
        layers=model.config.num_hidden_layers,
        hidden=model.config.hidden_size,
        parameters=f"{model.num_parameters():,}",
        vocabulary=VOCABULARY,
        chat_share=f"{CHAT_SHARE:.0%}",
        simple=f"{SIMPLE_DOCUMENTS:,}",
        given_share=f"{GIVEN_WEIGHT:.0%}",
        steps=f"{progress.steps:,}",
        tokens=f"{progress.tokens:,}",
        minutes=round(progress.seconds / 60),
        threads=progress.threads,
        loss=f"{progress.held_out_loss:.3f}",
        planned=progress.planned,
        seed=progress.seed,
    )


if __name__ == "__main__":
    main()
