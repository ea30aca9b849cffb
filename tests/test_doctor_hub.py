"""What doctor says of a base, a data set and a push on the Hub, asked of a loopback Hub by the real client."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import sample_rows
from hf_finetune.doctor import AREAS
from loopback_hub import LoopbackHub, Token

RECIPE = Path(__file__).parent.parent / "recipes" / "finsent.py"
SCRIPT = """
import json, os, sys
from dataclasses import asdict
from hf_finetune.cli.doctor import quieten_transformers, subject_of
from huggingface_hub import hf_hub_download
from hf_finetune.doctor import AREAS, examine
quieten_transformers()
quick = [area for area in AREAS if area.name != "memory and cost"]
for case in json.loads(sys.argv[1]):
    os.environ.pop("HF_TOKEN", None)
    os.environ |= case["environment"]
    for name in case["fetched"]:
        hf_hub_download("ns/part", name)
    subject = subject_of(case["recipe"], case["words"], None, False, case["data"])
    print(json.dumps([asdict(line) for _, own in examine(subject, quick) for line in own]))
"""

CASES: tuple[tuple[str, str, dict[str, Any], str, str], ...] = (
    ("no such base", "fault", {"words": ["model_name_or_path=ns/none"]},
     "the Hub has none of that name, or it is private", "spelling"),
    ("a gated base", "fault", {"words": ["model_name_or_path=ns/gated"]}, "gated, and you are not logged in", "terms"),
    ("a gated base, and a token without access", "fault", {"words": ["model_name_or_path=ns/gated"], "token": "hf_bob"},
     "is gated, and this token has no access", "terms"),
    ("a revision that is not there", "fault", {"words": ["model_revision=v9"]}, "has no revision 'v9'", "branch"),
    ("a base with pickles only", "warning", {"words": ["model_name_or_path=ns/pickles"]}, "are pickles", "safet"),
    ("a base in GGUF", "fault", {"words": ["model_name_or_path=ns/gguf"]}, "which is not read here", "safetensors"),
    ("code of its own", "fault", {"words": ["model_name_or_path=ns/code"]}, "needs code of its own", "archit"),
    ("a licence that forbids it", "fault", {"recipe": "mit.py"}, "forbids commercial use", "cc-by-nc-4.0"),
    ("a data set that is not there", "fault", {"data": None, "recipe": "none.py"}, "'ns/none'", "spelling"),
    ("a file that is not in it", "fault", {"data": None, "recipe": "file.py"}, "no file 'other.csv'", "one that"),
    ("a data set that is large", "warning", {"data": None, "recipe": "large.py"}, "MiB, which are not", "--download"),
    ("a data set that is large, and compressed", "warning", {"data": None, "recipe": "packed.py"},
     "65 MiB, which are not", "--download"),
    ("a base of which a part is in the cache", "ok", {"words": ["model_name_or_path=ns/part"],
     "fetched": "model-00001-of-00002.safetensors"}, "5 MiB, of which 2 MiB are to be downloaded", ""),
    ("a push of another's", "fault", {"words": ["hub_model_id=eve/finsent"], "token": "hf_ann"},
     "'ann' cannot create a repo of 'eve'", "Name one of"),
    ("a token that reads only", "fault", {"words": ["hub_model_id=ann/new"], "token": "hf_read"},
     "no right to create", "settings/tokens"),
    ("a push without a token", "fault", {"words": ["hub_model_id=ann/new"]}, "push to ann/new", "hf auth login"),
    ("a repo that holds a model", "fault", {"words": ["hub_model_id=ann/whole"], "token": "hf_ann"},
     "holds a whole model", "another repo"),
    ("a base of this machine", "fault", {"words": ["hub_model_id=ann/new", "model_name_or_path=BASE"],
     "token": "hf_ann"}, "is a folder of this machine", "Push the base"),
)  # fmt: skip


@pytest.fixture(scope="module")
def hub(tiny_base: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        files = {path.name: path.read_bytes() for path in tiny_base.iterdir()}
        weights = files.pop("model.safetensors")
        card = b"---\nlicense: cc-by-nc-4.0\n---\n"
        running.add_repo("ns/base", files | {"model.safetensors": weights})
        running.add_repo("ns/licensed", files | {"model.safetensors": weights, "README.md": card})
        running.add_repo("ns/gated", files, gated=True)
        running.add_repo("ns/pickles", files | {"pytorch_model.bin": b"pickled"})
        running.add_repo("ns/gguf", files | {"model-q4.gguf": b"GGUF"})
        own = json.loads(files["config.json"]) | {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}
        running.add_repo("ns/code", files | {"model.safetensors": weights, "config.json": json.dumps(own).encode()})
        running.add_repo("ns/rows", {"rows.csv": b"sentence,label\n"}, repo_type="dataset")
        running.add_repo("ns/large", {"rows.csv": bytes(65 * 2**20)}, repo_type="dataset")
        running.add_repo("ns/packed", {"rows.csv.gz": bytes(65 * 2**20), "data_card.json": b"{}"}, repo_type="dataset")
        shards = {f"model-0000{n}-of-00002.safetensors": bytes(size * 2**20) for n, size in ((1, 3), (2, 2))}
        index = json.dumps({"weight_map": dict(zip("ab", shards, strict=True))}).encode()
        other = {"model.safetensors.index.json": index, "consolidated.safetensors": bytes(7 * 2**20)}
        running.add_repo("ns/part", files | shards | other)
        running.add_repo("ann/whole", {"model.safetensors": b"weights"})
        running.tokens |= {"hf_ann": "ann", "hf_bob": "bob", "hf_read": Token("ann", role="read")}
        yield running


@pytest.fixture(scope="module")
def told(
    hub: LoopbackHub, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    """The lines of each case, all made in one process."""
    folder = tmp_path_factory.mktemp("doctor")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sample_rows(10)))
    text = RECIPE.read_text(encoding="utf-8")
    start, end = text.index("    dataset = Hub"), text.index("    license =")
    sources = {
        "none.py": '"ns/none"',
        "file.py": '"ns/rows", file="other.csv"',
        "large.py": '"ns/large"',
        "packed.py": '"ns/packed"',
    }
    recipes = {name: f"{text[:start]}    dataset = HubDataset({own})\n{text[end:]}" for name, own in sources.items()}
    licensed = text.replace('"cc-by-nc-sa-3.0"', '"mit"').replace("Qwen/Qwen2.5-1.5B-Instruct", "ns/licensed")
    (folder / "tests" / "data").mkdir(parents=True)
    odd = Path(__file__).parent / "data" / "finsent.jsonl"
    (folder / "tests" / "data" / "finsent.jsonl").write_bytes(odd.read_bytes())
    local = licensed.index("    dataset = Hub"), licensed.index("    license =")
    licensed = f'{licensed[: local[0]]}    dataset = LocalFile("rows.jsonl")\n{licensed[local[1] :]}'
    recipes["mit.py"] = licensed.replace("import HubDataset", "import LocalFile")
    for name, content in recipes.items():
        (folder / name).write_text(content, encoding="utf-8")
    cases: list[dict[str, Any]] = [{
        "recipe": str(folder / case["recipe"]) if "recipe" in case else str(RECIPE),
        "words": [*([] if case.get("recipe") == "mit.py" else ["model_name_or_path=ns/base"]),
                  *(word.replace("BASE", str(tiny_base)) for word in case.get("words", []))],
        "data": case.get("data", None if case.get("recipe") == "mit.py" else "rows.jsonl"),
        "fetched": [case["fetched"], "model.safetensors.index.json"] if "fetched" in case else [],
        "environment": {"HF_TOKEN": case["token"]} if "token" in case else {},
    } for _, _, case, _, _ in CASES]  # fmt: skip
    for case in cases:  # of settings that are given twice the last one is meant
        named = [word for word in case["words"] if word.startswith("model_name_or_path=")]
        case["words"] = [word for word in case["words"] if word not in named[:-1]]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(cases)], cwd=folder, env=inherited | hub.environment(folder / "home"),
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {name: own for (name, *_), own in zip(CASES, lines, strict=True)}


@pytest.mark.parametrize(("name", "level", "text", "fix"), [(n, level, t, f) for n, level, _, t, f in CASES])
def test_what_the_hub_refuses_is_named_before_the_run(
    name: str, level: str, text: str, fix: str, told: dict[str, list[dict[str, Any]]]
) -> None:
    found = [line for line in told[name] if re.search(text, line["text"])]
    assert found, "\n".join(f"{line['level']}: {line['text']}" for line in told[name])
    assert any(line["level"] == level and re.search(fix, line["fix"]) for line in found), found


def test_no_weights_are_downloaded(told: dict[str, list[dict[str, Any]]], hub: LoopbackHub) -> None:
    assert told
    fetched = [request for request in hub.requests if request.startswith("GET") and "/resolve/" in request]
    fetched = [request for request in fetched if "ns/part/" not in request or "00002-of" in request]
    assert any("config.json" in request for request in fetched)
    assert not [request for request in fetched if request.endswith((".safetensors", ".bin", ".gguf", ".csv"))]


def test_what_the_hub_says_hides_no_other_area(told: dict[str, list[dict[str, Any]]]) -> None:
    areas = {line["area"] for line in told["no such base"]}
    assert {area.name for area in AREAS} - {"memory and cost", "Hub"} <= areas | {"training"}
