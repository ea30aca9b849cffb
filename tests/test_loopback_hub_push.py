"""The loopback Hub takes what the real client pushes, refuses what the Hub refuses, and fails when told to."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from loopback_hub import Fault, LoopbackHub, Token
from loopback_hub.clients import client

BIG = bytes(range(256)) * 4096  # 1 MiB
OID = hashlib.sha256(BIG).hexdigest()
PUSH = 'answer = commit("acme/model", {"w.bin": bytes(range(256)) * 4096}).oid'


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    """Give a Hub with an organisation, its members, and a stranger."""
    with LoopbackHub() as hub:
        hub.tokens = {"hf_ann": "ann", "hf_bob": "bob", "hf_eve": "eve"}
        hub.organisations = {"acme": {"ann": "admin", "bob": "contributor", "cat": "read"}}
        yield hub


def test_what_was_committed_reads_back(hub: LoopbackHub, tmp_path: Path) -> None:
    """Small and large files of a commit come back as they were, after edits and removals and on short pages."""
    hub.page_size = 2
    script = """
        BIG = bytes(range(256)) * 4096
        api.create_repo("acme/model", private=True)
        again = [status(api.create_repo, "acme/model"), api.create_repo("acme/model", exist_ok=True).repo_id]
        commit("acme/model", {"a.json": b"{}", "x/w.safetensors": BIG, "x/old.txt": b"old", "none.bin": b"", "b": b"b"})
        operations = [
            hf.CommitOperationAdd("a.json", b"{1}"),
            hf.CommitOperationDelete("x/", is_folder=True),
            hf.CommitOperationDelete("b"),
            hf.CommitOperationAdd("y/w.safetensors", BIG),
        ]
        made = api.create_commit("acme/model", operations, commit_message="second", commit_description="why")
        same = commit("acme/model", {"a.json": b"{1}", "y/w.safetensors": BIG})
        folder = Path(hf.snapshot_download("acme/model"))
        one = Path(hf.hf_hub_download("acme/model", "y/w.safetensors", local_dir="LOCAL")).read_bytes()
        info = api.model_info("acme/model", files_metadata=True)
        entry = api.get_paths_info("acme/model", "y/w.safetensors")[0]
        answer = {
            "again": again,
            "files": api.list_repo_files("acme/model"),
            "read": [(folder / "a.json").read_text(), (folder / "y/w.safetensors").read_bytes() == BIG, one == BIG],
            "lfs": [[s.rfilename, s.size, s.lfs.sha256] for s in info.siblings if s.lfs],
            "entry": [entry.size, entry.lfs.sha256, entry.lfs.pointer_size],
            "log": [[c.title, c.message, c.authors] for c in api.list_repo_commits("acme/model")],
            "shas": [made.oid == same.oid == info.sha == folder.name, made.commit_url],
        }
    """.replace("LOCAL", str(tmp_path / "local"))
    answer = client(hub, tmp_path, script, token="hf_ann")
    repo = hub.repos["model", "acme/model"]
    sha = repo.branches["main"]
    assert answer == {
        "again": [409, "acme/model"],
        "files": [".gitattributes", "a.json", "none.bin", "y/w.safetensors"],
        "read": ["{1}", True, True],
        "lfs": [["y/w.safetensors", len(BIG), OID]],
        "entry": [len(BIG), OID, 132],
        "log": [["second", "why", ["ann"]], ["a commit", "", ["ann"]], ["initial commit", "", ["ann"]]],
        "shas": [True, f"{hub.endpoint}/acme/model/commit/{sha}"],
    }
    assert repo.private
    assert [request for request in hub.requests if "/tree/" in request and "cursor=2" in request] != []
    assert [commit.parent for commit in repo.history] == [None, *(commit.sha for commit in repo.history[:-1])]
    assert hub.storage.received == {OID: len(BIG)}  # once, though two commits hold it
    assert hub.read("acme/model", "y/w.safetensors") == BIG
    assert repo.pulls == []


def test_a_dataset_takes_files_too(hub: LoopbackHub, tmp_path: Path) -> None:
    """A dataset is another repository than a model of the same name, and upload_folder makes one commit."""
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.jsonl").write_text("{}\n")
    (tmp_path / "rows" / "photo.png").write_bytes(BIG)
    script = f"""
        api.create_repo("ann/rows")
        url = api.create_repo("ann/rows", repo_type="dataset")
        done = api.upload_folder(repo_id="ann/rows", folder_path={str(tmp_path / "rows")!r}, repo_type="dataset")
        answer = [url, done.commit_url, api.list_repo_files("ann/rows")]
    """
    url, made, model = client(hub, tmp_path, script, token="hf_ann")
    repo = hub.repos["dataset", "ann/rows"]
    assert url == f"{hub.endpoint}/datasets/ann/rows"
    assert made == f"{url}/commit/{repo.branches['main']}"
    assert model == [".gitattributes"]
    assert hub.read("ann/rows", "photo.png", repo_type="dataset") == BIG
    assert len(repo.history) == 2


def test_another_commit_in_between_is_not_overwritten(hub: LoopbackHub, tmp_path: Path) -> None:
    """A commit on a parent that is no longer the newest is refused; so is one on a parent that never was."""
    start = hub.add_repo("acme/model", {"a.txt": b"1"})

    def interfere(hub: LoopbackHub) -> None:
        hub.repos["model", "acme/model"].commit({"b.txt": b"theirs"}, author="bob")

    hub.faults = [Fault("POST .*/commit/main", action=interfere)]
    script = f"""
        try:
            commit("acme/model", {{"a.txt": b"mine"}}, parent_commit="{start}")
        except hf.errors.HfHubHTTPError as error:
            said = [error.response.status_code, str(error.server_message)]
        never = status(commit, "acme/model", {{"a.txt": b"mine"}}, parent_commit="{"0" * 40}")
        now = api.model_info("acme/model").sha
        made = commit("acme/model", {{"a.txt": b"mine"}}, parent_commit=now).oid
        pull = commit("acme/model", {{"a.txt": b"older"}}, parent_commit="{start}", create_pr=True).oid
        answer = [said, never, made, pull]
    """
    said, never, made, pull = client(hub, tmp_path, script, token="hf_ann")
    assert said == [412, "A commit has happened since. Please refresh and try again."]
    assert never == 412
    history = hub.repos["model", "acme/model"].history
    assert [commit.author for commit in history] == ["", "bob", "ann", "ann"]
    assert [commit.sha for commit in history[2:]] == [made, pull]
    assert history[-1].parent == start  # a pull request may begin at an older commit
    assert hub.read("acme/model", "b.txt") == b"theirs"


def test_a_commit_without_change_is_still_a_commit(hub: LoopbackHub, tmp_path: Path) -> None:
    """What a blind repetition does to the history can be counted, on branches and as pull requests."""
    hub.add_repo("acme/model", {"a.txt": b"1"})
    script = """
        def repeat(**query):
            line = {"key": "file", "value": {"path": "a.txt", "content": "MQ==", "encoding": "base64"}}
            lines = [{"key": "header", "value": {"summary": "again"}}, line]
            body = "\\n".join(json.dumps(line) for line in lines)
            url = f"{api.endpoint}/api/models/acme/model/commit/main"
            return hf.get_session().post(url, content=body, params=query, headers=api._build_hf_headers()).json()

        answer = [repeat()["commitOid"], repeat()["commitOid"], repeat(create_pr=1), repeat(create_pr=1)]
    """
    first, second, *pulls = client(hub, tmp_path, script, token="hf_ann")
    repo = hub.repos["model", "acme/model"]
    assert len({commit.sha for commit in repo.history}) == 5
    assert [repo.history[1].sha, repo.history[2].sha] == [first, second]
    assert [pull["pullRequestUrl"][-2:] for pull in pulls] == ["/1", "/2"]
    assert len(repo.pulls) == 2


def test_a_pull_request_lives_beside_main(hub: LoopbackHub, tmp_path: Path) -> None:
    """A stranger's pull request holds their commits, is found by the lists, and changes main only when merged."""
    start = hub.add_repo("acme/model", {"a.txt": b"1", "c.txt": b"3"})
    script = """
        made = commit("acme/model", {"b.bin": b"2"}, "a proposal", create_pr=True)
        more = commit("acme/model", {"a.txt": b"changed"}, "more", revision="refs/pr/1")
        draft = api.create_pull_request("acme/model", title="a draft", token="hf_bob")

        def listed(**filters):
            return [pull.num for pull in api.get_repo_discussions("acme/model", **filters)]

        def read(revision):
            return Path(hf.hf_hub_download("acme/model", "a.txt", revision=revision)).read_text()

        refs = api.list_repo_refs("acme/model", include_pull_requests=True)
        details = api.get_discussion_details("acme/model", 1)
        answer = {
            "made": [made.pr_num, made.pr_revision, more.oid],
            "listed": [listed(), listed(author="eve"), listed(discussion_status="closed"),
                       listed(discussion_type="discussion"), listed(discussion_type="pull_request")],
            "refs": [[ref.ref, ref.target_commit] for ref in refs.branches + refs.pull_requests][:2],
            "details": [details.status, details.author, details.target_branch, [e.summary for e in details.events]],
            "draft": [draft.num, draft.status],
            "read": [read("main"), read("refs/pr/1")],
            "missing": status(api.get_discussion_details, "acme/model", 3),
            "refused": [status(api.merge_pull_request, "acme/model", 1),
                        status(commit, "acme/model", {"a": b"b"}, revision="refs/pr/2")],
        }
    """
    answer = client(hub, tmp_path, script, token="hf_eve")
    repo = hub.repos["model", "acme/model"]
    assert answer == {
        "made": [1, "refs/pr/1", repo.pull_heads["refs/pr/1"]],
        "listed": [[2, 1], [1], [], [], [2, 1]],
        "refs": [["refs/heads/main", start], ["refs/pr/1", repo.pull_heads["refs/pr/1"]]],
        "details": ["open", "eve", "refs/heads/main", ["a proposal", "more"]],
        "draft": [2, "draft"],
        "read": ["1", "changed"],
        "missing": 404,
        "refused": [403, 403],
    }
    repo.commit({"c.txt": b"meanwhile"})
    script = """
        api.merge_pull_request("acme/model", 1)
        answer = [api.get_discussion_details("acme/model", 1).status, api.list_repo_files("acme/model")]
    """
    assert client(hub, tmp_path, script, token="hf_ann") == ["merged", ["a.txt", "b.bin", "c.txt"]]
    assert [hub.read("acme/model", name) for name in ("a.txt", "b.bin", "c.txt")] == [b"changed", b"2", b"meanwhile"]


def test_who_may_do_what(hub: LoopbackHub, tmp_path: Path) -> None:
    """Each kind of token can do what the Hub lets it do, and no more; a refusal changes nothing."""
    hub.add_repo("acme/model", {"a.txt": b"1"})
    hub.repos["model", "acme/model"].creator = "dan"
    hub.organisations["acme"] |= {"dan": "contributor", "fay": "write"}
    hub.tokens |= {
        "hf_cat": "cat",
        "hf_dan": "dan",
        "hf_fay": "fay",
        "hf_ann_reads": Token("ann", role="read"),
        "hf_ann_fine": Token("ann", role="fineGrained", scopes={"acme": ["repo.write"]}),
        "hf_ann_one": Token("ann", role="fineGrained", scopes={"acme/model": ["repo.write"]}),
        "hf_ann_other": Token("ann", role="fineGrained", scopes={"acme/other": ["repo.write"]}),
        "hf_jwt": Token("acme", repo="acme/model"),
        "hf_jwt_other": Token("acme", repo="datasets/acme/model"),
    }
    script = f"""
        def tries(token):
            api.token = token
            name = f"acme/by-{{token}}"
            return [
                status(api.auth_check, "acme/model", write=True),
                status(commit, "acme/model", {{"a.txt": b"changed"}}),
                status(commit, "acme/model", {{"a.bin": b"changed"}}, create_pr=True),
                status(api.create_repo, name),
                status(api.create_branch, "acme/model", branch=f"of-{{token}}"),
                status(api.update_repo_settings, "acme/model", gated="auto"),
                status(api.run_job, image="i", command=["c"], namespace="acme"),
            ]

        answer = {{token: tries(token) for token in {[False, *hub.tokens]}}}
    """
    everything, nothing, asks = [200] * 7, [403] * 7, [403, 403, 200, 403, 403, 403, 403]
    assert client(hub, tmp_path, script) == {
        "false": [401, 401, 401, 401, 401, 401, 401],
        "hf_ann": everything,
        "hf_bob": [403, 403, 200, 200, 403, 403, 200],
        "hf_eve": asks,
        "hf_cat": asks,
        "hf_dan": everything,
        "hf_fay": everything,
        "hf_ann_reads": nothing,
        "hf_ann_fine": [200, 200, 200, 200, 200, 200, 403],
        "hf_ann_one": [200, 200, 200, 403, 200, 200, 403],
        "hf_ann_other": nothing,
        "hf_jwt": [200, 200, 200, 401, 200, 200, 403],
        "hf_jwt_other": [403, 403, 403, 401, 403, 403, 403],
    }
    repo = hub.repos["model", "acme/model"]
    assert [commit.author for commit in repo.history if commit.ref == "main"] == ["", "ann"]
    assert {pull.author for pull in repo.pulls} == {"ann", "bob", "eve", "cat", "dan", "fay", "acme"}
    assert sorted(name for _, name in hub.repos) == sorted(
        ["acme/model", *(f"acme/by-hf_{name}" for name in ("ann", "bob", "dan", "fay", "ann_fine"))]
    )
    assert repo.gated == "auto"


def test_a_private_repository_is_hidden_from_tokens_without_its_scope(hub: LoopbackHub, tmp_path: Path) -> None:
    """Members see it, a stranger does not, and a confined or fine-grained token only its own."""
    hub.add_repo("acme/model", {"a.txt": b"1"}, private=True)
    hub.tokens |= {
        "hf_cat": "cat",
        "hf_fine": Token("ann", role="fineGrained", scopes={"acme": ["repo.content.read"]}),
        "hf_fine_other": Token("ann", role="fineGrained", scopes={"ann": ["repo.write"]}),
        "hf_jwt": Token("acme", repo="acme/model"),
        "hf_jwt_other": Token("acme", repo="acme/other"),
    }
    script = f"""
        answer = [tok for tok in {list(hub.tokens)} if status(api.model_info, "acme/model", token=tok) == 200]
    """
    assert client(hub, tmp_path, script) == ["hf_ann", "hf_bob", "hf_cat", "hf_fine", "hf_jwt"]


def test_whoami_tells_organisations_and_rights(hub: LoopbackHub, tmp_path: Path) -> None:
    """The answer holds the role in each organisation, the token's role, and the scopes of a fine-grained one."""
    scopes = {"acme": ["repo.write"], "ann": ["job.write"], "datasets/acme/rows": ["repo.content.read"]}
    hub.tokens |= {"hf_fine": Token("ann", role="fineGrained", scopes=scopes), "hf_read": Token("eve", role="read")}
    script = """
        told = [api.whoami(token=token) for token in ("hf_ann", "hf_fine", "hf_read")]
        answer = [[t["name"], [[o["name"], o["roleInOrg"]] for o in t["orgs"]], t["auth"]["accessToken"]] for t in told]
    """
    write, fine, read = client(hub, tmp_path, script)
    assert write[:2] == ["ann", [["acme", "admin"]]]
    assert write[2]["role"] == "write"
    assert read[:2] == ["eve", []]
    assert read[2]["role"] == "read"
    assert fine[2]["role"] == "fineGrained"
    assert [(s["entity"]["type"], s["entity"]["name"], s["permissions"]) for s in fine[2]["fineGrained"]["scoped"]] == [
        ("org", "acme", ["repo.write"]),
        ("user", "ann", ["job.write"]),
        ("dataset", "acme/rows", ["repo.content.read"]),
    ]


def test_the_storage_takes_only_what_was_announced(hub: LoopbackHub, tmp_path: Path) -> None:
    """Wrong bytes, a wrong size, unannounced objects and a token of the Hub are refused; nothing is kept."""
    hub.add_repo("acme/model", {"a.txt": b"1"})
    script = f"""
        BIG = bytes(range(256)) * 4096
        headers = api._build_hf_headers()
        def send(method, url, body=b"", **more):
            return hf.get_session().request(method, url, content=body, headers=more)

        asked = {{"operation": "upload", "transfers": ["basic"], "objects": [{{"oid": "{OID}", "size": len(BIG)}}]}}
        url = f"{{api.endpoint}}/acme/model.git/info/lfs/objects/batch"
        batch = hf.get_session().post(url, json=asked, headers=headers)
        actions = batch.json()["objects"][0]["actions"]
        href, about = actions["upload"]["href"], {{"oid": "{OID}", "size": len(BIG)}}
        def verify():
            return hf.get_session().post(actions["verify"]["href"], json=about, headers=headers).status_code

        line = {{"path": "w.bin", "algo": "sha256", **about}}
        lines = [{{"key": "header", "value": {{"summary": "early"}}}}, {{"key": "lfsFile", "value": line}}]
        def early():
            body = "\\n".join(json.dumps(line) for line in lines).encode()
            return send("POST", f"{{api.endpoint}}/api/models/acme/model/commit/main", body, **headers)

        short = {{**asked, "objects": [{{"oid": "{OID}", "size": len(BIG) - 1}}]}}
        hf.get_session().post(url, json=short, headers=headers)
        refused = [send("PUT", href, BIG).status_code]
        hf.get_session().post(url, json=asked, headers=headers)
        refused += [
            send("PUT", href, BIG[::-1]).status_code,
            send("PUT", href, BIG[1:]).status_code,
            send("PUT", href.replace("{OID}", "0" * 64), BIG).status_code,
            send("PUT", href, BIG, **headers).status_code,
            send("GET", href).status_code,
            verify(),
            early().status_code,
        ]
        text = early().json()["error"]
        accepted = [send("PUT", href, BIG).status_code, verify(), early().status_code]
        got = [send("GET", href).content == BIG, send("GET", href, Range="bytes=1-2").content == BIG[1:3]]
        answer = [refused, text, accepted, got, send("GET", href, **headers).status_code]
    """
    refused, text, accepted, got, with_token = client(hub, tmp_path, script, token="hf_ann")
    assert refused == [400, 400, 400, 403, 400, 404, 404, 400]
    assert "LFS pointer pointed to a file that does not exist" in text
    assert accepted == [200, 200, 200]
    assert got == [True, True]
    assert with_token == 400
    assert [path.name for path in hub.storage.folder.iterdir()] == [OID]
    assert len(hub.repos["model", "acme/model"].history) == 2


def test_a_large_file_comes_in_parts(hub: LoopbackHub, tmp_path: Path) -> None:
    """With a chunk size the client sends parts, which make one object; a part that is lost is sent again."""
    hub.chunk_size = 300_000
    hub.add_repo("acme/model", {"a.txt": b"1"})
    hub.faults = [Fault("PUT .*/parts/2", 500, headers={"Retry-After": "0"})]
    client(hub, tmp_path, PUSH, token="hf_ann")
    assert hub.read("acme/model", "w.bin") == BIG
    assert [hub.requests.count(f"PUT /objects/{OID}/parts/{n}") for n in (1, 2, 3, 4, 5)] == [1, 2, 1, 1, 0]
    assert hub.storage.received == {OID: len(BIG)}
    assert [path.name for path in hub.storage.folder.iterdir()] == [OID]


def test_small_and_large_are_told_apart_by_name_and_size(hub: LoopbackHub, tmp_path: Path) -> None:
    """The names of weights and pictures, and a size over the limit, make a file a large one; an empty file is not."""
    hub.lfs_bytes = 1000
    names = {"a.safetensors": 1, "a.bin": 1, "a.pt": 1, "a.png": 1, "b.txt": 1001, "c.txt": 1000, "d.bin": 0}
    hub.add_repo("acme/old", {name: b"\0" * size for name, size in names.items()}, lfs=True)
    hub.add_repo("acme/model", {"a.txt": b"1"})
    script = f"""
        files = {{name: b"\\0" * size for name, size in {names}.items()}}
        commit("acme/model", files)
        large = lambda repo: [e.path for e in api.list_repo_tree(repo, recursive=True) if e.lfs]
        read = Path(hf.hf_hub_download("acme/old", "b.txt")).read_bytes() == files["b.txt"]
        answer = [large("acme/model"), large("acme/old"), read]
    """
    large = ["a.bin", "a.png", "a.pt", "a.safetensors", "b.txt"]
    assert client(hub, tmp_path, script, token="hf_ann") == [large, large, True]


@pytest.mark.parametrize(
    ("moment", "status", "seen", "commits"),
    [
        ("before", 503, 503, 1),
        ("before", 0, "RemoteProtocolError", 1),
        ("middle", 0, "RemoteProtocolError", 1),
        ("after", 503, 503, 2),
        ("after", 0, "RemoteProtocolError", 2),
        ("before", None, 200, 2),
    ],
)
def test_a_fault_strikes_a_commit_at_its_moment(
    hub: LoopbackHub,
    tmp_path: Path,
    moment: Literal["before", "middle", "after"],
    status: int | None,
    seen: int | str,
    commits: int,
) -> None:
    """The commit is made or not as the moment says, and the client is told what the status says."""
    hub.add_repo("acme/model", {"a.txt": b"1"})
    hub.faults = [Fault("POST .*/commit/main", status, moment=moment)]
    script = """
        first = status(commit, "acme/model", {"a.txt": b"2"})
        answer = [first, status(commit, "acme/model", {"a.txt": b"3"})]
    """
    assert client(hub, tmp_path, script, token="hf_ann") == [seen, 200]
    assert len(hub.repos["model", "acme/model"].history) == commits + 1
    assert hub.read("acme/model", "a.txt") == b"3"


@pytest.mark.parametrize(
    ("moment", "status", "pieces"), [("before", 500, 2), ("middle", 0, 3), ("after", 0, 4), ("after", 500, 4)]
)
def test_a_fault_strikes_an_upload_at_its_moment(
    hub: LoopbackHub, tmp_path: Path, moment: Literal["before", "middle", "after"], status: int, pieces: int
) -> None:
    """None of the bytes, half of them, or all of them came before the client sends them again."""
    hub.add_repo("acme/model", {"a.txt": b"1"})
    hub.faults = [Fault("PUT /objects/", status, moment=moment)]
    client(hub, tmp_path, PUSH, token="hf_ann")
    assert hub.storage.received[OID] == pieces * len(BIG) // 2
    assert hub.read("acme/model", "w.bin") == BIG
    assert len(hub.repos["model", "acme/model"].history) == 2


def test_faults_can_wait_act_and_skip(hub: LoopbackHub, tmp_path: Path) -> None:
    """A fault lets some requests pass, answers late, revokes a token in between, or cuts a download in half."""
    hub.add_repo("acme/model", {"w.bin": BIG})
    hub.faults = [
        Fault("GET .*/models/acme/model$", 503, skip=1),
        Fault("GET /api/whoami-v2", delay=0.5),
        Fault("GET .*/resolve/", moment="middle"),
        Fault("GET .*/refs", action=lambda hub: hub.tokens.clear()),
    ]
    script = """
        import time
        infos = [status(api.model_info, "acme/model") for _ in range(3)]
        start = time.monotonic()
        api.whoami()
        waited = time.monotonic() - start
        data = Path(hf.hf_hub_download("acme/model", "w.bin")).read_bytes()
        answer = [infos, waited, len(data), status(api.list_repo_refs, "acme/model"), status(api.whoami)]
    """
    infos, waited, size, *revoked = client(hub, tmp_path, script, token="hf_ann")
    assert infos == [200, 503, 200]
    assert 0.5 <= waited < 5
    assert size == len(BIG)
    assert hub.requests.count("GET /acme/model/resolve/main/w.bin") == 2
    assert revoked == [401, 401]


def test_a_token_ends_in_the_middle_of_a_push(hub: LoopbackHub, tmp_path: Path) -> None:
    """The commit fails, the repository stays as it was, and what came to the storage need not come again."""
    hub.add_repo("acme/model", {"a.txt": b"1"})
    hub.tokens["hf_short"] = Token("ann", expires_after=3)  # preupload, batch, verify
    script = """
        files = {"a.txt": b"2", "w.bin": bytes(range(256)) * 4096}
        answer = [status(commit, "acme/model", files, token=token) for token in ("hf_short", "hf_ann")]
    """
    assert client(hub, tmp_path, script) == [401, 200]
    assert [commit.author for commit in hub.repos["model", "acme/model"].history] == ["", "ann"]
    assert hub.storage.received == {OID: len(BIG)}
    assert hub.requests.count(f"PUT /objects/{OID}") == 1


def test_a_workflow_exchanges_its_identity_for_a_confined_token(hub: LoopbackHub, tmp_path: Path) -> None:
    """Only the workflow that the repository trusts gets a token; it writes there and creates nothing."""
    hub.add_repo("acme/model", {"a.txt": b"1"})
    hub.publishers = {"acme/model": "acme/code"}
    script = """
        def errors(call, *args, **kwargs):
            try:
                return call(*args, **kwargs) and 200
            except Exception as error:
                return [error.response.status_code, error.response.json()["error"]]

        answer = [
            errors(commit, "acme/model", {"a.txt": b"2"}),
            errors(api.create_repo, "acme/new"),
            errors(api.create_repo, "acme/model", exist_ok=True),
        ]
    """
    given = client(hub, tmp_path, script, extra=hub.oidc_environment("acme/model"))
    assert given == [200, [401, "Invalid username or password."], 200]
    assert hub.requests.count("POST /oauth/token") == 1
    for resource, github in (("acme/model", "eve/code"), ("acme/other", "acme/code")):
        refused = client(hub, tmp_path, script, extra=hub.oidc_environment(resource, github))
        assert refused == [[400, "invalid_grant"]] * 3
    elsewhere = """
        from huggingface_hub._oidc import exchange_oidc_token, get_oidc_token

        tokens = [get_oidc_token(audience=audience) for audience in (None, "https://elsewhere.example")]
        answer = [status(exchange_oidc_token, subject_token=t, resource="acme/model") for t in [*tokens, "made.up.one"]]
    """
    assert client(hub, tmp_path, elsewhere, extra=hub.oidc_environment("acme/model")) == [200, 400, 400]
    stolen = {**hub.oidc_environment("acme/model"), "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "guessed"}
    assert client(hub, tmp_path, 'answer = status(api.model_info, "acme/model")', extra=stolen) == 401
    assert len(hub.repos["model", "acme/model"].history) == 2
    hub.oidc_expires_after = 1
    script = 'answer = [status(api.model_info, "acme/model") for _ in range(2)]'
    assert client(hub, tmp_path, script, extra=hub.oidc_environment("acme/model")) == [200, 401]


def test_branches_tags_and_settings(hub: LoopbackHub, tmp_path: Path) -> None:
    """They are made once, from what exists, and removed once; a commit can go to a branch."""
    start = hub.add_repo("acme/model", {"a.txt": b"1"})
    script = """
        branch, tag = {"branch": "next/1"}, {"tag": "v1"}
        answer = [
            status(api.create_branch, "acme/model", **branch),
            status(api.create_branch, "acme/model", **branch),
            status(api.create_branch, "acme/model", branch="x", revision="nowhere"),
            status(commit, "acme/model", {"a.txt": b"2"}, revision="next/1"),
            status(commit, "acme/model", {"a.txt": b"2"}, revision="nowhere"),
            status(api.create_tag, "acme/model", **tag, revision="next/1"),
            status(api.create_tag, "acme/model", **tag),
            status(api.create_tag, "acme/model", **tag, exist_ok=True),
            status(api.delete_branch, "acme/model", **branch),
            status(api.delete_branch, "acme/model", **branch),
            status(api.delete_branch, "acme/model", branch="main"),
            Path(hf.hf_hub_download("acme/model", "a.txt", revision="v1")).read_text(),
            status(api.delete_tag, "acme/model", **tag),
            status(api.delete_tag, "acme/model", **tag),
            status(api.update_repo_settings, "acme/model", gated="manual", private=True),
        ]
    """
    made = [200, 409, 404, 200, 404, 200, 409, 200]
    removed = [200, 404, 403, "2", 200, 404, 200]
    assert client(hub, tmp_path, script, token="hf_ann") == made + removed
    repo = hub.repos["model", "acme/model"]
    assert repo.branches == {"main": start}
    assert repo.tags == {}
    assert (repo.gated, repo.private) == ("manual", True)


def test_a_card_must_hold_what_the_hub_knows(hub: LoopbackHub, tmp_path: Path) -> None:
    """A base model that is no id and a licence that is unknown are refused, before and at the commit."""
    hub.add_repo("acme/model", {"a.txt": b"1"})
    script = """
        def card(text):
            return f"---\\n{text}\\n---\\n# A model\\n"

        texts = ["license: mit\\nbase_model: acme/base\\ndatasets: [acme/rows]", "", "license: apache",
                 "base_model: /tmp/base", "base_model: [acme/base, ./base]", "license: [", "base_model: a/b/c"]
        tries = [tried(lambda: commit("acme/model", {"README.md": card(t).encode()}) and "made") for t in texts]
        api._validate_yaml = lambda *args, **kwargs: None
        unseen = status(commit, "acme/model", {"README.md": card("license: apache").encode()})
        answer = [tries, unseen, api.model_info("acme/model", revision=REVISION).card_data.license]
    """
    script = script.replace("REVISION", 'api.list_repo_commits("acme/model")[1].commit_id')
    assert client(hub, tmp_path, script, token="hf_ann") == [["made", "made", *["ValueError"] * 5], 400, "mit"]
    assert len(hub.repos["model", "acme/model"].history) == 3


def test_a_job_is_kept_and_goes_through_its_stages(hub: LoopbackHub, tmp_path: Path) -> None:
    """The client reads prices, starts a job, waits for its end and reads its lines; the payload is kept."""
    hub.job_logs = ["===== Job started", "one", "two"]
    script = """
        priced = {h.name: [h.unit_cost_usd, h.accelerator and h.accelerator.vram] for h in api.list_jobs_hardware()}
        job = api.run_job(image="python:3.12", command=["python", "-V"], flavor="t4-small", timeout="2h",
                          secrets={"HF_TOKEN": "s"}, namespace="acme")
        ended = api.wait_for_job(job_id=job.id, namespace="acme", poll_interval=0.01)
        other = api.run_job(image="i", command=["c"])
        api.cancel_job(job_id=other.id)
        answer = {
            "prices": [priced["cpu-basic"], priced["t4-small"]],
            "job": [job.status.stage, job.flavor, job.docker_image, job.owner.name, job.owner.type],
            "ended": ended.status.stage,
            "lines": list(api.fetch_job_logs(job_id=job.id, namespace="acme")),
            "other": [other.owner.type, api.inspect_job(job_id=other.id).status.stage],
            "flavor": status(api.run_job, image="i", command=["c"], flavor="t5"),
            "unknown": tried(api.inspect_job, job_id="ab"),
            "stranger": status(api.inspect_job, job_id=job.id, namespace="acme", token="hf_eve"),
        }
    """
    assert client(hub, tmp_path, script, token="hf_ann") == {
        "prices": [[0.000167, None], [0.006667, "16 GB"]],
        "job": ["SCHEDULING", "t4-small", "python:3.12", "acme", "org"],
        "ended": "COMPLETED",
        "lines": ["one", "two"],
        "other": ["user", "CANCELED"],
        "flavor": 400,
        "unknown": "JobNotFoundError",
        "stranger": 404,
    }
    assert [job.namespace for job in hub.jobs] == ["acme", "ann"]
    payload = hub.jobs[0].payload
    assert (payload["command"], payload["timeoutSeconds"]) == (["python", "-V"], 7200)
    assert payload["secrets"] == {"HF_TOKEN": "s"}
