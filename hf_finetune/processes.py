"""The processes of one run: which this one is, what they tell each other, and what the launcher did not say."""

import atexit
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from hf_finetune.errors import RecipeError, first_line

Value = TypeVar("Value")

GO, DONE = b"go", b"done"
WORD_SECONDS = 5.0
HEARING = timedelta(minutes=10)
"""How long the main process waits for the others, which have nothing to do but to start."""

PATIENCE = timedelta(days=7)
"""How long the others wait for the main process to prepare the rows; when it fails, the launcher ends them at once."""


def rank() -> int:
    """The number of this process among all, from 0; torchrun, and so `accelerate launch`, sets it."""
    return int(os.environ.get("RANK", "0"))


def num_processes() -> int:
    """How many processes the launcher started for this run, on all machines together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def cores() -> int:
    """How many cores this process may use: in a container, or under taskset, fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_main() -> bool:
    """Whether this is the process that writes and speaks."""
    return rank() == 0


def sharding() -> str | None:
    """What the launcher was told to share the model out with: `FSDP`, `DeepSpeed`, or None: each has the whole one."""
    chosen = (name for name in ("FSDP", "DeepSpeed") if os.environ.get(f"ACCELERATE_USE_{name.upper()}") == "true")
    return next(chosen, None)


def was_launched() -> bool:
    """Whether `accelerate launch` or torchrun started this process, and so watches over it."""
    return "ACCELERATE_MIXED_PRECISION" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ


def check_environment() -> None:
    """Whether the environment says all that several processes need to find each other, and nothing that spoils the run.

    Raises:
        RecipeError: when a variable is missing, as where a cluster sets WORLD_SIZE and nobody else does; for options
            of FSDP with which no adapter would be saved, or all processes but one would evaluate an empty model.
    """
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if num_processes() > 1 and missing:
        raise RecipeError(
            f"environment: WORLD_SIZE is {num_processes()}, but {' and '.join(missing)} is not set. "
            f"Start the run with accelerate launch, or unset WORLD_SIZE."
        )
    needed = {"FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT", "FSDP_CPU_RAM_EFFICIENT_LOADING": "false"}
    for name, value in needed.items():
        if sharding() == "FSDP" and os.environ.get(name, value).lower() != value.lower():
            raise RecipeError(
                f"accelerate launch: {name.lower()} is {os.environ[name]}, with which the adapter would be lost. "
                f"Set it to {value} in the accelerate config, as in hf_finetune's fsdp2.yaml."
            )


def refuse_a_missing_process() -> None:
    """Stops a run that was asked for in several processes and started in one, which accelerate does without a word.

    Raises:
        RecipeError: with the command that starts them all.
    """
    import psutil

    # accelerate gives an address to meet at when several processes were asked for; torchrun adds their number.
    if not was_launched() or "MASTER_ADDR" not in os.environ or "WORLD_SIZE" in os.environ:
        return
    try:
        launcher = psutil.Process(os.getppid())
        words, had_address = launcher.cmdline(), "MASTER_ADDR" in launcher.environ()
    except psutil.Error:
        return
    if had_address:
        return
    words = words[words.index("launch") + 1 :] if "launch" in words else words
    command = shlex.join(["accelerate", "launch", "--multi_gpu", *(word for word in words if word != "--cpu")])
    raise RecipeError(
        f"accelerate launch: several processes were asked for, but this one is alone. On a machine with as many GPUs "
        f"leave out --cpu; on one without a GPU, this starts them: {command}"
    )


def meet_others() -> None:
    """Opens what the others wait at; called by the main process first of all, so that they notice when it ends."""
    if num_processes() > 1:
        _store()


def wait_for_main() -> bool:
    """Waits until the main process has prepared everything; False when it has finished without the others.

    So a mistake is told once, and no time limit of a process group runs while the rows are prepared.
    """
    word = _store().get("main")
    _store().set(f"heard by {rank()}", word)
    return bool(word == GO)


def release_others(word: bytes = GO) -> None:
    """Lets the processes that wait for the main one go on, or with DONE end, and waits until they have heard it.

    Raises:
        RecipeError: when one of them does not, as it has ended before: on another machine no launcher tells that.
    """
    if num_processes() == 1:
        return
    import torch

    _store().set("main", word)
    try:
        _store().wait(_heard(), HEARING)
    except torch.distributed.DistError as error:
        raise RecipeError(
            f"accelerate launch: not all of the {num_processes()} processes have come within "
            f"{HEARING.seconds // 60} minutes. Look at what those on the other machines say."
        ) from error


def join() -> None:
    """Forms the process group: over NCCL on GPUs, over gloo on CPUs.

    Raises:
        RecipeError: when this machine has fewer GPUs than processes, none for FSDP or DeepSpeed, or the processes do
            not find each other.
    """
    if num_processes() == 1:
        return
    import torch
    from accelerate import PartialState

    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if 0 < gpus < here:
        raise RecipeError(
            f"accelerate launch: {here} processes on a machine with {gpus} GPUs. Add --num_processes {gpus}."
        )
    if sharding() and gpus == 0:
        raise RecipeError(
            f"accelerate launch: {sharding()} needs GPUs; without one accelerate leaves it out silently. "
            f"Start it with ddp.yaml, or with --multi_gpu --num_processes {here} and no config."
        )
    try:
        state = PartialState(cpu=gpus == 0)
        if state.num_processes == num_processes():
            everyones(rank())
    except RuntimeError as error:
        raise RecipeError(
            f"accelerate launch: the processes do not find each other: {first_line(error)}. With several machines, "
            f"GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME name the network interface to use."
        ) from error
    if state.num_processes != num_processes():
        raise RecipeError(
            f"accelerate launch: {num_processes()} processes were started, but each believes to be one of "
            f"{state.num_processes}. Start them with accelerate launch --multi_gpu --num_processes {num_processes()}."
        )


def end(code: int, at_once: bool = False) -> NoReturn:
    """Ends this process; one of several, or `at_once`, without tearing down what the libraries hold.

    Torch now and then aborts one of several processes at that point, and the launcher calls the finished run failed;
    and Python would wait there for the threads that send or fetch files.
    """
    if num_processes() == 1 and not at_once:
        sys.exit(code)
    if code and is_main() and _store.cache_info().currsize and not _launcher_keeps_store():
        with suppress(RuntimeError):  # nobody else tells the others that they wait in vain
            _store().set("main", DONE)
            _store().wait(_heard(), timedelta(seconds=30))
    atexit._run_exitfuncs()  # experiment trackers finish there
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def share(value: Value | None) -> Value:
    """The main process's value, in all of them; what the others give is not looked at."""
    if num_processes() == 1:
        return value  # type: ignore[return-value]  # the main process gives one
    import torch

    box = [value]
    torch.distributed.broadcast_object_list(box, src=0, group=_group())
    return box[0]  # type: ignore[return-value]


def everyones(value: Value) -> list[Value]:
    """The value of each process, in the order of their numbers, in all of them."""
    if num_processes() == 1:
        return [value]
    import torch

    values: list[Any] = [None] * num_processes()
    torch.distributed.all_gather_object(values, value, group=_group())
    return values


def highest(value: float) -> float:
    """The largest of the processes' values, in all of them; cheap enough for every step, and no GPU waits for it."""
    if num_processes() == 1:
        return value
    import torch

    box = torch.tensor([value], dtype=torch.float64)
    torch.distributed.all_reduce(box, op=torch.distributed.ReduceOp.MAX, group=_group())
    return float(box)


def own_share(rows: Sequence[Value]) -> Sequence[Value]:
    """The rows that this process answers: every n-th of them."""
    return rows[rank() :: num_processes()]


def together(shares: Sequence[Sequence[Value]]) -> list[Value]:
    """The rows in their order again, from each process's `own_share`."""
    count = sum(map(len, shares))
    return [shares[i % len(shares)][i // len(shares)] for i in range(count)]


def tell_launcher(reason: str) -> None:
    """Leaves the reason of a failure where torchrun looks for it: its summary names the process that failed first."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        Path(file).write_text(json.dumps({"message": reason, "timestamp": int(time.time())}), encoding="utf-8")


def give_main_the_word() -> None:
    """Waits a little in every process but the main one, which mostly has the same to say; the launcher then ends them.

    The launcher stops all processes as soon as one has failed, also one that is about to say why.
    """
    if not is_main():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(WORD_SECONDS)


def is_others_failure(error: BaseException) -> bool:
    """Whether an error only says that another process is gone, which then has told the reason, or was killed."""
    if num_processes() == 1:
        return False
    import torch

    words = ("gloo", "Connection closed by peer", "Connection reset by peer", "Broken pipe")
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


@cache
def _group() -> Any:
    """All processes, over gloo: what they tell each other goes past the GPUs."""
    import torch

    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)  # one may download for long


def _launcher_keeps_store() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _heard() -> list[str]:
    """The keys with which the others answer the main process's word."""
    return [f"heard by {other}" for other in range(1, num_processes())]


@cache
def _store() -> Any:
    """The key-value store that the launcher keeps for its processes, there before any process group."""
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # not in its __all__

    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=is_main() and not _launcher_keeps_store(),
        wait_for_workers=False,
        multi_tenant=True,
        timeout=HEARING,  # to find it; a main process that has ended already is never found
    )
    store.set_timeout(PATIENCE)
    return PrefixStore(f"hf_finetune/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
