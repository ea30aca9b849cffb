"""A run on Hugging Face's own GPUs: what a machine costs, and the job that makes the run there and pushes it."""

import base64
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_finetune.errors import RecipeError, first_line
from hf_finetune.hub.client import client, patiently, without_token

if TYPE_CHECKING:
    from huggingface_hub import JobHardwareInfo, JobInfo

IMAGE = "python:3.12"
MINUTES = {"second": 1 / 60, "minute": 1.0, "hour": 60.0}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LARGEST_RECIPE = 100_000
"""Bytes; it travels in a variable of the job's environment."""
FAILED = frozenset({"ERROR", "CANCELED", "DELETED"})


@dataclass(frozen=True)
class Machine:
    """A machine that can be had, with its price in US dollars."""

    name: str
    description: str
    num_gpus: int
    usd_an_hour: float


@dataclass(frozen=True)
class Order:
    """A job: what it runs, and where."""

    machine: Machine
    recipe: str
    """An installed recipe's name, or a file here."""
    words: Sequence[str]
    """Settings and options of the run."""
    seconds: int
    """After which it is stopped."""
    install: str
    """What pip installs hf_finetune from."""
    image: str = IMAGE
    namespace: str | None = None

    @property
    def most_usd(self) -> float:
        """What it costs if it is stopped only then."""
        return self.machine.usd_an_hour * self.seconds / 3600


def machines(patient: bool = True) -> list[Machine]:
    """The machines that jobs run on, at today's prices, the cheapest first; `patient`: asked for again if need be.

    Raises:
        RecipeError: when the Hub cannot be asked.
    """
    with _explaining():
        listed = patiently(client().list_jobs_hardware) if patient else client().list_jobs_hardware()
    return sorted(map(_machine, listed), key=lambda machine: machine.usd_an_hour)


def in_seconds(duration: str) -> int:
    """The seconds of a duration such as `90m` or `2h`.

    Raises:
        RecipeError: when it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", duration)
    if not found or float(found[1]) == 0:
        raise RecipeError(f"--timeout {duration}: is no duration. Write it as 90m or 2h.")
    return int(float(found[1]) * SECONDS[found[2]])


def start(order: Order) -> "JobInfo":
    """Starts the job; the user's token goes with it as a secret, for the base's gate and the push.

    Raises:
        RecipeError: when the Hub refuses, or the recipe's file cannot travel.
    """
    from huggingface_hub import get_token

    environment = {"HF_FINETUNE_INSTALL": order.install}
    script = ["set -e", 'pip install --quiet "$HF_FINETUNE_INSTALL"']
    recipe = order.recipe
    if recipe.endswith(".py"):
        environment["HF_FINETUNE_RECIPE"] = _packed(Path(recipe))
        recipe = Path(recipe).name
        script.append(f'printf %s "$HF_FINETUNE_RECIPE" | base64 -d > {shlex.quote(recipe)}')
    several = f"--multi_gpu --num_processes {order.machine.num_gpus} " if order.machine.num_gpus > 1 else ""
    script.append(f"exec accelerate launch {several}-m hf_finetune {shlex.join([recipe, *order.words])}")
    with _explaining():
        token = get_token()
        return client().run_job(
            image=order.image,
            command=["bash", "-c", "\n".join(script)],
            env=environment,
            secrets={"HF_TOKEN": token} if token else None,
            flavor=order.machine.name,
            timeout=order.seconds,
            namespace=order.namespace,
            labels={"made-with": "hf_finetune", "name": Path(recipe).stem},
        )


def follow(job: "JobInfo") -> Iterator[str]:
    """The lines that a job prints, until it ends.

    Raises:
        RecipeError: when it did not end well, or the Hub can no longer be asked; the job itself goes on then.
    """
    where = f"See {job.url}"
    with _explaining(f"the job goes on: {where}. "):
        yield from client().fetch_job_logs(job_id=job.id, namespace=job.owner.name, follow=True)
        ended = patiently(lambda: client().wait_for_job(job.id, namespace=job.owner.name))
    if ended.status.stage in FAILED:
        reason = f" ({ended.status.message})" if ended.status.message else ""
        raise RecipeError(f"job {job.id}: has ended as {ended.status.stage}{reason}. {where} for what it printed.")


def _machine(info: "JobHardwareInfo") -> Machine:
    gpu = info.accelerator
    description = f"{info.pretty_name}: {info.cpu}, {info.ram}" + (f", {gpu.vram} of GPU memory" if gpu else "")
    price = info.unit_cost_usd / MINUTES.get(info.unit_label, 1.0) * 60
    return Machine(info.name, description, int(gpu.quantity) if gpu else 0, price)


def _packed(path: Path) -> str:
    """A recipe's file as a word.

    Raises:
        RecipeError: when it cannot be read, or is too long.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}). Name a recipe's file.") from error
    if len(text) > LARGEST_RECIPE:
        raise RecipeError(
            f"{path}: has {len(text):,} bytes, and a job takes a recipe of {LARGEST_RECIPE:,} at most. Install it as a "
            f"package instead, and name that with --install."
        )
    return base64.b64encode(text).decode()


@contextmanager
def _explaining(told: str = "") -> Iterator[None]:
    """Turns what the Hub and the network refuse into errors that say what to do.

    Raises:
        RecipeError: instead of it.
    """
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    if constants.HF_HUB_OFFLINE:
        raise RecipeError("jobs: HF_HUB_OFFLINE is set. Unset it.")
    try:
        yield
    except LocalTokenNotFoundError:
        raise RecipeError("jobs: there is no token. Log in with `hf auth login`, or set HF_TOKEN.") from None
    except HfHubHTTPError as error:
        said = without_token(error.server_message or first_line(error)).rstrip(".")
        raise RecipeError(f"jobs: {told}the Hub refuses: {said}. Jobs need a paid account and its token.") from None
    except httpx2.HTTPError as error:
        raise RecipeError(f"jobs: {told}the Hub cannot be reached ({without_token(first_line(error))}).") from None
