"""`check_recipe` passes good recipes, and each of its checks catches the fault it is there for."""

import itertools
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from hf_finetune import HubDataset, LocalFile, Recipe, RecipeError, check_recipe, load_recipe
from hf_finetune.demo import rows_file
from hf_finetune.metrics import accuracy
from hf_finetune.testing import CHECKS, each_check, failed_checks, read_rows

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Row:
    text: str
    label: Literal["yes", "no"]
    weight: float = 1.0


ROWS = [Row("Did sales rise?", "yes"), Row("Did it end well?", "no"), Row("!", "yes", 2.0), Row(" yes or no ", "no")]


class Good(Recipe[Row]):
    """Answers yes or no."""

    base_model = "acme/base"
    dataset = LocalFile("rows.jsonl")
    license = "apache-2.0"
    primary_metric = "accuracy"
    hyperparameters = {"learning_rate": "1e-4", "lora_target_modules": ["q_proj"]}

    def prompt(self, row: Row) -> str:
        return f"Yes or no?\n\n{row.text}"

    def completion(self, row: Row) -> str:
        return row.label

    def choices(self, row: Row) -> Sequence[str] | None:
        return ("yes", "no")

    def parse(self, text: str) -> str | None:
        answer = text.strip().lower()
        return answer if answer in ("yes", "no") else None

    def score(self, rows: Sequence[Row], predictions: Sequence[Any]) -> dict[str, float]:
        return {"accuracy": accuracy([row.label for row in rows], predictions)}


class GoodWithOpenAnswers(Good):
    """Writes the text in capitals: the answer may well stand in the prompt, as long as it is not read there."""

    def completion(self, row: Row) -> str:
        return row.text.strip().upper() + row.label

    def parse(self, text: str) -> str | None:
        return text or None

    def choices(self, row: Row) -> Sequence[str] | None:
        return None

    def score(self, rows: Sequence[Row], predictions: Sequence[Any]) -> dict[str, float]:
        return {"accuracy": accuracy([self.completion(row) for row in rows], predictions)}


class HasNoDocstring(Good):
    pass


class HasABlankDocstring(Good):
    """ """


@dataclass
class ChangeableRow:
    text: str
    label: str


class HasChangeableRows(Good):
    """Names a row type that is not frozen."""

    @classmethod
    def row_type(cls) -> type[Any]:
        return ChangeableRow


class HasPlainRows(Good):
    """Names a row type that is no dataclass."""

    @classmethod
    def row_type(cls) -> type[Any]:
        return dict


class NamesAFile(Good):
    """Names a file where a source belongs."""

    dataset = "rows.jsonl"  # type: ignore[assignment]


class HasAnUnknownLicense(Good):
    """Has a licence that nobody gave."""

    license = "apache-3.0"


class HasAnUnknownHyperparameter(Good):
    """Sets what is no setting."""

    hyperparameters = {"learning_rte": 1e-4}


class HasAWordForAGate(Good):
    """Holds a run to a mark that is no number."""

    gates = {"accuracy": "high"}  # type: ignore[dict-item]


class HasAWordForANumber(Good):
    """Sets a rate that is no number."""

    hyperparameters = {"learning_rate": "fast"}


class AsksNothing(Good):
    """Asks one of the rows nothing."""

    def prompt(self, row: Row) -> str:
        return row.text.strip("!")


class AsksInParts(Good):
    """Asks in a list of texts."""

    def prompt(self, row: Row) -> str:
        return [row.text]  # type: ignore[return-value]


class AsksWithTheAnswer(Good):
    """Tells the answer in the question."""

    def prompt(self, row: Row) -> str:
        return f"{row.text} ({row.label})"


class AsksWithAHint(Good):
    """Tells the answer by the length of the question."""

    def prompt(self, row: Row) -> str:
        return row.text + " " * len(row.label)


class RaisesOnOddAnswers(Good):
    """Reads only what it knows."""

    def parse(self, text: str) -> str | None:
        return {"yes": "yes", "no": "no"}[text]


class AnswersInJson(Good):
    """Answers with an object and reads the first one that it finds."""

    def completion(self, row: Row) -> str:
        return json.dumps({"label": row.label})

    def choices(self, row: Row) -> Sequence[str] | None:
        return None

    def parse(self, text: str) -> str | None:
        try:
            return str(json.JSONDecoder().raw_decode(text)[0]["label"])
        except (ValueError, TypeError, LookupError):
            return None


class RaisesOnHalfAnAnswer(AnswersInJson):
    """Takes it that an object that begins also ends."""

    def parse(self, text: str) -> str | None:
        return str(json.JSONDecoder().raw_decode(text)[0]["label"]) if text.startswith('{"label') else None


class RaisesOnAnAnswerGivenTwice(AnswersInJson):
    """Takes it that nothing follows an object that ends."""

    def parse(self, text: str) -> str | None:
        return str(json.loads(text)["label"]) if text.startswith('{"label') and text.endswith("}") else None


class GroupsByChance(Good):
    """Groups the rows anew each time."""

    def group(self, row: Row) -> float:
        return random.random()


class AsksByChance(Good):
    """Asks in a new way each time."""

    number = itertools.count()

    def prompt(self, row: Row) -> str:
        return f"{next(self.number)} {row.text}"


class MarksByChance(Good):
    """Marks each time a little otherwise."""

    number = itertools.count(2)

    def score(self, rows: Sequence[Row], predictions: Sequence[Any]) -> dict[str, float]:
        return {**super().score(rows, predictions), "other": 1 / next(self.number)}


class CountsItsRows(Good):
    """Keeps a number of its own."""

    rows_seen = 0

    def prompt(self, row: Row) -> str:
        self.rows_seen += 1
        return super().prompt(row)


class KeepsItsRows(Good):
    """Keeps a list of its own."""

    def __init__(self) -> None:
        self.rows_seen: list[Row] = []

    def prompt(self, row: Row) -> str:
        self.rows_seen.append(row)
        return super().prompt(row)


class CallsNothingCorrect(Good):
    """Calls no answer right."""

    def correct(self, row: Row, prediction: Any) -> bool:
        return False


class CannotReadItsOwnAnswers(Good):
    """Reads what it does not write."""

    def completion(self, row: Row) -> str:
        return f"The answer is {row.label}."

    def choices(self, row: Row) -> Sequence[str] | None:
        return None


class MarksHalf(Good):
    """Gives half a mark for a right answer."""

    def score(self, rows: Sequence[Row], predictions: Sequence[Any]) -> dict[str, float]:
        return {"accuracy": super().score(rows, predictions)["accuracy"] / 2}


class LeavesOutWhatItCannotRead(Good):
    """Marks only the answers that it can read."""

    def score(self, rows: Sequence[Row], predictions: Sequence[Any]) -> dict[str, float]:
        pairs = [(row.label, given) for row, given in zip(rows, predictions, strict=True) if given is not None]
        return {"accuracy": accuracy([wanted for wanted, _ in pairs], [given for _, given in pairs]) if pairs else 0.0}


class CallsSilenceCorrect(Good):
    """Calls an unreadable answer right."""

    def correct(self, row: Row, prediction: Any) -> bool:
        return prediction in (None, row.label)


class MarksInPercent(Good):
    """Has a second mark that goes to 100."""

    def score(self, rows: Sequence[Row], predictions: Sequence[Any]) -> dict[str, float]:
        marks = super().score(rows, predictions)
        return {**marks, "percent": 100 * marks["accuracy"]}


class MarksBelowNothing(Good):
    """Has a second mark that falls below 0 when nothing can be read."""

    def score(self, rows: Sequence[Row], predictions: Sequence[Any]) -> dict[str, float]:
        marks = super().score(rows, predictions)
        return {**marks, "gain": marks["accuracy"] - 0.5}


class MarksWithNoNumber(Good):
    """Has a second mark that is no number when nothing can be read."""

    def score(self, rows: Sequence[Row], predictions: Sequence[Any]) -> dict[str, float]:
        readable = [given for given in predictions if given is not None]
        return {**super().score(rows, predictions), "share": 1.0 if readable else math.nan}


class LacksItsPrimaryMetric(Good):
    """Names a mark that it does not give."""

    primary_metric = "acuracy"


class MarksEachRow(Good):
    """Marks every row by itself."""

    score = Recipe.score

    def mark(self, row: Row, prediction: Any) -> dict[str, float]:
        return {"accuracy": float(prediction == row.label)}


class MarksARowWithNothing(MarksEachRow):
    """Forgets to give the marks back."""

    def mark(self, row: Row, prediction: Any) -> Any:
        return None if row == ROWS[2] else super().mark(row, prediction)


class MarksARowByAnotherName(MarksEachRow):
    """Gives one row no mark of the primary metric."""

    def mark(self, row: Row, prediction: Any) -> dict[str, float]:
        return {"exact": 1.0} if row == ROWS[1] else super().mark(row, prediction)


class MarksARowAboveAll(MarksEachRow):
    """Marks a wrong answer above 1, which the mean does not show."""

    def mark(self, row: Row, prediction: Any) -> dict[str, float]:
        side = {} if prediction == row.label else {"side": 1.5 if row.label == "yes" else 0.5}
        return super().mark(row, prediction) | side


class CannotMarkARow(MarksEachRow):
    """Finds that one row's gold answer fails."""

    def mark(self, row: Row, prediction: Any) -> dict[str, float]:
        if row == ROWS[3]:
            raise RecipeError("the gold answer fails. Mend it.")
        return super().mark(row, prediction)


class DoesNotOfferTheAnswer(Good):
    """Offers one answer alone."""

    def choices(self, row: Row) -> Sequence[str] | None:
        return ("yes",)


class OffersOneAnswerTwice(Good):
    """Offers two spellings of one answer."""

    def choices(self, row: Row) -> Sequence[str] | None:
        return ("yes", "no", "YES")


class OffersWhatItCannotRead(Good):
    """Offers an answer that it cannot read."""

    def choices(self, row: Row) -> Sequence[str] | None:
        return ("yes", "no", "perhaps")


class GroupsByAList(Good):
    """Groups by something that cannot be looked up."""

    def group(self, row: Row) -> Any:
        return [row.label]


ALL_MARKING = {"gives_the_same_twice", "takes_marks_off_unreadable_answers", "scores_lie_in_0_to_1"}
PLANTED: list[tuple[str, type[Good], set[str]]] = [
    ("has_a_docstring", HasNoDocstring, set()),
    ("has_a_docstring", HasABlankDocstring, set()),
    ("has_a_frozen_row_type", HasChangeableRows, set()),
    ("has_a_frozen_row_type", HasPlainRows, set()),
    ("names_a_source", NamesAFile, set()),
    ("has_a_known_license", HasAnUnknownLicense, set()),
    ("has_known_hyperparameters", HasAnUnknownHyperparameter, set()),
    ("has_known_hyperparameters", HasAWordForANumber, set()),
    ("has_known_hyperparameters", HasAWordForAGate, set()),
    ("asks_and_answers_in_text", AsksNothing, set()),
    ("asks_and_answers_in_text", AsksInParts, set()),
    ("does_not_ask_with_the_answer", AsksWithTheAnswer, set()),
    ("does_not_ask_with_the_answer", AsksWithAHint, set()),
    ("never_raises_in_parse", RaisesOnOddAnswers, set()),
    ("never_raises_in_parse", RaisesOnHalfAnAnswer, set()),
    ("never_raises_in_parse", RaisesOnAnAnswerGivenTwice, set()),
    ("gives_the_same_twice", GroupsByChance, set()),
    # A prompt that is never the same differs in the answer's field too.
    ("gives_the_same_twice", AsksByChance, {"does_not_ask_with_the_answer"}),
    ("gives_the_same_twice", MarksByChance, set()),
    ("gives_the_same_twice", CountsItsRows, set()),
    ("marks_the_gold_completion_full", CallsNothingCorrect, set()),
    # Where no gold completion can be read, they are all marked as if unreadable.
    ("marks_the_gold_completion_full", CannotReadItsOwnAnswers, {"takes_marks_off_unreadable_answers"}),
    ("marks_the_gold_completion_full", MarksHalf, set()),
    ("takes_marks_off_unreadable_answers", LeavesOutWhatItCannotRead, set()),
    ("takes_marks_off_unreadable_answers", CallsSilenceCorrect, set()),
    ("scores_lie_in_0_to_1", MarksInPercent, set()),
    ("scores_lie_in_0_to_1", MarksBelowNothing, set()),
    ("scores_lie_in_0_to_1", MarksWithNoNumber, set()),
    # A mark that is not given cannot be 1.0 either.
    ("scores_lie_in_0_to_1", LacksItsPrimaryMetric, {"marks_the_gold_completion_full"}),
    ("scores_lie_in_0_to_1", MarksARowAboveAll, set()),
    ("marks_the_gold_completion_full", MarksARowWithNothing, ALL_MARKING),
    ("marks_the_gold_completion_full", MarksARowByAnotherName, ALL_MARKING),
    ("marks_the_gold_completion_full", CannotMarkARow, ALL_MARKING),
    ("offers_the_answer_among_the_choices", DoesNotOfferTheAnswer, set()),
    ("offers_the_answer_among_the_choices", OffersOneAnswerTwice, set()),
    ("offers_the_answer_among_the_choices", OffersWhatItCannotRead, set()),
    ("groups_by_something_hashable", GroupsByAList, set()),
]
"""Check, a recipe with the fault it is there for, and the checks that must then fail too."""


@pytest.mark.parametrize(
    "recipe", [Good(), GoodWithOpenAnswers(), AnswersInJson(), MarksEachRow()], ids=["closed", "open", "json", "each"]
)
def test_a_good_recipe_keeps_the_contract(recipe: Good) -> None:
    assert failed_checks(recipe, ROWS) == {}


@pytest.mark.parametrize(("check", "recipe", "others"), PLANTED, ids=[fault.__name__ for _, fault, _ in PLANTED])
def test_each_check_catches_the_fault_planted_for_it(check: str, recipe: type[Good], others: set[str]) -> None:
    assert set(failed_checks(recipe(), ROWS)) == {check} | others


def test_every_check_has_a_planted_fault() -> None:
    assert len(CHECKS) >= 14
    assert {check for check, _, _ in PLANTED} == {check.__name__ for check in CHECKS}


def test_every_check_says_what_holds() -> None:
    assert [check.__name__ for check in CHECKS if not check.__doc__] == []


def test_a_recipe_that_keeps_a_list_holds_state() -> None:
    assert set(failed_checks(KeepsItsRows(), ROWS)) == {"gives_the_same_twice"}


def test_check_recipe_tells_all_faults_by_the_names_of_the_checks() -> None:
    with pytest.raises(RecipeError) as caught:
        check_recipe(LacksItsPrimaryMetric(), ROWS)
    lines = str(caught.value).split("\n")
    assert [line.split(":")[0] for line in lines] == ["marks_the_gold_completion_full", "scores_lie_in_0_to_1"]
    assert lines[1].endswith("score() has no 'acuracy'. Did you mean 'accuracy'?")


def test_a_fault_is_told_with_its_row() -> None:
    assert failed_checks(AsksNothing(), ROWS)["asks_and_answers_in_text"].startswith("row 3: prompt() gives ''.")


@pytest.mark.parametrize(
    ("recipe", "fault"),
    [
        (MarksARowWithNothing, "row 3: mark() gives None. Give back a dict of numbers, such as {'accuracy': 1.0}."),
        (MarksARowByAnotherName, "row 2: mark() has no 'accuracy'. Give it to every row."),
        (CannotMarkARow, "row 4: the gold answer fails. Mend it."),
    ],
)
def test_a_fault_in_marking_is_told_once_with_its_row(recipe: type[Good], fault: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_recipe(recipe(), ROWS)
    assert str(caught.value) == (
        "gives_the_same_twice, marks_the_gold_completion_full, takes_marks_off_unreadable_answers, "
        f"scores_lie_in_0_to_1: {fault}"
    )


def test_a_mark_that_is_no_number_is_not_taken_for_chance() -> None:
    class DividesByNothing(MarksEachRow):
        """Has a second mark that is no number, as 0 / 0 in NumPy."""

        def mark(self, row: Row, prediction: Any) -> dict[str, float]:
            return super().mark(row, prediction) | {"share": float("nan")}

    faults = failed_checks(DividesByNothing(), ROWS)
    assert faults == {"scores_lie_in_0_to_1": "row 1: mark() gives share = nan. Marks lie in 0-1, higher is better."}


def test_each_check_is_told_as_soon_as_it_is_done() -> None:
    parsed: list[str] = []

    class Watched(Good):
        """Notes what it is asked to read."""

        def parse(self, text: str) -> str | None:
            parsed.append(text)
            return super().parse(text)

    results = each_check(Watched(), ROWS)
    assert next(results) == ("has_a_docstring", None)
    assert not parsed
    assert [name for name, _ in results] == [check.__name__ for check in CHECKS[1:]]


def test_the_method_that_the_author_wrote_is_named() -> None:
    class MarksHalfOfEach(MarksEachRow):
        """Never gives the whole mark."""

        def mark(self, row: Row, prediction: Any) -> dict[str, float]:
            return {"accuracy": super().mark(row, prediction)["accuracy"] / 2}

        def correct(self, row: Row, prediction: Any) -> bool:
            return bool(prediction == row.label)

    fault = failed_checks(MarksHalfOfEach(), ROWS)["marks_the_gold_completion_full"]
    assert fault == "the gold completions are marked 0.500, not 1.0. parse() and mark() disagree."


def test_an_unknown_license_is_told_with_the_nearest_one() -> None:
    assert "Did you mean 'apache-2.0'?" in failed_checks(HasAnUnknownLicense(), ROWS)["has_a_known_license"]


def test_a_score_that_fails_on_unreadable_answers_keeps_its_exception() -> None:
    class CannotMarkSilence(Good):
        """Marks as if there were always an answer."""

        def score(self, rows: Sequence[Row], predictions: Sequence[Any]) -> dict[str, float]:
            return {"accuracy": accuracy([row.label for row in rows], [given.lower() for given in predictions])}

    with pytest.raises(AttributeError, match="lower"):
        failed_checks(CannotMarkSilence(), ROWS)


@pytest.mark.parametrize("rows", [[], ROWS[:1]])
def test_a_single_row_is_too_few_to_check_with(rows: list[Row]) -> None:
    with pytest.raises(RecipeError, match="needs at least two rows"):
        failed_checks(Good(), rows)


def test_rows_to_check_with_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a", "label": "yes"}\n{"text": "b", "label": "no", "weight": 2}\n')
    assert read_rows(Good(), file) == [Row("a", "yes"), Row("b", "no", 2.0)]
    check_recipe(Good(), file)
    check_recipe(Good(), str(file))


def test_broken_rows_to_check_with_are_told(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": "maybe"}\n')
    with pytest.raises(RecipeError, match=r"rows\.jsonl: 1 fault in 1 row"):
        check_recipe(Good(), tmp_path / "rows.jsonl")


SHIPPED = sorted(path.stem for path in (ROOT / "recipes").glob("[!_]*.py"))


def test_there_are_recipes_to_check() -> None:
    assert "finsent" in SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_keeps_the_contract_on_its_odd_rows(name: str) -> None:
    recipe = load_recipe(str(ROOT / "recipes" / f"{name}.py"))
    rows = read_rows(recipe, ROOT / "tests" / "data" / f"{name}.jsonl")
    assert 10 <= len(rows) <= 20
    check_recipe(recipe, rows)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_keeps_the_contract_on_its_sample_rows(name: str) -> None:
    recipe = load_recipe(name)
    rows = read_rows(recipe, rows_file(name))
    assert len(rows) >= 700
    check_recipe(recipe, rows[::20])


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_is_45_to_60_lines_long(name: str) -> None:
    assert 45 <= len((ROOT / "recipes" / f"{name}.py").read_text().splitlines()) <= 60


def test_finsent_reads_an_answer_whatever_its_case_blanks_and_full_stop() -> None:
    recipe = load_recipe("finsent")
    assert [recipe.parse(text) for text in (" Positive.\n", "NEUTRAL", "negative", "Positive!", "", "bad")] == [
        "positive",
        "neutral",
        "negative",
        None,
        None,
        None,
    ]


def test_finsent_takes_its_rows_from_the_hub() -> None:
    assert isinstance(load_recipe("finsent").dataset, HubDataset)
