"""Several models asked the same rows: which examples they are shown, what is kept, and what is made of odd answers."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_scoring import OpenSentiment
from transformers import LlamaConfig

from hf_finetune.asking import Given, ask, marked
from hf_finetune.chat import ChatFormat
from hf_finetune.errors import RecipeError
from hf_finetune.evaluate import Evaluation, few_shot_chats
from hf_finetune.files import read_jsonl
from hf_finetune.generate import log_likelihoods
from hf_finetune.model import find_base_model, load_base_model, load_tokenizer
from hf_finetune.progress import Progress, Session
from hf_finetune.recipe import Recipe, load_recipe
from hf_finetune.report import Report
from hf_finetune.settings import Settings

FINSENT = load_recipe(str(Path(__file__).parent.parent / "recipes" / "finsent.py"))
Sentence = FINSENT.row_type()
LABELS = ("negative", "neutral", "positive")


def rows(count: int) -> list[Any]:
    return [Sentence(f"sentence {i}", LABELS[i % 3]) for i in range(count)]


def drawn(count: int, test: list[Any] | None = None, context: int | None = None, **values: Any) -> list[ChatFormat]:
    """The chats of a model with that context, on a tokenizer that takes a word for a token."""
    config = LlamaConfig(max_position_embeddings=context) if context else LlamaConfig()
    model = SimpleNamespace(config=config)
    chat = ChatFormat(WordTokenizer(), "", (0,))
    settings = Settings(few_shot=count, **values)
    return few_shot_chats(model, chat, FINSENT, rows(30), test or rows(3), 5, settings)


class WordTokenizer:
    chat_template = None

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [len(word) for word in text.split()]}


def test_the_examples_are_training_rows_and_closed_answers_come_in_turn() -> None:
    chats = drawn(6, few_shot_draws=2)
    assert len(chats) == 2
    assert chats[0].examples != chats[1].examples
    assert [chat.examples for chat in chats] == [chat.examples for chat in drawn(6, few_shot_draws=2)]
    known = {(FINSENT.prompt(row), FINSENT.completion(row)) for row in rows(30)}
    for chat in chats:
        assert set(chat.examples) <= known
        assert sorted(answer for _, answer in chat.examples) == sorted(LABELS * 2)


def test_as_many_examples_are_shown_as_fit_into_the_context() -> None:
    question = len(FINSENT.prompt(rows(1)[0]).split())
    assert [len(chat.examples) for chat in drawn(4, context=3 * (question + 1) + 5)] == [2, 2, 2]
    assert drawn(4, context=question + 5) == []
    assert drawn(0) == []


def test_many_examples_are_counted_out_in_a_few_tries() -> None:
    question = len(FINSENT.prompt(rows(1)[0]).split())
    for fits in (1, 2, 3, 7, 11, 29):
        (chat,) = drawn(30, context=(fits + 1) * (question + 1) + 4, few_shot_draws=1)
        assert len(chat.examples) == fits
    (chat,) = drawn(10_000, few_shot_draws=1, context=10**6)
    assert len(chat.examples) == 30  # there are no more training rows


@pytest.fixture(scope="module")
def loaded(tiny_base: Path) -> tuple[Any, ChatFormat]:
    settings = Settings(model_name_or_path=str(tiny_base))
    base = find_base_model(settings)
    return load_base_model(base, settings), ChatFormat.of(load_tokenizer(base))


def evaluation(chat: ChatFormat, folder: Path, told: list[str] | None = None, **values: Any) -> Evaluation:
    split = {"train": rows(9), "validation": rows(6), "test": rows(6)}
    progress = Progress(Session("now"), folder, (told if told is not None else []).append)
    return Evaluation(chat, FINSENT, split, Settings(few_shot=1, few_shot_draws=1, **values), folder, progress)


def test_what_a_model_has_given_is_not_asked_for_again(loaded: tuple[Any, ChatFormat], tmp_path: Path) -> None:
    model, chat = loaded
    first = evaluation(chat, tmp_path)
    first.ask_base(model)
    nobody = SimpleNamespace(config=model.config)  # whoever asks it anything fails
    second = evaluation(chat, tmp_path)
    second.ask_base(nobody)
    assert second.answers == first.answers
    assert second.general_losses == first.general_losses
    with pytest.raises(AttributeError):
        second.ask_tuned(nobody)


def test_a_mark_that_is_no_dict_is_told_with_its_row_and_the_answers_are_kept(
    loaded: tuple[Any, ChatFormat], tmp_path: Path
) -> None:
    class Forgets(type(FINSENT)):  # type: ignore[misc]  # its class is known at run time only
        name = "forgets"
        primary_metric = "accuracy"
        score, correct = Recipe.score, Recipe.correct

        def mark(self, row: Any, prediction: Any) -> Any:
            return None if row.sentence == "sentence 2" else {"accuracy": float(row.label == prediction)}

    model, chat = loaded
    asked = evaluation(chat, tmp_path)
    asked.recipe = Forgets()
    fault = "recipe 'forgets': test split: row 3: mark() gives None. Give back a dict of numbers, such as"
    with pytest.raises(RecipeError, match=f"^{re.escape(fault)}"):
        asked.ask_base(model)
    evaluation(chat, tmp_path)._ask(SimpleNamespace(config=model.config), chat, "base")  # mended: nobody is asked


def test_fewer_examples_than_asked_for_are_told(loaded: tuple[Any, ChatFormat], tmp_path: Path) -> None:
    model, chat = loaded
    told: list[str] = []
    asked = evaluation(chat, tmp_path, told)
    asked.settings = asked.settings.model_copy(update={"few_shot": 50})
    asked.ask_base(model)
    assert 0 < asked.num_examples <= 9
    assert any(
        line.startswith(f"few-shot: {asked.num_examples} example") and "of the 50 asked for" in line for line in told
    )


def test_a_model_that_has_learned_nothing_forgets_nothing(loaded: tuple[Any, ChatFormat], tmp_path: Path) -> None:
    model, chat = loaded
    asked = evaluation(chat, tmp_path, gates={"forgetting": 0.0, "perplexity": 1.0}, baseline="tfidf")
    asked.ask_base(model)
    asked.ask_tuned(model)
    asked.write()
    given = Report.read(tmp_path)
    assert given.forgetting == 0
    assert given.outcome == "too few rows to tell"
    assert [(gate.name, gate.bound, gate.held) for gate in given.gates] == [
        ("forgetting", "at most", True),
        ("perplexity", "at most", False),
    ]
    assert "| perplexity | at most 1 |" in (tmp_path / "report.md").read_text()
    assert list(given.columns) == ["majority", "tfidf", "base", "few_shot", "tuned"]
    lines = read_jsonl(tmp_path / "answers.jsonl")
    assert [sorted(line) for line in lines] == [["base", "few_shot", "gold", "prompt", "tfidf", "tuned"]] * 6
    assert [sum(line["base"]["probabilities"].values()) for line in lines] == pytest.approx([1] * 6)


def test_the_gold_answer_costs_what_its_likelihood_says(loaded: tuple[Any, ChatFormat]) -> None:
    model, chat = loaded
    settings = Settings()
    closed = ask(model, chat, FINSENT, rows(3), 5, settings)
    for row, given in zip(rows(3), closed, strict=True):
        (likelihoods,) = log_likelihoods(model, chat, [FINSENT.prompt(row)], [LABELS], 4)
        assert given.gold_loss == pytest.approx(-likelihoods[LABELS.index(row.label)], abs=1e-4)
    opened = ask(model, chat, OpenSentiment(), rows(3), 5, settings)
    assert [one.gold_loss for one in opened] == pytest.approx([one.gold_loss for one in closed], abs=1e-4)


def test_samples_are_marked_one_by_one(loaded: tuple[Any, ChatFormat]) -> None:
    model, chat = loaded
    given = ask(model, chat, OpenSentiment(), rows(2), 3, Settings(num_samples=3))
    assert [len(one.samples) for one in given] == [3, 3]
    sampled = Given("neutral", samples=["negative", "what?", "negative"])
    assert marked(OpenSentiment(), rows(1)[0], sampled).correct_samples == 2


def test_a_row_without_a_number_counts_as_wrong_and_the_others_are_scored(tiny_base: Path) -> None:
    settings = Settings(model_name_or_path=str(tiny_base), load_in_4bit=False)
    base = find_base_model(settings)
    model, chat = load_base_model(base, settings), ChatFormat.of(load_tokenizer(base))
    test = [*rows(3), Sentence("Ω", "negative"), *rows(2)]
    (odd,) = {id for id in chat.prompt_ids("Ω") if id not in chat.prompt_ids("")} - set(chat.prompt_ids("é"))
    with torch.no_grad():
        model.get_input_embeddings().weight[odd] = float("nan")
    told: list[str] = []
    given = ask(model, chat, FINSENT, test, 5, settings, Progress(Session("now"), tiny_base, told.append))
    assert [one.text is None for one in given] == [False, False, False, True, False, False]
    assert told[-1] == "evaluate model: the likelihoods of 1 row are no numbers; they count as wrong."
    answer = marked(FINSENT, test[3], given[3])
    assert (answer.prediction, answer.correct, answer.probabilities) == (None, False, None)


def test_a_model_without_any_number_is_told(tiny_base: Path) -> None:
    settings = Settings(model_name_or_path=str(tiny_base))
    base = find_base_model(settings)
    model, chat = load_base_model(base, settings), ChatFormat.of(load_tokenizer(base))
    torch.nn.init.constant_(model.model.norm.weight, float("nan"))
    for recipe in (FINSENT, OpenSentiment()):
        with pytest.raises(RecipeError, match="no likelihood is a number"):
            ask(model, chat, recipe, rows(3), 2, settings)
