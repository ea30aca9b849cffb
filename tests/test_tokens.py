"""Tokens that are kept: the same as made anew, and only for the same texts and tokenizer."""

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import hf_finetune.tokens
from hf_finetune.chat import PROBE, ChatFormat
from hf_finetune.model import find_base_model, load_tokenizer
from hf_finetune.settings import Settings
from hf_finetune.tokens import Example, tokenize

TEXTS = [("is it good?", "positive"), ("é ☕", "neutral"), ("x" * 50, "")]


@pytest.fixture
def chat(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ChatFormat:
    monkeypatch.setattr(hf_finetune.tokens, "WORTH_KEEPING", 3)
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    return ChatFormat.of(load_tokenizer(find_base_model(Settings(model_name_or_path=str(tiny_base)))))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that have been tokenised."""
    prompts: list[str] = []
    example = ChatFormat.example

    def watched(self: ChatFormat, prompt: str, completion: str) -> Example:
        prompts.append(prompt)
        return example(self, prompt, completion)

    monkeypatch.setattr(ChatFormat, "example", watched)
    return prompts


def kept(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.npz"))


def test_the_same_rows_are_tokenised_once(chat: ChatFormat, made: list[str], tmp_path: Path) -> None:
    plain = [chat.example(*text) for text in TEXTS]
    made.clear()
    assert tokenize(chat, TEXTS, keep=True) == plain
    assert made == [PROBE, *(prompt for prompt, _ in TEXTS)]
    made.clear()
    assert tokenize(chat, TEXTS, keep=True) == plain
    assert made == [PROBE]
    assert len(kept(tmp_path)) == 1


def test_few_rows_are_not_kept_and_none_where_that_is_not_wanted(
    chat: ChatFormat, made: list[str], tmp_path: Path
) -> None:
    tokenize(chat, TEXTS, keep=False)
    made.clear()
    assert tokenize(chat, TEXTS[:2], keep=True) == tokenize(chat, TEXTS[:2], keep=True)
    assert len(made) == 4
    assert kept(tmp_path) == []


def test_another_text_template_or_ending_is_tokenised_anew(chat: ChatFormat, tmp_path: Path) -> None:
    tokenize(chat, TEXTS, keep=True)
    moved = [("is it good?p", "ositive"), *TEXTS[1:]]
    assert tokenize(chat, moved, keep=True) == [chat.example(*text) for text in moved]
    assert tokenize(replace(chat, ending=(7,)), TEXTS, keep=True)[0]["labels"][-1] == 7
    for once_or_twice in ("{{ messages[0].content }}", "{{ messages[0].content }}{{ messages[0].content }}"):
        chat.tokenizer.chat_template = once_or_twice
        assert tokenize(chat, TEXTS, keep=True) == [chat.example(*text) for text in TEXTS]
    assert len(kept(tmp_path)) == 5


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "array"])
def test_a_damaged_file_is_made_anew(chat: ChatFormat, tmp_path: Path, damage: str) -> None:
    plain = tokenize(chat, TEXTS, keep=True)
    tokenize(chat, [*TEXTS, TEXTS[0]], keep=True)
    file, other = sorted(kept(tmp_path), key=lambda path: path.stat().st_size)
    content, array = file.read_bytes(), io.BytesIO()
    np.save(array, np.zeros(3))
    file.write_bytes(
        {"cut": content[:200], "empty": b"", "other": other.read_bytes(), "array": array.getvalue()}[damage]
    )
    assert tokenize(chat, TEXTS, keep=True) == plain
    assert file.read_bytes() == content


def test_a_place_that_cannot_be_written_only_costs_time(chat: ChatFormat, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("no folder")
    assert tokenize(chat, TEXTS, keep=True) == tokenize(chat, TEXTS, keep=True)


def test_files_that_were_not_read_for_the_longest_time_go(
    chat: ChatFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for age, texts in enumerate([TEXTS, [*TEXTS, TEXTS[0]]]):
        tokenize(chat, texts, keep=True)
        files += [path for path in kept(tmp_path) if path not in files]
        os.utime(files[-1], (1_000 + age, 1_000 + age))
    left_by_a_kill = files[0].with_name(".killed.npz.partial")
    left_by_a_kill.write_bytes(b"0" * 100)
    os.utime(left_by_a_kill, (500, 500))
    monkeypatch.setattr(hf_finetune.tokens, "MOST_BYTES", int(2.5 * files[0].stat().st_size))
    tokenize(chat, TEXTS, keep=True)  # so that the other one is older
    tokenize(chat, [*TEXTS, TEXTS[1]], keep=True)
    assert len(kept(tmp_path)) == 2
    assert files[0] in kept(tmp_path)
    assert not left_by_a_kill.exists()
    assert files[0].parent.stat().st_mode & 0o777 == 0o700
