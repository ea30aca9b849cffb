"""What would be pushed gives the run's figures again in a clean process; every planted fault is caught and named."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from click.testing import CliRunner
from interrupted_runs import can_mount, fill_disk, small_disk
from safetensors.torch import load_file, save_file

from conftest import make_base, run_cli, sample_rows, write_rows
from hf_finetune.cli.card import card
from hf_finetune.cli.merge import merge
from hf_finetune.errors import RecipeError
from hf_finetune.files import read_json, read_jsonl, sha256, write_json, write_jsonl
from hf_finetune.ship.finished import read_finished
from hf_finetune.ship.readable import make_readable
from hf_finetune.ship.verify import verify

pytestmark = pytest.mark.slow

Plant = Callable[[Path], None]
WORDS = ("few_shot=0", "lora_r=4", "learning_rate=0.01", "report_to=none", "num_train_epochs=4")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base of its own, and in `run` a finished run on it whose adapter was merged."""
    folder = tmp_path_factory.mktemp("verified")
    make_readable(make_base(folder / "tiny-base"), 2)  # transformers 5 writes what 4 cannot read
    write_rows(folder / "rows.jsonl", sample_rows(20))
    model = f"model_name_or_path={folder / 'tiny-base'}"
    done = run_cli("run", "finsent", "--data", "rows.jsonl", *WORDS, model, "output_dir=run", cwd=folder)
    assert done.returncode == 0, done.stderr
    done = run_cli("merge", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of the run to plant a fault in; its base lies beside it."""
    shutil.copytree(whole, tmp_path / "copy")
    folder = tmp_path / "copy" / "run"
    edit(
        folder / "run.json",
        lambda record: record["settings"]["model_name_or_path"].update(value=f"{folder.parent}/tiny-base"),
    )
    return folder


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes a JSON file's object."""
    values = read_json(path)
    change(values)
    write_json(path, values)


def change_tensors(run: Path, change: Callable[[dict[str, torch.Tensor]], None], tell: bool = True) -> None:
    """Changes an adapter's tensors; `tell`: so that its hash is that of the record."""
    file = run / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    if tell:
        edit(run / "run.json", lambda record: record["training"].pop("adapter_sha256"))


def scale(tensors: dict[str, torch.Tensor], factor: float) -> None:
    for name in tensors:
        if "lora_B" in name:
            tensors[name] *= factor


def config(**values: Any) -> Plant:
    return lambda run: edit(run / "adapter" / "adapter_config.json", lambda own: own.update(values))


def in_card(old: str, new: str) -> Plant:
    def plant(run: Path) -> None:
        card = run / "adapter" / "README.md"
        text = card.read_text()
        assert old in text
        card.write_text(text.replace(old, new))

    return plant


def tensors(change: Callable[[dict[str, torch.Tensor]], None], tell: bool = True) -> Plant:
    return lambda run: change_tensors(run, change, tell)


def drop_one(held: dict[str, torch.Tensor]) -> None:
    del held[next(iter(held))]


def rename_one(held: dict[str, torch.Tensor]) -> None:
    name = next(iter(held))
    held[name.replace("layers.0", "layers.5").replace("layers.1", "layers.5")] = held.pop(name)


def add_embeddings(held: dict[str, torch.Tensor]) -> None:
    held["base_model.model.model.embed_tokens.weight"] = torch.zeros(512, 64)


def with_nan(held: dict[str, torch.Tensor]) -> None:
    next(iter(held.values()))[0, 0] = float("nan")


def cut_off(run: Path) -> None:
    file = run / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def another_base(run: Path) -> None:
    """Other weights under the same name."""
    file = run.parent / "tiny-base" / "model.safetensors"
    held = load_file(file)
    torch.manual_seed(9)
    save_file({name: torch.randn_like(own) * 0.02 for name, own in held.items()}, file, metadata={"format": "pt"})


def another_template(run: Path) -> None:
    """The base's template has become another one since the run."""
    for path in (run.parent / "tiny-base").glob("chat_template.jinja"):
        path.write_text(path.read_text().replace("<|im_start|>", "<|endoftext|>"))


def too_many_tokens(run: Path) -> None:
    def add(own: dict[str, Any]) -> None:
        token = {"id": 600, "content": "<|new|>", "special": True}
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        own["added_tokens"] += [
            token | flags | {"id": number, "content": f"<|{number}|>"} for number in range(512, 601)
        ]

    edit(run.parent / "tiny-base" / "tokenizer.json", add)


def swapped_labels(run: Path) -> None:
    """The record has the labels in another order than the model."""
    lines = read_jsonl(run / "answers.jsonl")
    other = {"positive": "negative", "negative": "neutral", "neutral": "positive"}
    for line in lines:
        line["tuned"]["text"] = other[line["tuned"]["text"]]
    write_jsonl(run / "answers.jsonl", lines)


def file_named(name: str) -> Plant:
    def plant(run: Path) -> None:
        (run / "adapter" / name).write_bytes(b"x")

    return plant


ADAPTER_FAULTS: dict[str, tuple[Plant, str]] = {
    "arguments as a pickle": (file_named("training_args.bin"), r"training_args.bin: is no part of what is pushed"),
    "an optimizer": (file_named("optimizer.pt"), r"optimizer.pt: is no part"),
    "a token": (in_card("## Data", "hf_" + "a1B2" * 9), r"README.md: holds an access token"),
    "a path in the config": (
        config(auto_mapping="/home/me/x"),
        r"adapter_config.json: names /home/me/x, a path of this",
    ),
    "no snippet": (in_card("```python", "```"), r"README.md: has no Python snippet"),
    "no card": (lambda run: (run / "adapter" / "README.md").unlink(), r"README.md: has no Python snippet"),
    "a base that is a path": (
        config(base_model_name_or_path="/opt/models/tiny-base"),
        r"names its base by the path '/opt/models/tiny-base'",
    ),
    "another base's name": (
        config(base_model_name_or_path="ns/other"),
        r"names the base 'ns/other' at None, not 'tiny-",
    ),
    "no task type": (config(task_type=None), r"task_type is None"),
    "values that are no numbers": (tensors(with_nan), r"holds values that are no numbers"),
    "nothing trained": (tensors(lambda held: scale(held, 0)), r"changes nothing: all of lora_B is zero"),
    "embeddings by accident": (
        tensors(add_embeddings),
        r"holds [\d,]+ values, of which [\d,]+ were trained; .*embed_tokens.weight and the like",
    ),
    "a file cut off": (cut_off, r"adapter_model.safetensors: cannot be read .*from its checkpoint"),
    "other weights than evaluated": (
        tensors(lambda held: scale(held, 2), tell=False),
        r"is not the file that was evaluated. Remove \S+/adapter and start the run's command again",
    ),
    "a config that is no object": (lambda run: write_json(run / "adapter/adapter_config.json", []), r"is damaged"),
    "another rank": (config(r=8), r"adapter_config.json: r is 8, and was trained as 4. Write that"),
    "other weights, and no hash": (tensors(lambda held: scale(held, 3)), r"gold answers? of \d+ cost another loss"),
    "a tensor missing": (tensors(drop_one), r"it lacks 1 tensor that PEFT looks for, such as base_model"),
    "a tensor of no layer": (tensors(rename_one), r"1 tensor, such as \S+layers.5\S+, fit no layer"),
    "another scale": (config(alpha_pattern={".*": 400}), r"cost another loss than the run measured"),
    "an adapter turned off": (
        config(alpha_pattern={".*": 0}),
        r"the adapter changes nothing: the base alone gives the same",
    ),
    "an adapter that is not loaded": (
        in_card("model = PeftModel.from_pretrained(model, adapter)", ""),
        r"the snippet's model has no adapter",
    ),
    "a snippet that fails": (in_card("max_new_tokens=", "max_tokens="), r"the card's snippet fails: .*max_tokens"),
    "another base under the name": (another_base, r"cost another loss than the run measured"),
    "another chat template": (another_template, r"chat template is another one than in training"),
    "tokens without embeddings": (too_many_tokens, r"tokenizer has \d+ tokens, the model has embeddings for 512"),
    "labels in another order": (
        swapped_labels,
        r"\d answers of \d that the run marked right are wrong, or the reverse",
    ),
}


def adapter_file(name: str, text: bytes | None) -> Plant:
    """Another file, or none, in the adapter's folder."""

    def plant(run: Path) -> None:
        (run / "adapter" / name).unlink()
        if text is not None:
            (run / "adapter" / name).write_bytes(text)

    return plant


UNMERGEABLE: dict[str, tuple[Plant, str]] = {
    "no weights": (adapter_file("adapter_model.safetensors", None), r"adapter_model.safetensors: is missing. Remove"),
    "empty weights": (adapter_file("adapter_model.safetensors", b""), r"adapter_model.safetensors: cannot be read"),
    "weights cut off": (cut_off, r"adapter_model.safetensors: cannot be read"),
    "other weights": (tensors(lambda held: scale(held, 2), tell=False), r"is not the file that was evaluated"),
    "no config": (adapter_file("adapter_config.json", None), r"adapter_config.json: is missing. Remove"),
    "a config cut off": (adapter_file("adapter_config.json", b"{"), r"adapter_config.json: is damaged. Remove"),
    "a config that is no object": (adapter_file("adapter_config.json", b"[]"), r"adapter_config.json: is damaged"),
    "another rank": (config(r=8), r"adapter_config.json: r is 8, and was trained as 4. Write that"),
    "another base under the name": (
        another_base,
        r"base model 'tiny-base': model.safetensors in its folder is not the",
    ),
    "another chat template": (another_template, r"base model 'tiny-base': its chat template is another one than in"),
}


@pytest.mark.parametrize("fault", UNMERGEABLE)
def test_what_was_not_measured_is_not_merged(run: Path, fault: str) -> None:
    plant, message = UNMERGEABLE[fault]
    plant(run)
    before = in_folder(run / "merged")
    with pytest.raises(RecipeError, match=message):
        merged_again(run)
    assert in_folder(run / "merged") == before


def merged_again(run: Path, *words: str) -> str:
    """What `hf-finetune merge` says."""
    done = CliRunner().invoke(merge, [str(run), *words], catch_exceptions=False)
    return done.output


def in_folder(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_adapter_that_was_spoiled_is_taken_from_its_checkpoint_again(run: Path) -> None:
    file = run / "adapter" / "adapter_model.safetensors"
    whole = file.read_bytes()
    cut_off(run)
    shutil.rmtree(run / "adapter")  # as the message says
    base = f"model_name_or_path={run.parent / 'tiny-base'}"
    done = run_cli("run", "finsent", "--data", "rows.jsonl", *WORDS, base, "output_dir=run", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    assert file.read_bytes() == whole


def test_what_was_removed_or_damaged_is_made_again_by_the_runs_command(run: Path) -> None:
    names = ("data.json", "report.json", "answers.jsonl", "splits/test.jsonl")
    before = {name: (run / name).read_bytes() for name in names[2:]}
    for name in names:
        (run / name).unlink()
    (run / "data.json").write_text("{")
    base = f"model_name_or_path={run.parent / 'tiny-base'}"
    words = ("run", "finsent", "--data", "rows.jsonl", *WORDS, base, "output_dir=run")
    (run / "report.html").unlink()
    done = run_cli(*words, cwd=run.parent)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "run/data.json: cannot be read" in done.stderr
    (run / "data.json").unlink()  # as the message says
    done = run_cli(*words, cwd=run.parent)
    assert done.returncode == 0, done.stderr
    assert {name: (run / name).read_bytes() for name in before} == before
    assert "resume    goes on" in done.stdout
    CliRunner().invoke(card, [str(run)], catch_exceptions=False)


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount a small disk")
def test_a_full_disk_is_told(run: Path) -> None:
    small = run.parent / "small"
    small.mkdir()
    with small_disk(small, "disk"):
        shutil.copytree(run, small / "run", ignore=shutil.ignore_patterns("checkpoints"))
        fill_disk(small / "filler")
        os.truncate(small / "filler", (small / "filler").stat().st_size - 2**17)  # room for texts, not for weights
        done = run_cli("merge", str(small / "run"), cwd=run.parent)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)
        assert "No space left on device" in done.stderr
        assert not list((small / "run").glob(".merged*"))


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("command", "moment"), [("merge", "compare "), ("verify", "verify ")])
def test_a_command_that_is_interrupted_leaves_what_was_there(
    run: Path, command: str, moment: str, kind: signal.Signals
) -> None:
    (run / "verified.json").write_text("{}")
    before = sorted(path.relative_to(run) for path in run.rglob("*"))
    temporary = run.parent / "temporary"
    temporary.mkdir()
    start = "from hf_finetune.cli import main; main()"
    begun = subprocess.Popen(
        [sys.executable, "-u", "-c", start, command, str(run)], text=True, env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert begun.stdout is not None
    assert any(line.startswith(moment) for line in begun.stdout)
    children = psutil.Process(begun.pid).children()
    while command == "verify" and not children and begun.poll() is None:
        time.sleep(0.01)
        children = psutil.Process(begun.pid).children()
    assert bool(children) == (command == "verify")
    begun.send_signal(kind)
    _, errors = begun.communicate(timeout=60)
    assert begun.returncode == 128 + kind
    assert errors == f"interrupted by {kind.name}: the same command begins again.\n"
    assert not any(child.is_running() for child in children)
    assert list(temporary.iterdir()) == []
    assert sorted(path.relative_to(run) for path in run.rglob("*")) == before


def test_a_run_does_not_go_on_with_another_base(run: Path) -> None:
    (run / "report.html").unlink()
    another_base(run)
    base = f"model_name_or_path={run.parent / 'tiny-base'}"
    done = run_cli("run", "finsent", "--data", "rows.jsonl", *WORDS, base, "output_dir=run", cwd=run.parent)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "model.safetensors in its folder is not the file that the run was begun with" in done.stderr


def in_merged(name: str, change: Callable[[dict[str, Any]], Any]) -> Plant:
    return lambda run: edit(run / "merged" / name, change)


def without(pattern: str) -> Plant:
    def plant(run: Path) -> None:
        for path in (run / "merged").glob(pattern):
            path.unlink()

    return plant


def drop_rope(own: dict[str, Any]) -> None:
    del own["rope_theta"]


def weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], tell: bool = True) -> Plant:
    """Other merged weights; `tell`: with the hash that the report knows."""

    def plant(run: Path) -> None:
        file = run / "merged" / "model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})
        if tell:
            edit(run / "report.json", lambda report: report["merged"]["files"].update({file.name: sha256(file)}))

    return plant


def the_base_itself(run: Path) -> None:
    """What a merge that changes nothing leaves: the base's weights."""
    base = load_file(run.parent / "tiny-base" / "model.safetensors")
    weights(lambda held: {name: own.bfloat16() for name, own in base.items()})(run)


def without_head(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What is left of a head of its own where a tied one was taken for granted."""
    return {name: own for name, own in held.items() if name != "lm_head.weight"}


def cut(path: Path) -> None:
    path.write_text(path.read_text()[:-5])


def silent_template(run: Path) -> None:
    (run / "merged" / "chat_template.jinja").write_text("{{ messages[0].content }}")


def checkpoint_beside(run: Path) -> None:
    shutil.copytree(run / "adapter", run / "merged" / "checkpoint-8")


MERGED_FAULTS: dict[str, tuple[Plant, str]] = {
    "still called quantised": (
        in_merged("config.json", lambda own: own.update(quantization_config={"quant_method": "bitsandbytes"})),
        r"config.json: says that the weights are quantised, and they are not",
    ),
    "another dtype": (
        in_merged("config.json", lambda own: own.update(dtype="float16")),
        r"dtype float16, merged as bfl",
    ),
    "no rope_theta": (in_merged("config.json", drop_rope), r"has no rope_theta, so transformers 4 takes 10,000"),
    "the chat template lost": (without("chat_template.jinja"), r"chat_template.jinja: is missing, so questions"),
    "the end of answers lost": (
        in_merged("generation_config.json", lambda own: own.update(eos_token_id=0)),
        r"does not stop at token 2",
    ),
    "no tokenizer's config": (
        without("tokenizer_config.json"),
        r"tokenizer_config.json: is missing, so nobody can ask",
    ),
    "damaged JSON": (lambda run: cut(run / "merged" / "generation_config.json"), r"generation_config.json: is damaged"),
    "weights of which nothing is known": (
        lambda run: edit(run / "report.json", lambda report: report.update(merged={})),
        r"dtype bfloat16, merged as None",
    ),
    "no tokenizer": (without("tokenizer*"), r"tokenizer.json: is missing, so nobody can ask the model"),
    "a tokenizer of version 5 alone": (
        in_merged("tokenizer_config.json", lambda own: own.update(tokenizer_class="TokenizersBackend")),
        r"names the class TokenizersBackend, which transformers 4 lacks",
    ),
    "weights missing": (
        without("model.safetensors"),
        r"model.safetensors: is missing or not the file that was compared",
    ),
    "weights changed since": (
        weights(lambda held: {name: own * 1.01 for name, own in held.items()}, tell=False),
        r"not the file that was comp",
    ),
    "a merge that did nothing": (the_base_itself, r"The weights are the base's: nothing was merged"),
    "a head lost": (weights(without_head), r"cost another loss than the run measured|snippet fails"),
    "another tokenizer's template": (silent_template, r"become other tokens than in training"),
    "a checkpoint beside it": (checkpoint_beside, r"is no part of what is"),
}


@pytest.mark.parametrize("fault", MERGED_FAULTS)
def test_a_fault_planted_in_merged_weights_is_caught_and_named(run: Path, fault: str) -> None:
    plant, message = MERGED_FAULTS[fault]
    plant(run)
    with pytest.raises(RecipeError, match=message):
        verify(read_finished(run), 8, say=print)


@pytest.mark.parametrize("fault", ADAPTER_FAULTS)
def test_a_planted_fault_is_caught_and_named(run: Path, fault: str) -> None:
    plant, message = ADAPTER_FAULTS[fault]
    (run / "verified.json").write_text("{}")
    plant(run)
    with pytest.raises(RecipeError, match=message):
        verify(read_finished(run), 8, say=print)
    assert not (run / "verified.json").exists()


def test_after_a_verify_that_failed_no_card_says_that_it_was_executed(run: Path) -> None:
    done = run_cli("verify", str(run), "--rows", "2", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    card = run / "adapter" / "README.md"
    assert "`hf-finetune verify` executed this" in card.read_text()
    without("chat_template.jinja")(run)
    done = run_cli("verify", str(run), "--rows", "2", cwd=run.parent)
    assert done.returncode == 1
    assert "verify    " not in done.stdout  # nothing was loaded for it
    assert "executed this" not in card.read_text()


def test_a_good_run_is_verified_and_its_card_tells_that(run: Path) -> None:
    done = run_cli("verify", str(run), cwd=run.parent)
    assert done.returncode == 0, done.stderr
    gold = read_jsonl(run / "answers.jsonl")[0]["gold"]
    for part in ("adapter", "merged"):
        record = read_json(run / "verified.json")[part]
        assert record["rows"] == len(read_jsonl(run / "splits" / "test.jsonl"))
        assert abs(record["reproduced"] - record["measured"]) < 0.2
        assert record["rows"] - 1 <= record["same_answers"] <= record["rows"]
        card = (run / part / "README.md").read_text()
        assert f"{record['snippet']}\n```\n" in card
        assert "with the placeholder for a question" in card  # the rows are the user's own
        assert "It printed" not in card
        assert (record["gold"], record["is_right"]) == (gold, record["answer"].strip() == gold)
        assert "has not been executed yet; `hf-finetune verify`" not in card.partition("vLLM")[0]


@pytest.mark.skipif("HF_FINETUNE_TRANSFORMERS_4" not in os.environ, reason="no interpreter with transformers 4 named")
def test_transformers_4_and_an_older_peft_give_the_figures_again(run: Path) -> None:
    told: list[str] = []
    verify(read_finished(run), 8, os.environ["HF_FINETUNE_TRANSFORMERS_4"], told.append)
    assert sum("transformers 4." in line and "peft 0.17." in line for line in told) == 2
    assert not (run / "verified.json").exists()


def test_an_interpreter_that_cannot_be_started_is_told(run: Path) -> None:
    with pytest.raises(RecipeError, match=r"--python /nowhere/python: cannot be started"):
        verify(read_finished(run), 8, "/nowhere/python", say=print)


def test_answers_that_are_not_all_there_are_told(run: Path) -> None:
    write_jsonl(run / "answers.jsonl", read_jsonl(run / "answers.jsonl")[1:])
    with pytest.raises(RecipeError, match=r"has \d+ answers to \d+ test rows. Remove answers.jsonl and"):
        read_finished(run)


def test_the_interpreter_may_be_named_from_here(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    told: list[str] = []
    verify(read_finished(run), 2, os.path.relpath(sys.executable), told.append)
    assert len(told) == 4


def test_a_run_that_is_not_finished_is_refused(run: Path) -> None:
    edit(run / "run.json", lambda record: record.update(finished=""))
    with pytest.raises(RecipeError, match=r"the run is not finished. Start its command again"):
        read_finished(run)


def test_what_is_not_the_runs_is_told_in_one_sentence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r"was made with the recipe 'finsent', and text2sql is 'text2sql'"):
        read_finished(run, "text2sql")
    rows = (run / "splits" / "test.jsonl").read_text()
    (run / "splits" / "test.jsonl").write_text("")
    with pytest.raises(RecipeError, match=r"run/splits/test.jsonl: cannot be read .*start the run's command again"):
        read_finished(run)
    (run / "splits" / "test.jsonl").write_text(rows)
    edit(run / "run.json", lambda record: record["settings"]["model_name_or_path"].update(value="tiny-base"))
    monkeypatch.chdir(run)
    with pytest.raises(RecipeError, match=r"there is no /\S+/run/tiny-base. Start this command in the folder where"):
        read_finished(run).base()
    monkeypatch.chdir(run.parent)
    assert read_finished(run).base().name == "tiny-base"
    (run.parent / "tiny-base" / "tokenizer.json").unlink()
    with pytest.raises(RecipeError, match=r"base model 'tiny-base': the folder has no tokenizer.json"):
        read_finished(run).base()


def test_the_users_own_files_in_merged_are_not_dropped(run: Path) -> None:
    (run / "merged" / "notes.txt").write_text("mine")
    with pytest.raises(RecipeError, match=r"merged: holds notes.txt, which merging again would remove. Move that"):
        merged_again(run)
    assert (run / "merged" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "#!/bin/sh\nexit 0\n",
            r"own: ended without loading \S+/adapter \(exit code 0\). If it is a Python with torch",
        ),
        ("#!/bin/sh\necho no such option >&2; exit 2\n", r"own: ended without loading \S+ \(no such option\)"),
        (
            f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n',
            r"own: lacks what the card's snippet needs \(ModuleNotFound",
        ),
    ],
)
def test_an_interpreter_that_cannot_load_it_is_named(run: Path, text: str, message: str) -> None:
    (run.parent / "own").write_text(text)
    (run.parent / "own").chmod(0o755)
    with pytest.raises(RecipeError, match=message):
        verify(read_finished(run), 2, str(run.parent / "own"), say=print)


def test_a_recipe_that_has_changed_is_refused(run: Path) -> None:
    edit(run / "run.json", lambda record: record["recipe"].update(sha256="0" * 64))
    with pytest.raises(
        RecipeError, match=r"its recipe 'finsent' has been changed since. Name it as it was with --recipe"
    ):
        read_finished(run)
