"""Trainings and answers in processes that may take so many MiB more than they have: real allocations fail there.

`python tests/limited_memory.py CASES` runs the cases, a JSON object by name, each in processes forked from one that has
imported everything, and prints as JSON what became of each: what it said, how it failed, what came out.
"""

import gc
import json
import os
import random
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from interrupted_runs import free_port, import_everything

UNLIMITED = resource.RLIM_INFINITY, resource.RLIM_INFINITY
LABELS = ("positive", "negative", "neutral")


def main() -> None:
    """Runs the cases one after another."""
    import_everything()
    print(json.dumps({name: together(case) for name, case in json.loads(sys.argv[1]).items()}))  # noqa: T201


def together(case: dict[str, Any]) -> list[dict[str, Any]]:
    """What became of a case in each of its processes."""
    count, port = case.get("processes", 1), str(free_port())
    answers = []
    for rank in range(count):
        into, out = os.pipe()
        if os.fork() == 0:
            if count > 1:
                os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
                os.environ |= {"LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.write(out, json.dumps(run(case)).encode())
            os._exit(0)
        os.close(out)
        answers.append(into)
    found = []
    for into in answers:
        with os.fdopen(into) as answer:
            found.append(json.loads(answer.read()))
        os.wait()
    return found


def run(case: dict[str, Any]) -> dict[str, Any]:
    """What became of a case in this process."""
    from hf_finetune.errors import RecipeError
    from hf_finetune.processes import is_others_failure

    said: list[str] = []
    result: dict[str, Any] = {"said": said, "error": None}
    try:
        result |= {"train": train, "answer": answer}[case["what"]](case, said)
    except RecipeError as error:
        result["error"] = str(error)
    except RuntimeError as error:
        if not is_others_failure(error):
            raise
        result["error"] = "another process is gone"
    return result


def limit(case: dict[str, Any]) -> None:
    """Lets this process take so many MiB more than it has, if it is the one whose memory is limited."""
    if "mib" in case and int(os.environ.get("RANK", "0")) == case.get("rank", 0):
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + int(case["mib"] * 2**20)
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def before(owner: Any, name: str, number: int, act: Callable[[], None]) -> None:
    """Acts before the n-th call of a function."""
    original, calls = getattr(owner, name), 0

    def acting(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            act()
        return original(*args, **options)

    setattr(owner, name, acting)


def sentences(count: int, shortest: int, longest: int) -> list[tuple[str, str]]:
    """Questions of so many words, and their answers; the longest comes last."""
    words, chance = "profit rose fell meeting hours lasts year in the".split(), random.Random(0)
    lengths = [shortest + (longest - shortest) * n // (count - 1) for n in range(count)]
    return [(" ".join(chance.choices(words, k=k)), LABELS[n % 3]) for n, k in enumerate(lengths)]


def train(case: dict[str, Any], said: list[str]) -> dict[str, Any]:
    """A training of a few steps; its memory is limited when the longest batch is tried, or before the n-th batch."""
    from hf_finetune.files import read_json, read_jsonl, sha256
    from hf_finetune.model import adapter_config, find_base_model, load_base_model, load_tokenizer
    from hf_finetune.packed_model import PackedModel
    from hf_finetune.prepare import Encoded
    from hf_finetune.processes import join
    from hf_finetune.progress import Progress, Session
    from hf_finetune.settings import Settings
    from hf_finetune.train import train
    from hf_finetune.train.fitting import Fitting
    from hf_finetune.train.trainer import RecipeTrainer

    join()
    settings = Settings(model_name_or_path=case["base"], lora_r=4, logging_steps=1, **case["settings"])
    base, folder = find_base_model(settings), Path(case["folder"])
    tokenizer = load_tokenizer(base)
    rows, checked = (encoded(tokenizer, sentences(*sizes)) for sizes in (case["rows"], case["checked"]))
    model = load_base_model(base, settings)
    progress = Progress(Session("now"), folder, said.append)
    second_trials: list[int] = []

    def unlimit() -> None:
        second_trials.append(1)
        resource.setrlimit(resource.RLIMIT_AS, UNLIMITED)

    if "first trial" in case:
        before(PackedModel, "fault", 1, lambda: limit(case | {"mib": case["first trial"]}))
        before(PackedModel, "fault", 2, unlimit)
    elif "batch" in case:
        before(RecipeTrainer, "training_step", case["batch"], lambda: limit(case))
    else:
        before(Fitting, "prove", 1, lambda: limit(case))
    train(
        model, tokenizer, Encoded(rows, checked, list(range(1, len(rows) + 1)), {}), adapter_config(model, settings),
        settings, folder, progress, Path(case["checkpoint"]) if "checkpoint" in case else None,
    )  # fmt: skip
    log = read_jsonl(folder / "training_log.jsonl")
    last = max((folder / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return {
        "losses": [line["loss"] for line in log if "loss" in line],
        "validation": [line["eval_loss"] for line in log if "eval_loss" in line],
        "used": read_json(folder / "progress.json")["used"],
        "adapter": str(last / "adapter_model.safetensors"),
        "sha256": sha256(last / "adapter_model.safetensors"),
        "gains": progress.session.gains,
        "second trials": len(second_trials),
        "batches": [json.loads(file.read_text())["rows_at_a_time"] for file in sorted(folder.glob("*/*/log_window_*"))],
    }


def encoded(tokenizer: Any, rows: Sequence[tuple[str, str]]) -> list[Any]:
    from hf_finetune.chat import ChatFormat

    return [ChatFormat.of(tokenizer).example(*row) for row in rows]


def answer(case: dict[str, Any], said: list[str]) -> dict[str, Any]:
    """Texts and likelihoods after prompts, so many at a time."""
    from hf_finetune.chat import ChatFormat
    from hf_finetune.generate import generate_texts, log_likelihoods
    from hf_finetune.model import find_base_model, load_base_model, load_tokenizer
    from hf_finetune.packed_model import PackedModel
    from hf_finetune.progress import Progress, Session
    from hf_finetune.settings import Settings

    settings = Settings(model_name_or_path=case["base"], dtype=case.get("dtype", "auto"))
    base = find_base_model(settings)
    model, chat = load_base_model(base, settings), ChatFormat.of(load_tokenizer(base))
    progress = Progress(Session("now"), Path(case["folder"]), said.append)
    prompts = [question for question, _ in sentences(*case["rows"])]
    if case.get("longest first"):
        prompts.reverse()
    third_calls: list[int] = []  # a trial that fits makes two, without and with what is remembered
    before(PackedModel, "fault", 3, lambda: third_calls.append(1))
    limit(case)
    texts = generate_texts(model, chat, prompts, 3, case["size"], progress, "evaluate base")
    scores = log_likelihoods(model, chat, prompts, [LABELS] * len(prompts), case["size"], progress, "choose")
    used = progress.session.used
    return {"texts": texts, "scores": scores, "used": used, "second trials": len(third_calls)}


if __name__ == "__main__":
    main()
