"""A checkpoint counts when it is whole; a damaged one is told and left for the one before."""

import errno
import json
from pathlib import Path

import pytest

from hf_finetune.checkpoints import (
    best_of,
    discard,
    fault_of,
    is_over,
    keep_newest,
    last_whole,
    seal,
    steps_of,
)
from hf_finetune.errors import RecipeError


def leave(folder: Path, step: int, best: int = 0, stopped: bool = False) -> Path:
    """A sealed checkpoint of ten steps in all."""
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / "shard").mkdir(parents=True)
    control = {"TrainerControl": {"args": {"should_training_stop": stopped}}}
    state = {"global_step": step, "max_steps": 10, "best_global_step": best or None, "stateful_callbacks": control}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    (checkpoint / "adapter_model.safetensors").write_bytes(b"weights of " + str(step).encode())
    (checkpoint / "shard" / "optimizer.pt").write_bytes(b"moments")
    seal(checkpoint)
    return checkpoint


def names(folder: Path) -> list[str]:
    return [checkpoint.name for checkpoint in steps_of(folder)]


def test_the_newest_whole_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    for step in (9, 10, 2):
        leave(tmp_path, step)
    assert last_whole(tmp_path, pytest.fail) == tmp_path / "checkpoint-10"


def test_there_may_be_none(tmp_path: Path) -> None:
    assert last_whole(tmp_path / "checkpoints", pytest.fail) is None


DAMAGES = {
    "truncated": lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"weigh"),
    "gone": lambda folder: (folder / "shard" / "optimizer.pt").unlink(),
    "another bit": lambda folder: (folder / "shard" / "optimizer.pt").write_bytes(b"momentt"),
    "seal cut off": lambda folder: (folder / "sealed.json").write_text('{"adapter'),
    "never sealed": lambda folder: (folder / "sealed.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path: Path, damage: str) -> None:
    leave(tmp_path, 4)
    DAMAGES[damage](leave(tmp_path, 8))
    said: list[str] = []
    assert last_whole(tmp_path, said.append) == tmp_path / "checkpoint-4"
    assert len(said) == 1
    assert "checkpoint-8: " in said[0]
    assert "damaged" in said[0] or "was not saved to its end" in said[0]
    assert names(tmp_path) == ["checkpoint-4"]


def test_a_checkpoint_whose_best_one_is_damaged_is_none_to_go_on_from(tmp_path: Path) -> None:
    # Training would go on, and at its end there would be no adapter to ship.
    leave(tmp_path, 2)
    DAMAGES["truncated"](leave(tmp_path, 4))
    said: list[str] = []
    assert "checkpoint-4, is damaged" in str(fault_of(leave(tmp_path, 8, best=4)))
    assert last_whole(tmp_path, said.append) == tmp_path / "checkpoint-2"
    assert len(said) == 2


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        leave(tmp_path, step)
    leave(tmp_path, 5, best=1)
    keep_newest(tmp_path, 2)
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-4", "checkpoint-5"]
    assert best_of(tmp_path / "checkpoint-5") == tmp_path / "checkpoint-1"


def test_a_damaged_last_checkpoint_that_was_the_best_leaves_one_to_go_on_from(tmp_path: Path) -> None:
    # The one before it needs the best of its own time.
    leave(tmp_path, 1)
    leave(tmp_path, 2, best=1)
    last = leave(tmp_path, 3, best=3)
    keep_newest(tmp_path, 2)
    DAMAGES["truncated"](last)
    said: list[str] = []
    assert last_whole(tmp_path, said.append) == tmp_path / "checkpoint-2"


def test_a_checkpoint_that_lacks_a_process_s_part_is_not_sealed(tmp_path: Path) -> None:
    checkpoint = leave(tmp_path, 4)
    with pytest.raises(
        RecipeError, match=r"checkpoint-4: rng_state_1\.pth has not been written there.*all machines share"
    ):
        seal(checkpoint, ["trainer_state.json", "rng_state_1.pth"])


def test_a_disk_that_is_away_for_a_moment_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = leave(tmp_path, 4)

    def away(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("hf_finetune.checkpoints.sha256", away)
    with pytest.raises(RecipeError, match=r"cannot be read: .*Input/output error\. Mend that"):
        last_whole(tmp_path, pytest.fail)
    assert checkpoint.is_dir()


def test_a_checkpoint_that_is_being_removed_no_longer_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = leave(tmp_path, 4)
    monkeypatch.setattr("shutil.rmtree", lambda *args, **kwargs: None)  # killed before the first file was gone
    discard(checkpoint)
    assert fault_of(checkpoint) == "was not saved to its end"


def test_training_is_over_when_its_steps_are_made_or_it_was_stopped_early(tmp_path: Path) -> None:
    assert not is_over(leave(tmp_path, 4))
    assert is_over(leave(tmp_path, 5, stopped=True))
    assert is_over(leave(tmp_path, 10))
