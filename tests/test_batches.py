"""The order of rows does not depend on the number of processes."""

import pytest

from hf_finetune.train.batches import ShardedBatches


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
