"""A finished run on the Hub: verified before, one commit, loaded afterwards as anybody loads it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import make_base, sample_rows, write_rows
from hf_finetune.files import read_json
from loopback_hub import Fault, LoopbackHub

pytestmark = pytest.mark.slow

SECRET = "hf_" + "x7Q9" * 8
WORDS = ("few_shot=0", "lora_r=4", "learning_rate=0.01", "report_to=none", "num_train_epochs=4")


class World(NamedTuple):
    """A Hub with a base model, and a folder with a run that was trained on it."""

    hub: LoopbackHub
    cwd: Path

    def run(self, *words: str, token: str | None = SECRET, **more: str) -> "subprocess.CompletedProcess[str]":
        """A finished process of `hf-finetune WORDS`."""
        return self.python("-c", "from hf_finetune.cli import main; main()", *words, token=token, **more)

    def python(self, *words: str, token: str | None = None, **more: str) -> "subprocess.CompletedProcess[str]":
        """A finished process of `python WORDS`."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        environment = inherited | self.hub.environment(self.cwd / "home", token) | more
        return subprocess.run(
            [sys.executable, *words], cwd=self.cwd, env=environment, capture_output=True, text=True, check=False,
            timeout=900,
        )  # fmt: skip

    def titles(self, name: str, revision: str = "main") -> list[str]:
        """The commits of a repo, newest first."""
        repo = self.hub.repos["model", name]
        return [commit.title for commit in repo.log(repo.sha(revision))]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A trained and merged run of a base that lies on the Hub."""
    cwd = tmp_path_factory.mktemp("push")
    with LoopbackHub() as hub:
        hub.tokens = {SECRET: "acme"}
        hub.add_repo("acme/base", make_base(cwd / "made"), lfs=True)
        world = World(hub, cwd)
        rows = write_rows(cwd / "rows.jsonl", sample_rows(40))
        words = ("finsent", "--data", str(rows), "model_name_or_path=acme/base", "output_dir=run", *WORDS)
        for command in (("run", *words), ("merge", "run", "--dtype", "float32"), ("card", "run", "--show-rows")):
            done = world.run(*command)
            assert done.returncode == 0, done.stderr
        yield world


ADAPTER = """
import json, sys
sys.modules["hf_finetune"] = None
import torch
from transformers import AutoModelForCausalLM
from peft import AutoPeftModelForCausalLM, PeftModel
ids = torch.arange(20)[None]
base = AutoModelForCausalLM.from_pretrained("acme/base", dtype=torch.float32)
plain = base(ids).logits
adapted = PeftModel.from_pretrained(base, "acme/finsent")(ids).logits
auto = AutoPeftModelForCausalLM.from_pretrained("acme/finsent", dtype=torch.float32)(ids).logits
merged = AutoModelForCausalLM.from_pretrained("acme/finsent-merged", dtype=torch.float32)(ids).logits
far = lambda one, other: float((one - other).abs().max())
print(json.dumps([far(adapted, auto), far(adapted, plain), far(merged, adapted)]))
"""


def test_adapter_and_merged_weights_are_pushed_and_loaded_as_anybody_loads_them(world: World) -> None:
    done = world.run("push", "run", "acme/finsent", "--merged", "--tag", "v1")
    assert done.returncode == 0, done.stderr
    first = done.stdout
    assert first.index("verify    run/adapter") < first.index("push      adapter to acme/finsent, 5 files")
    for name in ("acme/finsent", "acme/finsent-merged"):
        repo = world.hub.repos["model", name]
        assert len(repo.history) == 2  # the Hub's own when it was made, and ours
        assert repo.history[-1].title.startswith("Publish ")
        assert repo.tags == {"v1": repo.branches["main"]}
        folder = world.cwd / "run" / ("merged" if name.endswith("merged") else "adapter")
        sent = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        assert set(repo.commits[repo.branches["main"]]) - {".gitattributes"} == set(sent)
        assert all(world.hub.read(name, path) == file.read_bytes() for path, file in sent.items())
    loaded = world.python("-c", ADAPTER)
    assert loaded.returncode == 0, loaded.stderr
    auto, plain, merged = json.loads(loaded.stdout.splitlines()[-1])
    assert auto == 0.0
    assert plain > 0.01
    assert merged < plain / 2  # the rest is what four bits make of the base
    again = world.run("push", "run", "--merged", "--tag", "v1")
    assert again.returncode == 0, again.stderr
    assert "verify" not in again.stdout
    assert again.stdout.count("is there") == 2
    assert len(world.hub.repos["model", "acme/finsent"].history) == 2


def test_the_cards_name_each_other_and_their_snippets_the_repos(world: World) -> None:
    cards = {name: world.hub.read(name, "README.md").decode() for name in ("acme/finsent", "acme/finsent-merged")}
    adapter, merged = cards.values()
    assert "Merged into its base it is [acme/finsent-merged](https://huggingface.co/acme/finsent-merged)." in adapter
    assert "that adapter on its own is [acme/finsent](https://huggingface.co/acme/finsent)." in merged
    assert 'adapter = "acme/finsent"\n' in adapter
    assert 'merged = "acme/finsent-merged"\n' in merged
    for card, title in ((adapter, "### The adapter"), (merged, "### The merged weights")):
        snippet = card.split(title)[1].split("```python\n")[1].split("```")[0]
        printed = card.split(title)[1].split("```text\n")[1].split("\n```")[0]
        done = world.python("-c", snippet)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == printed


def test_a_dry_run_tells_what_it_would_do_and_does_nothing(world: World) -> None:
    before = {key: len(repo.history) for key, repo in world.hub.repos.items()}
    files = {path: path.read_bytes() for path in (world.cwd / "run").rglob("*") if path.is_file()}
    done = world.run("push", "run", "acme/another", "--merged", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "verify" not in done.stdout
    assert "would push merged to acme/another-merged" in done.stdout
    assert {path: path.read_bytes() for path in (world.cwd / "run").rglob("*") if path.is_file()} == files
    done = world.run("push", "run", "acme/finsent", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "would push adapter to acme/finsent, 5 files" in done.stdout
    assert "unchanged adapter_model.safetensors" in done.stdout
    assert "unchanged README.md" in done.stdout  # it names the merged weights still
    assert {key: len(repo.history) for key, repo in world.hub.repos.items()} == before


def test_files_that_were_changed_after_they_were_verified_are_verified_again(world: World) -> None:
    template = world.cwd / "run" / "merged" / "chat_template.jinja"
    before = template.read_text()
    template.write_text("{{ messages[0].content }}")
    done = world.run("push", "run", "acme/finsent", "--merged")
    template.write_text(before)
    assert done.returncode == 1
    assert "questions become other tokens than in training" in done.stderr
    assert len(world.hub.repos["model", "acme/finsent-merged"].history) == 2


def test_a_pull_request_of_the_same_files_is_opened_once(world: World) -> None:
    world.hub.add_repo("acme/reviewed", {"README.md": b"old"})
    for expected in ("pushed", "is there"):
        done = world.run("push", "run", "acme/reviewed", "--create-pr")
        assert done.returncode == 0, done.stderr
        assert f"{expected:9} {world.hub.endpoint}/acme/reviewed/discussions/1" in done.stdout
    repo = world.hub.repos["model", "acme/reviewed"]
    assert len(repo.pulls) == 1
    assert world.hub.read("acme/reviewed", "README.md") == b"old"
    assert b"acme/reviewed" in world.hub.read("acme/reviewed", "README.md", "refs/pr/1")


def test_a_private_gated_repo_of_an_organisation_gets_a_branch(world: World) -> None:
    world.hub.organisations["bank"] = {"acme": "write"}
    done = world.run("push", "run", "bank/finsent", "--private", "--gated")
    assert done.returncode == 0, done.stderr
    repo = world.hub.repos["model", "bank/finsent"]
    assert (repo.private, repo.gated) == (True, "auto")
    head = repo.branches["main"]
    done = world.run("push", "run", "bank/finsent", "--private", "--revision", "next")
    assert done.returncode == 0, done.stderr
    assert set(repo.branches) == {"main", "next"}
    assert repo.branches["main"] == head


def test_what_is_there_of_another_push_goes_and_the_rest_stays(world: World) -> None:
    old = {"training_args.bin": b"pickle", "scaler.pt": b"pickle", "tokenizer.json": b"{}", "chat_template.jinja": b"x"}
    old |= {"NOTES.md": b"mine", "README.md": b"old", "LICENSE": b"theirs"}
    world.hub.add_repo("acme/older", old)
    done = world.run("push", "run", "acme/older")
    assert done.returncode == 0, done.stderr
    repo = world.hub.repos["model", "acme/older"]
    held = set(repo.commits[repo.branches["main"]])
    assert {"NOTES.md", "LICENSE", "adapter_model.safetensors"} <= held
    assert not held & {"training_args.bin", "scaler.pt", "tokenizer.json", "chat_template.jinja"}


def test_a_bundle_is_pushed_from_a_machine_that_has_nothing_else(world: World) -> None:
    done = world.run("push", "run", "acme/carried", "--merged", "--bundle", "bundle", token=None, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert "hf-finetune push bundle" in done.stdout
    for words, message in (
        (("bundle", "--bundle", "other"), "bundle: was written by --bundle already."),
        (("run", "acme/carried", "--bundle", "rows.jsonl"), "rows.jsonl: is there already and holds something else."),
        (("run", "acme/ca rried", "--bundle", "other"), "is no name of a repo. Write it as owner/name."),
        (("run", "acme/" + "x" * 90, "--merged", "--bundle", "other"), "is no name of a repo."),
    ):
        done = world.run("push", *words)
        assert (done.returncode, message in done.stderr, "verify" in done.stdout) == (1, True, False), done.stderr
    assert not (world.cwd / "other").exists()
    assert ("model", "acme/carried") not in world.hub.repos
    done = world.run("push", "run", "acme/carried", "--private", "--bundle", "private")
    assert done.returncode == 2
    assert "say how it is pushed when that is pushed" in done.stderr
    (world.cwd / "run").rename(world.cwd / "elsewhere")
    try:
        done = world.run("push", "bundle", PYTHONPROFILEIMPORTTIME="1")
    finally:
        (world.cwd / "elsewhere").rename(world.cwd / "run")
    assert done.returncode == 0, done.stderr
    assert "| torch\n" not in done.stderr
    held = world.hub.repos["model", "acme/carried-merged"]
    assert "model.safetensors" in held.commits[held.branches["main"]]
    file = world.cwd / "bundle" / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    done = world.run("push", "bundle")
    assert done.returncode == 1
    assert "adapter_model.safetensors: is missing, or not the file that was verified" in done.stderr


def test_a_run_pushes_itself_at_its_end_and_again_when_that_failed(world: World) -> None:
    rows = str(world.cwd / "rows.jsonl")
    words = ("run", "finsent", "--data", rows, "model_name_or_path=acme/base", "output_dir=pushed", *WORDS)
    world.hub.faults.append(Fault("POST /api/models/acme/own/commit", 403))
    done = world.run(*words, "--push-to-hub", "acme/own", "hub_private_repo=true")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "The run is whole; only the push is left: hf-finetune push pushed acme/own --private" in done.stderr
    assert read_json(world.cwd / "pushed" / "run.json")["finished"]
    done = world.run(*words, "--push-to-hub", "acme/own", "hub_private_repo=true")
    assert done.returncode == 0, done.stderr
    assert "is finished, there is nothing to do" in done.stdout
    assert world.hub.repos["model", "acme/own"].private
    assert (
        "adapter_model.safetensors"
        in world.hub.repos["model", "acme/own"].commits[world.hub.repos["model", "acme/own"].branches["main"]]
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--push-to-hub", "other/own"), "'acme' cannot create a repo of 'other'"),
        (("--push-to-hub", "own"), "is no name of a repo"),
        (("--push-to-hub", "acme/base"), "the repo holds a whole model (config.json)"),
    ],
)
def test_what_cannot_be_pushed_is_told_before_the_training(world: World, words: tuple[str, ...], message: str) -> None:
    done = world.run("run", "finsent", "--data", str(world.cwd / "rows.jsonl"), "model_name_or_path=acme/base",
                     "output_dir=never", *WORDS, *words)  # fmt: skip
    assert done.returncode == 1
    assert message in done.stderr
    assert not (world.cwd / "never").exists()


def test_without_a_token_nothing_is_trained_that_cannot_be_pushed(world: World) -> None:
    done = world.run("run", "finsent", "--data", str(world.cwd / "rows.jsonl"), "model_name_or_path=acme/base",
                     "output_dir=never", *WORDS, "--push-to-hub", "acme/own", token=None)  # fmt: skip
    assert done.returncode == 1
    assert "there is no token. Log in with `hf auth login`, or set HF_TOKEN." in done.stderr
    assert not (world.cwd / "never").exists()


def test_a_local_base_is_nobody_elses(world: World) -> None:
    done = world.run("run", "finsent", "--data", str(world.cwd / "rows.jsonl"), "model_name_or_path=made",
                     "output_dir=never", *WORDS, "--push-to-hub", "acme/own")  # fmt: skip
    assert done.returncode == 1
    assert "is a folder of this machine, so nobody else could load an adapter for it" in done.stderr


def test_no_token_is_in_anything_that_a_run_and_its_pushes_leave(world: World) -> None:
    world.hub.faults.append(Fault("POST /api/models/acme/finsent/commit", 403, headers={"X-Error-Message": SECRET}))
    (world.cwd / "run" / "adapter" / "comparison.svg").write_text("<svg/>")
    done = world.run("push", "run", "acme/finsent")
    assert done.returncode == 1
    assert SECRET not in done.stdout + done.stderr
    kept = [path for path in world.cwd.rglob("*") if path.is_file()]
    assert len(kept) > 40
    assert not [path for path in kept if SECRET.encode() in path.read_bytes()]
    for repo in world.hub.repos.values():
        for tree in repo.commits.values():
            assert not [path for path, data in tree.items() if isinstance(data, bytes) and SECRET.encode() in data]
