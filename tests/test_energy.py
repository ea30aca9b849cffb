"""The energy of GPUs: counted by their driver, summed over sessions, and told only where it is known."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hf_finetune import energy
from hf_finetune.energy import counters, own_gpus, used_since, watt_hours
from hf_finetune.progress import Progress, Session

DRIVER = """
#include <string.h>
static unsigned long long used = 1000;
int nvmlInit_v2(void) { return %(init)d; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) { *device = (void *)(long)(index + 1); return 0; }
int nvmlDeviceGetUUID(void *device, char *name, unsigned int size) {
    strncpy(name, "GPU-0", size);
    name[4] = '0' + (char)(long)device;
    return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *energy) {
    *energy = (used += 500) * (long)device;
    return (long)device == 3 ? 3 : 0;  /* NVML_ERROR_NOT_SUPPORTED */
}
"""


def a_driver(folder: Path, init: int = 0) -> Path:
    """A library with NVML's own functions, for two GPUs that count and an old one that does not."""
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("no C compiler")
    (folder / "nvml.c").write_text(DRIVER % {"init": init})
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "nvml.c"], check=True)
    return library


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """No library is remembered from another test."""
    energy._library.cache_clear()
    yield
    energy._library.cache_clear()


def test_gpus_that_count_are_read_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "LIBRARY", str(a_driver(tmp_path)))
    before = counters()
    assert set(before) == {"GPU-1", "GPU-2"}
    now = counters()
    assert now["GPU-1"] - before["GPU-1"] == 1500
    assert watt_hours(before, now, ["GPU-1"]) == 1500 / 3_600_000


def test_without_a_driver_or_with_one_that_fails_nothing_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in (tmp_path / "none.so", a_driver(tmp_path, init=999), "libc.so.6"):
        monkeypatch.setattr(energy, "LIBRARY", str(library))
        energy._library.cache_clear()
        assert counters() == {}
        assert used_since(counters()) is None


@pytest.mark.parametrize(
    ("before", "now", "gpus", "used"),
    [
        ({"a": 0, "b": 0}, {"a": 3_600_000, "b": 7_200_000}, ["a", "b"], 3.0),
        ({"a": 0, "b": 0}, {"a": 3_600_000, "b": 7_200_000}, ["b"], 2.0),
        ({"a": 5}, {"a": 4}, ["a"], None),  # the driver was loaded anew
        ({"a": 5}, {"a": 6}, ["b"], None),  # a part of a GPU, which has no counter of its own
        ({"a": 5}, {}, ["a"], None),
        ({"a": 5}, {"a": 6}, [], 0.0),
    ],
)
def test_only_the_runs_own_gpus_count(
    before: dict[str, int], now: dict[str, int], gpus: list[str], used: float | None
) -> None:
    assert watt_hours(before, now, gpus) == used


def test_what_gpus_of_other_machines_use_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_gpus() == []
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert own_gpus() is None
    assert used_since({"a": 0}) is None


def test_a_session_notes_what_was_used_while_it_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "LIBRARY", str(a_driver(tmp_path)))
    monkeypatch.setattr(energy, "own_gpus", lambda: ["GPU-2"])
    progress = Progress(Session("2026-01-01"), tmp_path, print)
    progress.write()
    first = progress.session.energy_wh
    progress.write()
    assert first
    assert progress.session.energy_wh == 2 * first


def test_on_a_machine_without_such_gpus_a_session_notes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "LIBRARY", str(tmp_path / "none.so"))
    progress = Progress(Session("2026-01-01"), tmp_path, print)
    progress.write()
    assert progress.session.energy_wh is None
