"""A batch that does not fit into a real GPU's memory is halved, with the same losses and the same answers.

On a machine with a GPU:

    pytest -m gpu tests/gpu/test_full_memory.py
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def at_most(reserved_bytes: int) -> Iterator[None]:
    """Inside, this process has so many bytes of the GPU; what would take more is out of memory."""
    import torch

    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    torch.cuda.set_per_process_memory_fraction(reserved_bytes / whole)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def most_reserved(compute: Callable[[], Any]) -> tuple[Any, int]:
    """What a computation gives, and the most bytes of the GPU that were reserved meanwhile."""
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return compute(), torch.cuda.max_memory_reserved()


@pytest.mark.gpu
def test_a_batch_that_does_not_fit_is_halved_before_the_first_step(tmp_path: Path) -> None:
    import limited_memory  # here: collecting the tests must stay quick
    from test_fitting import FIXED, assert_trained_alike, wide_base

    base = wide_base(tmp_path / "base")

    def train(name: str, size: int, **values: Any) -> dict[str, Any]:
        (tmp_path / name).mkdir()
        settings = FIXED | {"dtype": "float32", "per_device_train_batch_size": size} | values
        case = {"base": str(base), "folder": str(tmp_path / name), "rows": (24, 300, 400), "checked": (4, 10, 20)}
        said: list[str] = []
        return limited_memory.train(case | {"settings": settings}, said) | {"said": said}

    train("warm", 2)  # what stays on the GPU for good, such as workspaces, is there now
    whole, much = most_reserved(lambda: train("whole", 16))
    _, less = most_reserved(lambda: train("less", 8, gradient_accumulation_steps=2))
    assert much > 1.3 * less
    with at_most((much + less) // 2):
        halved = train("halved", 16)
    assert whole["said"] == []
    assert halved["used"] == {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    assert_trained_alike(halved, whole, tolerance=1e-4)


@pytest.mark.gpu
def test_questions_that_do_not_fit_are_asked_in_halves_with_the_same_answers(tmp_path: Path) -> None:
    import limited_memory
    from test_fitting import wide_base

    case = {"base": str(wide_base(tmp_path / "base")), "folder": str(tmp_path), "rows": (64, 300, 400)}

    def ask(size: int) -> dict[str, Any]:
        return limited_memory.answer(case | {"size": size, "dtype": "float32"}, [])

    ask(2)
    whole, much = most_reserved(lambda: ask(64))
    _, less = most_reserved(lambda: ask(16))
    assert much > 1.3 * less
    with at_most((much + less) // 2):
        halved = ask(64)
    assert whole["used"] == {}
    assert halved["used"]["per_device_eval_batch_size"] in (16, 32)
    assert halved["texts"] == whole["texts"]
    for one, other in zip(halved["scores"], whole["scores"], strict=True):
        assert one == pytest.approx(other, rel=1e-4)
