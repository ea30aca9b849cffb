"""The model card: every figure from the run's files, metadata the Hub accepts, the same bytes each time."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_scoring import report

from hf_finetune.card import render_card
from hf_finetune.files import read_json
from hf_finetune.layers import Layer, settle
from hf_finetune.licences import LICENSES
from hf_finetune.report import Report
from hf_finetune.run import Run

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def base_model(name: str, commit: str | None) -> dict[str, Any]:
    revision = "main" if commit else None
    return {"name": name, "revision": revision, "commit": commit, "has_chat_template": True, "stop_token_id": 2}


def a_run(**changes: Any) -> Run:
    settled = settle([Layer("recipe", {"model_name_or_path": "ns/base", "max_length": 256})])
    given = Run(
        command=["hf-finetune", "run", "finsent"],
        recipe={
            "name": "finsent",
            "class": "FinancialSentiment",
            "docstring": "Says whether news is good.\n\n    Limits: many.",
            "language": "en",
            "primary_metric": "macro_f1",
            "loaded_from": "finsent.py",
            "sha256": "0" * 64,
        },
        settings=settled.as_json(),
        base_model=base_model("ns/base", COMMIT),
        source={"source": "HubDataset", "id": "ns/phrases"},
        data=data()["source"],
        versions={"python": "3.11.7", "hf_finetune": "0.1.0", "peft": "0.21.2"},
        hardware={"cpu": "a processor", "cores": 2, "memory_gib": 24.0, "gpus": [], "platform": "Linux x86_64"},
        license="cc-by-nc-sa-3.0",
        is_own_data=False,
        training={
            "steps": 120, "best_step": 80, "best_validation_loss": 0.2575, "epochs": 3.0,
            "trainable_parameters": 286720, "all_parameters": 4090112,
        },
        computing={"device": "cpu", "dtype": "bfloat16", "sharding": "none"},
        totals={"sessions": 1, "steps": 120, "seconds": 130.5, "training_seconds": 100.2, "peak_memory_gib": 1.25},
    )  # fmt: skip
    return replace(given, **changes)


def data(on_hub: bool = True) -> dict[str, Any]:
    return {
        "source": {
            "name": "ns/phrases" if on_hub else "rows.csv",
            "is_on_hub": on_hub,
            "revision": "main" if on_hub else None,
            "commit": COMMIT[::-1] if on_hub else None,
            "files": {"rows.csv": "a" * 64},
        },
        "rows_read": 1003, "exact_duplicates_dropped": 2, "contradictory_dropped": 1, "near_duplicates": 15,
        "near_duplicate_similarity": 0.8,
        "rows": {"train": 800, "validation": 100, "test": 100},
        "answers": {name: {"negative": 30, "neutral": 40, "positive": 30} for name in ("train", "validation", "test")},
        "tokens": {}, "rows_trained_on": 797, "max_length": 256,
        "longer_than_max_length": {"train": 3, "validation": 0, "test": 0},
    }  # fmt: skip


def a_report() -> Report:
    return report(set(range(60)), set(range(10)))


def header(card: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return values


def test_the_metadata_is_what_the_hub_accepts() -> None:
    values = header(render_card(a_run(), data(), a_report()))
    assert values["base_model"] == "ns/base"
    assert values["base_model_relation"] == "adapter"
    assert values["license"] in LICENSES
    assert values["library_name"] == "peft"
    assert values["pipeline_tag"] == "text-generation"
    assert values["datasets"] == ["ns/phrases"]
    assert set(values) == {
        "base_model", "base_model_relation", "license", "library_name", "pipeline_tag", "datasets", "language", "tags",
        "model-index",
    }  # fmt: skip


def test_the_model_index_holds_the_reports_figures() -> None:
    given = a_report()
    (entry,) = header(render_card(a_run(), data(), given))["model-index"]
    (result,) = entry["results"]
    assert {m["type"]: m["value"] for m in result["metrics"]} == {
        name: round(value, 4) for name, value in given.scores["tuned"].items()
    }
    assert result["dataset"]["revision"] == COMMIT[::-1]


def test_a_local_base_and_local_rows_are_not_given_as_hub_ids() -> None:
    run = a_run(base_model=base_model("my-base", None), license=None, is_own_data=True)
    card = render_card(run, data(on_hub=False), a_report())
    values = header(card)
    assert {"base_model", "base_model_relation", "datasets", "license"}.isdisjoint(values)
    assert "This run used other rows than the data set named there" in card
    assert "a local folder: this base is not on the Hub" in card


def test_a_demonstration_says_that_it_is_one() -> None:
    assert "**A demonstration.**" in render_card(a_run(is_demo=True), data(), a_report())
    assert "**A demonstration.**" not in render_card(a_run(), data(), a_report())


def test_a_run_in_several_sessions_and_processes_is_said_to_be_one() -> None:
    totals = a_run().totals | {"sessions": 3}
    card = render_card(a_run(totals=totals, num_processes=2), data(), a_report())
    assert "in 100.2 seconds, over 3 sessions, on a processor, 2 cores, no GPU, 2 processes (peak memory" in card
    assert "sessions" not in render_card(a_run(), data(), a_report())


def test_the_same_files_give_the_same_bytes() -> None:
    assert render_card(a_run(), data(), a_report()) == render_card(a_run(), data(), a_report())


def test_every_figure_on_the_card_stands_in_a_file() -> None:
    given = a_report()
    card = render_card(a_run(), data(), given)
    files = json.dumps([a_run().__dict__, data(), given.__dict__])
    known = {float(number) for number in re.findall(r"\d+\.?\d*", files)}
    known |= {round(value, digits) for value in known for digits in (1, 3, 4)}
    body = card.split("---\n", 2)[2].replace(COMMIT, "").replace(COMMIT[::-1], "")
    text = re.sub(r"```python.*?```|\|---.*|(\d+)\.\d+\.\d+\S*", "", body, flags=re.S).replace(",", "")
    constants = {95.0, 4.0}  # the interval's level, and NF4's bits
    strange = {float(number) for number in re.findall(r"\d+\.?\d*", text)} - known - constants
    assert not strange


def test_what_other_tools_cards_get_wrong_is_not_here() -> None:
    card = render_card(a_run(), data(), a_report())
    for mistake in (
        "More Information Needed",
        "licence:",
        "None",
        "library_name: transformers",
        "/root",
        "/home",
        "/tmp",
    ):
        assert mistake not in card


def test_without_quantisation_nothing_is_called_quantised() -> None:
    settled = settle([Layer("recipe", {"model_name_or_path": "ns/base", "load_in_4bit": False})])
    card = render_card(a_run(settings=settled.as_json()), data(), a_report())
    assert "QLoRA" not in card
    assert "BitsAndBytes" not in card
    assert "qlora" not in card


def test_rows_left_out_and_remarks_are_told() -> None:
    odd = {
        "faulty": {"rows": 3, "first": []},
        "unmarkable": {"rows": 7, "first": []},
        "remarks": ["Two agencies disagree."],
    }
    card = render_card(a_run(), data() | odd, a_report())
    assert "3 broken rows were left out. 7 rows left the test split, as no answer to them can be marked." in card
    assert "\n- Two agencies disagree.\n" in card
    assert "broken rows" not in render_card(a_run(), data(), a_report())


@pytest.mark.parametrize("settings", [{}, {"load_in_4bit": False}, {"load_in_4bit": False, "load_in_8bit": True}])
def test_the_snippet_is_python(settings: dict[str, Any]) -> None:
    settled = settle([Layer("recipe", settings)])
    card = render_card(a_run(settings=settled.as_json()), data(), a_report())
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.S)
    compile(snippet, "card", "exec")
    assert f'revision="{COMMIT}"' in snippet


def test_a_config_file_is_named_on_the_card_without_its_folder() -> None:
    settled = settle([Layer("/home/me/secret/my.yaml", {"lora_r": 8})])
    card = render_card(a_run(settings=settled.as_json()), data(), a_report())
    assert "| `lora_r` | 8 | my.yaml |" in card
    assert "secret" not in card


def settings_on(card: str) -> list[str]:
    return re.findall(r"^\| `(\w+)` \| .* \| .* \|$", card.partition("## Training")[2], re.M)


def test_the_card_lists_the_settings_whose_value_differs_from_the_default() -> None:
    written = {"lora_r": 8, "seed": 42, "lora_target_modules": "all-linear", "learning_rate": "2e-4", "output_dir": "x"}
    card = render_card(a_run(settings=settle([Layer("recipe", written)]).as_json()), data(), a_report())
    assert settings_on(card) == ["lora_r"]


def test_a_run_on_the_defaults_has_no_table_of_settings() -> None:
    card = render_card(a_run(settings=settle([Layer("recipe", {"seed": 42})]).as_json()), data(), a_report())
    assert settings_on(card) == []
    assert "differ from the defaults" not in card
    assert "answer's tokens only.\n\nVersions: python" in card


def test_the_snippet_asks_a_base_without_a_chat_template_as_the_training_did() -> None:
    plain = base_model("ns/base", COMMIT) | {"has_chat_template": False}
    assert 'tokenizer(question + "\\n"' in render_card(a_run(base_model=plain), data(), a_report())


REFERENCE_RUNS = sorted(path.parent for path in (Path(__file__).parent.parent / "model_cards").glob("*/run.json"))


def test_there_are_reference_cards() -> None:
    assert [folder.name for folder in REFERENCE_RUNS] == ["credit_memo", "finsent", "text2sql"]


@pytest.mark.parametrize("folder", REFERENCE_RUNS, ids=lambda folder: folder.name)
def test_a_reference_card_is_what_its_files_render_to(folder: Path) -> None:
    """After a wanted change of the template, write them again: `python tests/test_card.py`."""
    rendered = render_card(Run.read(folder), read_json(folder / "data.json"), Report.read(folder))
    assert rendered == (folder / "README.md").read_text(encoding="utf-8")


if __name__ == "__main__":
    for reference in REFERENCE_RUNS:
        card = render_card(Run.read(reference), read_json(reference / "data.json"), Report.read(reference))
        (reference / "README.md").write_text(card, encoding="utf-8")
