"""The loopback Hub answers the real client as the Hub does; each test runs that client in its own process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loopback_hub import Fault, LoopbackHub
from loopback_hub.clients import client

FILES = {"config.json": b"{}", "weights.bin": bytes(range(256)), "data/a b/train.jsonl": b'{"x": 1}\n'}


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    """Give a Hub with an owner, a user who was granted access, and a stranger."""
    with LoopbackHub() as hub:
        hub.tokens = {"hf_owner": "acme", "hf_guest": "guest", "hf_stranger": "stranger"}
        hub.granted = {("guest", "acme/gated")}
        yield hub


def test_models_and_datasets_are_described_and_listed(hub: LoopbackHub, tmp_path: Path) -> None:
    """The answers to whoami, model_info, dataset_info, refs, tree and paths-info hold what was added."""
    model = hub.add_repo("acme/model", files=FILES)
    dataset = hub.add_repo("acme/data", repo_type="dataset", files=FILES)
    script = """
        info, sized = api.model_info("acme/model"), api.model_info("acme/model", files_metadata=True)
        tree = lambda folder, deep: [e.path for e in api.list_repo_tree("acme/model", folder, recursive=deep)]
        answer = {
            "user": api.whoami()["name"],
            "model": [info.id, info.sha, info.private, info.gated],
            "unsized": {sibling.size for sibling in info.siblings} == {None},
            "sizes": {sibling.rfilename: sibling.size for sibling in sized.siblings},
            "dataset": api.dataset_info("acme/data", revision="main").sha,
            "files": api.list_repo_files("acme/data", repo_type="dataset"),
            "refs": {ref.name: ref.target_commit for ref in api.list_repo_refs("acme/model").branches},
            "top": tree(None, False),
            "folder": tree("data/a b", True),
            "no folder": tried(tree, "nowhere", True),
            "paths": [e.path for e in api.get_paths_info("acme/model", ["weights.bin", "data", "none"])],
            "access": api.auth_check("acme/model"),
        }
    """
    assert client(hub, tmp_path, script, token="hf_owner") == {
        "user": "acme",
        "model": ["acme/model", model, False, False],
        "unsized": True,
        "sizes": {path: len(data) for path, data in FILES.items()},
        "dataset": dataset,
        "files": sorted(FILES),
        "refs": {"main": model},
        "top": ["config.json", "data", "weights.bin"],
        "folder": ["data/a b/train.jsonl"],
        "no folder": "RemoteEntryNotFoundError",
        "paths": ["data", "weights.bin"],
        "access": None,
    }


def test_a_file_is_fetched_once_and_a_snapshot_brings_the_rest(hub: LoopbackHub, tmp_path: Path) -> None:
    """A second download takes the bytes from the cache, and a snapshot holds every file."""
    (tmp_path / "source" / "data" / "a b").mkdir(parents=True)
    for path, data in FILES.items():
        (tmp_path / "source" / path).write_bytes(data)
    sha = hub.add_repo("acme/model", files=tmp_path / "source")
    script = """
        first = hf.hf_hub_download("acme/model", "weights.bin")
        second = hf.hf_hub_download("acme/model", "weights.bin")
        folder = Path(hf.snapshot_download("acme/model"))
        held = {p: (folder / p).read_bytes().hex() for p in api.list_repo_files("acme/model")}
        answer = [first == second, folder.name, held]
    """
    assert client(hub, tmp_path, script) == [True, sha, {path: data.hex() for path, data in FILES.items()}]
    assert hub.requests.count("GET /acme/model/resolve/main/weights.bin") == 1


def test_an_old_commit_stays_readable_when_main_moves_on(hub: LoopbackHub, tmp_path: Path) -> None:
    """A commit's sha and a tag go on naming the old bytes; a range of a file comes alone."""
    old = hub.add_repo("acme/model", files={"a.txt": b"old", "b.txt": b"kept"})
    new = hub.add_repo("acme/model", files={"a.txt": b"new"})
    hub.repos["model", "acme/model"].tags["v1"] = old
    script = """
        def read(revision=None, name="a.txt"):
            return Path(hf.hf_hub_download("acme/model", name, revision=revision)).read_text()

        ranged = {"Range": "bytes=1-2"}
        part = hf.get_session().get(hf.hf_hub_url("acme/model", "b.txt"), headers=ranged)
        range_ = [part.status_code, part.text, part.headers["Content-Range"]]
        answer = [api.model_info("acme/model").sha, read(), read("v1"), read(OLD), read(name="b.txt"), range_]
    """.replace("OLD", repr(old))
    assert client(hub, tmp_path, script) == [new, "new", "old", "old", "kept", [206, "ep", "bytes 1-2/4"]]
    assert old != new
    assert len(old) == len(new) == 40


def test_what_is_missing_is_told_apart(hub: LoopbackHub, tmp_path: Path) -> None:
    """Wrong revisions, files, repositories and tokens, and a planted fault, raise errors of their own."""
    hub.add_repo("acme/model", files=FILES)
    hub.faults = [Fault(r"GET /api/models/acme/faulty", 503, times=1)]
    hub.add_repo("acme/faulty", files=FILES)
    script = """
        answer = [
            tried(api.model_info, "acme/model", revision="v9"),
            tried(hf.hf_hub_download, "acme/model", "config.json", revision="v9"),
            tried(hf.hf_hub_download, "acme/model", "none.json"),
            tried(api.model_info, "acme/typo"),
            tried(api.model_info, "typo"),
            tried(api.dataset_info, "acme/model"),
            tried(hf.hf_hub_download, "acme/typo", "config.json"),
            tried(api.auth_check, "acme/typo"),
            tried(api.model_info, "acme/model", token="hf_of_nobody"),
            tried(api.model_info, "acme/faulty"),
            api.model_info("acme/faulty").id,
        ]
    """
    missing = ["RevisionNotFoundError"] * 2 + ["RemoteEntryNotFoundError"] + ["RepositoryNotFoundError"] * 5
    assert client(hub, tmp_path, script) == [*missing, "HfHubHTTPError", "HfHubHTTPError", "acme/faulty"]


def test_gated_files_need_access_but_their_names_do_not(hub: LoopbackHub, tmp_path: Path) -> None:
    """Everybody sees a gated repository and its list; the owner and those granted access get the files."""
    hub.add_repo("acme/gated", files=FILES, gated=True)
    script = """
        def download(token):
            return Path(hf.hf_hub_download("acme/gated", "config.json", token=token)).name

        tokens = [False, "hf_stranger", "hf_guest", "hf_owner"]
        answer = {
            "seen": [api.model_info("acme/gated").gated, len(api.list_repo_files("acme/gated"))],
            "check": [tried(api.auth_check, "acme/gated", token=token) for token in tokens],
            "snapshot": tried(hf.snapshot_download, "acme/gated"),
            "file": [tried(download, token) for token in tokens],
        }
    """
    refused = ["GatedRepoError"] * 2
    assert client(hub, tmp_path, script) == {
        "seen": ["manual", 3],
        "check": [*refused, None, None],
        "snapshot": "GatedRepoError",
        "file": [*refused, "config.json", "config.json"],
    }


def test_a_private_repository_looks_missing_to_strangers(hub: LoopbackHub, tmp_path: Path) -> None:
    """A private repository and a missing one give the same answers to those without rights."""
    hub.add_repo("acme/private", files=FILES, private=True)
    script = """
        def download(repo, token):
            return hf.hf_hub_download(repo, "config.json", token=token)

        def seen(repo, token):
            return [tried(call, repo, token=token) for call in (api.model_info, api.auth_check, download)]

        tokens = [False, "hf_stranger"]
        answer = {
            "same": [seen("acme/private", token) == seen("acme/typo", token) for token in tokens],
            "stranger": seen("acme/private", "hf_stranger"),
            "owner": [api.model_info("acme/private").private, Path(seen("acme/private", None)[2]).name],
        }
    """
    assert client(hub, tmp_path, script, token="hf_owner") == {
        "same": [True, True],
        "stranger": ["RepositoryNotFoundError"] * 3,
        "owner": [True, "config.json"],
    }


def test_transformers_loads_a_model_from_the_hub(hub: LoopbackHub, tmp_path: Path) -> None:
    """Configuration, tokenizer and weights of a tiny Llama arrive as they were saved."""
    saved = tiny_llama(tmp_path / "llama")
    sha = hub.add_repo("acme/llama", files=tmp_path / "llama")
    script = """
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained("acme/llama")
        tokenizer = AutoTokenizer.from_pretrained("acme/llama")
        config = AutoConfig.from_pretrained("acme/llama")
        answer = [config.model_type, tokenizer("a b")["input_ids"], model.lm_head.weight.tolist()]
    """
    assert client(hub, tmp_path, script) == ["llama", [1, 2], saved]
    assert f"GET /acme/llama/resolve/{sha}/model.safetensors" in hub.requests


def tiny_llama(folder: Path) -> Any:
    """Save a Llama of a few thousand weights with its tokenizer, and give back its output weights."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    backend: Any = transformers.PreTrainedTokenizerFast
    backend(tokenizer_object=words, unk_token="<unk>").save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=3, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return model.lm_head.weight.tolist()
