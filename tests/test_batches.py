"""Batches: the same for any number of processes; what their rows have in common stands in them once."""

import subprocess
import sys

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hf_finetune.packed_model import PackedModel
from hf_finetune.train.batches import ShardedBatches, groups_of, packed_batch


def of_all(num_rows: int, size: int, processes: int, epoch: int) -> list[list[int]]:
    """Each step's rows, of all processes together, sorted."""
    shards = [ShardedBatches(num_rows, size, 42, rank, processes) for rank in range(processes)]
    for shard in shards:
        shard.set_epoch(epoch)
    assert len({len(list(shard)) for shard in shards}) == 1
    return [sorted(row for batch in step for row in batch) for step in zip(*shards, strict=True)]


@pytest.mark.parametrize("num_rows", [8, 10, 13, 3])
def test_each_step_of_two_processes_has_the_rows_of_one_with_twice_the_batch(num_rows: int) -> None:
    for epoch in range(3):
        alone = of_all(num_rows, 4, 1, epoch)
        silent = num_rows
        assert [[row for row in step if row != silent] for step in of_all(num_rows, 2, 2, epoch)] == alone


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_each_row_comes_once_in_an_epoch(processes: int) -> None:
    seen = [row for step in of_all(10, 2, processes, 0) for row in step if row != 10]
    assert sorted(seen) == list(range(10))


def test_each_process_has_as_many_batches_though_the_last_has_too_few_rows() -> None:
    # One row for two processes: the second gets the silent row, which carries no loss.
    shards = [list(ShardedBatches(5, 2, None, rank, 2)) for rank in range(2)]
    assert shards == [[[0, 2], [4]], [[1, 3], [5]]]


def test_epochs_have_other_orders_and_a_seed_the_same_ones() -> None:
    first, second = of_all(20, 4, 1, 0), of_all(20, 4, 1, 1)
    assert first != second
    assert first == of_all(20, 4, 1, 0)


def test_without_a_seed_rows_come_in_their_own_order() -> None:
    assert list(ShardedBatches(5, 2, None)) == [[0, 1], [2, 3], [4]]


def schemas() -> list[dict[str, list[int]]]:
    """Twelve questions on three schemas of 20 tokens, one after another, behind one instruction; answers of two."""
    chance = torch.Generator().manual_seed(2)
    instruction, *schema = (torch.randint(3, 60, (n,), generator=chance).tolist() for n in (18, 20, 20, 20))
    own = [torch.randint(3, 60, (2 + n % 4,), generator=chance).tolist() for n in range(12)]
    ids = [instruction + schema[n % 3] + own[n] for n in range(12)]
    return [{"input_ids": row, "labels": [-100] * (len(row) - 2) + row[-2:]} for row in ids]


def test_rows_of_one_schema_come_in_one_batch_when_asked() -> None:
    rows = schemas()
    shards = ShardedBatches(len(rows), 4, 42, groups=groups_of(rows, "prefix"))
    first, second = shards.batches(0), shards.batches(1)
    assert sorted(sorted(row % 3 for row in batch) for batch in first) == [[0] * 4, [1] * 4, [2] * 4]
    assert sorted(row for batch in first for row in batch) == list(range(12))
    assert first != second
    assert groups_of(rows, None) == []


def test_one_odd_row_does_not_undo_the_groups() -> None:
    rows = schemas()
    odd = {"input_ids": [62, 61], "labels": [-100, 61]}
    groups = groups_of([odd, *rows], "prefix")
    assert [groups[1:].count(groups[1 + number]) for number in range(3)] == [4, 4, 4]
    assert groups.count(groups[0]) == 1


def test_groups_are_not_made_where_the_attention_would_pay_for_them() -> None:
    chance = torch.Generator().manual_seed(2)
    start, alike, *own = (torch.randint(3, 60, (n,), generator=chance).tolist() for n in (60, 16, *[400] * 16))
    ids = [start + alike * (n < 2) + tokens for n, tokens in enumerate(own)]
    long = [{"input_ids": row, "labels": [-100] * (len(row) - 1) + row[-1:]} for row in ids]
    tree = packed_batch(long, shared_prefix=True)["trees"][1]
    assert tree["tokens"].shape == (16, 415)  # two of them in one branch would make it (15, 814)


def test_equally_long_rows_come_in_one_batch_when_asked() -> None:
    rows = schemas()
    lengths = [len(row["input_ids"]) for row in rows]
    batches = ShardedBatches(len(rows), 3, 42, groups=groups_of(rows, "length")).batches(0)
    found = sorted(sorted(lengths[row] for row in batch) for batch in batches)
    assert found == [[length] * 3 for length in (40, 41, 42, 43)]


WITH_A_WORKER = """
from hf_finetune.train.batches import EpochLoader, Pieces, ShardedBatches, ignore_signals
rows = [{"input_ids": [1], "labels": [1]}] * 8
pieces = Pieces(rows, 2, lambda some: {"labels": __import__("torch").tensor([[row["labels"][0]] * 2 for row in some])})
loader = iter(EpochLoader(ShardedBatches(8, 2, None), collate_fn=pieces, num_workers=1, worker_init_fn=ignore_signals))
next(loader)
print("began")
raise ZeroDivisionError
"""


def test_a_process_that_fails_does_not_wait_for_its_workers() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITH_A_WORKER], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.returncode) == ("began\n", 1), done.stderr
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError"


def test_what_some_rows_go_on_with_is_computed_once_with_the_same_losses() -> None:
    rows = schemas()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    ).eval()
    lean = PackedModel(model)
    plain, packed = packed_batch(rows, shared_prefix=False), packed_batch(rows, shared_prefix=True)
    # 20 tokens of three schemas, an instruction, and of each row what is its own less the last token
    assert packed["input_ids"].shape[1] == 18 + 3 * 20 + sum(len(row["input_ids"]) - 39 for row in rows)
    with lean.switched(packed=True):
        torch.testing.assert_close(lean.losses(model, packed), lean.losses(model, plain))
