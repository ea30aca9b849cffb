"""Several GPUs and machines: the shipped accelerate configs, the Slurm script, and what is refused."""

import argparse
import itertools
import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import imported, run_cli
from hf_finetune.errors import RecipeError
from hf_finetune.launch import (
    CONFIGS,
    MARK,
    NOTICE_SECONDS,
    OWN_DIRECTIVES,
    Launch,
    accelerate_config,
    choose_config,
    config_text,
    directives,
    plain_command,
    slurm_script,
)

SHIPPED = Path(__file__).parent.parent / "hf_finetune" / "templates" / "accelerate"
NAMES = ("ddp", "fsdp2", "one_gpu", "two_nodes", "zero3")
ODD_WORDS = ('run_name=it\'s "quoted"', "output_dir=runs/$HOME `id` a b", "model_revision=x;y\\n*?")
SECONDS = 600
"""A script that takes longer hangs."""

JOB = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NODEID": "0"}

SRUN = """
    #!/bin/bash
    # Starts one task a machine; kills what is left of a task when its first process ends, as Slurm does.
    echo "${@%%$'\\n'*}" >> "$RECORDS/srun"
    while [[ $1 == --* ]]; do shift; done
    trap 'kill -KILL -- $(sed s/^/-/ "$RECORDS"/task*); exit 143' TERM
    set -m
    for ((i = 0; i < MACHINES; i++)); do
        SLURM_NODEID=$i "$@" &
        echo $! > "$RECORDS/task$i"
    done
    status=0
    for ((i = 0; i < MACHINES; i++)); do
        task=$(cat "$RECORDS/task$i")
        wait "$task" || status=$?
        kill -KILL -- "-$task" 2> /dev/null
    done
    exit $status
"""

SCONTROL = """
    #!/bin/bash
    echo "$@" >> "$RECORDS/scontrol"
    if [ "$1" = show ]; then echo "$HOSTS"; fi
"""

RECORDING_PYTHON = """
    #!{python}
    import json, os, pathlib, sys
    rank = os.environ["SLURM_NODEID"]
    facts = {{"argv": sys.argv[1:], "cwd": os.getcwd(), "environment": dict(os.environ)}}
    pathlib.Path(os.environ["RECORDS"], f"rank{{rank}}.json").write_text(json.dumps(facts))
    sys.exit(int(os.environ.get("EXIT_CODE", "0")))
"""

SAVING_PYTHON = """
    #!{python}
    # A launcher of one process, which the signal ends at once, and the run that it started, which saves first.
    import os, pathlib, signal, subprocess, sys, time
    records = pathlib.Path(os.environ["RECORDS"])
    if "run" not in sys.argv:
        subprocess.run([sys.executable, __file__, "run"])
        sys.exit(0)
    def save(*_):
        time.sleep(1)
        records.joinpath("saved").touch()
        sys.exit(143)
    signal.signal(signal.SIGTERM, save)
    records.joinpath("started").touch()
    time.sleep(60)
"""


def stand_in(path: Path, text: str) -> Path:
    """An executable file of the text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def cluster(folder: Path, machines: int, **environment: str) -> dict[str, str]:
    """The environment of a batch script on a stand-in for Slurm; what its parts were told is in folder/records."""
    (folder / "records").mkdir(exist_ok=True)
    stand_in(folder / "bin" / "srun", SRUN)
    stand_in(folder / "bin" / "scontrol", SCONTROL)
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    stands = {"PATH": path, "RECORDS": str(folder / "records"), "MACHINES": str(machines)}
    stands["HOSTS"] = "\n".join(f"node{i + 1}" for i in range(machines))
    return os.environ | JOB | stands | environment


def run_script(script: Path, environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """The finished batch script, started elsewhere than where it was written."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = ["bash", str(script)]
    with subprocess.Popen(command, env=environment, cwd="/", start_new_session=True, **pipes) as job:
        try:
            said, told = job.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGTERM)  # the stand-in for srun ends its tasks
            raise
    return subprocess.CompletedProcess(command, job.returncode, said, told)


def write_script(folder: Path, launch: Launch, python: Path) -> Path:
    """The launch's script in a folder with a space."""
    home = folder / "my work"
    home.mkdir(exist_ok=True)
    script = home / "job.sh"
    script.write_text(slurm_script(launch, home / "config.yaml", home, str(python)), encoding="utf-8")
    return script


def recorded(folder: Path, machines: int) -> list[dict[str, Any]]:
    """What the task of each machine was started with."""
    assert len(list((folder / "records").glob("rank*.json"))) == machines
    return [json.loads((folder / "records" / f"rank{rank}.json").read_text()) for rank in range(machines)]


def option(argv: Sequence[str], name: str) -> str:
    """The value of an option on a command line."""
    return argv[argv.index(name) + 1]


def accelerate_arguments(file: Path, *options: str) -> argparse.Namespace:
    """What `accelerate launch` makes of a config file and options."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    words = ["--config_file", str(file), "--main_process_port", "0", *options, "-m", "hf_finetune", "finsent"]
    arguments, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    arguments.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    return arguments  # type: ignore[no-any-return]


def unknown_keys(config: Mapping[str, Any]) -> list[str]:
    """Keys of an accelerate config that the installed Accelerate does not know, nested ones too."""
    from accelerate.commands.config.config_args import ClusterConfig
    from accelerate.commands.launch import launch_command_parser

    options = vars(launch_command_parser().parse_args(["script.py"]))
    nested = [key for value in config.values() if isinstance(value, dict) for key in value]
    return sorted((set(config) - set(ClusterConfig.__dataclass_fields__)) | (set(nested) - set(options)))


def test_the_shipped_configs_are_these() -> None:
    assert sorted(path.name for path in SHIPPED.iterdir()) == [f"{name}.yaml" for name in NAMES]
    assert set(CONFIGS) == set(NAMES) - {"two_nodes"}


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_config_loads_and_says_what_it_is_for(name: str) -> None:
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
    from accelerate.utils import DistributedType

    file = SHIPPED / f"{name}.yaml"
    loaded = load_config_from_file(str(file))
    assert isinstance(loaded, ClusterConfig)
    assert isinstance(loaded.distributed_type, DistributedType)  # NO without quotes is false
    assert loaded.mixed_precision == "bf16"
    assert f"accelerate launch --config_file {name}.yaml" in file.read_text(encoding="utf-8")
    assert unknown_keys(yaml.safe_load(file.read_text(encoding="utf-8"))) == []


def test_a_misspelt_key_would_be_seen() -> None:
    wrong = {"num_machine": 1, "fsdp_config": {"fsdp_verison": 2}, "deepspeed_config": {"zero_stages": 3}}
    assert unknown_keys(wrong) == ["fsdp_verison", "num_machine", "zero_stages"]


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"one_gpu"}))
def test_a_shipped_config_without_a_number_of_gpus_makes_accelerate_ask(name: str) -> None:
    with pytest.raises(ValueError, match="manually pass in `--num_processes`"):
        accelerate_arguments(SHIPPED / f"{name}.yaml")


def test_one_gpu_is_one_process_without_a_launcher_of_several() -> None:
    arguments = accelerate_arguments(SHIPPED / "one_gpu.yaml")
    assert (arguments.num_processes, arguments.num_machines) == (1, 1)
    assert not any((arguments.multi_gpu, arguments.use_fsdp, arguments.use_deepspeed, arguments.cpu, arguments.use_cpu))


def test_ddp_starts_one_process_a_gpu() -> None:
    from accelerate.utils.launch import prepare_multi_gpu_env

    arguments = accelerate_arguments(SHIPPED / "ddp.yaml", "--num_processes", "8")
    environment = prepare_multi_gpu_env(arguments)
    assert arguments.multi_gpu
    assert arguments.nproc_per_node == "8"
    assert environment["ACCELERATE_MIXED_PRECISION"] == "bf16"
    assert "ACCELERATE_USE_FSDP" not in environment


def test_two_nodes_meet_at_the_first_one() -> None:
    from accelerate.utils.launch import prepare_multi_gpu_env

    options = "--num_processes 16 --machine_rank 1 --rdzv_backend c10d --main_process_ip node1".split()
    arguments = accelerate_arguments(SHIPPED / "two_nodes.yaml", *options, "--main_process_port", "29500")
    prepare_multi_gpu_env(arguments)
    assert (arguments.nnodes, arguments.nproc_per_node, arguments.node_rank) == ("2", "8", 1)
    assert (arguments.rdzv_backend, arguments.rdzv_endpoint) == ("c10d", "node1:29500")


def test_accelerate_takes_the_rendezvous_from_its_command_alone() -> None:
    # When this fails, Accelerate reads rdzv_backend from the file, and the option can leave the commands.
    arguments = accelerate_arguments(SHIPPED / "two_nodes.yaml", "--num_processes", "16")
    assert yaml.safe_load((SHIPPED / "two_nodes.yaml").read_text(encoding="utf-8"))["rdzv_backend"] == "c10d"
    assert arguments.rdzv_backend == "static"


def test_what_fsdp2_gives_its_processes_makes_the_plugin_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    arguments = accelerate_arguments(SHIPPED / "fsdp2.yaml", "--num_processes", "8")
    environment = prepare_multi_gpu_env(arguments)
    assert arguments.use_fsdp
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    for name in (name for name in environment if name.startswith("FSDP_")):
        monkeypatch.setenv(name, environment[name])
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"
    assert plugin.auto_wrap_policy is transformer_auto_wrap_policy
    assert plugin.transformer_cls_names_to_wrap is None
    assert plugin.reshard_after_forward is True
    assert plugin.cpu_ram_efficient_loading is False
    assert plugin.activation_checkpointing is False
    assert type(plugin.cpu_offload).__name__ == "OffloadPolicy"  # of FSDP2, for: none


def test_what_zero3_gives_its_processes_is_stage_3_with_accumulation_left_to_the_settings() -> None:
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    arguments = accelerate_arguments(SHIPPED / "zero3.yaml", "--num_processes", "8")
    command, environment = prepare_deepspeed_cmd_env(arguments)
    assert arguments.use_deepspeed
    assert command is None  # torch's launcher, not DeepSpeed's
    assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "3"
    assert environment["ACCELERATE_DEEPSPEED_ZERO3_INIT"] == "true"
    assert environment["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] == "true"
    assert {name for name in environment if "GRADIENT" in name} - set(os.environ) == set()


def test_zero3_on_two_machines_is_started_by_torch_on_each() -> None:
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    options = "--num_processes 16 --num_machines 2 --machine_rank 1 --rdzv_backend c10d --main_process_ip node1".split()
    arguments = accelerate_arguments(SHIPPED / "zero3.yaml", *options, "--main_process_port", "29500")
    command, _ = prepare_deepspeed_cmd_env(arguments)
    assert command is None
    assert (arguments.nnodes, arguments.nproc_per_node, arguments.rdzv_endpoint) == ("2", "8", "node1:29500")


@pytest.mark.parametrize(
    ("config", "nodes", "gpus"), [("one_gpu", 1, 1), ("ddp", 1, 4), ("fsdp2", 2, 8), ("zero3", 3, 2)]
)
def test_a_written_config_is_the_shipped_one_with_the_numbers(
    tmp_path: Path, config: str, nodes: int, gpus: int
) -> None:
    launch = Launch("finsent", ("finsent",), config, nodes, gpus)
    (tmp_path / "config.yaml").write_text(config_text(launch), encoding="utf-8")
    written = yaml.safe_load(config_text(launch))
    shipped = yaml.safe_load((SHIPPED / f"{config}.yaml").read_text(encoding="utf-8"))
    numbers = {"num_machines": nodes, "num_processes": nodes * gpus} | ({"rdzv_backend": "c10d"} if nodes > 1 else {})
    assert written == shipped | numbers
    arguments = accelerate_arguments(tmp_path / "config.yaml")
    assert (arguments.num_machines, arguments.num_processes) == (nodes, nodes * gpus)


def test_ddp_for_two_machines_is_the_shipped_two_nodes() -> None:
    shipped = yaml.safe_load((SHIPPED / "two_nodes.yaml").read_text(encoding="utf-8"))
    assert accelerate_config(Launch("finsent", ("finsent",), "ddp", 2, 8)) == shipped | {"num_processes": 16}


@pytest.mark.parametrize(
    ("asked", "nodes", "gpus", "chosen"),
    [(None, 1, 1, "one_gpu"), (None, 1, 8, "ddp"), (None, 2, 1, "ddp"), ("fsdp2", 1, 1, "fsdp2")],
)
def test_the_plain_config_is_chosen_unless_one_is_named(asked: str | None, nodes: int, gpus: int, chosen: str) -> None:
    assert choose_config(asked, nodes, gpus) == chosen


@pytest.mark.parametrize(("nodes", "gpus"), [(2, 1), (1, 2)])
def test_one_gpu_for_several_is_refused(nodes: int, gpus: int) -> None:
    with pytest.raises(RecipeError, match="one_gpu does not fit"):
        choose_config("one_gpu", nodes, gpus)


@pytest.mark.parametrize(
    ("given", "written"),
    [("qos=high", "--qos=high"), ("--mem=64G", "--mem=64G"), (" -C a100 ", "-C a100"), ("no-requeue", "--no-requeue")],
)
def test_an_option_of_sbatch_is_written_with_its_dashes(given: str, written: str) -> None:
    assert directives([given]) == (written,)


@pytest.mark.parametrize("given", ["", "--", "=x", "qos high", "qos=high\nrm -rf /", "#SBATCH --qos=high"])
def test_what_is_no_option_of_sbatch_is_refused(given: str) -> None:
    with pytest.raises(RecipeError, match="is no option of sbatch"):
        directives([given])


@pytest.mark.parametrize("given", [*(f"{name}=3" for name in OWN_DIRECTIVES), "-N 3", "-N3"])
def test_an_option_of_sbatch_that_is_computed_is_refused(given: str) -> None:
    with pytest.raises(RecipeError, match="is set by this command"):
        directives([given])


@pytest.mark.parametrize("given", [("time=1", "-t 2"), ("-t2", "--time=1"), ("qos=a", "mem=1", "-q b")])
def test_an_option_of_sbatch_that_is_given_twice_is_refused(given: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError, match=r"(time|qos) is given twice: .* and "):
        directives(given)


@pytest.mark.parametrize("limit", ["30", "8:00", "8:00:00", "2-12", "2-12:30:00"])
def test_slurms_forms_of_a_time_limit_are_taken(limit: str) -> None:
    assert directives([f"time={limit}"]) == (f"--time={limit}",)


@pytest.mark.parametrize("limit", ["", "8h", "8:00:00:00", "tomorrow", "-1"])
def test_what_is_no_time_limit_is_refused(limit: str) -> None:
    with pytest.raises(RecipeError, match=r"is no time limit. Write hours:minutes:seconds"):
        directives([f"time={limit}"])


def test_every_directive_of_a_bare_script_is_refused_as_an_option() -> None:
    script = slurm_script(Launch("finsent", ("finsent",), "ddp", 2, 8), Path("c.yaml"), Path("/"), "python")
    names = {line.split("--")[1].split("=")[0] for line in script.splitlines() if line.startswith("#SBATCH")}
    assert len(names) == 7
    assert names - {"job-name"} <= set(OWN_DIRECTIVES)


@pytest.mark.parametrize(
    ("config", "nodes", "directives"),
    [
        (c, n, d)
        for (c, n), d in itertools.product([("one_gpu", 1), ("ddp", 1), ("fsdp2", 3)], [(), ("--qos=a", "-C b")])
    ],
)
@pytest.mark.parametrize("words", [("finsent",), ("./my recipe's.py", "--demo", *ODD_WORDS)])
def test_bash_reads_every_script(
    tmp_path: Path, config: str, nodes: int, directives: tuple[str, ...], words: tuple[str, ...]
) -> None:
    launch = Launch("a name", words, config, nodes, 1, directives)
    script = write_script(tmp_path, launch, Path("/a b/it's/python"))
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/bin/bash"
    first_command = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    asked = [f"#SBATCH {text}" for text in directives]
    assert [line for line in lines if line.startswith("#SBATCH") and line in asked] == asked
    assert not any(line.startswith("#SBATCH") for line in lines[first_command:])  # Slurm reads none below a command


@pytest.mark.parametrize(("config", "machines"), [("one_gpu", 1), ("ddp", 1), ("ddp", 3), ("zero3", 2)])
def test_each_machine_gets_its_own_rank_and_the_same_words(tmp_path: Path, config: str, machines: int) -> None:
    python = stand_in(tmp_path / "a b" / "python", RECORDING_PYTHON.format(python=sys.executable))
    words = ("./my recipe's.py", *ODD_WORDS)
    script = write_script(tmp_path, Launch("finsent", words, config, machines, 1), python)
    done = run_script(script, cluster(tmp_path, machines))
    assert (done.returncode, done.stderr) == (0, "")
    tasks = recorded(tmp_path, machines)
    assert [option(task["argv"], "--machine_rank") for task in tasks] == [str(rank) for rank in range(machines)]
    hosts = [option(task["argv"], "--rdzv_conf") for task in tasks] if machines > 1 else []
    assert hosts == ["is_host=1", *["is_host=0"] * (machines - 1)][: len(hosts)]
    for task in tasks:
        argv = task["argv"]
        assert argv[:2] == ["-m", "accelerate.commands.launch"]
        assert argv[argv.index("hf_finetune") - 1 :] == ["-m", "hf_finetune", *words]
        assert option(argv, "--config_file") == str(tmp_path / "my work" / "config.yaml")
        assert option(argv, "--num_machines") == option(argv, "--num_processes") == str(machines)
        assert option(argv, "--main_process_port") == "14711"
        assert task["cwd"] == str(tmp_path / "my work")
        assert task["environment"]["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == str(NOTICE_SECONDS)
        if machines > 1:
            assert (option(argv, "--main_process_ip"), option(argv, "--rdzv_backend")) == ("node1", "c10d")
        else:
            assert "--main_process_ip" not in argv


def test_accelerate_understands_the_words_that_a_task_gets(tmp_path: Path) -> None:
    from accelerate.commands.launch import launch_command_parser

    python = stand_in(tmp_path / "python", RECORDING_PYTHON.format(python=sys.executable))
    script = write_script(tmp_path, Launch("finsent", ("finsent", *ODD_WORDS), "ddp", 2, 4), python)
    run_script(script, cluster(tmp_path, 2))
    arguments = launch_command_parser().parse_args(recorded(tmp_path, 2)[1]["argv"][2:])
    assert (arguments.num_machines, arguments.num_processes, arguments.machine_rank) == (2, 8, 1)
    assert (arguments.main_process_ip, arguments.main_process_port, arguments.rdzv_backend) == ("node1", 14711, "c10d")
    assert (arguments.module, arguments.training_script) == (True, "hf_finetune")
    assert arguments.training_script_args == ["finsent", *ODD_WORDS]


def test_torch_is_told_the_host_the_ranks_and_the_time_to_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import _filter_args, prepare_multi_gpu_env
    from torch.distributed.run import config_from_args, get_args_parser

    python = stand_in(tmp_path / "python", RECORDING_PYTHON.format(python=sys.executable))
    launch = Launch("finsent", ("finsent",), "ddp", 2, 4)
    script = write_script(tmp_path, launch, python)
    (script.parent / "config.yaml").write_text(config_text(launch), encoding="utf-8")
    run_script(script, cluster(tmp_path, 2))
    task = recorded(tmp_path, 2)[1]
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", task["environment"]["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"])
    arguments = _validate_launch_command(launch_command_parser().parse_args(task["argv"][2:]))[0]
    prepare_multi_gpu_env(arguments)
    arguments = _filter_args(arguments, get_args_parser(), ["--training_script", "hf_finetune"])
    config, _, words = config_from_args(arguments)
    assert (config.min_nodes, config.max_nodes, config.nproc_per_node) == (2, 2, 4)
    assert (config.rdzv_backend, config.rdzv_endpoint, config.rdzv_configs["is_host"]) == ("c10d", "node1:14711", "0")
    assert config.shutdown_timeout == NOTICE_SECONDS
    assert words == ["-u", "-m", "hf_finetune", "finsent"]


def test_srun_passes_on_the_cores_that_were_asked_for(tmp_path: Path) -> None:
    python = stand_in(tmp_path / "python", RECORDING_PYTHON.format(python=sys.executable))
    script = write_script(tmp_path, Launch("finsent", ("finsent",), "ddp", 1, 2), python)
    run_script(script, cluster(tmp_path, 1, SLURM_CPUS_PER_TASK="16"))
    assert recorded(tmp_path, 1)[0]["environment"]["SRUN_CPUS_PER_TASK"] == "16"


@pytest.mark.parametrize(
    ("code", "seconds_left", "seconds", "requeued"),
    [
        (1, 100, 700, True),
        (1, 4000, 700, False),
        (0, 100, 700, False),
        (1, None, 700, False),
        (1, 100, 20, False),  # a limit of minutes: a fault would only come again and again
    ],
)
def test_a_job_that_was_stopped_for_its_time_limit_goes_back_into_the_queue(
    tmp_path: Path, code: int, seconds_left: int | None, seconds: int, requeued: bool
) -> None:
    python = stand_in(tmp_path / "python", RECORDING_PYTHON.format(python=sys.executable))
    script = write_script(tmp_path, Launch("finsent", ("finsent",), "ddp", 1, 2), python)
    end = {} if seconds_left is None else {"SLURM_JOB_END_TIME": str(int(time.time()) + seconds_left)}
    done = run_script(script, cluster(tmp_path, 1, EXIT_CODE=str(code), SECONDS=str(seconds), **end))
    assert done.returncode == code
    told = tmp_path / "records" / "scontrol"
    assert (told.read_text() if told.exists() else "") == ("requeue 4711\n" if requeued else "")


def test_a_run_of_one_process_saves_although_the_signal_ends_its_launcher(tmp_path: Path) -> None:
    python = stand_in(tmp_path / "python", SAVING_PYTHON.format(python=sys.executable))
    script = write_script(tmp_path, Launch("finsent", ("finsent",), "one_gpu"), python)
    environment = cluster(tmp_path, 1, SLURM_JOB_END_TIME=str(int(time.time()) + 100), SECONDS="700")
    with subprocess.Popen(["bash", str(script)], env=environment, stdout=subprocess.PIPE, text=True) as job:
        wait_for(tmp_path / "records" / "started")
        os.killpg(int((tmp_path / "records" / "task0").read_text()), signal.SIGTERM)  # Slurm: to the whole step
        job.communicate(timeout=30)
    assert job.returncode == 128 + signal.SIGTERM
    assert (tmp_path / "records" / "saved").exists()
    assert (tmp_path / "records" / "scontrol").read_text() == "requeue 4711\n"


def wait_for(path: Path) -> None:
    """Returns when the file is there."""
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.05)


def test_launch_writes_both_files_and_says_how_to_start_them(tmp_path: Path) -> None:
    words = (
        "finsent",
        "--demo",
        "lora_r=8",
        "--gpus",
        "2",
        "--time",
        "8:00:00",
        "--partition",
        "a100",
        "--account",
        "me",
    )
    done = run_cli("launch", *words, "--sbatch", "qos=high", "--sbatch", "mem=64G", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "wrote           launch/finsent/ddp-1x2.yaml",
        "wrote           launch/finsent/ddp-1x2.sh",
        "with Slurm      sbatch launch/finsent/ddp-1x2.sh",
        "without Slurm   accelerate launch --config_file launch/finsent/ddp-1x2.yaml "
        "-m hf_finetune finsent --demo lora_r=8",
    ]
    files = sorted(path.name for path in (tmp_path / "launch" / "finsent").iterdir())
    assert files == ["ddp-1x2.sh", "ddp-1x2.yaml"]
    script = (tmp_path / "launch" / "finsent" / "ddp-1x2.sh").read_text(encoding="utf-8")
    for line in ("--partition=a100", "--time=8:00:00", "--account=me", "--qos=high", "--mem=64G"):
        assert f"\n#SBATCH {line}\n" in script
    assert f"' {sys.executable} " in script
    assert f"\ncd {tmp_path}\n" in script


def test_the_words_of_the_run_are_passed_on_in_its_own_order(tmp_path: Path) -> None:
    (tmp_path / "my rows.jsonl").write_text("")
    (tmp_path / "my.yaml").write_text("lora_r: 4\n")
    words = ("finsent", "seed=1", "--config", "my.yaml", "--data", "my rows.jsonl", "--demo", "--nodes", "2")
    done = run_cli("launch", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == (
        "on each machine accelerate launch --config_file launch/finsent/ddp-2x1.yaml --machine_rank RANK "
        "--rdzv_backend c10d --main_process_ip FIRST_MACHINE --main_process_port 29500 "
        "-m hf_finetune finsent --demo --data 'my rows.jsonl' --config my.yaml seed=1"
    )


def test_the_run_has_every_option_that_launch_passes_on() -> None:
    from hf_finetune.cli.launch import launch
    from hf_finetune.cli.run import run

    options = {command: {p.name: p for p in command.params} for command in (run, launch)}
    shared = set(options[run]) & set(options[launch]) - {"recipe", "settings"}
    assert shared == {"demo", "data", "config"}  # not --overwrite: a job that starts again would begin again
    for name in shared:
        assert options[run][name].opts == options[launch][name].opts


def test_launch_imports_nothing_heavy(tmp_path: Path) -> None:
    done = run_cli("launch", "finsent", "--gpus", "2", cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    assert "jinja2" in imported(done.stderr)
    assert imported(done.stderr).isdisjoint({"torch", "transformers", "trl", "datasets", "peft", "accelerate"})


def test_a_second_launch_replaces_its_own_files_and_no_others(tmp_path: Path) -> None:
    run_cli("launch", "finsent", cwd=tmp_path)
    script = tmp_path / "launch" / "finsent" / "one_gpu-1x1.sh"
    assert MARK in script.read_text(encoding="utf-8")
    assert run_cli("launch", "finsent", "lora_r=8", cwd=tmp_path).returncode == 0
    assert "lora_r=8" in script.read_text(encoding="utf-8")
    script.write_text("#!/bin/bash\necho mine\n")
    (tmp_path / "launch" / "finsent" / "one_gpu-1x1.yaml").unlink()
    done = run_cli("launch", "finsent", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "error: launch/finsent/one_gpu-1x1.sh: is not a file of this command. Name another folder with --output.\n"
    )
    assert [path.name for path in script.parent.iterdir()] == [script.name]
    assert script.read_text() == "#!/bin/bash\necho mine\n"


def test_submit_hands_the_script_to_sbatch(tmp_path: Path) -> None:
    stand_in(tmp_path / "bin" / "sbatch", '#!/bin/bash\necho "$@" > told\necho Submitted batch job 12\n')
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = run_cli("launch", "finsent", "--submit", "--output", "here", cwd=tmp_path, PATH=path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "told").read_text() == "here/one_gpu-1x1.sh\n"
    assert done.stdout.splitlines()[-1] == "Submitted batch job 12"


def test_what_sbatch_does_not_take_is_told_in_one_sentence(tmp_path: Path) -> None:
    stand_in(tmp_path / "bin" / "sbatch", "#!/bin/bash\necho 'sbatch: error: invalid partition: x' >&2\nexit 1\n")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = run_cli("launch", "finsent", "--submit", "--output", "here", cwd=tmp_path, PATH=path)
    assert done.returncode == 1
    assert done.stderr == (
        "error: sbatch: does not take here/one_gpu-1x1.sh: sbatch: error: invalid partition: x. "
        "Mend the options, or ask who runs the cluster.\n"
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("finset",), 1, "recipe 'finset': is not installed. Did you mean 'finsent'?"),
        (("none.py",), 1, "none.py: there is no such recipe file"),
        (("finsent", "lora_rr=8"), 1, "no setting is called 'lora_rr'. Did you mean 'lora_r'?"),
        (("finsent", "lora_r"), 1, "'lora_r' is no setting"),
        (("finsent", "--config", "none.yaml"), 1, "none.yaml: cannot be read"),
        (("finsent", "--data", "none.csv"), 1, "none.csv: there is no such file. Check the path."),
        (("finsent", "--nodes", "0"), 2, "0 is not in the range x>=1"),
        (("finsent", "--gpus", "-1"), 2, "-1 is not in the range x>=1"),
        (("finsent", "--gpus", "many"), 2, "'many' is not a valid integer range"),
        (("finsent", "--accelerate-config", "fsdp"), 2, "'fsdp' is not one of 'one_gpu', 'ddp', 'fsdp2', 'zero3'"),
        (("finsent", "--overwrite"), 2, "No such option"),
        (
            ("finsent", "--nodes", "2", "--accelerate-config", "one_gpu"),
            1,
            "one_gpu does not fit 2 machines with 1 GPU each",
        ),
        (
            ("finsent", "--accelerate-config", "zero3"),
            1,
            "zero3 needs DeepSpeed. Install it with: pip install deepspeed",
        ),
        (("finsent", "--partition", "a b"), 1, "--partition: 'a b' is not one word"),
        (("finsent", "--time", ""), 1, "--time: '' is not one word"),
        (("finsent", "--sbatch", "nodes=4"), 1, "--sbatch: nodes is set by this command"),
        (("finsent", "--sbatch", "x\ny"), 1, "is no option of sbatch"),
        (("finsent", "--submit"), 1, "--submit: there is no sbatch on this machine"),
        (("finsent", "--output", "file/launch"), 1, "file/launch: cannot be used"),
    ],
)
def test_a_mistake_is_told_in_one_sentence_and_nothing_is_written(
    tmp_path: Path, words: Sequence[str], code: int, said: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run_cli("launch", *words, cwd=tmp_path, PATH=str(Path(sys.executable).parent))
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert code == 2 or len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_deepspeed_that_is_installed_is_taken(tmp_path: Path) -> None:
    (tmp_path / "installed" / "deepspeed").mkdir(parents=True)
    (tmp_path / "installed" / "deepspeed" / "__init__.py").touch()
    paths = f"{tmp_path / 'installed'}:{os.environ.get('PYTHONPATH', '')}"
    words = ("launch", "finsent", "--accelerate-config", "zero3", "--gpus", "2")
    done = run_cli(*words, cwd=tmp_path, PYTHONPATH=paths)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "launch" / "finsent" / "zero3-1x2.yaml").is_file()


def test_a_plain_command_quotes_its_words() -> None:
    command = plain_command(Launch("finsent", ("my recipe.py", "run_name=$X"), "ddp", 1, 2), Path("a b/c.yaml"))
    assert command == "accelerate launch --config_file 'a b/c.yaml' -m hf_finetune 'my recipe.py' 'run_name=$X'"


def free_job() -> str:
    """The id of a job whose port nobody listens on."""
    for _ in range(50):
        port = random.randrange(10_000, 30_000)
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)):
                return str(port - 10_000)
    raise AssertionError("no port is free")


@pytest.mark.slow
def test_two_machines_really_meet(tmp_path: Path) -> None:
    """Accelerate and torch's rendezvous are real; both machines are this one, and a sum stands for the training."""
    package = tmp_path / "my work" / "hf_finetune"  # found first: it is in the working directory
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import json, os, pathlib, sys, torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "total = torch.tensor([dist.get_rank() + 1])\n"
        "dist.all_reduce(total)\n"
        "facts = {'argv': sys.argv[1:], 'total': int(total), 'world': dist.get_world_size()}\n"
        "pathlib.Path(os.environ['RECORDS'], f'rank{dist.get_rank()}.json').write_text(json.dumps(facts))\n"
        "dist.destroy_process_group()\n"
    )
    launch = Launch("finsent", ("finsent", *ODD_WORDS), "ddp", 2, 1)
    script = write_script(tmp_path, launch, Path(sys.executable))
    (tmp_path / "my work" / "config.yaml").write_text(config_text(launch), encoding="utf-8")
    cpu = {
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "HOSTS": "localhost\nlocalhost",
        "SLURM_JOB_ID": free_job(),
    }
    done = run_script(script, cluster(tmp_path, 2, **cpu))
    assert done.returncode == 0, done.stderr
    assert recorded(tmp_path, 2) == [{"argv": ["finsent", *ODD_WORDS], "total": 3, "world": 2}] * 2


@pytest.mark.slow
def test_two_machines_really_train_the_demonstration(tmp_path: Path) -> None:
    """The whole way but Slurm: launch's script starts two processes, which meet over gloo, train and leave one run.

    It holds once the library takes several processes.
    """
    words = ("finsent", "--demo", "max_steps=4", "output_dir=runs/two", "--nodes", "2")
    assert run_cli("launch", *words, cwd=tmp_path).returncode == 0
    cpu = {
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "HOSTS": "localhost\nlocalhost",
        "SLURM_JOB_ID": free_job(),
    }
    script = tmp_path / "launch" / "finsent" / "ddp-2x1.sh"
    done = run_script(script, cluster(tmp_path, 2, HF_HUB_OFFLINE="1", **cpu))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs" / "two" / "report.json").is_file()
    assert (tmp_path / "runs" / "two" / "adapter" / "adapter_model.safetensors").is_file()
    assert done.stdout.count("adapter   runs/two/adapter") == 1  # one process of the two speaks
