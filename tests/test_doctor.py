"""The page that doctor prints, its JSON, its exit code, and what a run takes of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from doctor_bench import QUICK, RECIPE, Bench, bench_in

from conftest import sample_rows, write_rows
from hf_finetune.cli.doctor import WIDTH, as_object, cut, doctor, subject_of
from hf_finetune.doctor import AREAS, BEFORE_ROWS, Area, Line, Subject, examine, notes_of
from hf_finetune.doctor.examination import lines_of
from hf_finetune.doctor.line import defect, parted, warning
from hf_finetune.doctor.training import LONGEST, Shown, some_of
from hf_finetune.errors import RecipeError
from hf_finetune.layers import Layer, settle
from hf_finetune.prepare import Prepared
from hf_finetune.recipe import load_recipe


@pytest.fixture
def bench(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    yield from bench_in(tmp_path, tiny_base, monkeypatch)


def asked(bench: Bench, *words: str) -> Result:
    write_rows(bench.folder / "rows.jsonl", bench.rows)
    given = [str(RECIPE), "--data", "rows.jsonl", f"model_name_or_path={bench.base}", *words]
    return CliRunner().invoke(doctor, given, standalone_mode=False)


@pytest.mark.slow
def test_the_page_is_a_page_with_what_is_trained_between_marks(bench: Bench) -> None:
    said = asked(bench, "warmup_steps=500").output
    lines = said.splitlines()
    assert len(lines) < 80
    assert max(map(len, lines)) <= WIDTH
    assert "⟦positive<|im_end|>⟧" in said or "⟦negative<|im_end|>⟧" in said or "⟦neutral<|im_end|>⟧" in said
    assert "           -> warmup_steps=0.1" in lines
    assert lines[-1] == "no fault, 1 warning: this run will work."
    assert not (bench.folder / "runs").exists()


def test_json_holds_all_lines_and_the_exit_code_tells_faults(bench: Bench) -> None:
    bench.base = bench.folder / "nowhere"
    done = asked(bench, "--json", "learning_rte=1", "report_to=wandb")
    held = json.loads(done.output)
    assert done.return_value == 1
    assert held["faults"] == 3 == sum(line["level"] == "fault" for line in held["lines"])
    assert {line["check"] for line in held["lines"]} >= {"settings", "trackers", "rows", "contract", "found"}
    assert all(line["fix"] for line in held["lines"] if line["level"] != "ok")


def test_json_tells_which_tokens_carry_loss() -> None:
    row = Shown(3, (("asked", False), ("yes<|im_end|>", True)))
    assert as_object("r", [], [row], {"fault": 0, "warning": 0})["shown"] == [
        {"line": 3, "pieces": [{"text": "asked", "loss": False}, {"text": "yes<|im_end|>", "loss": True}]}
    ]


def test_a_run_stops_at_all_faults_at_once_and_notes_warnings(bench: Bench) -> None:
    settled = settle([Layer("command line", {"report_to": "wandb", "learning_rate": 0.5, "dtype": "float16"})])
    with pytest.raises(RecipeError, match=r"2 faults before the training:\n.*float16.*\n.*wandb.*pip install"):
        notes_of(Subject(settled), BEFORE_ROWS)
    settled = settle([Layer("command line", {"learning_rate": 0.5, "eval_steps": 7})])
    notes = notes_of(Subject(settled), BEFORE_ROWS)
    assert ["eval_steps=7 has no effect" in notes[0], "learning_rate is 0.5" in notes[1]] == [True, True]


def test_a_check_that_fails_itself_hides_no_other() -> None:
    def breaks(subject: Subject) -> Iterator[Line]:
        yield warning("before", "mend it")
        raise LookupError("nowhere")

    def tells(subject: Subject) -> Iterator[Line]:
        yield warning("after", "mend it")

    found = lines_of(Area("here", (breaks, tells)), Subject(settle([])))
    assert [(line.level, line.check) for line in found] == [
        ("warning", "breaks"), ("fault", "breaks"), ("warning", "tells"),
    ]  # fmt: skip
    assert "LookupError: nowhere" in found[1].text
    assert "please report" in found[1].fix


def test_a_defect_is_told_where_it_is_in_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("def f():\n    return {}['row']\n")
    scope: dict[str, object] = {}
    exec(compile(file.read_text(), str(file), "exec"), scope)
    with pytest.raises(KeyError) as caught:
        scope["f"]()  # type: ignore[operator]
    assert defect(caught.value, str(file)) == Line("fault", f"{file}: line 2: KeyError: 'row'", "mend that line")


def test_an_error_falls_into_what_is_wrong_and_what_mends_it() -> None:
    assert parted("data: x is 0.5 e.g. here. Write 1. Or 2.") == ("data: x is 0.5 e.g. here.", "Write 1. Or 2.")
    assert parted("a: 1 fault.\n  row 1: b\n  x=true goes on.") == ("a: 1 fault.\n  row 1: b", "x=true goes on.")
    many = ["a: 9 faults.", *(f"  row {n}: b is c. Take it out." for n in range(1, 6)), "  (and 4 more)"]
    what, fix = parted("\n".join(many))
    assert fix == "Take it out."
    assert what.splitlines() == [*many[:4], many[-1]]


def test_of_many_rows_the_longest_are_tokenised_for_sure(tmp_path: Path) -> None:
    recipe = load_recipe(str(RECIPE))
    row = recipe.row_type()
    rows = [row(f"row {n} " + "word " * (n % 7), "neutral") for n in range(6_000)]
    rows[4321] = row("long " * 200, "neutral")
    prepared = Prepared({"train": rows, "validation": rows[:9], "test": rows[:9]}, {})
    part, is_part = some_of(Subject(settle([]), recipe), prepared)
    assert is_part
    assert rows[4321] in part.rows["train"]
    assert LONGEST < len(part.rows["train"]) < 3_000


def test_long_texts_are_cut_in_the_middle() -> None:
    shown = cut("a" * 500 + "z" * 500)
    assert shown.startswith("aaa")
    assert shown.endswith("zzz")
    assert "640 more" in shown


@pytest.mark.slow
@pytest.mark.parametrize("name", ["finsent", "text2sql", "credit_memo"])
def test_good_data_of_the_recipes_gets_no_fault_and_no_warning(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    areas = AREAS if name == "finsent" else QUICK
    found = [line for _, own in examine(subject_of(name, [], None, True, None), areas) for line in own]
    assert [line for line in found if line.level != "ok"] == []
    assert len(found) > 10


def test_rows_are_told_by_their_number_in_the_file(bench: Bench) -> None:
    bench.rows = [*sample_rows(70)]
    bench.rows[100] = bench.rows[100] | {"label": "up"}
    assert any(line.text.startswith("row 101: 'label' is 'up'") for line in bench.lines(QUICK))
