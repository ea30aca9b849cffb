"""The environment's variables: those that contradict each other, or make a run other than is meant."""

import os
from collections.abc import Iterator
from pathlib import Path

from hf_finetune.doctor.line import Line, fault, ok, warning
from hf_finetune.doctor.subject import Subject
from hf_finetune.errors import RecipeError, plural
from hf_finetune.files import existing
from hf_finetune.processes import check_environment, cores, num_processes, refuse_a_missing_process, was_launched

SET = frozenset({"1", "ON", "YES", "TRUE"})
"""What huggingface_hub takes for yes."""
UNREAD = {
    "TRANSFORMERS_CACHE": "HF_HOME",
    "PYTORCH_TRANSFORMERS_CACHE": "HF_HOME",
    "PYTORCH_PRETRAINED_BERT_CACHE": "HF_HOME",
    "HF_HUB_ENABLE_HF_TRANSFER": "HF_XET_HIGH_PERFORMANCE",
}
"""Variables that the libraries no longer read, and those that took their place."""


def is_set(name: str) -> bool:
    """Whether a variable says yes, as huggingface_hub reads it."""
    return os.environ.get(name, "").upper() in SET


def offline(subject: Subject) -> Iterator[Line]:
    """Whether the Hub is shut out although the run needs it."""
    named = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if is_set(name)]
    repo = subject.settings.hub_model_id
    if named and repo:
        yield fault(f"{named[0]} is set, and the run is to be pushed to {repo}", f"unset {named[0]}")
    elif named and not Path(subject.settings.model_name_or_path).expanduser().is_dir():
        yield warning(f"{named[0]} is set: only what is in the cache can be used", f"unset {named[0]}")


def tokens(subject: Subject) -> Iterator[Line]:
    """Whether the Hub is given one token, and one that can be one."""
    token = os.environ.get("HF_TOKEN", "")
    if os.environ.get("HF_OIDC_RESOURCE") and token:
        yield warning(
            "HF_TOKEN and HF_OIDC_RESOURCE are both set: the token by OIDC is used, for that repo alone",
            "unset HF_OIDC_RESOURCE, or unset HF_TOKEN",
        )
    bare = token.strip()  # as the Hub's client does
    if bare and (bare.strip("'\"") != bare or not bare.isascii() or len(bare.split()) > 1):
        yield fault("HF_TOKEN holds blanks, quotes or other signs that no token has", "export HF_TOKEN=hf_... as it is")


def gpus_shut_out(subject: Subject) -> Iterator[Line]:
    """Whether GPUs are hidden from the run."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        yield warning(
            "CUDA_VISIBLE_DEVICES is empty, so that no GPU is used, whatever there is",
            "unset CUDA_VISIBLE_DEVICES, or name GPUs: CUDA_VISIBLE_DEVICES=0",
        )


def slow_variables(subject: Subject) -> Iterator[Line]:
    """Whether a variable that is for finding defects makes the run slow."""
    if os.environ.get("CUDA_LAUNCH_BLOCKING") == "1":
        yield warning("CUDA_LAUNCH_BLOCKING=1 is set, which makes a run slow", "unset CUDA_LAUNCH_BLOCKING")
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > cores():
        yield warning(
            f"OMP_NUM_THREADS is {threads} on {plural(cores(), 'core')}: threads wait for each other",
            f"export OMP_NUM_THREADS={cores()}",
        )


def unread_variables(subject: Subject) -> Iterator[Line]:
    """Whether a variable is set that no library reads any more."""
    for name, other in UNREAD.items():
        if name in os.environ:
            yield warning(f"{name} is set, which is no longer read", f"unset {name}; {other} took its place")


def endpoint(subject: Subject) -> Iterator[Line]:
    """Whether the Hub is another one than most mean."""
    from huggingface_hub import constants

    if not constants.ENDPOINT.startswith(("http://", "https://")):
        yield fault(f"HF_ENDPOINT is {constants.ENDPOINT!r}, which is no address", "unset HF_ENDPOINT")
    elif "HF_ENDPOINT" in os.environ:
        yield ok(f"the Hub is {constants.ENDPOINT} (HF_ENDPOINT)")


def caches(subject: Subject) -> Iterator[Line]:
    """Whether downloads can be kept; a cache that is only read may be another's."""
    from huggingface_hub import constants

    is_read_only = constants.HF_HUB_OFFLINE or Path(subject.settings.model_name_or_path).expanduser().is_dir()
    for name, given in (("HF_HOME", constants.HF_HOME), ("HF_HUB_CACHE", constants.HF_HUB_CACHE)):
        nearest = existing(Path(given))
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            why = "may not be written to" if nearest.is_dir() else "is a file"
            is_spare = is_read_only or not Path(constants.HF_HUB_CACHE).is_relative_to(given)
            line = warning if nearest.is_dir() and is_spare else fault
            yield line(f"{name} is {given}: {nearest} {why}", f"export {name}=FOLDER, one of yours")
            return


def launcher(subject: Subject) -> Iterator[Line]:
    """Whether the processes that were asked for can be there, and find each other."""
    check_environment()
    if was_launched():
        refuse_a_missing_process()
        if num_processes() > 1:
            yield ok(f"{num_processes()} processes")


def accelerate_config(subject: Subject) -> Iterator[Line]:
    """Whether the user's own accelerate config, which `accelerate launch` reads, fits this machine."""
    import yaml
    from huggingface_hub import constants

    if was_launched():
        return
    file = (
        Path(os.environ.get("ACCELERATE_CONFIG_FILE", ""))
        if "ACCELERATE_CONFIG_FILE" in os.environ
        else (Path(constants.HF_HOME) / "accelerate" / "default_config.yaml")
    )
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RecipeError(f"{file}: cannot be read ({error}). Write it again with accelerate config.") from error
    asked = int(config.get("num_processes") or 1) if isinstance(config, dict) else 1
    if asked == 1:
        return
    import torch

    gpus = torch.cuda.device_count()
    if asked > max(1, gpus):
        yield fault(
            f"{file} asks for {asked} processes, and this machine has {gpus} GPUs",
            f"accelerate launch --num_processes {max(1, gpus)}, or accelerate config",
        )
