"""The comparison: what is counted, how sure it is, and the sentence that is drawn from it."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import LlamaConfig

from hf_finetune.chat import ChatFormat
from hf_finetune.evaluate import few_shot_chats
from hf_finetune.files import read_json, write_json
from hf_finetune.recipe import load_recipe
from hf_finetune.report import Answer, Report, bootstrap_intervals, compare
from hf_finetune.settings import Settings

FINSENT = load_recipe(str(Path(__file__).parent.parent / "recipes" / "finsent.py"))
Sentence = FINSENT.row_type()
LABELS = ("negative", "neutral", "positive")


def rows(count: int) -> list[Any]:
    return [Sentence(f"sentence {i}", LABELS[i % 3]) for i in range(count)]


def answers(test: list[Any], wrong: set[int]) -> list[Answer]:
    """Right answers but for the rows in `wrong`, which get the next label."""
    given = [LABELS[(LABELS.index(row.label) + (i in wrong)) % 3] for i, row in enumerate(test)]
    return [Answer(text, text, text == row.label) for text, row in zip(given, test, strict=True)]


def report(base_wrong: set[int], tuned_wrong: set[int], count: int = 90) -> Report:
    test = rows(count)
    return compare(FINSENT, rows(9), test, answers(test, base_wrong), answers(test, tuned_wrong), 5)


def test_a_real_gain_is_called_one() -> None:
    given = report(set(range(60)), set(range(10)))
    assert given.verdict.startswith("Fine-tuning helped: macro_f1 0.333 -> 0.889")
    assert given.intervals["gain"][0] > 0


def test_a_run_that_learned_nothing_is_told_so() -> None:
    assert report(set(range(40)), set(range(40))).verdict.startswith("No measurable gain")


def test_a_real_loss_is_called_one() -> None:
    assert report(set(range(10)), set(range(60))).verdict.startswith("Fine-tuning made it worse")


def test_too_few_rows_give_no_verdict() -> None:
    assert report({0, 1}, {0}, count=6).verdict.startswith("No measurable gain")


def test_corrected_and_spoiled_rows_are_counted() -> None:
    given = report({0, 1, 2}, {2, 3})
    assert (given.corrected, given.spoiled) == (2, 1)


def test_the_test_of_a_change_is_mcnemars() -> None:
    assert report({0, 1, 2}, {2, 3}).p_value == 1.0  # 2 corrected, 1 spoiled
    # 10 corrected, 1 spoiled: 2 (1 + 11) / 2^11, and the same the other way round
    assert report(set(range(10)), {20}).p_value == report({20}, set(range(10))).p_value == 24 / 2048
    assert report(set(), set()).p_value == 1.0
    assert 0 < replace(report(set(), set()), corrected=5000, spoiled=4000).p_value < 1e-20


def beside_examples(base_wrong: set[int], tuned_wrong: set[int], *draws: set[int]) -> Report:
    test = rows(90)
    base, tuned, *few_shot = (answers(test, wrong) for wrong in (base_wrong, tuned_wrong, *draws))
    return compare(FINSENT, rows(9), test, base, tuned, 5, few_shot, num_examples=4)


def test_the_few_shot_column_is_the_mean_of_its_draws() -> None:
    given = beside_examples(set(range(60)), set(range(10)), set(range(30)), set(range(60)))
    assert given.scores["few_shot"]["accuracy"] == pytest.approx(1 / 2)
    assert given.few_shot_scores == pytest.approx([2 / 3, 1 / 3])
    assert list(given.columns.values()) == ["always `negative`", "base", "base, 4-shot", "fine-tuned"]
    low, high = given.intervals["few_shot"]
    assert low < 1 / 2 < high
    assert "before each question: the mean of 2 draws (macro_f1 0.667, 0.333)." in given.as_markdown()
    assert replace(given, few_shot_scores=[0.5]).draws.endswith("before each question: 1 draw (macro_f1 0.500).")


@pytest.mark.parametrize(
    ("base", "tuned", "few_shot", "verdict"),
    [
        (60, 10, 40, "Fine-tuning helped: .* It is also better than the base with 4 examples in the prompt"),
        (60, 10, 11, "Fine-tuning helped: .* But the base with 4 examples in the prompt is as good .*: use few-shot.$"),
        (60, 40, 5, "Fine-tuning helped: .* But the base with 4 examples in the prompt is better .*: use few-shot.$"),
        (40, 40, 5, "No measurable gain .* But the base with 4 examples in the prompt is better .*: use few-shot.$"),
        (40, 40, 40, r"No measurable gain [^:]*: macro_f1 [^:]*test rows\).$"),
        (10, 60, 60, "Fine-tuning made it worse.*Do not use this adapter.$"),
    ],
)
def test_the_verdict_tells_whether_examples_in_the_prompt_would_do(
    base: int, tuned: int, few_shot: int, verdict: str
) -> None:
    given = beside_examples(set(range(base)), set(range(tuned)), set(range(few_shot)))
    assert re.match(verdict, given.verdict)


def test_a_report_of_before_there_were_examples_is_still_read(tmp_path: Path) -> None:
    report({0}, {1}).write(tmp_path)
    old = read_json(tmp_path / "report.json")
    for name in ("few_shot_examples", "few_shot_scores"):
        del old[name]
    write_json(tmp_path / "report.json", old)
    assert Report.read(tmp_path) == report({0}, {1})


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


def test_unreadable_answers_are_wrong_and_counted() -> None:
    test = rows(6)
    unreadable = [Answer("what?", None, False)] * 6
    given = compare(FINSENT, rows(9), test, unreadable, answers(test, set()), 5)
    assert given.unreadable == {"base": 6, "tuned": 0}
    assert given.scores["base"]["accuracy"] == 0
    assert given.scores["tuned"]["accuracy"] == 1


def test_always_the_most_frequent_training_answer_is_beside_closed_answers() -> None:
    test = rows(9)
    train = [*rows(9), Sentence("one more", "neutral")]
    given = compare(FINSENT, train, test, answers(test, set()), answers(test, set()), 5)
    assert given.majority_answer == "neutral"
    assert given.scores["majority"]["accuracy"] == pytest.approx(1 / 3)
    assert given.scores["majority"]["macro_f1"] == pytest.approx(1 / 6)


def test_the_interval_covers_the_score_and_is_the_same_each_time() -> None:
    test = rows(90)
    predictions = [answer.prediction for answer in answers(test, set(range(20)))]
    first = bootstrap_intervals(FINSENT, test, {"base": [predictions], "tuned": [predictions]})
    low, high = first["tuned"]
    assert low < FINSENT.score(test, predictions)["macro_f1"] < high
    assert first == bootstrap_intervals(FINSENT, test, {"base": [predictions], "tuned": [predictions]})
    assert first["gain"] == [0, 0]


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    given = report({0}, {1})
    given.write(tmp_path)
    assert Report.read(tmp_path) == given
    assert given.verdict in (tmp_path / "report.md").read_text()


def test_the_page_names_the_primary_metric_and_all_columns() -> None:
    page = replace(report({0}, {1}), recipe="finsent").as_markdown()
    assert "| metric | always `negative` | base | fine-tuned |" in page
    assert "| macro_f1 (primary) |" in page


def test_without_a_majority_answer_there_is_no_column_for_it() -> None:
    given = report({0}, {1})
    assert list(given.columns) == ["majority", "base", "tuned"]
    scores = {name: given.scores[name] for name in ("tuned", "base")}
    assert replace(given, scores=scores, majority_answer=None).columns == {"base": "base", "tuned": "fine-tuned"}
