"""Which run a command means: a new one, the one in the folder, or none because it was begun otherwise."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from conftest import sample_rows, write_rows
from hf_finetune.begin import Request, record_stop, run_to_make
from hf_finetune.data.sources import LocalFile
from hf_finetune.errors import RecipeError
from hf_finetune.files import write_json
from hf_finetune.layers import Layer, settle
from hf_finetune.pipeline import run_recipe
from hf_finetune.progress import Session
from hf_finetune.recipe import load_recipe
from hf_finetune.run import Run, note_versions

RECIPE = str(Path(__file__).parent.parent / "recipes" / "finsent.py")


def asked(folder: Path, *command: str, overwrite: bool = False, **values: Any) -> Request:
    write_rows(folder / "rows.jsonl", sample_rows(8))
    settled = settle([Layer("command line", {"lora_r": 8} | values)])
    source = LocalFile(str(folder / "rows.jsonl"))
    return Request(load_recipe(RECIPE), RECIPE, source, settled, folder / "run", None, command, False, overwrite)


def begun(folder: Path, **changes: Any) -> Run:
    """A run that was begun in the folder by the command `train`."""
    run, goes_on = run_to_make(asked(folder, "train"))
    assert not goes_on
    run = dataclasses.replace(run, data={"commit": None}, **changes)
    (folder / "run").mkdir()
    run.write(folder / "run")
    return run


def test_a_run_that_was_begun_is_gone_on_with(tmp_path: Path) -> None:
    run = begun(tmp_path)
    assert run_to_make(asked(tmp_path, "train")) == (run, True)


def test_a_docstring_that_no_card_may_quote_is_refused_before_rows_are_read(tmp_path: Path) -> None:
    request = asked(tmp_path, "train")
    (tmp_path / "rows.jsonl").write_text("no rows")
    request.recipe.__class__.__doc__ = "Rows of /home/me/rows.jsonl."
    with pytest.raises(RecipeError, match="its docstring goes onto the model card and names the path /home/me/rows"):
        run_recipe(request)
    assert not (tmp_path / "run").exists()


def test_another_setting_is_refused_and_named(tmp_path: Path) -> None:
    begun(tmp_path)
    with pytest.raises(
        RecipeError, match=r"was begun otherwise: learning_rate was 0\.0002, is 0\.001; lora_r was 8, is 4"
    ):
        run_to_make(asked(tmp_path, "train", lora_r=4, learning_rate=1e-3))


@pytest.mark.parametrize(
    ("is_trained", "values", "offered"), [(True, {}, True), (False, {}, False), (True, {"lora_r": 4}, False)]
)
def test_a_changed_recipe_may_be_evaluated_with_what_was_trained(
    is_trained: bool, values: dict[str, Any], offered: bool, tmp_path: Path
) -> None:
    run = begun(tmp_path)
    dataclasses.replace(run, recipe=run.recipe | {"sha256": "0" * 64}).write(tmp_path / "run")
    if is_trained:
        (tmp_path / "run" / "adapter").mkdir()
        (tmp_path / "run" / "adapter" / "adapter_config.json").touch()
    with pytest.raises(RecipeError, match=r"the recipe 'finsent' .* has been changed.* --overwrite") as caught:
        run_to_make(asked(tmp_path, "train", **values))
    kept = f"hf-finetune evaluate {RECIPE} --adapter {tmp_path / 'run'}, with the same --data and settings, keeps the"
    assert (kept in str(caught.value)) == offered


def test_other_rows_are_refused_and_named(tmp_path: Path) -> None:
    begun(tmp_path, source={"file": "rows.jsonl", "sha256": "0" * 64, "member": None})
    with pytest.raises(RecipeError, match=r"the rows were rows.jsonl \(000000000000\), are rows.jsonl \("):
        run_to_make(asked(tmp_path, "train"))


def test_other_rows_of_a_folder_are_named_by_their_files(tmp_path: Path) -> None:
    begun(tmp_path, source={"files": {"test.jsonl": "1" * 64, "train.jsonl": "0" * 64}})
    named = r"test.jsonl \(111111111111\), train.jsonl \(000000000000\), are rows.jsonl \("
    with pytest.raises(RecipeError, match=named):
        run_to_make(asked(tmp_path, "train"))


def test_a_price_may_be_given_later_and_counts(tmp_path: Path) -> None:
    begun(tmp_path)
    run, goes_on = run_to_make(asked(tmp_path, "train", price_per_hour=7.2))
    run.add_session(Session("2026-01-01T00:00:00+00:00", seconds=1000))
    assert goes_on
    assert run.totals["cost_usd"] == 2.0


def test_overwrite_makes_a_new_run(tmp_path: Path) -> None:
    begun(tmp_path, totals={"steps": 7})
    run, goes_on = run_to_make(asked(tmp_path, "train", "--overwrite", overwrite=True))
    assert (run.totals, goes_on) == ({}, False)


def test_an_overwriting_command_that_was_stopped_goes_on_when_it_is_typed_again(tmp_path: Path) -> None:
    begun(tmp_path, command=["train", "--overwrite"])
    again = asked(tmp_path, "train", "--overwrite", overwrite=True)
    assert run_to_make(again)[1]
    changed = asked(tmp_path, "train", "--overwrite", overwrite=True, lora_r=4)
    assert not run_to_make(changed)[1]
    Run.read(tmp_path / "run").write(tmp_path / "run")
    dataclasses.replace(Run.read(tmp_path / "run"), finished="2026-01-01").write(tmp_path / "run")
    assert not run_to_make(again)[1]


def test_a_damaged_record_is_replaced_only_when_that_is_asked_for(tmp_path: Path) -> None:
    begun(tmp_path)
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(RecipeError, match="is damaged"):
        run_to_make(asked(tmp_path, "train"))
    assert not run_to_make(asked(tmp_path, "train", overwrite=True))[1]


def test_what_was_stopped_is_summed(tmp_path: Path) -> None:
    run = begun(tmp_path, finished="2026-01-01")
    for first, last, seconds in ((0, 30, 10.0), (20, 60, 15.0)):
        session = Session(f"2026-01-0{first // 20 + 1}", seconds=seconds, first_step=first, last_step=last)
        write_json(tmp_path / "run" / "progress.json", vars(session))
        record_stop(run, tmp_path / "run")
    read = Run.read(tmp_path / "run")
    assert (read.totals["sessions"], read.totals["steps"], read.totals["seconds"]) == (2, 70, 25.0)
    assert read.finished == ""  # else status would call it finished while it goes on


def test_a_session_is_not_counted_twice(tmp_path: Path) -> None:
    run = begun(tmp_path)
    for seconds in (10, 12):
        run.add_session(Session("2026-01-01", seconds=seconds))
    assert (run.totals["sessions"], run.totals["seconds"]) == (1, 12)


def test_a_library_that_changed_meanwhile_is_told_and_kept(tmp_path: Path) -> None:
    run = begun(tmp_path)
    now = run.versions["peft"]
    run.versions["peft"] = "0.1"
    assert note_versions(run) == [f"peft was 0.1, is {now}: the last digits of the result may differ"]
    assert run.versions["peft"] == f"0.1, then {now}"
    assert note_versions(run) == []


def test_energy_is_summed_over_sessions_and_unknown_where_one_did_not_count_it(tmp_path: Path) -> None:
    run = begun(tmp_path)
    for number, used, total in ((1, 1.25, 1.25), (2, 0.5, 1.75), (3, None, None)):
        run.add_session(Session(f"2026-01-0{number}T00:00:00+00:00", seconds=10, energy_wh=used))
        assert run.totals["energy_wh"] == total
    del run.sessions[0]["energy_wh"]  # as an older version left it
    run.add_session(Session("2026-01-03T00:00:00+00:00", energy_wh=1.0))
    assert run.totals["energy_wh"] is None
