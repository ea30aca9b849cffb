"""The page that doctor prints, its JSON, its exit code, and what a run takes of it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click import unstyle
from click.testing import CliRunner, Result
from doctor_bench import QUICK, RECIPE, Bench, bench_in

from conftest import sample_rows, write_rows
from hf_finetune.cli.doctor import WIDEST, as_object, cut, doctor, in_lines, subject_of
from hf_finetune.doctor import (
    AREAS,
    BEFORE_ROWS,
    Area,
    Line,
    Subject,
    base,
    data,
    examine,
    notes_of,
    room,
    software,
    tokenizer,
    training,
    variables,
    weights,
)
from hf_finetune.doctor.examination import Check, lines_of
from hf_finetune.doctor.line import defect, parted, warning
from hf_finetune.doctor.training import LONGEST, Shown, some_of
from hf_finetune.errors import RecipeError
from hf_finetune.estimate.lengths import read_lengths
from hf_finetune.layers import Layer, settle
from hf_finetune.model import find_base_model
from hf_finetune.prepare import Encoded, Prepared
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
    assert max(map(len, lines)) <= WIDEST
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
    part = some_of(Subject(settle([]), recipe), prepared)
    assert [rows[line - 1] for line in part.lines] == part.prepared.rows["train"]
    assert [line for line in part.lines if line in part.drawn] == list(range(1, 6_000, 4))
    assert rows[4321] in part.prepared.rows["train"]
    assert LONGEST < len(part.lines) < 3_000


def test_the_estimate_is_of_whole_splits_although_a_part_of_the_rows_is_looked_at(bench: Bench) -> None:
    for module, name, number in (
        (training, "MANY", 300), (training, "SPREAD", 150), (training, "LONGEST", 60), (data, "MARKED", 30)
    ):  # fmt: skip
        bench.monkeypatch.setattr(module, name, number)  # as with more than 5,000, 1,500, 500 and 100 rows
    rows = sample_rows(250)
    for row in rows[::9]:
        row["sentence"] += " again" * 30
    write_rows(bench.folder / "rows.jsonl", rows)
    words = [f"model_name_or_path={bench.base}", "keep_tokens=false"]
    subject = subject_of(str(RECIPE), words, None, False, "rows.jsonl")
    areas = [Area("a", (base.found, base.architecture, tokenizer.tokenizer, data.rows, training.encoded))]
    assert [line for _, own in examine(subject, areas) for line in own if line.level != "ok"] == []
    estimator = room.estimator_of(subject)
    assert estimator is not None
    assert subject.recipe is not None
    assert subject.source is not None
    assert subject.base is not None
    of_all = read_lengths(subject.recipe, subject.source, subject.settings, subject.base)
    found = estimator.lengths
    assert (found.num_rows, found.test_rows) == (of_all.num_rows, of_all.test_rows)
    assert found.test_rows > 60
    assert found.train_tokens == pytest.approx(of_all.train_tokens, rel=0.05)
    assert found.test_tokens == pytest.approx(of_all.test_tokens, rel=0.05)
    assert found.validation_tokens == pytest.approx(of_all.validation_tokens, rel=0.05)


def test_the_page_is_as_wide_as_the_terminal_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = {}
    for columns in ("70", "20", "300"):
        monkeypatch.setenv("COLUMNS", columns)
        widths[columns] = max(map(len, unstyle(in_lines(Line("ok", "word " * 100))).splitlines()))
    assert widths == {"70": 70, "20": 50, "300": 100}


def test_a_run_in_the_home_folder_is_looked_for_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert subject_of("finsent", ["output_dir=~/runs/one"], None, True, None).folder == tmp_path / "runs" / "one"


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


def test_a_command_ends_without_looking_for_garbage_in_all_that_it_imported(tmp_path: Path) -> None:
    at_exit = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 0))"
    start = f"{at_exit}; from hf_finetune.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", start, "list"], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=True
    )
    assert done.stdout.endswith("\nTrue\n")


def test_rows_are_told_by_their_number_in_the_file(bench: Bench) -> None:
    bench.rows = [*sample_rows(70)]
    bench.rows[100] = bench.rows[100] | {"label": "up"}
    assert any(line.text.startswith("row 101: 'label' is 'up'") for line in bench.lines(QUICK))


def test_a_fault_that_many_rows_have_is_told_once(bench: Bench) -> None:
    for n in range(2, 12):
        bench.rows[n] = {"sentence": bench.rows[n]["sentence"], "lable": bench.rows[n]["label"]}
    found = [line for line in bench.lines(QUICK) if line.level == "fault"]
    assert [line.text[:54] for line in found] == ["10 rows (3, 4, 5, 6, 7, ...): 'label' is missing (it h"]


@pytest.mark.parametrize("words", [[], ["leave_out_faulty_rows=true"]])
def test_a_row_that_the_recipe_refuses_hides_nothing_in_the_other_rows(bench: Bench, words: list[str]) -> None:
    bench.words += words
    bench.change_recipe(
        "from hf_finetune import", "from hf_finetune.errors import RecipeError\nfrom hf_finetune import"
    )
    refusal = 'if "illegible" in row.sentence:\n            raise RecipeError("it is illegible. Type it again.")'
    bench.change_recipe('        return f"Is this news', f'        {refusal}\n        return f"Is this news')
    bench.rows[4] = bench.rows[4] | {"sentence": "An illegible sentence"}
    bench.rows[2] = bench.rows[2] | {"sentence": "{{company}} said profit rose in 3 years"}
    found = [line for line in bench.lines(QUICK) if line.area == "data" and line.level != "ok"]
    level = "warning" if words else "fault"
    assert [(line.check, line.level, line.text[:22]) for line in found] == [
        ("rows", level, "row 5: it is illegible"), ("single_rows", "fault", "placeholder in 1 row ("),
    ]  # fmt: skip
    assert "(3)" in found[1].text


def found_in(bench: Bench, check: Check) -> list[tuple[str, str]]:
    """Level and text of what one check says of the bench's run, apart from what is in order."""
    (bench.folder / "rows.jsonl").touch()
    subject = subject_of(str(RECIPE), [f"model_name_or_path={bench.base}", *bench.words], None, False, "rows.jsonl")
    subject.base = find_base_model(subject.settings)
    lines = lines_of(Area("a", (base.architecture, check)), subject)
    return [(line.level, line.text) for line in lines if line.level != "ok"]


def test_a_file_that_is_imported_in_a_package_s_place_is_a_fault(bench: Bench) -> None:
    bench.file("evaluate.py", "")
    assert [level for level, _ in found_in(bench, software.shadows)] == ["warning"]
    bench.monkeypatch.syspath_prepend(str(bench.folder))
    assert found_in(bench, software.shadows) == [
        ("fault", "evaluate.py in this folder would be imported instead of the package evaluate")
    ]


@pytest.mark.parametrize(
    ("name", "version", "levels"),
    [
        ("trl", "0.9.1", ["fault"]),
        ("trl", "9.0.0", ["warning"]),  # newer than any that was tried
        ("torch", "2.10.0a0+nv25", []),  # as in NVIDIA's containers
        ("transformers", "5.99.0.dev0", []),
        ("rensa", "0.1", ["warning"]),  # which no run imports
    ],
)
def test_only_packages_that_are_too_old_stop_a_run(bench: Bench, name: str, version: str, levels: list[str]) -> None:
    bench.file(
        f"site/{name}-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    )
    bench.monkeypatch.syspath_prepend(str(bench.folder / "site"))
    assert [level for level, _ in found_in(bench, software.versions)] == levels


def test_a_token_that_ends_with_its_line_is_one(bench: Bench) -> None:
    bench.monkeypatch.setenv("HF_TOKEN", "hf_abc\n")
    assert found_in(bench, variables.tokens) == []


def test_a_config_of_which_no_model_can_be_built_is_one_fault(bench: Bench) -> None:
    bench.edit("config.json", hidden_size="wide")
    found = [line for line in bench.lines() if line.level == "fault"]
    assert [(line.check, line.fix) for line in found] == [("architecture", "Mend it, or take another.")]
    assert "no model can be built of its config.json" in found[0].text
    assert "hidden_size" in found[0].text


def test_what_lies_beside_the_weights_is_not_looked_at(bench: Bench) -> None:
    (bench.own_base() / "optimizer.safetensors").write_bytes(b"cut")
    bench.file(
        "base/model.safetensors.index.json", json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}})
    )
    assert found_in(bench, weights.whole) == []


def test_the_layers_of_gpt_2_can_get_an_adapter(bench: Bench) -> None:
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, "vocab_size": 512}
    (bench.own_base() / "config.json").write_text(json.dumps({"model_type": "gpt2", **sizes}), encoding="utf-8")
    assert found_in(bench, base.adapter) == []
    bench.words.append("lora_r=128")
    assert [level for level, _ in found_in(bench, base.adapter)] == ["warning"]


def test_a_check_that_is_broken_itself_stops_no_run(bench: Bench) -> None:
    def broken(subject: Subject) -> list[Line]:
        raise KeyError("weight_map")

    notes = notes_of(Subject(settle([Layer("command line", {})])), (Area("a", (broken,)),))
    assert len(notes) == 1
    assert "KeyError: 'weight_map' (this is a defect of hf-finetune doctor" in notes[0]


def test_rows_beyond_the_context_are_a_fault_only_where_positions_end(bench: Bench) -> None:
    """A rotary base goes on, as those do whose context YaRN extends."""
    bench.words = ["max_length=1024"]
    subject = subject_of(str(RECIPE), [f"model_name_or_path={bench.own_base()}", *bench.words], None, False, None)
    subject.base = find_base_model(subject.settings)
    subject.encoded = Encoded([{"input_ids": [5] * 600, "labels": [5] * 600}], [], [1], {})
    area = Area("a", (base.architecture, base.context))
    assert [line.level for line in lines_of(area, subject) if line.level != "ok"] == ["warning"]
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, "vocab_size": 512}
    bench.file("base/config.json", json.dumps({"model_type": "gpt2", **sizes}))
    assert [line.level for line in lines_of(area, subject) if line.level != "ok"] == ["fault"]


def test_a_cache_that_may_not_be_written_to_is_a_fault_where_something_is_to_be_kept_in_it(bench: Bench) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        bench.monkeypatch.setattr(f"huggingface_hub.constants.{name}", str(bench.folder / "cache"))
    bench.monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    bench.monkeypatch.setattr("os.access", lambda path, mode: False)
    settled = [settle([Layer("command line", {"model_name_or_path": own})]) for own in (str(bench.base), "acme/base")]
    area = Area("environment", (variables.caches,))
    assert [line.level for own in settled for line in lines_of(area, Subject(own))] == ["warning", "fault"]
