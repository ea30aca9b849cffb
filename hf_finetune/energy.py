"""The energy that GPUs have used, as their driver counts it; nothing is estimated, and nothing where nobody counts."""

import ctypes
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache

LIBRARY = "libnvidia-ml.so.1"
"""NVIDIA's management library, which comes with the driver."""
MILLIJOULES = 3_600_000
"""In a watt-hour."""


def counters() -> dict[str, int]:
    """What each GPU of this machine has used since its driver was loaded, in millijoules, by the GPU's UUID."""
    library = _library()
    count = ctypes.c_uint()
    if library is None or library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return {}
    found = {}
    for index in range(count.value):
        device, name, used = ctypes.c_void_p(), ctypes.create_string_buffer(96), ctypes.c_ulonglong()
        failed = (
            library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device))
            or library.nvmlDeviceGetUUID(device, name, len(name))
            or library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(used))  # not before Volta
        )
        if not failed:
            found[name.value.decode()] = used.value
    return found


def used_since(before: Mapping[str, int]) -> float | None:
    """The watt-hours that the GPUs of this run have used since `before` was counted; None where that is not known.

    They are the GPUs' own, with other work that they did meanwhile.
    """
    gpus = own_gpus() if before else None
    return None if gpus is None else watt_hours(before, counters(), gpus)


def watt_hours(before: Mapping[str, int], now: Mapping[str, int], gpus: Sequence[str]) -> float | None:
    """What some GPUs have used between two counts; None where one of them is not counted, or began anew."""
    if not all(gpu in before and before[gpu] <= now.get(gpu, -1) for gpu in gpus):
        return None
    return sum(now[gpu] - before[gpu] for gpu in gpus) / MILLIJOULES


def own_gpus() -> list[str] | None:
    """The UUIDs of the GPUs that the processes of this run compute on; None where some are in other machines."""
    here, everywhere = (int(os.environ.get(name, "1")) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    if here != everywhere:
        return None
    torch = sys.modules.get("torch")  # where it is not imported yet, no GPU is used yet
    if not torch or not torch.cuda.is_available():
        return []
    return [f"GPU-{torch.cuda.get_device_properties(index).uuid}" for index in range(here)]


@cache
def _library() -> ctypes.CDLL | None:
    """The driver's library, ready to be asked."""
    try:
        library = ctypes.CDLL(LIBRARY)
        return None if library.nvmlInit_v2() else library
    except (OSError, AttributeError):  # no driver, or a very old one
        return None
