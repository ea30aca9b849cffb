"""Accelerate configs and Slurm scripts for several GPUs and machines, as texts: nothing is written or started here.

What runs below them is Accelerate, torch's rendezvous, and DDP, FSDP2 or DeepSpeed; nothing of that is made here.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_finetune.errors import RecipeError, plural
from hf_finetune.rendering import TEMPLATES, template

CONFIGS = ("one_gpu", "ddp", "fsdp2", "zero3")
"""The shipped configs that fit any number of machines or GPUs; two_nodes.yaml is for use by hand."""

MARK = "Written by `hf-finetune launch`"
"""Stands in every file that this command may replace."""

NOTICE_SECONDS = 120
"""How long before its time limit a job is told to save."""

OWN_DIRECTIVES = ("nodes", "ntasks", "ntasks-per-node", "gpus", "gpus-per-node", "signal", "requeue", "open-mode")
_SHORT = {"-N": "nodes", "-n": "ntasks", "-G": "gpus", "-t": "time", "-p": "partition", "-A": "account", "-q": "qos"}
_TIME_LIMIT = re.compile(r"(\d+-)?\d+(:\d+){0,2}")  # minutes, or hours or days before them: see `man sbatch`


@dataclass(frozen=True)
class Launch:
    """What is to be started, how, and on how many GPUs."""

    name: str
    """Of the recipe, and so of the job."""
    words: tuple[str, ...]
    """What stands behind `-m hf_finetune`: the recipe, options and settings."""
    config: str
    """A name in CONFIGS."""
    nodes: int = 1
    gpus: int = 1
    """In each machine."""
    directives: tuple[str, ...] = ()
    """Further options of sbatch."""

    @property
    def title(self) -> str:
        """The name of its files: one for each shape, since a job that waits reads its config when it starts."""
        return f"{self.config}-{self.nodes}x{self.gpus}"

    @property
    def processes(self) -> int:
        """How many processes train together."""
        return self.nodes * self.gpus


def choose_config(name: str | None, nodes: int, gpus: int) -> str:
    """The config asked for, else the plain one for so many GPUs.

    Raises:
        RecipeError: when one_gpu is asked for and there are several.
    """
    if name == "one_gpu" and nodes * gpus > 1:
        raise RecipeError(f"--accelerate-config: one_gpu does not fit {_shape(nodes, gpus)}. Use ddp, fsdp2 or zero3.")
    return name or ("one_gpu" if nodes * gpus == 1 else "ddp")


def directives(options: Sequence[str]) -> tuple[str, ...]:
    """Options of sbatch as they stand in a script: `qos=high` or `--qos=high` give `--qos=high`.

    Raises:
        RecipeError: for one that is no option, is computed here, is given twice, or is a time limit that is none.
    """
    written: dict[str, str] = {}
    for text in options:
        words = text.strip()
        option = words if words.startswith("-") else f"--{words}"
        parts = re.fullmatch(r"(--[a-z][a-z0-9-]*)(?:=(.*))?|(-[a-zA-Z]) ?(.*)", option)
        if parts is None or not words.isprintable():
            raise RecipeError(f"--sbatch: {text!r} is no option of sbatch. Write for example --sbatch qos=high.")
        name, value = parts[1] or _SHORT.get(parts[3], parts[3]), parts[2] or parts[4] or ""
        name = name.removeprefix("--")
        if name in OWN_DIRECTIVES:
            raise RecipeError(f"--sbatch: {name} is set by this command. Leave it out; --nodes and --gpus decide.")
        if name in written:
            raise RecipeError(f"--sbatch: {name} is given twice: {written[name]} and {option}. Leave one out.")
        if name == "time" and not _TIME_LIMIT.fullmatch(value):
            raise RecipeError(f"--time: {value!r} is no time limit. Write hours:minutes:seconds, such as 8:00:00.")
        written[name] = option
    return tuple(written.values())


def accelerate_config(launch: Launch) -> dict[str, Any]:
    """The shipped config, with the numbers of this launch."""
    import yaml

    shipped = (TEMPLATES / "accelerate" / f"{launch.config}.yaml").read_text(encoding="utf-8")
    config: dict[str, Any] = yaml.safe_load(shipped)
    config |= {"num_machines": launch.nodes, "num_processes": launch.processes}
    return config | ({"rdzv_backend": "c10d"} if launch.nodes > 1 else {})


def config_text(launch: Launch) -> str:
    """The accelerate config of this launch, as YAML."""
    import yaml

    header = f"# {MARK}: {launch.config} for {_shape(launch.nodes, launch.gpus)}.\n"
    return header + yaml.safe_dump(accelerate_config(launch), sort_keys=False)


def plain_command(launch: Launch, config_file: Path) -> str:
    """The command that starts it without Slurm; with several machines, on each of them."""
    words = ["accelerate", "launch", "--config_file", str(config_file)]
    if launch.nodes > 1:
        words += ["--machine_rank", "RANK", "--rdzv_backend", "c10d"]
        words += ["--main_process_ip", "FIRST_MACHINE", "--main_process_port", "29500"]
    return shlex.join([*words, "-m", "hf_finetune", *launch.words])


def slurm_script(launch: Launch, config_file: Path, folder: Path, python: str) -> str:
    """A batch script that starts it in `folder` with the Python at `python`, and again after its time limit."""
    return template("slurm.sh.jinja", keep_trailing_newline=True, trim_blocks=True).render(
        launch=launch,
        mark=MARK,
        job_name=re.sub(r"[^\w.-]", "_", launch.name),
        options=_accelerate_options(launch, config_file.absolute()),
        words=shlex.join(launch.words),
        folder=shlex.quote(str(folder.absolute())),
        python=shlex.quote(python),
        notice=NOTICE_SECONDS,
    )


def _accelerate_options(launch: Launch, config_file: Path) -> str:
    """The options of `accelerate launch` that are the same on each machine, quoted for a shell."""
    options: Sequence[object] = ("--config_file", config_file, "--num_machines", launch.nodes)
    return shlex.join(str(option) for option in (*options, "--num_processes", launch.processes))


def _shape(nodes: int, gpus: int) -> str:
    return f"{plural(nodes, 'machine')} with {plural(gpus, 'GPU')}{' each' if nodes > 1 else ''}"
