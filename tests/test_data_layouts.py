"""The layout of any usual data set is told from its columns, and its rows become conversations."""

import json
from typing import Any

import pytest

from hf_finetune.data.layouts import detect
from hf_finetune.data.records import Record
from hf_finetune.data.samples import Message, Sample
from hf_finetune.errors import RecipeError

USER, ANSWER = Message("user", "Who?"), Message("assistant", "Me.")
TURNS = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
GPT = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Me."}]
WORSE = (Message("assistant", "No."),)


def records(*rows: dict[str, Any], is_text: bool = False) -> list[Record]:
    return [Record("rows.jsonl", number, row, is_text) for number, row in enumerate(rows, 1)]


def sample_of(row: dict[str, Any], mapping: dict[str, str] | None = None) -> tuple[str, Sample]:
    """The layout and the sample of a row among others like it."""
    rows = records(row, row, row)
    layout = detect(rows, mapping)
    sample, faults = layout.sample(rows[0])
    assert faults == []
    assert sample is not None
    return layout.kind, sample


ROWS: dict[str, tuple[dict[str, Any], str, Sample]] = {
    "OpenAI's messages": ({"messages": TURNS}, "messages", Sample((USER, ANSWER))),
    "messages under the name of ShareGPT's": ({"conversations": TURNS}, "sharegpt", Sample((USER, ANSWER))),
    "typed parts": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Wh"}, {"type": "text", "text": "o?"}]},
                TURNS[1],
            ]
        },
        "messages",
        Sample((USER, ANSWER)),
    ),
    "weights of the loss": (
        {"messages": [{**TURNS[0], "loss_weight": 0.0}, {**TURNS[1], "loss_weight": 1.0}]},
        "messages",
        Sample((Message("user", "Who?", 0.0), Message("assistant", "Me.", 1.0))),
    ),
    "messages as JSON in a cell": ({"messages": json.dumps(TURNS)}, "messages", Sample((USER, ANSWER))),
    "ShareGPT": (
        {"conversations": GPT, "system": "Be brief."},
        "sharegpt",
        Sample((Message("system", "Be brief."), USER, ANSWER)),
    ),
    "Alpaca": (
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
        "instruction",
        Sample((Message("user", "Add.\n1 and 2"), Message("assistant", "3"))),
    ),
    "Alpaca without input": (
        {"instruction": "Who?", "input": "", "output": "Me."},
        "instruction",
        Sample((USER, ANSWER)),
    ),
    "Alpaca with earlier turns": (
        {"instruction": "Who?", "input": "", "output": "Me.", "history": [["Hi.", "Hello."]]},
        "instruction",
        Sample((Message("user", "Hi."), Message("assistant", "Hello."), USER, ANSWER)),
    ),
    "Alpaca with its text": (
        {"instruction": "Who?", "input": "", "output": "Me.", "text": "### Instruction: Who?"},
        "instruction",
        Sample((USER, ANSWER)),
    ),
    "Dolly": (
        {"instruction": "Who?", "context": "", "response": "Me.", "category": "qa"},
        "instruction",
        Sample((USER, ANSWER)),
    ),
    "prompt and completion": ({"prompt": "Who?", "completion": "Me."}, "prompt_completion", Sample((USER, ANSWER))),
    "prompt and response": ({"Prompt": "Who?", "Response": "Me."}, "prompt_completion", Sample((USER, ANSWER))),
    "prompt and completion as turns": (
        {"prompt": TURNS[:1], "completion": TURNS[1:]},
        "prompt_completion",
        Sample((USER, ANSWER)),
    ),
    "question and answer": ({"question": "Who?", "answer": "Me."}, "question_answer", Sample((USER, ANSWER))),
    "question, context and answer": (
        {"context": "CREATE TABLE a;", "question": "Who?", "answer": "Me."},
        "question_answer",
        Sample((Message("user", "CREATE TABLE a;\nWho?"), ANSWER)),
    ),
    "numbers as answers": (
        {"question": "Who?", "answer": 7},
        "question_answer",
        Sample((USER, Message("assistant", "7"))),
    ),
    "a preference": (
        {"prompt": "Who?", "chosen": "Me.", "rejected": "No."},
        "preference",
        Sample((USER, ANSWER), WORSE),
    ),
    "a preference in turns": (
        {"chosen": TURNS, "rejected": [TURNS[0], {"role": "assistant", "content": "No."}]},
        "preference",
        Sample((USER, ANSWER), WORSE),
    ),
    "a preference with its prompt in the turns": (
        {
            "prompt": "Who?",
            "chosen": TURNS,
            "rejected": [TURNS[0], {"role": "assistant", "content": "No."}],
            "messages": TURNS,
        },
        "preference",
        Sample((USER, ANSWER), WORSE),
    ),
    "a preference as ShareGPT": (
        {"conversations": GPT[:1], "chosen": GPT[1], "rejected": {"from": "gpt", "value": "No."}},
        "preference",
        Sample((USER, ANSWER), WORSE),
    ),
    "a preference as Stack Exchange": (
        {"question": "Who?", "response_j": "Me.", "response_k": "No."},
        "preference",
        Sample((USER, ANSWER), WORSE),
    ),
    "a rated answer": (
        {"prompt": "Who?", "completion": "Me.", "label": False},
        "feedback",
        Sample((USER, ANSWER), is_good=False),
    ),
    "a rated conversation": ({"messages": TURNS, "label": True}, "feedback", Sample((USER, ANSWER), is_good=True)),
    "a text": ({"text": "A kettle boils water."}, "text", Sample((Message("assistant", "A kettle boils water."),))),
}


@pytest.mark.parametrize("case", ROWS.values(), ids=ROWS)
def test_a_row_of_each_layout_becomes_a_conversation(case: tuple[dict[str, Any], str, Sample]) -> None:
    row, kind, sample = case
    assert sample_of(row) == (kind, sample)


def test_texts_with_labels_of_a_small_set_are_classified_ones() -> None:
    rows = records(*[{"sentence": f"Row {n}.", "label": n % 3} for n in range(30)])
    layout = detect(rows)
    assert (layout.kind, layout.columns) == ("text_label", {"text": "sentence", "label": "label"})
    assert layout.sample(rows[4])[0] == Sample((Message("user", "Row 4."), Message("assistant", "1")), label="1")


def test_rows_that_are_sorted_by_their_labels_are_classified_ones() -> None:
    assert detect(records(*[{"text": f"Row {n}.", "label": 0} for n in range(500)])).kind == "text_label"
    assert detect(records(*[{"text": f"Row {n}.", "category": "news"} for n in range(500)])).kind == "text"


def test_labels_that_are_all_different_are_no_set() -> None:
    layout = detect(records(*[{"text": f"Row {n}.", "label": f"id {n}"} for n in range(30)]))
    assert layout.kind == "text"
    assert "not used: label" in layout.reason


def test_the_reason_names_the_columns_and_those_that_are_not_used() -> None:
    layout = detect(records({"instruction": "a", "response": "b", "id": 7}))
    assert layout.reason == (
        "instruction, input and output (Alpaca's form), as the rows have instruction, response (as output); "
        "not used: id."
    )


def test_a_mapping_names_columns_that_no_layout_knows() -> None:
    row = {"Frage": "Who?", "Antwort": "Me.", "Nummer": 3}
    assert sample_of(row, {"prompt": "Frage", "completion": "Antwort"}) == ("prompt_completion", Sample((USER, ANSWER)))


def test_a_mapping_may_reach_into_lists_and_objects() -> None:
    row = {"sentences": [{"text": "Who?"}], "sql": ["Me."]}
    assert sample_of(row, {"question": "sentences.0.text", "answer": "sql.0"})[1] == Sample((USER, ANSWER))


def test_a_mapping_goes_before_what_would_be_told() -> None:
    row = {"instruction": "Who?", "output": "Me.", "better": "Me!", "text": "old"}
    assert sample_of(row, {"output": "better"})[1].completion == "Me!"
    assert sample_of(row, {"text": "text"})[0] == "text"


@pytest.mark.parametrize(
    ("mapping", "told"),
    [
        ({"promt": "a"}, "--map promt=a: no field is called 'promt'. Did you mean 'prompt'?"),
        ({"prompt": "qestion"}, "--map prompt=qestion: there is no column 'qestion'. Did you mean 'question'?"),
    ],
)
def test_a_mapping_of_what_there_is_not_is_told_with_the_nearest(mapping: dict[str, str], told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        detect(records({"question": "a", "answer": "b"}), mapping)
    assert str(caught.value) == told


def test_rows_of_no_layout_are_refused_with_the_option_to_give() -> None:
    rows = records(*[{"Nummer": n, "Frage": f"Who is {n}?", "Antwort": f"It is {n}."} for n in range(20)])
    with pytest.raises(RecipeError) as caught:
        detect(rows)
    assert "rows.jsonl: no layout fits its columns (Nummer, Frage, Antwort)." in str(caught.value)
    assert "--map prompt=Frage --map completion=Antwort" in str(caught.value)


def test_a_column_of_few_values_beside_a_text_is_offered_as_its_label() -> None:
    rows = records(*[{"Satz": f"Row {n}.", "Urteil": "gut" if n % 2 else "schlecht"} for n in range(20)])
    with pytest.raises(RecipeError, match="--map text=Satz --map label=Urteil"):
        detect(rows)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "a", "completion": "b", "question": "c", "answer": "d"},
         "could be prompt and completion (prompt, completion) or question and answer (question, answer). Say which: "
         "--map prompt=prompt --map completion=completion, or --map question=question --map answer=answer."),
        ({"messages": TURNS, "conversations": GPT}, "--map messages=messages, or --map conversations=conversations"),
        ({"prompt": "a", "response": "b", "answer": "c"}, "'response' and 'answer' could each be the completion"),
    ],
)  # fmt: skip
def test_rows_of_several_layouts_are_refused_with_the_options_to_give(row: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        detect(records(row, row))
    assert told in str(caught.value)


def test_the_option_that_is_offered_settles_it() -> None:
    row = {"prompt": "a", "completion": "b", "question": "Who?", "answer": "Me."}
    assert sample_of(row, {"question": "question", "answer": "answer"})[0] == "question_answer"


def test_a_few_rows_of_another_layout_do_not_change_what_the_others_are() -> None:
    rows = records(*[{"prompt": "a", "completion": "b"}] * 9, {"text": "c"})
    layout = detect(rows)
    sample, faults = layout.sample(rows[9])
    assert layout.kind == "prompt_completion"
    assert sample is None
    assert [one.check for one in faults] == ["missing_column", "missing_column"]


def test_no_rows_have_no_layout() -> None:
    with pytest.raises(RecipeError, match="there are no rows"):
        detect([])


def test_a_pair_whose_answers_are_not_of_as_many_turns_is_no_pair() -> None:
    more = [*TURNS, {"role": "user", "content": "And who else?"}, {"role": "assistant", "content": "Nobody."}]
    record = Record("rows.jsonl", 1, {"chosen": more, "rejected": [TURNS[0], {"role": "assistant", "content": "No."}]})
    sample, found = detect([record]).sample(record)
    assert sample is None
    assert [one.check for one in found] == ["uneven_pair"]
    assert "has 4 turns, and the rejected one 2" in found[0].message


def test_a_cell_of_too_many_levels_is_told_as_no_conversation() -> None:
    rows = records(*[{"messages": json.dumps(TURNS)}] * 3, {"messages": "[" * 5_000 + "]" * 5_000}, is_text=True)
    sample, faults = detect(rows).sample(rows[3])
    assert sample is None
    assert [one.check for one in faults] == ["not_turns"]
