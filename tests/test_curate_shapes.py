"""What is written is read: by `datasets` with its splits, by TRL's trainers, by the Hub, by a browser."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import run_cli
from curate_data import content, plan_of, questions, read_lines, write_lines
from hf_finetune.curate.curating import prepare_data
from hf_finetune.curate.datacard import render_page, render_readme
from hf_finetune.data.reading import read_records
from hf_finetune.data.sources import LocalFolder
from hf_finetune.errors import RecipeError
from hf_finetune.files import read_json
from loopback_hub import LoopbackHub
from loopback_hub.cards import complaints, metadata

Row = dict[str, Any]

LAYOUTS: dict[str, tuple[Callable[[Row], Row], tuple[str, ...]]] = {
    "question": (lambda row: row, ("prompt", "completion")),
    "text": (lambda row: {"text": f"{row['question']} {row['answer']}"}, ("text",)),
    "label": (lambda row: {"text": row["question"], "label": row["answer"][-2:-1]}, ("text", "label")),
    "preference": (
        lambda row: {"prompt": row["question"], "chosen": row["answer"], "rejected": "Nobody knows that."},
        ("prompt", "chosen", "rejected"),
    ),
    "rated": (
        lambda row: {"prompt": row["question"], "completion": row["answer"], "label": row["answer"].endswith("1.")},
        ("prompt", "completion", "label"),
    ),
    "chat": (
        lambda row: {"messages": [{"role": role, "content": text} for role, text in (
            ("user", row["question"]), ("assistant", row["answer"]), ("user", "Is it sure?"), ("assistant", "It is."),
        )]},
        ("messages",),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A prepared data set of each layout."""
    folder = tmp_path_factory.mktemp("made")
    for name, (form, _) in LAYOUTS.items():
        source = write_lines(folder / f"{name}.jsonl", map(form, questions(60)))
        prepare_data(plan_of(source, license="mit", languages=("en",)), folder / name, 1, say=lambda line: None)
    return {name: folder / name for name in LAYOUTS}


@pytest.mark.parametrize("name", LAYOUTS)
def test_datasets_loads_the_three_splits(made: dict[str, Path], tmp_path: Path, name: str) -> None:
    from datasets import load_dataset

    data = load_dataset(str(made[name]), cache_dir=str(tmp_path))
    facts = read_json(made[name] / "data_card.json")
    assert facts["layout"]["shape"] == name
    assert {split: len(own) for split, own in data.items()} == {
        split: facts["rows"][split] for split in ("train", "validation", "test")
    }
    assert data["train"].column_names == [*LAYOUTS[name][1], "source"]
    assert data["train"][0]["source"] == f"{name}.jsonl"


def test_datasets_loads_the_same_from_json_lines(made: dict[str, Path], tmp_path: Path) -> None:
    from datasets import load_dataset

    source = made["chat"].parent / "chat.jsonl"
    prepare_data(plan_of(source, format="jsonl"), tmp_path / "out", 1, say=lambda line: None)
    of_lines = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    of_parquet = load_dataset(str(made["chat"]), cache_dir=str(tmp_path / "cache2"))
    assert {name: own.to_list() for name, own in of_lines.items()} == {
        name: own.to_list() for name, own in of_parquet.items()
    }


@pytest.mark.parametrize("name", ["question", "chat", "preference", "rated"])
def test_trl_takes_the_rows_for_conversations(
    made: dict[str, Path], tmp_path: Path, tiny_base: Path, name: str
) -> None:
    from datasets import load_dataset
    from transformers import AutoTokenizer
    from trl.data_utils import apply_chat_template, is_conversational

    row = load_dataset(str(made[name]), split="train", cache_dir=str(tmp_path))[0]
    assert is_conversational(row)
    texts = apply_chat_template(row, AutoTokenizer.from_pretrained(tiny_base))
    assert all("<|im_start|>" in texts[part] or "<|im_end|>" in texts[part] for part in texts if part != "label")


def test_general_data_beside_labelled_texts_makes_conversations_of_both(tmp_path: Path, made: dict[str, Path]) -> None:
    from hf_finetune.curate.plan import Plan, find_feed

    folder = made["label"].parent
    feeds = find_feed(str(folder / "label.jsonl")), find_feed(str(folder / "chat.jsonl"), 0.1)
    facts = prepare_data(Plan(feeds), tmp_path / "out", 1, say=lambda line: None)
    assert facts["layout"]["columns"] == ["messages", "source"]
    feeds = find_feed(str(folder / "preference.jsonl")), find_feed(str(folder / "chat.jsonl"), 0.1)
    with pytest.raises(RecipeError, match="one data set cannot hold both"):
        prepare_data(Plan(feeds), tmp_path / "other", 1, say=lambda line: None)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_hub_accepts_the_card_and_the_card_says_what_was_counted(made: dict[str, Path], name: str) -> None:
    card, facts = (made[name] / "README.md").read_text(), read_json(made[name] / "data_card.json")
    assert complaints(card) == []
    told = metadata(card)
    assert told
    assert (told["license"], told["language"], told["size_categories"]) == ("mit", ["en"], "n<1K")
    assert [one["split"] for one in told["configs"][0]["data_files"]] == ["train", "validation", "test"]
    for split in ("train", "validation", "test"):
        assert f"| {split} | {facts['rows'][split]} |" in card
    assert facts["files"]["data/train-00000-of-00001.parquet"]["sha256"] in card
    assert facts["sources"][0]["files"][f"{name}.jsonl"] in card
    assert "\n\n\n" not in card


@pytest.mark.parametrize(
    ("rows", "size"),
    [(999, "n<1K"), (1_000, "1K<n<10K"), (10**9 - 1, "100M<n<1B"), (10**9, "1B<n<10B"), (10**12, "n>1T")],
)
def test_the_card_names_the_size_as_the_hub_does(made: dict[str, Path], rows: int, size: str) -> None:
    facts = read_json(made["text"] / "data_card.json")
    facts["rows"]["kept"] = rows
    card = render_readme(facts)
    assert (metadata(card) or {})["size_categories"] == size
    assert complaints(card) == []


@pytest.mark.parametrize("name", LAYOUTS)
def test_card_and_page_are_made_of_the_facts_alone(made: dict[str, Path], name: str) -> None:
    facts = read_json(made[name] / "data_card.json")
    assert render_readme(facts) == (made[name] / "README.md").read_text()
    page = (made[name] / "index.html").read_text()
    assert render_page(facts) == page
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page)  # it loads nothing from anywhere
    assert page.count("<rect") > 3
    assert str(made[name].parent) not in page


def test_texts_of_rows_cannot_become_markup_of_the_page(tmp_path: Path) -> None:
    rows = questions(30)
    for row in rows:
        row["question"] += " <script>alert(1)</script>"
    prepare_data(plan_of(write_lines(tmp_path / "r.jsonl", rows)), tmp_path / "out", 1, say=lambda line: None)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_what_was_prepared_is_rows_again(tmp_path: Path, form: str) -> None:
    rows: list[Row] = [*questions(12)]
    rows[3]["answer"] = ["no text"]
    rows[4]["answer"] += "  "
    prepare_data(
        plan_of(write_lines(tmp_path / "rows.jsonl", rows), format=form), tmp_path / "out", 1, say=lambda _: None
    )
    assert {"rejected.jsonl", "changed.jsonl", "data_card.json"} <= set(content(tmp_path / "out"))
    read = read_records(LocalFolder(str(tmp_path / "out")).locate(), ("prompt", "completion"))
    assert len(read) == 11


@pytest.mark.slow
def test_push_leaves_the_data_in_a_private_repo_by_one_commit_and_keeps_what_was_dropped(tmp_path: Path) -> None:
    rows = questions(40)
    rows[3]["answer"] = "Write to {{name}}."
    write_lines(tmp_path / "rows.jsonl", rows)
    words = ("prepare", "rows.jsonl", "-o", "out", "--workers", "1", "--push", "acme/rows")
    with LoopbackHub() as hub:
        hub.tokens = {"hf_secret": "acme"}
        environment = hub.environment(tmp_path / "home", "hf_secret") | {"HF_HUB_OFFLINE": "0"}
        done = run_cli(*words, cwd=tmp_path, module=False, **environment)
        assert done.returncode == 0, done.stderr
        repo = hub.repos["dataset", "acme/rows"]
        assert repo.private
        names = {
            entry for entry in content(tmp_path / "out") if not entry.endswith(("rejected.jsonl", "changed.jsonl"))
        }
        assert set(repo.commits[repo.branches["main"]]) - {".gitattributes"} == names
        assert hub.read("acme/rows", "README.md", repo_type="dataset") == (tmp_path / "out" / "README.md").read_bytes()
        assert len(read_lines(tmp_path / "out" / "rejected.jsonl")) == 1
        commits = len(repo.history)
        again = run_cli(*words, cwd=tmp_path, module=False, **environment)
        assert again.returncode == 0, again.stderr
        assert "is there  " in again.stdout
        assert len(repo.history) == commits
        loaded = subprocess.run(
            [sys.executable, "-c", "import json, datasets; d = datasets.load_dataset('acme/rows'); "
             "print(json.dumps({k: len(v) for k, v in d.items()}))"],
            env=os.environ | environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert loaded.returncode == 0, loaded.stderr
        assert json.loads(loaded.stdout.splitlines()[-1]) == {"train": 31, "validation": 4, "test": 4}
        read_back = ("prepare", "acme/rows", "-o", "again", "--workers", "1")
        again = run_cli(*read_back, cwd=tmp_path, module=False, **environment)
        assert again.returncode == 0, again.stderr
        assert read_json(tmp_path / "again" / "data_card.json")["rows"]["kept"] == 39


@pytest.mark.slow
def test_a_push_to_a_public_repo_is_refused_before_the_work(tmp_path: Path) -> None:
    write_lines(tmp_path / "rows.jsonl", questions(40))
    with LoopbackHub() as hub:
        hub.tokens = {"hf_secret": "acme"}
        hub.add_repo("acme/rows", {"README.md": b"# mine\n"}, repo_type="dataset")
        environment = hub.environment(tmp_path / "home", "hf_secret") | {"HF_HUB_OFFLINE": "0"}
        done = run_cli(
            "prepare", "rows.jsonl", "-o", "out", "--push", "acme/rows", cwd=tmp_path, module=False, **environment
        )
    assert done.returncode == 1
    assert "the repo is public" in done.stderr
    assert not (tmp_path / "out").exists()
