"""A push against a Hub that fails: at every request, in every way, each time tried again afterwards."""

import base64
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hf_finetune.errors import RecipeError
from hf_finetune.hub.rights import Target, check_names
from loopback_hub import Fault, LfsFile, LoopbackHub, Repo, Token

SECRET = "hf_" + "x7Q9" * 8
NAME = "acme/finsent"
PLAIN = Target(NAME)
CARD = "---\nlicense: apache-2.0\nbase_model: acme/base\n---\n# {} model\n"
OLD = {
    "README.md": CARD.format("The older").encode(),
    "adapter_config.json": b'{"r": 4}',
    "adapter_model.safetensors": bytes(range(256)) * 300,
    "training_args.bin": b"pickle",
    "figures/loss.png": b"PNG older",
    "NOTES.md": b"mine",
}
NEW = {
    "README.md": CARD.format("The new").encode(),
    "adapter_config.json": b'{"r": 8}',
    "adapter_model.safetensors": bytes(range(255, -1, -1)) * 400,
    "figures/loss.png": b"PNG new",
}
AFTER = NEW | {"NOTES.md": b"mine"}

CLIENT = """
import json, sys, time
from pathlib import Path

from hf_finetune.errors import RecipeError
from hf_finetune.hub import client
from hf_finetune.hub.publish import LocalFile, publish
from hf_finetune.hub.rights import Target

folder, target, seconds, waits = json.loads(sys.argv[1])
if waits:  # a clock on which nobody waits long; it tells how long they would have
    sleep = time.sleep
    time.sleep = lambda asked: (print("waits", asked), sleep(min(asked, 0.02)))
client.ANSWER_SECONDS = seconds
files = {path.relative_to(folder).as_posix(): LocalFile(path) for path in Path(folder).rglob("*") if path.is_file()}
try:
    done = publish(files, Target(**target), "Loaded before it was pushed.")
except RecipeError as error:
    sys.exit(f"error: {error}")
print(json.dumps([done.url, done.is_new]))
"""


@dataclass
class Case:
    """A request of a push, what befalls it, and what the first try says; nothing where it succeeds all the same."""

    request: str
    kind: str
    faults: list[Fault]
    says: str = ""
    target: Mapping[str, Any] = field(default_factory=dict)
    fresh: bool = False
    chunk_size: int | None = None
    foreign: bool = False
    """Whether somebody else commits in between."""

    def __str__(self) -> str:
        return f"{self.request}-{self.kind}".replace(" ", "-")


def revoke(hub: LoopbackHub) -> None:
    """The token ends."""
    hub.tokens.clear()


def intrude(hub: LoopbackHub) -> None:
    """Somebody else commits."""
    hub.repos["model", NAME].commit({"THEIRS.md": b"theirs"}, title="Theirs", author="eve")


API = f"/api/models/{NAME}"
LFS = f"/{NAME}.git/info/lfs/objects"
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {  # its pattern, and what makes a push send it
    "whoami": ("GET /api/whoami-v2", {}),
    "model info": (f"GET {API}$", {}),
    "auth check": (f"GET {API}/auth-check", {}),
    "create": ("POST /api/repos/create", {"fresh": True, "target": {"private": True}}),
    "settings": (f"PUT {API}/settings", {"target": {"gated": True}}),
    "refs": (f"GET {API}/refs", {}),
    "tree": (f"GET {API}/tree/", {}),
    "validate-yaml": ("POST /api/validate-yaml", {}),
    "preupload": (f"POST {API}/preupload/", {}),
    "LFS batch": (f"POST {LFS}/batch", {}),
    "PUT": ("PUT /objects/", {}),
    "verify": (f"POST {LFS}/verify", {}),
    "part": ("PUT /objects/.*/parts/2", {"chunk_size": 40_000}),
    "completion": ("POST /api/complete_multipart", {"chunk_size": 40_000}),
    "commit": (f"POST {API}/commit/main", {}),
    "discussions": (f"GET {API}/discussions", {"target": {"as_pull_request": True}}),
    "pull request": (f"POST {API}/commit/main", {"target": {"as_pull_request": True}}),
    "branch": (f"POST {API}/branch/", {"target": {"branch": "next/1"}}),
    "tag": (f"POST {API}/tag/", {"target": {"tag": "v1"}}),
    "read-back": (f"GET {API}/tree/", {}),
}
ALWAYS = 99
KINDS: dict[str, tuple[dict[str, Any], str]] = {  # the fault, and what the first try says
    "503 once": ({"status": 503}, ""),
    "cut once": ({"status": 0}, ""),
    "cut in the middle": ({"status": 0, "moment": "middle"}, ""),
    "answer lost": ({"status": 0, "moment": "after"}, ""),
    "429 for a while": ({"status": 429, "headers": {"Retry-After": "7"}}, ""),
    "504 always": ({"status": 504, "times": ALWAYS}, r"did not do it \(planted fault\). Push again later"),
    "504 always after it": ({"status": 504, "times": ALWAYS, "moment": "after"}, "did not do it .* Push again later"),
    "cut always": ({"status": 0, "times": ALWAYS}, "cannot be reached .* Push again when it can"),
    "429 for long": (
        {"status": 429, "times": ALWAYS, "headers": {"Retry-After": "900"}},
        "did not do it .* Push again in 900 seconds",
    ),
    "401": ({"status": 401}, "does not accept the token: it is wrong, or has expired. Log in again"),
    "403": ({"status": 403}, r"this token may not write there \(planted fault\). Log in again"),
    "token ends": ({"action": revoke}, "does not accept the token: it is wrong, or has expired. Log in again"),
}
QUICK = ("answer lost", "token ends")
RARELY = ("cut once", "cut always", "504 always after it", "429 for a while", "429 for long")
CLOSELY = ("model info", "tree", "PUT", "part", "completion", "commit", "pull request")
"""The requests that are struck by what strikes other ones rarely."""
STORAGE = "the Hub's storage did not take a file .* Push again"
OTHERWISE = {  # what is said of these is another thing
    ("PUT", "504 always"): STORAGE,
    ("PUT", "504 always after it"): "",  # it is there, and need not be sent to the next address
    ("part", "504 always after it"): STORAGE,
    ("completion", "504 always after it"): "",
    ("verify", "504 always"): "",  # it is there, and need not be verified
    ("verify", "504 always after it"): "",
    ("verify", "cut always"): "",
    ("commit", "504 always after it"): "",  # it is there
    ("pull request", "504 always after it"): "",
    ("PUT", "429 for long"): f"{STORAGE} in 900 seconds",
    ("PUT", "401"): "",  # its address has expired, and the next one is a new one
    ("PUT", "403"): "",
    ("PUT", "token ends"): "does not accept the token",
}


def table() -> Iterator[Case]:
    """Every request with every kind of failure, and some that only one of them has."""
    for request, (pattern, about) in REQUESTS.items():
        skip = 1 if request == "read-back" else 0
        for kind, (fault, says) in KINDS.items():
            if kind in RARELY and request not in CLOSELY:
                continue
            told = OTHERWISE.get((request, kind), says)
            if request == "part":
                told = OTHERWISE.get((request, kind), OTHERWISE.get(("PUT", kind), says))
            yield Case(request, kind, [Fault(pattern, skip=skip, **fault)], told, **about)
    for request, status, header, says in (
        ("create", 403, "", "may not write there"),
        ("commit", 403, "Private repository storage limit reached", "no room for it .*settings/billing"),
        ("LFS batch", 403, "You are over your storage quota", "no room for it .*settings/billing"),
        ("preupload", 404, "Repository not found", "is not there, or hidden from this token"),
        ("commit", 404, "Invalid rev id", "is not there, or hidden from this token"),
        ("commit", 400, "Your push was rejected", r"the Hub refuses it \(Your push was rejected.*Mend that"),
        ("validate-yaml", 400, "bad", "Invalid metadata in README.md. Mend that"),
        ("commit", 413, "Payload too large", "the Hub refuses it .*Mend that"),
        ("commit", 200, "", "answers that are not the Hub's .* Look for a proxy"),
        ("refs", 200, "", "answers that are not the Hub's .* Look for a proxy"),
    ):
        pattern, about = REQUESTS[request]
        headers = {"X-Error-Message": header} if header else {}
        yield Case(request, f"{status} {header[:12]}", [Fault(pattern, status, headers=headers)], says, **about)
    gateway: dict[str, Any] = {"status": 502, "page": b"<html>Bad gateway</html>"}
    for request in ("validate-yaml", "LFS batch", "commit", "model info"):
        yield Case(request, "gateway's page", [Fault(REQUESTS[request][0], **gateway)])
    says = "did not do it .*502 Bad Gateway.* Push again later"
    yield Case("commit", "gateway's page always", [Fault(REQUESTS["commit"][0], times=ALWAYS, **gateway)], says)
    pattern, pull = REQUESTS["commit"][0], REQUESTS["pull request"][1]
    always: dict[str, Any] = {"times": ALWAYS}
    taken = "somebody else has changed it in the meantime, and nothing of this was added. Look at .*/commits"
    yield Case("commit", "409 once", [Fault(pattern, 409)])
    yield Case("commit", "409 always", [Fault(pattern, 409, **always)], "something else is at work .* in a minute")
    yield Case("commit", "412 always", [Fault(pattern, 412, **always)], taken)
    yield Case("commit", "412 of its own commit", [Fault(pattern, 504), Fault(pattern, 412, moment="after")])
    yield Case("pull request", "lost twice", [Fault(pattern, 504), Fault(pattern, 0, moment="after")], **pull)
    lost = [Fault(REQUESTS["create"][0], 0, moment="after"), Fault(REQUESTS["settings"][0], 504, **always)]
    closed = {"gated": True, "private": True}
    yield Case("settings", "of a repo that was made in vain", lost, "did not do it", closed, fresh=True)
    for request in ("validate-yaml", "preupload", "LFS batch", "PUT", "verify", "commit"):
        strikes = [Fault(REQUESTS[request][0], action=intrude)]
        yield Case(request, "somebody else's commit", strikes, taken, foreign=True)
    yield Case("pull request", "somebody else's commit", [Fault(pattern, action=intrude)], foreign=True, **pull)
    for request in ("model info", "tree", "create"):
        pattern, about = REQUESTS[request]
        yield Case(request, "hangs", [Fault(pattern, delay=3, **always)], r"cannot be reached \(.*timed out", **about)
    late = [Fault(REQUESTS["commit"][0], delay=3, times=ALWAYS)]
    yield Case("commit", "takes effect late", late)  # nobody waits for it, and yet it is found, and no second one made
    yield Case("commit", "hangs after it", [Fault(REQUESTS["commit"][0], delay=3, moment="after")])
    yield Case("PUT", "hangs once", [Fault(REQUESTS["PUT"][0], delay=3)])


@dataclass
class World:
    """A Hub and a folder that is pushed to it."""

    hub: LoopbackHub
    cwd: Path
    seconds: float = 60.0  # how long a client waits for an answer
    waits: bool = True

    @property
    def repo(self) -> Repo:
        return self.hub.repos["model", NAME]

    def try_once(self, target: Target, **more: str) -> "subprocess.CompletedProcess[str]":
        """A finished process that pushes the folder."""
        return subprocess.run(
            self.command(target), env=self.environment(**more), capture_output=True, text=True, check=False, timeout=90
        )

    def command(self, target: Target) -> list[str]:
        given = json.dumps([str(self.cwd / "files"), asdict(target), self.seconds, self.waits])
        return [sys.executable, "-c", CLIENT, given]

    def environment(self, **more: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        return inherited | self.hub.environment(self.cwd / "home", SECRET) | more

    def held(self, revision: str = "main") -> dict[str, bytes]:
        """What the repo holds, without what the Hub itself puts there."""
        tree = self.repo.commits[self.repo.sha(revision) or ""]
        return {path: self.hub.read(NAME, path, revision) for path in tree if path != ".gitattributes"}

    def published(self) -> list[str]:
        """The titles of all commits that pushes have made."""
        return [commit.title for commit in self.repo.history if commit.title.startswith("Publish ")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A Hub with a user, and the new files in a folder."""
    for name, data in NEW.items():
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with LoopbackHub() as hub:
        hub.tokens = {SECRET: "acme"}
        yield World(hub, tmp_path)
    shutil.rmtree(tmp_path)  # pytest would keep half a gigabyte


def check_told(done: "subprocess.CompletedProcess[str]", says: str) -> None:
    """The process has succeeded where nothing is to be said, else it has said so in one line."""
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr
    if not says:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 1, done.stdout
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == done.stderr.splitlines()[-1:]
    assert re.search(says, errors[0]), errors
    assert errors[0].startswith(f"error: push to {NAME}: ")
    assert errors[0].endswith((".", "/commits, then push again."))


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if case.kind in QUICK else pytest.mark.slow, id=str(case)) for case in table()],
)
def test_a_push_that_fails_anywhere_is_whole_or_nothing_and_the_same_call_finishes_it(world: World, case: Case) -> None:
    hub, target = world.hub, Target(NAME, **case.target)
    hub.chunk_size, hub.faults = case.chunk_size, case.faults
    if any(fault.delay for fault in case.faults):
        world.seconds = 1.0
    if not case.fresh:
        hub.add_repo(NAME, OLD, lfs=True)
    theirs = {"THEIRS.md": b"theirs"} if case.foreign else {}
    new = NEW if case.fresh else AFTER | theirs
    local = hashes(world.cwd / "files")
    first = world.try_once(target)
    hub.faults, hub.tokens = [], {SECRET: "acme"}
    assert not any(fault.times == 1 and fault.skip == 0 for fault in case.faults), "no request was struck"
    check_told(first, case.says)
    if case.kind == "429 for a while":
        assert re.search(r"waits (7|8)\.0", first.stdout)
    if case.kind == "429 for long":
        assert "waits 60" not in first.stdout
    if ("model", NAME) in hub.repos:
        check_whole(world, case, new)
        first_published = world.published()
    else:
        first_published = []
    second = world.try_once(target)
    check_told(second, "")
    check_whole(world, case, new)
    assert len(world.published()) == 1
    assert json.loads(second.stdout.splitlines()[-1])[1] == (not first_published)
    if target.as_pull_request:
        assert world.held() == OLD | theirs
        assert world.held("refs/pr/1") == AFTER
        assert [pull.status for pull in world.repo.pulls] == ["open"]
    else:
        assert world.held(target.branch) == new
        assert world.repo.pulls == []
    assert set(world.repo.branches) == {"main", target.branch}
    assert world.repo.tags == ({target.tag: world.repo.branches["main"]} if target.tag else {})
    assert (world.repo.private, bool(world.repo.gated)) == (target.private, target.gated)
    assert hashes(world.cwd / "files") == local


def check_whole(world: World, case: Case, new: dict[str, bytes]) -> None:
    """No revision holds a mix, nothing was made twice."""
    before = [{}] if case.fresh else [OLD, OLD | {"THEIRS.md": b"theirs"}]
    for revision in (*world.repo.branches, *world.repo.pull_heads):
        assert world.held(revision) in (*before, new, AFTER)
    assert len(world.published()) <= 1
    assert len(world.repo.pulls) <= 1


def hashes(folder: Path) -> dict[str, str]:
    """Of all files below a folder."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def push(world: World, target: Target = PLAIN, says: str = "", **more: str) -> "subprocess.CompletedProcess[str]":
    """A finished process that has pushed the folder, or said what is asked."""
    done = world.try_once(target, **more)
    check_told(done, says)
    return done


def test_a_repo_that_has_no_main_branch_is_told_and_nothing_is_sent_until_it_has(world: World) -> None:
    world.hub.add_repo(NAME, OLD, lfs=True)
    head = world.repo.branches.pop("main")
    push(world, says="is not there, or hidden from this token")
    sent = [request for request in world.hub.requests if not request.startswith("GET ")]
    assert [request for request in sent if not request.startswith(f"POST {API}/branch/main")] == []
    assert (world.repo.branches, world.published(), world.repo.pulls) == ({}, [], [])
    world.repo.branches["main"] = head
    push(world)
    assert world.held() == AFTER


@pytest.mark.parametrize("name", ["finsent", "acme/", "a/b/c", "acme/fin sent", "https://hub/acme/x", "acme/x.git", ""])
def test_what_is_no_name_of_a_repo_is_told_without_asking_the_hub(name: str) -> None:
    with pytest.raises(RecipeError, match=r"is no name of a repo. Write it as owner/name."):
        check_names(Target(name))


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a..b", "-a", "/a", "a/", "a.", ".a", "a/.b", "a.lock", "a~1", "a^", "a:b", "a?", "a*", "[a", "a@{1}",
     "@", "refs/pr/1", "a\\b", "a\n"],
)  # fmt: skip
def test_what_git_takes_for_no_branch_and_no_tag_is_told_before_anything_is_sent(name: str) -> None:
    with pytest.raises(RecipeError, match=r"push to acme/finsent: --revision .* is no name of a branch. Name another."):
        check_names(Target(NAME, branch=name))
    with pytest.raises(RecipeError, match=r"push to acme/finsent: --tag .* is no name of a tag. Name another."):
        check_names(Target(NAME, tag=name))


@pytest.mark.parametrize("name", ["v1.0", "next/1", "release-2026", "größer", "a.b", "a@b"])
def test_other_names_of_branches_and_tags_are_taken(name: str) -> None:
    check_names(Target(NAME, branch=name, tag=name))


def test_an_address_that_is_none_is_told_at_once(world: World) -> None:
    says = "HF_ENDPOINT is 'hub.example', no address of a Hub .* Write it as https://huggingface.co."
    assert "waits" not in push(world, says=says, HF_ENDPOINT="hub.example").stdout


def test_a_repo_that_was_renamed_is_told_by_its_new_name(world: World) -> None:
    world.hub.add_repo("acme/renamed", OLD)
    moved = {"Location": f"{world.hub.endpoint}/api/models/acme/renamed"}
    world.hub.faults = [Fault(f"GET {API}$", 307, headers=moved)]
    push(world, says="the repo is called acme/renamed now. Push to that")
    assert len(world.hub.repos["model", "acme/renamed"].history) == 1


def test_a_list_of_many_pages_is_read_to_its_end(world: World) -> None:
    world.hub.page_size = 1
    world.hub.add_repo(NAME, OLD | {f"old/{number}.bin": b"pickle" for number in range(5)})
    push(world)
    assert world.held() == AFTER
    assert json.loads(push(world).stdout.splitlines()[-1])[1] is False
    assert len(world.published()) == 1


def test_a_dry_run_makes_no_branch(world: World) -> None:
    world.hub.add_repo(NAME, OLD)
    script = CLIENT.replace("done = publish(", "print(changes(files, Target(**target))); sys.exit(); done = publish(")
    script = script.replace("LocalFile, publish", "LocalFile, changes, publish")
    for target in (Target(NAME, branch="next/1"), Target(NAME, as_pull_request=True), Target("acme/none")):
        command = [*world.command(target)[:2], script, world.command(target)[3]]
        done = subprocess.run(command, env=world.environment(), capture_output=True, text=True, check=True)
        assert "'training_args.bin'" in done.stdout or target.repo_id == "acme/none"
    assert not [request for request in world.hub.requests if not request.startswith("GET ")]


def test_a_tag_on_another_commit_is_told_before_anything_is_sent(world: World) -> None:
    world.hub.add_repo(NAME, OLD)
    world.repo.tags["v1"] = world.repo.branches["main"]
    target = Target(NAME, tag="v1")
    push(world, target, "the tag 'v1' is on another commit there. Name another with --tag.")
    assert (world.held(), world.hub.storage.received) == (OLD, {})


def test_a_pull_request_that_was_changed_or_closed_is_not_taken_for_this_one(world: World) -> None:
    world.hub.add_repo(NAME, OLD)
    target = Target(NAME, as_pull_request=True)
    push(world, target)
    title = world.repo.pulls[0].title
    world.repo.pulls[0].status = "closed"
    world.repo.open_pull(title, "eve", world.repo.branches["main"])  # of the same title, without the files
    assert json.loads(push(world, target).stdout.splitlines()[-1])[0].endswith("/discussions/3")
    assert json.loads(push(world, target).stdout.splitlines()[-1]) == [
        f"{world.hub.endpoint}/{NAME}/discussions/3",
        False,
    ]
    world.repo.merge(3)
    assert json.loads(push(world, target).stdout.splitlines()[-1])[1] is False
    assert [pull.status for pull in world.repo.pulls] == ["closed", "open", "merged"]


def test_a_pull_request_goes_to_a_repo_that_one_may_only_read(world: World) -> None:
    world.hub.add_repo(NAME, OLD)
    world.hub.tokens = {SECRET: "eve"}
    push(world, says="this token may not write there")
    target = Target(NAME, as_pull_request=True)
    world.hub.faults = [Fault(f"POST {API}/commit/main", 0, moment="after")]
    push(world, target)
    assert len(world.repo.pulls) == 1
    assert world.held("refs/pr/1") == AFTER


def test_two_pushes_at_once_make_one_commit(world: World) -> None:
    world.hub.add_repo(NAME, OLD)
    world.hub.faults = [Fault(f"POST {API}/preupload", delay=0.8)]
    both = [subprocess.Popen(world.command(PLAIN), env=world.environment(), stderr=subprocess.DEVNULL) for _ in "ab"]
    assert [process.wait(60) for process in both] == [0, 0]
    assert world.held() == AFTER
    assert len(world.published()) == 1


def test_a_token_for_one_repo_pushes_to_that_alone(world: World) -> None:
    world.hub.add_repo(NAME, OLD)
    world.hub.tokens = {SECRET: Token("acme", "fineGrained", {NAME: ["repo.content.read", "repo.write"]})}
    push(world)
    assert world.held() == AFTER
    done = world.try_once(Target("acme/another"))
    assert "this token has no right to create a repo of 'acme'" in done.stderr
    assert set(world.hub.repos) == {("model", NAME)}


def test_a_token_comes_from_where_the_user_has_put_it(world: World) -> None:
    world.hub.add_repo(NAME, OLD)
    push(world, says="there is no token. Log in with `hf auth login`, or set HF_TOKEN.", HF_TOKEN="")
    push(world, HF_TOKEN=f"  {SECRET}\n")
    world.hub.publishers = {NAME: "acme/code"}
    push(world, PLAIN, "", HF_TOKEN="hf_of_nobody", **world.hub.oidc_environment(NAME))
    said = "HF_OIDC_RESOURCE is 'acme/x', and its token is for that alone"
    push(world, PLAIN, said, **world.hub.oidc_environment("acme/x"))
    said = "no token by OIDC .*trusted publisher"
    push(world, PLAIN, said, **world.hub.oidc_environment(NAME, "eve/code"))
    assert len(world.published()) == 1


@pytest.mark.parametrize(
    ("headers", "waits"),
    [
        ({"RateLimit": '"api";r=0;t=12', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}, 12.0),
        ({"RateLimit": '"api";r=4;t=12'}, 1.0),
        ({"Retry-After": "3"}, 3.0),
        ({"Retry-After": "Mon, 23 Nov 2015 07:28:00 GMT"}, 1.0),
        ({"Retry-After": "soon"}, 1.0),
        ({"RateLimit": '"api";r=0;t=280'}, None),
        ({"Retry-After": "Mon, 23 Nov 2099 07:28:00 GMT"}, None),
    ],
)
def test_the_hub_is_asked_again_when_it_wants_to_be(world: World, headers: dict[str, str], waits: float | None) -> None:
    world.hub.add_repo(NAME, OLD)
    world.hub.faults = [Fault("GET /api/whoami-v2", 429, headers=headers)]
    if waits is None:
        push(world, says=r"rate limit .*Push again in [\d,]+ seconds" if "RateLimit" in headers else "Push again in")
    else:
        assert f"waits {waits}\n" in push(world).stdout


def test_a_file_that_goes_while_it_is_sent_is_told(world: World) -> None:
    world.hub.add_repo(NAME, OLD)
    weights = world.cwd / "files" / "adapter_model.safetensors"
    world.hub.faults = [Fault(f"GET {API}/refs", action=lambda hub: weights.unlink(missing_ok=True))]
    push(world, says="the upload has failed .*No such file")
    assert world.held() == OLD


def test_what_the_hub_holds_is_compared_with_what_was_to_be_sent(world: World) -> None:
    world.hub.add_repo(NAME, OLD)
    readme = world.cwd / "files" / "README.md"
    other = CARD.format("Another").encode()
    world.hub.faults = [Fault(f"POST {API}/preupload", action=lambda hub: void(readme.write_bytes(other)))]
    push(world, says="what is there now is not what was sent: README.md. Look at .* and push again")
    push(world)
    assert world.held() == AFTER | {"README.md": other}


def void(_: int) -> None:
    """Drops what a call gives."""


def test_a_hub_without_xet_is_told(world: World) -> None:
    """With hf_xet large files go another way, and the commit the same."""
    pytest.importorskip("hf_xet")
    world.hub.add_repo(NAME, OLD)
    push(world, says="the upload has failed .*404.*Push again", HF_HUB_DISABLE_XET="0", RUST_LOG="debug")
    assert world.held() == OLD
    assert not [path for path in world.cwd.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("verbose", [{"HF_DEBUG": "1"}, {"HF_HUB_VERBOSITY": "debug"}])
def test_no_token_is_in_anything_that_tries_leave(world: World, verbose: dict[str, str]) -> None:
    """Not as it is, nor in base64, nor in what the Hub, its storage or a proxy says of it."""
    world.hub.add_repo(NAME, OLD)
    said = []
    for pattern, status in (("GET /api/whoami-v2", 403), ("PUT /objects", 403), (f"POST {API}/commit", 400)):
        told = {"X-Error-Message": f"Bearer {SECRET} may not, nor may {SECRET[:20]}", "WWW-Authenticate": SECRET}
        world.hub.faults = [Fault(pattern, status, headers=told, times=ALWAYS)]
        done = world.try_once(PLAIN, **verbose)
        assert "hf_***" in done.stderr
        said.append(done.stdout + done.stderr)
    world.hub.faults = []
    done = world.try_once(PLAIN, **verbose)
    assert done.returncode == 0
    said.append(done.stdout + done.stderr)
    kept = [path.read_bytes() for path in world.cwd.rglob("*") if path.is_file()]
    tree = [content for commits in world.repo.commits.values() for content in commits.values()]
    kept += [content for content in tree if isinstance(content, bytes)]
    forms = [SECRET.encode(), base64.b64encode(SECRET.encode())[:-4], SECRET[:20].encode()]
    assert not [form for form in forms for text in (*kept, *(text.encode() for text in said)) if form in text]


LARGE_FILES, LARGE_BYTES = 5, 100_000_000


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("end", ["cut", "killed"])
def test_a_large_push_goes_on_where_it_ended_in_bounded_memory(world: World, end: str) -> None:
    folder, hub, target = world.cwd / "files", world.hub, Target(NAME, form="merged")
    hub.add_repo(NAME, {"README.md": OLD["README.md"]})
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "README.md").write_bytes(NEW["README.md"])
    sizes = {}
    for number in range(LARGE_FILES):
        path = folder / f"model-{number + 1:05}-of-00005.safetensors"
        path.write_bytes(random.Random(number).randbytes(1_000_000) * 100)
        sizes[hashed(path)] = path.stat().st_size
    assert set(sizes.values()) == {LARGE_BYTES}
    third = [*sizes][2]
    began = time.monotonic()
    cut = Fault(f"PUT /objects/{third}", 0, moment="middle", times=ALWAYS)
    client = [0]

    def kill(hub: LoopbackHub) -> None:
        while len([oid for oid in sizes if oid in hub.storage]) < LARGE_FILES - 1:
            time.sleep(0.05)
        os.kill(client[0], signal.SIGKILL)

    cut.action = kill if end == "killed" else None
    hub.faults = [cut]
    code, said, peak = measured(world, target, client)
    assert code == (-signal.SIGKILL if end == "killed" else 1), said
    assert "Traceback" not in said
    if end == "cut":
        assert "cannot be reached" in said
    assert world.held().keys() == {"README.md"}
    before = dict(hub.storage.received)
    assert before == {oid: before[third] if oid == third else LARGE_BYTES for oid in sizes}
    hub.faults = []
    code, told, second_peak = measured(world, target, client)
    assert code == 0, told
    sent = {oid: hub.storage.received[oid] - before[oid] for oid in sizes}
    assert sent == {oid: LARGE_BYTES if oid == third else 0 for oid in sizes}
    assert {path: content.oid for path, content in large(world).items()} == {
        path.name: hashed(path) for path in folder.glob("*.safetensors")
    }
    assert len(world.published()) == 1
    assert max(peak, second_peak) < 200, (peak, second_peak)
    for name in ("model-00001-of-00005", "model-00003-of-00005"):
        assert re.search(rf"{name}.*\d+%", said)
    spent = f"{peak:.0f} and {second_peak:.0f} MB, {time.monotonic() - began:.0f} s"
    sys.stderr.write(f"{end}: {sum(before.values()):,}, then {sum(sent.values()):,} bytes; {spent}\n")


def large(world: World) -> dict[str, LfsFile]:
    """The large files of the branch."""
    tree = world.repo.commits[world.repo.branches["main"]]
    return {path: content for path, content in tree.items() if isinstance(content, LfsFile)}


def hashed(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def measured(world: World, target: Target, client: list[int]) -> tuple[int, str, float]:
    """Exit code of a push, what it said on stderr, and the MB that it held at most."""
    log, most = world.cwd / "stderr", 0
    with log.open("wb") as stderr:
        process = subprocess.Popen(world.command(target), env=world.environment(), stdout=stderr, stderr=stderr)
        client[0] = process.pid
        while process.poll() is None:
            # Not ru_maxrss: that begins with what the test's own process held when it forked.
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            most = max([most, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
            time.sleep(0.02)
    return process.returncode, log.read_text(), most / 1e3


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_push_that_is_interrupted_stops_at_once_and_the_same_command_finishes_it(
    world: World, kind: signal.Signals
) -> None:
    """Not only when the files that are on their way have come: of large ones that takes hours."""
    hub, bundle = world.hub, world.cwd / "bundle"
    hub.add_repo(NAME, OLD, lfs=True)
    shutil.copytree(world.cwd / "files", bundle / "adapter")
    names = {name: hashed(bundle / "adapter" / name) for name in NEW}
    facts = {"names": {"adapter": NAME}, "description": "Loaded before.", "files": {"adapter": names}}
    (bundle / "bundle.json").write_text(json.dumps(facts))
    command = [sys.executable, "-c", "from hf_finetune.cli import main; main()", "push", "bundle"]
    started, ended = threading.Event(), threading.Event()

    def hold(hub: LoopbackHub) -> None:
        started.set()
        ended.wait(60)

    hub.faults = [Fault("PUT /objects/", action=hold, times=ALWAYS)]
    process = subprocess.Popen(
        command, cwd=world.cwd, env=world.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert started.wait(60)
    process.send_signal(kind)
    try:
        _, errors = process.communicate(timeout=30)
    finally:
        ended.set()
        process.kill()
        process.communicate()
    assert process.returncode == 128 + kind
    assert "Traceback" not in errors
    # Not always the last: a thread that sends may begin its bar until this process is gone.
    assert f"interrupted by {kind.name}: the same command begins again." in errors.splitlines()
    assert world.held() == OLD
    hub.faults = []
    done = subprocess.run(command, cwd=world.cwd, env=world.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert world.held() == AFTER
    assert len(world.published()) == 1
