"""Memory that is full: how it shows, on a GPU as on a CPU, and how a computation that met it ends."""

import re
from collections.abc import Callable

from hf_finetune.errors import first_line

SIGNS = (
    " out of memory", "DefaultCPUAllocator: ", "std::bad_alloc", "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)  # fmt: skip
"""What stands in the RuntimeErrors that mean no more than that; torch's CPU allocator has no class of its own."""


def is_full(error: BaseException) -> bool:
    """Whether an error says that memory is full."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
    )


def in_words(error: BaseException) -> str:
    """An error of full memory in a few words: `20.00 MiB more could not be had`."""
    asked = re.search(r"ried to allocate ([\d.]+) (\w+)", str(error))
    if asked is None:
        return first_line(error)
    amount, unit = asked.groups()
    told = f"{int(amount) / 2**20:,.2f} MiB" if unit == "bytes" else f"{amount} {unit}"
    return f"{told} more could not be had"


def overflow(compute: Callable[[], object]) -> str | None:
    """How memory was full in a computation; None when it was not. All that the computation held is free again."""
    from accelerate.utils import release_memory

    try:
        compute()
    except (MemoryError, RuntimeError) as error:
        if not is_full(error):
            raise
        why = in_words(error)  # the error itself holds the frames, and they hold the tensors
    else:
        return None
    release_memory()
    return why


def fault_of_first_that_fits(*trials: Callable[[], str | None]) -> str | None:
    """The fault that the first of the trials finds for which there is memory; None when it finds none."""
    why: str | None = None
    for trial in trials:
        found: list[str | None] = []
        why = overflow(lambda: found.append(trial()))  # noqa: B023  # called at once
        if why is None:
            return found[0]
    return f"the memory is full ({why})"
