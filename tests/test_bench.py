"""The bench of the gains: every one alone and left out, real steps in processes of their own."""

from pathlib import Path

import pytest

import hf_finetune.bench
from conftest import run_cli, sample_rows, write_rows
from hf_finetune.bench import GAINS, PLAIN, Measured, Reached, as_markdown, bench, reach, ways
from hf_finetune.chat import ChatFormat
from hf_finetune.cli.run import prepare_libraries, settle_run
from hf_finetune.data.sources import LocalFile
from hf_finetune.errors import RecipeError
from hf_finetune.files import read_json
from hf_finetune.model import find_base_model, load_tokenizer
from hf_finetune.prepare import encode, prepare
from hf_finetune.recipe import load_recipe
from hf_finetune.settings import Settings


def test_each_gain_is_measured_alone_and_left_out() -> None:
    given = ways()
    assert next(iter(given)) == "plain"
    assert list(given)[-1] == "all"
    assert len(given) == 2 + 2 * len(GAINS)
    for name in GAINS:
        assert given[f"{name} alone"][name] != PLAIN[name]
        assert given[f"all but {name}"] == GAINS | {name: PLAIN[name]}
    assert given["shared_prefix alone"]["padding_free"] is True  # it needs it
    for values in given.values():
        Settings(**values)


def test_every_gain_is_on_by_default() -> None:
    assert {name: getattr(Settings(), name) for name in GAINS} == GAINS


def test_the_table_tells_speed_and_losses_against_plain() -> None:
    slow, fast = Measured("plain", 2.0, 4, 80, 1.5, [3.0, 2.0]), Measured("all", 0.5, 16, 320, 0.5, [3.0, 2.001])
    assert as_markdown([slow, fast]).splitlines()[2:] == [
        "| plain | 1.00 | 2.000 | 4.0 | 80 | 1.50 | 0e+00 |",
        "| all | 4.00 | 0.500 | 16.0 | 320 | 0.50 | 1e-03 |",
    ]
    last = as_markdown([slow, fast], [Reached("plain", 1, 2.5), Reached("all", 4, 1.25)], 2).splitlines()[-1]
    assert last.startswith("In the steps that fit into 2 seconds: ")
    assert last.endswith(": plain 1 step, validation loss 2.5000; all 4 steps, validation loss 1.2500.")


def test_too_few_rows_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", sample_rows(10))
    words = ["bench", "finsent", "--data", "rows.jsonl", f"model_name_or_path={tiny_base}"]
    done = run_cli(*words, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: bench: 24 training rows are too few. Give more, or a smaller batch.\n"
    assert not (tmp_path / "bench").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    done = run_cli("bench", "finsent", "--demo", "--output", "taken", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "error: taken: is a file. Name a folder with --output.\n")


def reach_in_this_process(base: Path, rows: Path, steps: int) -> float:
    """The validation loss of the plain computation after so many steps."""
    recipe = load_recipe("finsent")
    settings = Settings(
        model_name_or_path=str(base), per_device_train_batch_size=8, lora_dropout=0, max_steps=steps,
        eval_strategy="steps", eval_steps=10**9, max_length=256, report_to=["none"], **PLAIN,
    )  # fmt: skip
    found = find_base_model(settings)
    encoded = encode(
        recipe, prepare(recipe, LocalFile(str(rows)), settings), ChatFormat.of(load_tokenizer(found)), settings
    )
    return reach("plain", found, encoded, settings).validation_loss


def test_a_bench_that_is_stopped_leaves_nothing_to_go_on_with(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        assert (tmp_path / "bench" / "progress.json").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(hf_finetune.bench, "run_way", stopped)
    rows = LocalFile(str(write_rows(tmp_path / "rows.jsonl", sample_rows(20))))
    recipe = load_recipe("finsent")
    settled = settle_run(recipe, [f"model_name_or_path={tiny_base}", "per_device_train_batch_size=8"], None, demo=False)
    with pytest.raises(KeyboardInterrupt):
        bench(recipe, rows, settled, tmp_path / "bench", 3, 1, 0, lambda line: None, prepare_libraries)
    assert list((tmp_path / "bench").iterdir()) == []


@pytest.mark.slow
def test_a_bench_trains_in_each_way_and_leaves_its_results(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_finetune.bench, "ways", lambda: {"plain": dict(PLAIN), "all": dict(GAINS)})
    rows = LocalFile(str(write_rows(tmp_path / "rows.jsonl", sample_rows(20))))
    recipe = load_recipe("finsent")
    words = [f"model_name_or_path={tiny_base}", "per_device_train_batch_size=8", "lora_dropout=0"]
    settled = settle_run(recipe, words, None, demo=False)
    said: list[str] = []
    bench(recipe, rows, settled, tmp_path / "bench", 3, 1, 1, said.append, prepare_libraries)
    written = read_json(tmp_path / "bench" / "bench.json")
    plain, all_ = (Measured(**way) for way in written["ways"])
    assert (plain.way, all_.way, written["rows_a_step"]) == ("plain", "all", 8)
    assert len(plain.losses) == 4
    assert plain.losses == pytest.approx(all_.losses, rel=1e-5)
    assert plain.tokens_per_second * plain.seconds == pytest.approx(all_.tokens_per_second * all_.seconds)
    slow, fast = (Reached(**way) for way in written["reached"])
    assert (slow.way, fast.way) == ("plain", "all")
    assert (slow.steps, fast.steps) == tuple(max(1, int(1 / way.seconds)) for way in (plain, all_))
    alike = reach_in_this_process(tiny_base, tmp_path / "rows.jsonl", fast.steps)
    assert fast.validation_loss == pytest.approx(alike, rel=1e-5)
    assert sorted(path.name for path in (tmp_path / "bench").iterdir()) == ["bench.json", "bench.md", "bench.png"]
    assert said[-1].strip() == (tmp_path / "bench" / "bench.md").read_text().strip()
    with pytest.raises(RecipeError, match="no such file"):
        bench(recipe, LocalFile("nowhere.jsonl"), settled, tmp_path / "other", 3, 1, 0, said.append, prepare_libraries)
