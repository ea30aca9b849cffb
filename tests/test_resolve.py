"""The Hub's reasons for refusing, told apart, by the real client against a loopback Hub."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loopback_hub import Fault, LoopbackHub

SCRIPT = """
import json, sys
from hf_finetune.errors import RecipeError
from hf_finetune.resolve import resolve_commit
answers = []
for repo_id, revision, role in json.loads(sys.argv[1]):
    try:
        answers.append(resolve_commit(repo_id, revision, role))
    except RecipeError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        yield running


def resolve(hub: LoopbackHub, home: Path, *asked: tuple[str, str, str], **more: str) -> list[str]:
    """What resolve_commit gives or says for each, in a client process of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(asked)],
        env=inherited | hub.environment(home) | more,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    answers: list[str] = json.loads(done.stdout)
    return answers


def test_a_branch_becomes_the_commit_it_is_at(hub: LoopbackHub, tmp_path: Path) -> None:
    old = hub.add_repo("ns/model", files={"config.json": b"{}"})
    new = hub.add_repo("ns/model", files={"config.json": b"{ }"})
    assert resolve(hub, tmp_path, ("ns/model", "main", "base model"), ("ns/model", old, "base model")) == [new, old]


def test_a_typo_a_revision_and_a_bad_id_are_told_apart(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add_repo("ns/data", repo_type="dataset", files={"a.csv": b"x"})
    typo, revision, bad = resolve(
        hub,
        tmp_path,
        ("ns/dota", "main", "data set"),
        ("ns/data", "mane", "data set"),
        ("a b//c", "main", "base model"),
    )
    assert typo.startswith("data set 'ns/dota': the Hub has none of that name, or it is private.")
    assert "has no revision 'mane'" in revision
    assert "neither a folder here nor a Hub id" in bad


def test_a_gated_model_says_how_to_get_in(hub: LoopbackHub, tmp_path: Path) -> None:
    sha = hub.add_repo("ns/gated", files={"config.json": b"{}"}, gated=True)
    hub.tokens |= {"stranger-token": "stranger", "friend-token": "friend"}
    hub.granted.add(("friend", "ns/gated"))
    asked = ("ns/gated", "main", "base model")
    (anonymous,) = resolve(hub, tmp_path, asked)
    (stranger,) = resolve(hub, tmp_path, asked, HF_TOKEN="stranger-token")
    assert "is gated, and you are not logged in. Accept its terms at" in anonymous
    assert "`hf auth login`" in anonymous
    assert "is gated, and this token has no access to it" in stranger
    assert resolve(hub, tmp_path, asked, HF_TOKEN="friend-token") == [sha]


def test_a_token_nobody_holds_is_named_as_the_reason(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add_repo("ns/model", files={"config.json": b"{}"})
    (answer,) = resolve(hub, tmp_path, ("ns/model", "main", "base model"), HF_TOKEN="expired")
    assert "does not accept your token" in answer


def test_a_hub_that_is_down_is_not_called_a_typo(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add_repo("ns/model", files={"config.json": b"{}"})
    hub.faults.append(Fault(r"GET /api/models/ns/model", 503, times=99))
    (answer,) = resolve(hub, tmp_path, ("ns/model", "main", "base model"))
    assert "the Hub refused" in answer
    assert "503" in answer


def test_without_a_network_the_cache_answers_or_says_so(hub: LoopbackHub, tmp_path: Path) -> None:
    sha = hub.add_repo("ns/model", files={"config.json": b"{}"})
    download = "from huggingface_hub import snapshot_download; snapshot_download('ns/model')"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    subprocess.run(
        [sys.executable, "-c", download], env=inherited | hub.environment(tmp_path), check=True, capture_output=True
    )
    asked = (("ns/model", "main", "base model"), ("ns/other", "main", "base model"))
    offline = resolve(hub, tmp_path, *asked, HF_HUB_OFFLINE="1")
    unreachable = resolve(hub, tmp_path, *asked, HF_ENDPOINT="http://127.0.0.1:9")
    assert offline[0] == unreachable[0] == sha
    assert "HF_HUB_OFFLINE is set, and revision 'main' is not in the local cache" in offline[1]
    assert "the Hub cannot be reached" in unreachable[1]
    assert "--demo" in unreachable[1]
