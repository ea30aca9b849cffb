"""GPUs that can be had: their memory, their speed and what they cost, from one dated file or as the Hub says today."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from hf_finetune.errors import RecipeError, nearest

FILE = Path(__file__).parent / "gpus.json"
ALIASES = {
    "A100": "A100-80", "A100-80GB": "A100-80", "A100-40GB": "A100-40", "H100-80": "H100", "H200-141": "H200",
    "RTX4090": "RTX4090", "4090": "RTX4090", "RTXPRO6000": "RTX-PRO-6000",
}  # fmt: skip
FOR_READERS = ("sheet", "price_of")
"""What the file says besides of each: where its numbers and its prices are from."""


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU, or a CPU in its place."""

    name: str
    memory_gib: float
    """What torch may use of it."""
    tflops: float
    """Dense matrix products in the half precision that it is computed in."""
    gb_per_second: float
    """To and from its own memory."""
    link_gb_per_second: float
    """Between two of them."""
    has_bfloat16: bool
    has_flash: bool
    """Whether torch's flash attention runs on it (Ampere and later)."""
    device: str = ""
    """What NVIDIA's driver, and so torch, calls it after its own name: a regular expression."""
    hub: str = ""
    """What the Hub calls it in its list of machines."""
    usd_an_hour: tuple[tuple[int, float], ...] = ()
    """What a machine with so many of them costs."""
    is_cpu: bool = False

    def price(self, count: int) -> float | None:
        """US dollars an hour for so many: those of one machine that has them, else of several; None if unknown."""
        offers = dict(self.usd_an_hour)
        if count in offers or not offers:
            return offers.get(count)
        fitting = [(price * -(-count // size), size) for size, price in offers.items() if size <= count]
        larger = [(price, size) for size, price in offers.items() if size > count]
        return min(fitting + larger)[0]


CPU = Gpu("CPU", float("inf"), 0.1, 20, 20, has_bfloat16=False, has_flash=False, is_cpu=True)
"""This machine's own; its speed is a core's, for the order of size alone."""


@cache
def _file() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def date_of_prices() -> str:
    """The day on which the prices of the file were looked up."""
    return str(_file()["date"])


def known_gpus() -> tuple[Gpu, ...]:
    """The GPUs of the file, with the prices of its day."""
    return tuple(_gpu(entry) for entry in _file()["gpus"])


def _gpu(entry: dict[str, Any]) -> Gpu:
    prices = tuple((int(count), float(price)) for count, price in entry["usd_an_hour"].items())
    own = {name: value for name, value in entry.items() if name not in FOR_READERS}
    return Gpu(**own | {"usd_an_hour": prices})


def find_gpus(names: Sequence[str]) -> list[Gpu]:
    """The GPUs of those names, in their order; without names all that are known.

    Raises:
        RecipeError: for a name that is none.
    """
    known = {gpu.name: gpu for gpu in known_gpus()}
    if not names:
        return list(known.values())
    plain = {_plain(name): name for name in known} | {_plain(name): own for name, own in ALIASES.items()}
    found = []
    for name in names:
        if _plain(name) not in plain:
            near = nearest(name.upper(), known)
            raise RecipeError(f"--gpu {name}: no GPU of that name is known. {near}")
        found.append(known[plain[_plain(name)]])
    return list(dict.fromkeys(found))


def gpu_of_device(name: str) -> Gpu | None:
    """The GPU that torch calls so, `NVIDIA A100-SXM4-40GB`; None for one that is not listed, if its name is alike."""
    own = name.removeprefix("NVIDIA ")
    return next((gpu for gpu in known_gpus() if re.fullmatch(gpu.device, own)), None)


def _plain(name: str) -> str:
    """A name as it is compared: `a100 80gb` is `A100-80GB`."""
    return "".join(sign for sign in name.upper().removeprefix("NVIDIA") if sign.isalnum())


def with_prices_of_today(gpus: Sequence[Gpu]) -> tuple[list[Gpu], str]:
    """The GPUs at the prices that the Hub asks now, and a line that says whose prices they are.

    Where the Hub cannot be reached, or has no machine with one of them, the prices of the file stay.
    """
    from hf_finetune.hub.jobs import machines

    try:
        listed = machines(patient=False)
    except (RecipeError, LookupError, TypeError, ValueError) as error:
        known = str(error).removeprefix("jobs: ").rstrip(".")
        reason = known if isinstance(error, RecipeError) else "the Hub's list is not as it was when this was written"
        return list(gpus), f"prices of {date_of_prices()}, from this package's file ({reason})"
    priced = []
    for gpu in gpus:
        offers: dict[int, float] = {}
        for machine in listed:
            if gpu.hub and machine.num_gpus and _is_of(machine.description, gpu.hub):
                offers[machine.num_gpus] = min(machine.usd_an_hour, offers.get(machine.num_gpus, float("inf")))
        priced.append(replace(gpu, usd_an_hour=tuple(offers.items())) if offers else gpu)
    return priced, f"prices of now, from the Hub's list of machines; those that it has not, of {date_of_prices()}"


def _is_of(description: str, name: str) -> bool:
    """Whether a machine's description begins with that GPU: `4x Nvidia L4: ...` is of an L4, `1x Nvidia L40S` not."""
    words = description.partition(":")[0].upper()
    return f"{name.upper()} " in f"{words} "
