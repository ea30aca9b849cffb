"""A real, tiny QLoRA through TRL: what carries loss, what is kept, what stops it."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState

from conftest import sample_rows
from hf_finetune.chat import ChatFormat
from hf_finetune.errors import RecipeError
from hf_finetune.files import read_jsonl
from hf_finetune.model import adapter_config, find_base_model, load_base_model, load_tokenizer
from hf_finetune.settings import Settings
from hf_finetune.train import Trained, train
from hf_finetune.train.callbacks import LogFile
from hf_finetune.train.curve import draw_loss_curve


def trained(base: Path, folder: Path, count: int = 8, **values: Any) -> Trained:
    defaults = {"per_device_train_batch_size": 8, "logging_steps": 1, "lora_r": 4, "gradient_checkpointing": False}
    settings = Settings(**({"model_name_or_path": str(base)} | defaults | values))
    found = find_base_model(settings)
    tokenizer = load_tokenizer(found)
    chat = ChatFormat.of(tokenizer)
    rows = [chat.example(row["sentence"], row["label"]) for row in sample_rows(count)]
    model = load_base_model(found, settings)
    return train(model, tokenizer, rows, rows[:6], adapter_config(model, settings), settings, folder)


def test_the_first_loss_is_the_plain_loss_over_completion_tokens(tiny_base: Path, tmp_path: Path) -> None:
    rows = sample_rows(8)
    trained(tiny_base, tmp_path, per_device_train_batch_size=len(rows), max_steps=1, lora_dropout=0.0)
    settings = Settings(model_name_or_path=str(tiny_base))
    base = find_base_model(settings)
    model, chat = load_base_model(base, settings).eval(), ChatFormat.of(load_tokenizer(base))
    losses: list[float] = []
    for row in rows:
        question, answer = chat.prompt_ids(row["sentence"]), chat.completion_ids(row["label"])
        with torch.inference_mode():
            logits = model(torch.tensor([question + answer])).logits[0].log_softmax(-1)
        losses += [-float(logits[len(question) - 1 + i, token]) for i, token in enumerate(answer)]
    first = next(line for line in read_jsonl(tmp_path / "training_log.jsonl") if "loss" in line)
    assert first["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)  # float32, other order of sums


def test_a_run_learns_easy_rows_and_keeps_its_best_step(tiny_base: Path, tmp_path: Path) -> None:
    result = trained(tiny_base, tmp_path, num_train_epochs=4, learning_rate=1e-2)
    log = read_jsonl(tmp_path / "training_log.jsonl")
    losses = {line["step"]: line["eval_loss"] for line in log if "eval_loss" in line}
    assert len(losses) == 4
    assert result.facts["best_step"] == min(losses, key=losses.__getitem__)
    assert result.facts["best_validation_loss"] == pytest.approx(min(losses.values()))
    assert result.facts["trainable_parameters"] < result.facts["all_parameters"]


def test_adapters_are_trained_in_float32(tiny_base: Path, tmp_path: Path) -> None:
    model = trained(tiny_base, tmp_path, max_steps=1, dtype="bfloat16").model
    dtypes = {p.dtype for p in model.parameters() if p.requires_grad}
    assert dtypes == {torch.float32}


def test_two_runs_are_bit_identical(tiny_base: Path, tmp_path: Path) -> None:
    adapters = []
    for name in ("one", "two"):
        model = trained(tiny_base, tmp_path / name, num_train_epochs=2, lora_dropout=0.1).model
        adapters.append({n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad})
    assert adapters[0]
    assert all(torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])


def test_early_stopping_ends_a_run_that_gets_worse(tiny_base: Path, tmp_path: Path) -> None:
    result = trained(tiny_base, tmp_path, num_train_epochs=20, learning_rate=3.0, early_stopping_patience=1)
    assert result.facts["epochs"] < 20


def test_a_loss_that_is_no_number_stops_the_run(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"at step \d+, so the model is lost. Lower learning_rate"):
        trained(tiny_base, tmp_path, num_train_epochs=20, learning_rate=1e30, max_grad_norm=0.0)


OTHER_FORMS: list[dict[str, Any]] = [
    {"use_dora": True},
    {"use_rslora": True},
    {"gradient_checkpointing": True},
    {"load_in_4bit": False, "load_in_8bit": True},
    {"load_in_4bit": False},
    {"lora_target_modules": ["q_proj", "v_proj"]},
    {"optim": "adamw_8bit"},
]


@pytest.mark.parametrize("values", OTHER_FORMS, ids=str)
def test_the_other_forms_train_too(tiny_base: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    result = trained(tiny_base, tmp_path, max_steps=2, **values)
    assert result.facts["steps"] == 2


def test_the_loss_curve_is_a_picture(tiny_base: Path, tmp_path: Path) -> None:
    trained(tiny_base, tmp_path, max_steps=2)
    draw_loss_curve(tmp_path / "training_log.jsonl", tmp_path / "loss_curve.png")
    assert (tmp_path / "loss_curve.png").read_bytes().startswith(b"\x89PNG")


def test_under_float16_an_overflowing_gradient_is_no_fault_but_a_lost_loss_is(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log.jsonl")
    state = TrainerState(global_step=7, epoch=1.0)
    for fp16, logs, is_fault in [(True, {"grad_norm": float("inf"), "loss": 1.0}, False),
                                 (False, {"grad_norm": float("inf"), "loss": 1.0}, True),
                                 (True, {"grad_norm": 1.0, "loss": float("nan")}, True)]:  # fmt: skip
        arguments = SimpleNamespace(fp16=fp16, learning_rate=1e-4, max_grad_norm=0.3)
        with pytest.raises(RecipeError, match="at step 7") if is_fault else nullcontext():
            log.on_log(arguments, state, TrainerControl(), logs=logs)
    assert read_jsonl(tmp_path / "log.jsonl") == [{"step": 7, "epoch": 1.0, "loss": 1.0}]
