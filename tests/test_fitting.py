"""The longest batch is tried before the first step; what does not fit into memory is taken in smaller pieces."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_train import PLAIN, SHORT, Done, losses_of, trained

from conftest import make_base
from hf_finetune.errors import RecipeError
from hf_finetune.files import sha256, write_json
from hf_finetune.memory import in_words, is_full, overflow
from hf_finetune.model import explaining_full_memory
from hf_finetune.train.batches import Pieces, packed_batch
from hf_finetune.train.fitting import Fitting
from hf_finetune.train.longest import neediest

CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
FULL = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has"), "20.00 MiB more could not"),
    (RuntimeError(f"{CPU}10485760 bytes. Error code 12"), "10.00 MiB more could not be had"),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "CUDA error"),
    (MemoryError(), "MemoryError"),
]


@pytest.mark.parametrize(("error", "words"), FULL, ids=str)
def test_memory_that_is_full_is_told_in_a_few_words(error: Exception, words: str) -> None:
    assert is_full(error)
    assert in_words(error).startswith(words)
    with pytest.raises(RecipeError, match=r"memory is full \(.*\)\. Take less\."), explaining_full_memory("Take less."):
        raise error


def test_another_error_is_not_taken_for_full_memory() -> None:
    def fail() -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        overflow(fail)


def test_memory_that_is_really_full_is_seen() -> None:
    assert overflow(lambda: torch.empty(2**60, dtype=torch.uint8)) == "1,099,511,627,776.00 MiB more could not be had"
    assert overflow(lambda: None) is None


def row(*ids: int) -> dict[str, list[int]]:
    return {"input_ids": list(ids), "labels": [-100, *ids[1:]]}


def test_a_batch_in_pieces_has_its_rows_in_their_order_and_all_their_labels() -> None:
    rows = [row(n, n + 10, n + 20) for n in range(5)]
    pieces = Pieces(rows, 2, lambda some: packed_batch(some, shared_prefix=False))
    batch = pieces([4, 0, 3, 1, 5])  # the last is the silent row
    assert [piece["input_ids"].tolist() for piece in batch["pieces"]] == [[[4, 14, 0, 10]], [[3, 13, 1, 11]], [[0]]]
    assert batch["labels"].tolist() == [14, 24, 10, 20, 13, 23, 11, 21]
    pieces.size = 4
    assert [len(piece["shift_labels"]) for piece in pieces.of(batch)] == [8, 0]


def test_the_neediest_batch_is_found_without_laying_out_those_that_cannot_be() -> None:
    laid: list[Sequence[int]] = []

    def laid_out(batch: Sequence[int]) -> float:
        laid.append(batch)
        return sum(batch) - (100 if batch == [9, 9] else 0)  # it shares much

    assert neediest([[1, 2], [9, 9], [7, 8], [3, 4]], sum, laid_out) == [7, 8]
    assert laid == [[9, 9], [7, 8]]
    assert neediest([], sum, laid_out) == ()


CUT: dict[str, dict[str, Any]] = {
    "in halves": {"per_device_train_batch_size": 8},
    "unevenly": {"per_device_train_batch_size": 5, "gradient_accumulation_steps": 2},
    "with batches of like rows": {"group_by": "length", "per_device_train_batch_size": 7},
    "padded": {"padding_free": False},
    "plain": PLAIN,
}


@pytest.mark.parametrize("form", CUT)
def test_the_same_is_trained_in_smaller_pieces(tiny_base: Path, tmp_path: Path, form: str) -> None:
    """24 rows, so that the last batch of an epoch is short where they do not come in eights."""
    whole = trained(tiny_base, tmp_path / "whole", **SHORT | CUT[form])
    (tmp_path / "cut" / "checkpoints").mkdir(parents=True)
    write_json(tmp_path / "cut" / "checkpoints" / "rows_at_a_time.json", 3)  # as a process leaves it that had to stop
    cut = trained(tiny_base, tmp_path / "cut", **SHORT | CUT[form])
    assert losses_of(tmp_path / "cut") == pytest.approx(losses_of(tmp_path / "whole"), rel=1e-5)
    assert_alike(cut.adapter, whole.adapter)


def assert_alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float = 1e-3) -> None:
    """Float32 sums in another order, of which AdamW's division by the second moment makes more in the first steps."""
    assert one.keys() == other.keys()
    largest = max(float(tensor.abs().max()) for tensor in other.values())
    for name, tensor in other.items():
        torch.testing.assert_close(one[name], tensor, rtol=0, atol=tolerance * largest)


NOISY: dict[str, Any] = {
    "max_steps": 6, "lora_dropout": 0.1, "learning_rate": 1e-2, "gradient_accumulation_steps": 2,
    "per_device_train_batch_size": 4, "eval_strategy": "steps", "eval_steps": 3, "save_total_limit": 9,
}  # fmt: skip


def files_of(done: Done) -> list[str]:
    folder = done.last.parents[1]
    return [sha256(done.last / "adapter_model.safetensors"), sha256(folder / "training_log.jsonl")]


@pytest.mark.parametrize("form", [{}, PLAIN, {"gradient_checkpointing": True}], ids=["lean", "plain", "checkpointed"])
def test_trying_the_longest_batch_leaves_no_trace(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: dict[str, Any]
) -> None:
    tried = trained(tiny_base, tmp_path / "tried", **NOISY | form)
    monkeypatch.setattr(Fitting, "prove", lambda self: None)
    plain = trained(tiny_base, tmp_path / "plain", **NOISY | form)
    assert files_of(tried) == files_of(plain)


def test_trying_it_again_leaves_no_trace_in_a_run_that_is_gone_on_with(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(tiny_base, tmp_path, **NOISY)
    expected = files_of(whole)
    (tmp_path / "checkpoints" / "checkpoint-6").rename(tmp_path / "away")
    again = trained(tiny_base, tmp_path, checkpoint=tmp_path / "checkpoints" / "checkpoint-3", **NOISY)
    assert files_of(again) == expected


def test_the_tried_batch_is_one_of_the_run_and_the_longest(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[bool, int]] = []
    attempt = Fitting._try

    def watched(self: Fitting, piece: dict[str, Any], with_gradients: bool) -> None:
        sizes.append((with_gradients, piece["input_ids"].numel()))
        attempt(self, piece, with_gradients)

    trained_on: list[int] = []
    step = Fitting.step

    def watched_step(self: Fitting, batch: dict[str, Any], compute: Any) -> torch.Tensor:
        trained_on.append(batch["pieces"][0]["input_ids"].numel())
        return step(self, batch, compute)

    monkeypatch.setattr(Fitting, "_try", watched)
    monkeypatch.setattr(Fitting, "step", watched_step)
    trained(tiny_base, tmp_path, num_train_epochs=2, per_device_train_batch_size=4)
    assert len(trained_on) == 12
    assert [with_gradients for with_gradients, _ in sizes] == [True, False]
    assert sizes[0][1] == max(trained_on)


WORK: dict[str, Any] = {"what": "train", "rows": (12, 100, 200), "checked": (4, 10, 20)}
FIXED: dict[str, Any] = {
    "lora_dropout": 0.0, "gradient_checkpointing": False, "max_steps": 3, "eval_strategy": "steps", "eval_steps": 1,
    "lr_scheduler_type": "constant", "warmup_steps": 0, "save_total_limit": 9,
}  # fmt: skip
EIGHT, FOUR = {"per_device_train_batch_size": 8}, {"per_device_train_batch_size": 4}
NOISE = {"lora_dropout": 0.1}
ASKED: dict[str, Any] = {"what": "answer", "rows": (48, 100, 200), "size": 48}
CASES: dict[str, dict[str, Any]] = {
    # 8 rows take some 300 MiB, 4 some 150, 64 validation rows some 320, 48 questions some 330. An epoch of 12 rows is a
    # batch of 8 and one of 4, or three of 4.
    "whole": WORK | {"settings": FIXED | EIGHT},
    "halved": WORK | {"settings": FIXED | EIGHT, "mib": 190},
    "not even one": WORK | {"settings": FIXED | EIGHT, "rows": (12, 10, 400), "mib": 15},
    "in a step": WORK | {"settings": FIXED | FOUR | {"gradient_accumulation_steps": 2}, "batch": 5, "mib": 60},
    "with noise": WORK | {"settings": FIXED | EIGHT | NOISE, "batch": 1, "mib": 190},
    "with noise, gone on with": WORK | {"settings": FIXED | EIGHT | NOISE, "go on from": ("with noise", 2)},
    "two": WORK | {"settings": FIXED | FOUR, "processes": 2, "rank": 1, "mib": 60},
    "two, in a step": WORK | {"settings": FIXED | FOUR, "processes": 2, "rank": 1, "batch": 2, "mib": 20},
    "two, in a step, gone on with":
        WORK | {"settings": FIXED | FOUR, "processes": 2, "go on from": ("two, in a step", 1), "there": True},
    "validation": WORK | {
        "settings": FIXED | {"max_steps": 1, "per_device_eval_batch_size": 64},
        "rows": (4, 10, 20), "checked": (64, 100, 200), "mib": 190,
    },
    "not even one to validate": WORK | {
        "settings": FIXED | {"max_steps": 1}, "rows": (4, 10, 20), "checked": (2, 2900, 3000), "mib": 3,
    },
    "first two too long to try": WORK | {
        "settings": FIXED | {"max_steps": 1}, "rows": (2, 1400, 1500), "first trial": 1,
    },
    "asked": ASKED,
    "asked in halves": ASKED | {"mib": 190},
    "longest asked first": ASKED | {"rows": (4, 4, 1500), "size": 4, "longest first": True, "mib": 110},
}  # fmt: skip


def wide_base(folder: Path) -> Path:
    """The tiny base, with activations of 100 KB a token and more."""
    from transformers import LlamaConfig, LlamaForCausalLM

    make_base(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=2048, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=None, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What became of the cases, in each of their processes."""
    folder = tmp_path_factory.mktemp("limited")
    base = wide_base(folder / "base")
    cases = {name: case | {"base": str(base), "folder": str(folder / name)} for name, case in CASES.items()}
    for name, case in cases.items():
        (folder / name).mkdir()
        if "go on from" in case:
            before, step = case["go on from"]
            case["checkpoint"] = str(folder / before / "checkpoints" / f"checkpoint-{step}")
            case["folder"] = str(folder / (before if "there" in case else name))
    words = [sys.executable, str(Path(__file__).parent / "limited_memory.py"), json.dumps(cases)]
    # Tensors that are freed go back to the system, else later ones are had without asking it.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    return found


def assert_trained_alike(one: dict[str, Any], other: dict[str, Any], tolerance: float = 1e-5) -> None:
    assert one["losses"] == pytest.approx(other["losses"], rel=tolerance)
    assert one["validation"] == pytest.approx(other["validation"], rel=tolerance)
    assert_alike(load_file(one["adapter"]), load_file(other["adapter"]), 10 * tolerance)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is limited as Linux does it")
class TestWithLittleMemory:
    """All of these share the processes of one fixture."""

    def test_a_batch_that_does_not_fit_is_halved_before_the_first_step(self, limited: Any) -> None:
        (halved,), (whole,) = limited["halved"], limited["whole"]
        assert whole["used"] == {}
        assert halved["used"] == {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
        line = halved["said"][0]
        assert line.startswith("memory    8 rows at a time do not fit (")
        assert line.endswith(
            "MiB more could not be had); goes on as with per_device_train_batch_size=4 gradient_accumulation_steps=2: "
            "the same rows a step and the same loss"
        )
        assert_trained_alike(halved, whole)

    def test_a_row_that_does_not_even_fit_alone_is_named_with_what_helps(self, limited: Any) -> None:
        (alone,) = limited["not even one"]
        assert sum("do not fit" in line for line in alone["said"]) == 3
        assert "with one row at a time; the longest is line 12 of splits/train.jsonl, " in alone["error"]
        assert "with gradient_checkpointing=true or " in alone["error"]
        assert "max_length=" in alone["error"]

    def test_memory_that_is_full_in_a_step_has_the_step_made_again_in_halves(self, limited: Any) -> None:
        (stepped,), (whole,) = limited["in a step"], limited["whole"]
        assert stepped["batches"][0] == 4
        assert stepped["batches"][-1] < 4
        assert_trained_alike(stepped, whole)

    def test_a_run_that_is_gone_on_with_takes_the_halves_again(self, limited: Any) -> None:
        (noisy,), (again,) = limited["with noise"], limited["with noise, gone on with"]
        assert noisy["batches"] == [4, 4, 4]
        assert any("other noise of lora_dropout" in line for line in noisy["said"])
        assert again["used"] == noisy["used"]
        assert not any("do not fit" in line for line in again["said"])
        assert again["sha256"] == noisy["sha256"]

    def test_two_processes_agree_on_the_halves_of_the_one_that_has_no_room(self, limited: Any) -> None:
        main, other = limited["two"]
        assert main["error"] is other["error"] is None
        assert main["used"]["per_device_train_batch_size"] < 4
        assert set(main["batches"]) == {main["used"]["per_device_train_batch_size"]}
        assert "in another process" in main["said"][0]
        assert_trained_alike(main, limited["whole"][0])

    def test_one_of_two_processes_that_is_full_in_a_step_ends_and_the_run_goes_on_in_halves(self, limited: Any) -> None:
        main, other = limited["two, in a step"]
        assert main["error"] == "another process is gone"
        assert "the memory of process 1 is full" in other["error"]
        assert "goes on from the last checkpoint with 1 row at a time" in other["error"]
        again, _ = limited["two, in a step, gone on with"]
        assert again["used"] == {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
        assert_trained_alike(again, limited["whole"][0])

    def test_a_validation_that_does_not_fit_is_made_in_halves(self, limited: Any) -> None:
        (checked,) = limited["validation"]
        assert checked["used"]["per_device_eval_batch_size"] < 64
        assert "goes on as with per_device_eval_batch_size=32: the same validation loss" in checked["said"][0]

    def test_a_validation_row_that_does_not_even_fit_alone_is_told_with_what_helps(self, limited: Any) -> None:
        (alone,) = limited["not even one to validate"]
        assert "with one row at a time; the longest row of splits/validation.jsonl has " in alone["error"]
        assert "with max_length=" in alone["error"]

    def test_gains_are_tried_with_the_shortest_rows_where_the_first_ones_fill_the_memory(self, limited: Any) -> None:
        (train,), (asked,) = limited["first two too long to try"], limited["longest asked first"]
        assert train["second trials"] == asked["second trials"] == 1
        assert limited["asked"][0]["second trials"] == 0
        assert train["gains"]["padding_free"] is True
        assert not any("question computed again" in line for line in asked["said"])

    def test_questions_that_do_not_fit_are_asked_in_halves_with_the_same_answers(self, limited: Any) -> None:
        (asked,), (halved,) = limited["asked"], limited["asked in halves"]
        assert asked["used"] == {}
        assert halved["used"]["per_device_eval_batch_size"] < 48
        assert halved["said"][0].startswith("memory    evaluate base: 48 rows at a time do not fit (")
        assert halved["texts"] == asked["texts"]
        for one, other in zip(halved["scores"], asked["scores"], strict=True):
            assert one == pytest.approx(other, rel=1e-5)
