"""What a user is told: the nearest known name, and all faults of a file at once."""

import pytest

from hf_finetune.errors import SHOWN_FAULTS, RecipeError, first_line, many_faults, nearest, plural


def test_the_nearest_known_name_is_offered() -> None:
    assert nearest("learning_rte", ["lora_r", "learning_rate", "seed"]) == "Did you mean 'learning_rate'?"


def test_the_known_names_are_listed_in_order_when_none_is_near() -> None:
    assert nearest("zzz", ["seed", "lora_r"]) == "Known: lora_r, seed."


def test_where_all_names_stand_is_said_in_place_of_them() -> None:
    assert nearest("zzz", ["seed", "lora_r"], otherwise="The README has them.") == "The README has them."
    assert nearest("seeds", ["seed", "lora_r"], otherwise="The README has them.") == "Did you mean 'seed'?"


def test_no_known_name_is_said_so() -> None:
    assert nearest("anything", []) == "None is known."


def test_all_faults_up_to_five_are_shown() -> None:
    error = many_faults("rows.jsonl", [f"row {number}: broken." for number in range(1, 6)], total=9)
    assert isinstance(error, RecipeError)
    assert str(error).split("\n") == [
        "rows.jsonl: 5 faults in 9 rows.",
        *(f"  row {number}: broken." for number in range(1, 6)),
    ]


def test_the_first_five_of_many_faults_are_shown_with_the_number_of_the_others() -> None:
    faults = [f"row {number}: broken." for number in range(1, 1236)]
    lines = str(many_faults("rows.jsonl", faults, total=2000)).split("\n")
    assert lines[0] == "rows.jsonl: 1,235 faults in 2,000 rows."
    assert lines[1:-1] == [f"  {fault}" for fault in faults[:SHOWN_FAULTS]]
    assert lines[-1] == "  (and 1230 more)"


def test_other_things_than_rows_can_have_faults() -> None:
    assert str(many_faults("tests", ["a: fails."], total=14, noun="check")).startswith("tests: 1 fault in 14 checks.")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("one.\ntwo."), "one"),
        (OSError("\n  one\n"), "one"),
        (KeyError("name"), "'name'"),
        (ValueError(), "ValueError"),
        (ValueError(" \n"), "ValueError"),
    ],
)
def test_an_error_of_many_lines_is_told_in_its_first(error: Exception, words: str) -> None:
    assert first_line(error) == words


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1200, "1,200 rows"), (1234567, "1,234,567 rows")]
)
def test_a_count_agrees_with_its_noun(count: int, words: str) -> None:
    assert plural(count, "row") == words


def test_a_line_that_only_announces_the_next_one_stands_with_it() -> None:
    error = RuntimeError("Error(s) in loading state_dict for Model:\n\tsize mismatch for weight.\n\tand more")
    assert first_line(error) == "Error(s) in loading state_dict for Model: size mismatch for weight"
    assert first_line(ValueError("cannot be read:")) == "cannot be read:"
    assert first_line(ValueError()) == "ValueError"
