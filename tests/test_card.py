"""The model card: every figure from the run's files, metadata the Hub accepts, the same bytes each time."""

import json
import re
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_scoring import report

from hf_finetune.card import card_files, render_card, render_comparison, write_card
from hf_finetune.card_check import check_card
from hf_finetune.card_metadata import eval_results
from hf_finetune.errors import RecipeError
from hf_finetune.files import sha256, write_json
from hf_finetune.layers import Layer, settle
from hf_finetune.licences import LICENSES
from hf_finetune.report import CONCLUSIONS, Gate, Report
from hf_finetune.run import Run
from hf_finetune.snippets import usage_snippet

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
        totals={
            "sessions": 1, "steps": 120, "seconds": 130.5, "training_seconds": 100.2, "peak_memory_gib": 1.25,
            "cost_usd": None,
        },
        started="2026-01-02T03:04:05+00:00",
        finished="2026-01-02T03:06:15+00:00",
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


@cache
def a_report() -> Report:
    return report(set(range(60)), set(range(10)))


def own_rows() -> tuple[Run, dict[str, Any], Report]:
    """A run on a file of the user's own."""
    given = data(on_hub=False)
    return a_run(data=given["source"], license=None, is_own_data=True), given, a_report()


def merged(given: Report) -> Report:
    return replace(
        given,
        merged={
            "way": "dequantised", "dtype": "bfloat16", "scores": {"accuracy": 0.877, "macro_f1": 0.876}, "rows": 90,
            "interval": [-0.034, 0.011],
            "files": {"model.safetensors": "b" * 64},
            "likeness": {
                "prompts": {"kl_per_token": 1.4e-05, "top1_agreement": 0.9975, "tokens": 1234},
                "answers": {"kl_per_token": 2.3e-06, "top1_agreement": 0.9982, "tokens": 568},
            },
        },
    )  # fmt: skip


def verified(given: Run, found: Report) -> dict[str, Any]:
    def part(snippet: str, answer: str) -> dict[str, Any]:
        return {"files": {}, "snippet": snippet, "answer": answer, "versions": {"python": "3.12.1", "torch": "2.14.0"}}

    figures = {
        "rows": 90,
        "metric": "macro_f1",
        "measured": 0.8889,
        "reproduced": 0.8777,
        "same_answers": 88,
        "largest_loss_difference": 2e-06,
    }
    return {
        "adapter": part(usage_snippet(given, found), "neutral") | figures,
        "merged": part(usage_snippet(given, found, "merged"), "```\nfenced\n```") | figures | {"reproduced": 0.8666},
        "several": part(usage_snippet(given, found, "several"), "['neutral', 'neutral']"),
    }


def a_folder(folder: Path, given: Run, facts: dict[str, Any], found: Report) -> Path:
    """A run's folder with what the card is made from."""
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "loss_curve.png").write_bytes(b"a picture")
    given.write(folder)
    write_json(folder / "data.json", facts)
    found.write(folder)
    return folder


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
    run, given, found = own_rows()
    card = render_card(replace(run, base_model=base_model("my-base", None)), given, found)
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
    assert "took 130.5 seconds." in card
    assert "sessions" not in render_card(a_run(), data(), a_report())


def test_batches_that_were_taken_in_smaller_pieces_are_told() -> None:
    used = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    card = render_card(a_run(sessions=[{"used": {}}, {"used": used}]), data(), a_report())
    assert "they were computed as with `gradient_accumulation_steps=2`, `per_device_train_batch_size=4`. The" in card
    assert "memory did not hold" not in render_card(a_run(), data(), a_report())


def test_energy_is_told_where_it_is_known() -> None:
    told = render_card(a_run(totals=a_run().totals | {"energy_wh": 6.789}), data(), a_report())
    assert "The driver of the GPUs counted 6.789 watt-hours on those that it used." in told
    for unknown in ({}, {"energy_wh": None}):
        assert "watt-hours" not in render_card(a_run(totals=a_run().totals | unknown), data(), a_report())


def test_the_same_files_give_the_same_bytes() -> None:
    assert render_card(a_run(), data(), a_report()) == render_card(a_run(), data(), a_report())


def everything() -> tuple[Run, dict[str, Any], Report, dict[str, Any]]:
    """Files in which all is there that a card can tell."""
    run = a_run(totals=a_run().totals | {"sessions": 3, "cost_usd": 1.2345, "energy_wh": 6.789}, num_processes=2)
    odd = {"faulty": {"rows": 3, "first": []}, "unmarkable": {"rows": 7, "first": []}, "train_rows_left_out": 17}
    gates = [Gate("macro_f1", "at least", 0.8, 0.8889, True), Gate("forgetting", "at most", 0.05, 0.75, False)]
    loss = {"base": 7.4731, "tuned": 8.2269, "low": 0.5154, "high": 1.0235}
    found = replace(merged(a_report()), gates=gates, general_loss=loss, notes=["Left out: 3 rows."])
    return run, data() | odd | {"remarks": ["2 agencies disagree."]}, found, verified(run, found)


@pytest.mark.parametrize("form", ["adapter", "merged"])
@pytest.mark.parametrize("whole", [False, True])
def test_every_figure_on_the_card_stands_in_a_file(whole: bool, form: str) -> None:
    run, given, found, seen = everything() if whole else (a_run(), data(), merged(a_report()), {})
    card = render_card(run, given, found, seen, form)
    report_json = asdict(found) | {name: getattr(found, name) for name in CONCLUSIONS}
    files = json.dumps([asdict(run), given, report_json, seen])
    known = {float(number) for number in re.findall(r"\d+\.?\d*", files)}
    known |= {round(value, digits) for value in known for digits in (1, 2, 3, 4)}
    body = card.split("---\n", 2)[2].replace(COMMIT, "").replace(COMMIT[::-1], "")
    text = re.sub(r"^(`{3,})\w+\n.*?^\1$|\|---.*|(\d+)\.\d+\.\d+\S*", "", body, flags=re.S | re.M).replace(",", "")
    constants = {95.0, 4.0, 1000.0}  # the interval's level, NF4's bits, the resamples
    strange = {float(number) for number in re.findall(r"\d+\.?\d*", text)} - known - constants
    assert not strange


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_a_card_with_everything_passes_its_check(form: str) -> None:
    run, given, found, seen = everything()
    check_card(render_card(run, given, found, seen, form))
    check_card(render_card(*own_rows()))


def test_the_parts_come_in_one_order() -> None:
    run, given, found, seen = everything()
    card = render_card(run, given, found, seen, files=frozenset({"loss_curve.png", "comparison.svg"}))
    parts = [
        "An adapter for", "Says whether news is good", "## Results", "Fine-tuning helped", "comparison.svg",
        "### By answer", "### What got worse", "### Gates", "## Data", "## Training", "differ from the defaults",
        "All settings",
        "peak memory", "loss_curve.png", "## Numerics", "Environment and versions", "## How to use it",
        "### The adapter",
        "### Several adapters on one base", "### The merged weights", "### With vLLM", "## Citation",
    ]  # fmt: skip
    places = [card.find(part) for part in parts]
    assert -1 not in places
    assert places == sorted(places)


def test_all_settings_are_folded_but_those_that_name_places() -> None:
    written = {"output_dir": "/home/me/runs", "model_name_or_path": "/home/me/base", "run_name": "secret"}
    run = a_run(settings=settle([Layer("command line", written)]).as_json())
    folded = render_card(run, data(), a_report()).partition("<summary>All settings")[2].partition("</details>")[0]
    names = re.findall(r"^\| `(\w+)` \|", folded, re.M)
    assert set(run.settings) - set(names) == {
        "output_dir", "run_name", "report_to", "model_name_or_path", "model_revision",
    }  # fmt: skip
    assert "/home/me" not in folded


def test_what_is_not_there_is_not_pictured() -> None:
    card = render_card(a_run(), data(), a_report())
    assert "![" not in card
    shown = render_card(a_run(), data(), a_report(), files=frozenset({"comparison.svg"}))
    assert "](comparison.svg)" in shown
    assert "loss_curve" not in shown


def test_the_comparison_is_a_picture_of_the_intervals() -> None:
    import xml.etree.ElementTree as ElementTree

    given = a_report()
    odd = replace(given, majority_answer="<b> & a name that is much too long for a picture")
    for found in (given, odd):
        picture = ElementTree.fromstring(render_comparison(found))
        texts = ["".join(text.itertext()) for text in picture.iter("{http://www.w3.org/2000/svg}text")]
        low, high = found.intervals["tuned"]
        assert f"{found.scores['tuned']['macro_f1']:.3f}  {low:.3f} to {high:.3f}" in texts
        assert len(list(picture.iter("{http://www.w3.org/2000/svg}circle"))) == len(found.columns)
    assert max(map(len, texts)) < 60


def test_what_got_worse_is_told() -> None:
    worse = report({0}, set(range(0, 90, 3)))  # all that are negative
    card = render_card(a_run(), data(), worse)
    assert "| recall of negative | 0.967 | 0.000 |" in card
    assert f"{worse.spoiled} of the test rows that the base had right are wrong" in card
    assert "recall of" not in render_card(a_run(), data(), a_report())
    run, given, found, seen = everything()
    assert render_card(run, given, found, seen).count("loss went from 7.473 to 8.227 nats a token") == 1
    assert "| loss on general questions" not in render_card(run, given, found, seen)


def test_an_answer_is_shown_only_with_the_very_snippet_that_gave_it() -> None:
    run, given, found, seen = everything()
    card = render_card(run, given, found, seen)
    assert "executed this with python 3.12.1, torch 2.14.0. It printed:\n\n```text\nneutral\n```" in card
    assert (
        "asked 90 of the 90 test rows: macro_f1 is 0.878, and was measured as 0.889; 88 of the answers are the "
        "same to the letter; the loss of a gold answer differs by 2e-06 nats at most" in card
    )
    assert card.count("has not been executed") == 1  # vLLM
    seen["adapter"]["snippet"] += " "
    changed = render_card(run, given, found, seen)
    assert changed.count("has not been executed") == 2
    assert "text\nneutral" not in changed


def test_a_placeholder_has_no_answer() -> None:
    run, given, found = own_rows()
    seen = verified(run, found)
    card = render_card(run, given, found, seen)
    assert "executed this with python 3.12.1, torch 2.14.0, with the placeholder for a question.\n" in card
    assert "It printed" not in card
    assert "asked 90 of the 90 test rows" in card
    shown = replace(run, are_rows_shown=True)
    assert "It printed" in render_card(shown, given, found, verified(shown, found))


def test_a_reader_is_told_whether_the_printed_answer_is_right() -> None:
    run, given, found, seen = everything()
    for is_right, word in ((True, "right"), (False, "wrong")):
        seen["adapter"] |= {"is_right": is_right, "gold": "negative"}
        card = render_card(run, given, found, seen)
        assert f"That answer is {word}; the row's own answer is:\n\n```text\nnegative\n```" in card
        assert card.count("That answer is") == 1


def test_a_reader_is_told_what_to_install_and_where_the_demonstrations_base_lies() -> None:
    plain = a_run(settings=settle([Layer("recipe", {"load_in_4bit": False})]).as_json(), is_demo=True)
    assert "`pip install torch transformers peft bitsandbytes accelerate`" in render_card(a_run(), data(), a_report())
    assert "`pip install torch transformers peft accelerate`" in render_card(plain, data(), a_report())
    assert "`pip install torch transformers accelerate`" in render_card(
        a_run(), data(), merged(a_report()), form="merged"
    )
    assert "print(hf_finetune.demo.BASE_MODEL)" in render_card(plain, data(), a_report())
    assert "BASE_MODEL" not in render_card(a_run(), data(), a_report())


def test_what_older_versions_verified_is_told_without_what_they_did_not_count() -> None:
    run, given, found, seen = everything()
    del seen["adapter"]["same_answers"]
    card = render_card(run, given, found, seen)
    assert "was measured as 0.889; the loss of a gold answer" in card


def test_a_reader_is_told_that_the_second_adapter_is_the_first_again() -> None:
    run, given, found, seen = everything()
    chapter = render_card(run, given, found, seen).split("### Several adapters on one base")[1]
    assert "here it is the same one twice." in chapter.split("```python")[0]


def test_rows_that_are_alike_are_counted_or_said_to_be_none() -> None:
    assert "7 rows are near-duplicates of another (" in render_card(
        a_run(), data() | {"near_duplicates": 7}, a_report()
    )
    assert "No row is a near-duplicate of another (" in render_card(
        a_run(), data() | {"near_duplicates": 0}, a_report()
    )


def test_the_card_tells_what_was_left_out_of_data_that_came_split() -> None:
    given = {"splits_given": True, "near_other_splits_dropped": 3, "train_rows_of_test_groups": 1}
    told = render_card(a_run(), data() | {"near_duplicates": 0} | given, a_report())
    assert "rows were read, split as their files are named; " in told
    assert "Left out as near-duplicates of rows in the test or validation split: 3 rows. " in told
    assert "Test rows share their group with 1 training row. No row is a near-duplicate" in told
    assert "split as their files" not in render_card(a_run(), data(), a_report())


def test_an_answer_with_a_fence_does_not_end_its_block() -> None:
    run, given, found, seen = everything()
    assert "````text\n```\nfenced\n```\n````" in render_card(run, given, found, seen)


def test_vllm_is_said_to_be_unexecuted_and_of_other_numerics() -> None:
    part = render_card(a_run(), data(), a_report()).partition("### With vLLM")[2]
    assert "vLLM holds the base unquantised here, unlike the results above" in part
    assert "This has not been executed: vLLM is no part of hf_finetune." in part
    dora = settle([Layer("recipe", {"use_dora": True})]).as_json()
    assert "vLLM" not in render_card(a_run(settings=dora), data(), a_report())


def test_the_merged_weights_have_a_card_of_their_own() -> None:
    run, given, found, seen = everything()
    card = render_card(run, given, found, seen, "merged")
    values = header(card)
    assert (values["base_model"], values["base_model_relation"]) == ("ns/base", "finetune")
    assert values["library_name"] == "transformers"
    assert "lora" not in values["tags"]
    (metrics,) = [result["metrics"] for result in values["model-index"][0]["results"]]
    assert {metric["type"]: metric["value"] for metric in metrics} == {"accuracy": 0.877, "macro_f1": 0.876}
    assert "merged into its dequantised weights, saved in bfloat16" in card
    assert "reach macro_f1 0.876 on 90 test rows, where the adapter on its base reaches 0.889" in card
    assert "| prompts | 1,234 | 1.4e-05 | 99.8 % |" in card
    assert "| answers | 568 | 2.3e-06 | 99.8 % |" in card
    assert "| macro_f1 (primary) | 0.889 | 0.876 |" in card
    assert "95 % interval -0.034 to +0.011" in card
    assert "PeftModel" not in card


def test_rows_that_are_not_public_are_not_quoted_unless_that_is_asked_for() -> None:
    """A card is made to be published, and a row of a user's own file is not anybody's to read."""
    run, given, found = own_rows()
    given["remarks"] = ["Borrower 4711 has no cash ratio."]
    hidden = render_card(run, given, found)
    assert json.dumps(found.example_prompt) not in hidden
    assert 'question = "..."' in hidden
    assert "4711" not in hidden
    assert "The test rows of this run are not public, so none is quoted here" in hidden
    shown = render_card(replace(run, are_rows_shown=True), given, found)
    assert json.dumps(found.example_prompt) in shown
    assert "4711" in shown
    assert "**The question below is a row of `rows.csv`, which is not public:**" in shown
    of_several = {
        "several": {
            "snippet": usage_snippet(replace(run, are_rows_shown=True), found, "several"),
            "answer": "['x', 'y']",
        }
    }
    assert "['x', 'y']" not in render_card(run, given, found, of_several)
    assert "['x', 'y']" in render_card(replace(run, are_rows_shown=True), given, found, of_several)


def test_public_rows_are_quoted() -> None:
    for run in (a_run(), replace(own_rows()[0], is_demo=True, license="apache-2.0")):
        card = render_card(run, data(), a_report())
        assert json.dumps(a_report().example_prompt) in card
        assert "not public" not in card


def test_the_licence_of_the_sources_is_told() -> None:
    sources = {"data": data()["source"] | {"license": "cc-by-nc-sa-3.0"}}
    card = render_card(a_run(**sources), data(), a_report())
    assert "The licence is `cc-by-nc-sa-3.0`, as the recipe has it: that of the data set is `cc-by-nc-sa-3.0`;" in card
    assert "that of the base is not known." in card
    unknown = render_card(*own_rows())
    assert "No licence is stated: neither that of the rows nor that of the base is known." in unknown
    assert "license" not in header(unknown)


def test_a_base_with_terms_of_its_own_makes_the_licence_other() -> None:
    run = a_run(base_model=base_model("ns/base", COMMIT) | {"license": "other", "license_name": "Their Licence"})
    values = header(render_card(run, data(), a_report()))
    assert (values["license"], values["license_name"]) == ("other", "cc-by-nc-sa-3.0-and-their-licence")


def test_a_card_never_calls_non_commercial_data_apache() -> None:
    run = a_run(license="apache-2.0", data=data()["source"] | {"license": "cc-by-nc-4.0"})
    with pytest.raises(RecipeError, match=r"the recipe says 'apache-2\.0', but the data set 'ns/phrases' is under"):
        render_card(run, data(), a_report())


def test_the_eval_results_name_the_data_set_at_its_commit() -> None:
    from huggingface_hub import parse_eval_result_entries

    text = eval_results(a_run(), data(), a_report())
    assert text is not None
    (entry,) = parse_eval_result_entries(yaml.safe_load(text))
    assert (entry.dataset_id, entry.dataset_revision, entry.value) == ("ns/phrases", COMMIT[::-1], 0.8889)
    assert (entry.date, entry.notes) == (
        "2026-01-02",
        "macro_f1 on 90 rows that hf_finetune kept apart from the training",
    )
    run, given, found = own_rows()
    assert eval_results(run, given, found) is None


def test_all_files_of_a_card_are_written_and_the_same_each_time(tmp_path: Path) -> None:
    run, given, found, seen = everything()
    folder = a_folder(tmp_path / "run", run, given, found)
    (folder / "merged").mkdir()
    write_json(folder / "verified.json", seen)
    written = write_card(folder)
    assert written == [folder / "adapter" / "README.md", folder / "merged" / "README.md"]
    for card in written:
        paths = [path for path in card.parent.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
        beside = {path.relative_to(card.parent).as_posix(): path.read_bytes() for path in paths}
        assert set(beside) == {"README.md", "comparison.svg", "loss_curve.png", ".eval_results/finsent.yaml"}
        write_card(folder)
        assert all((card.parent / name).read_bytes() == content for name, content in beside.items())
        assert "](loss_curve.png)" in card.read_text()


def test_without_merged_weights_there_is_one_card(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "run", a_run(), data(), a_report())
    assert write_card(folder) == [folder / "adapter" / "README.md"]


def test_what_was_seen_of_other_files_is_not_told(tmp_path: Path) -> None:
    run, given, found, seen = everything()
    folder = a_folder(tmp_path / "run", run, given, found)
    weights = "adapter_model.safetensors"
    seen["adapter"]["files"] = {weights: sha256(folder / "adapter" / weights)}
    write_json(folder / "verified.json", seen)
    assert "text\nneutral" in dict(card_files(folder))["README.md"].decode()
    (folder / "adapter" / weights).write_bytes(b"others")
    assert "text\nneutral" not in dict(card_files(folder))["README.md"].decode()


def test_rows_may_speak_of_paths_and_of_none(tmp_path: Path) -> None:
    """A run must not end without a card because of what its public rows say."""
    found = replace(a_report(), example_prompt="Where is /home/me/x? None knows.", notes=["None of /tmp/y."])
    folder = a_folder(tmp_path / "run", a_run(), data() | {"remarks": ["None at /root/z"]}, found)
    assert write_card(folder)


def test_an_answer_may_be_called_none() -> None:
    text = asdict(replace(a_report(), general_loss={}))
    found = Report(**json.loads(json.dumps(text).replace('"negative"', '"None"')))
    facts = json.loads(json.dumps(data()).replace('"negative"', '"None"'))
    worse = replace(found, by_class=found.by_class | {"base": found.by_class["tuned"], "tuned": found.by_class["base"]})
    for told in (found, worse):
        card = render_card(a_run(), facts, told)
        assert "| None | 30 |" in card
        check_card(card)


def test_ids_without_an_owner_are_linked_but_no_metadata() -> None:
    """The Hub's oldest repos have none; a check that is to find folders cannot tell them apart."""
    facts = data()
    facts["source"]["name"] = "imdb"
    card = render_card(a_run(base_model=base_model("gpt2", COMMIT), data=facts["source"]), facts, a_report())
    assert {"base_model", "base_model_relation", "datasets"}.isdisjoint(header(card))
    assert "https://huggingface.co/gpt2" in card
    assert eval_results(a_run(), facts, a_report()) is None
    check_card(card)


def test_a_docstring_with_a_path_is_refused(tmp_path: Path) -> None:
    recipe = a_run().recipe | {"docstring": "Says what stands in /home/me/rows.csv."}
    folder = a_folder(tmp_path / "run", a_run(recipe=recipe), data(), a_report())
    with pytest.raises(
        RecipeError, match=r"its docstring goes onto the model card and names the path /home/me/rows\.csv"
    ):
        write_card(folder)


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
@pytest.mark.parametrize("has_chat_template", [True, False])
def test_the_snippets_are_python(settings: dict[str, Any], has_chat_template: bool) -> None:
    base = base_model("ns/base", COMMIT) | {"has_chat_template": has_chat_template}
    run = a_run(settings=settle([Layer("recipe", settings)]).as_json(), base_model=base)
    for form, ways in (("adapter", 4), ("merged", 2)):
        card = render_card(run, data(), merged(a_report()), form=form)
        snippets = re.findall(r"```python\n(.*?)```", card, re.S)
        assert len(snippets) == ways
        for snippet in snippets:
            compile(snippet, "card", "exec")
        assert (f'revision="{COMMIT}"' in snippets[0]) == (form == "adapter")


def test_dora_is_not_shown_where_it_cannot_be_used() -> None:
    """Neither PEFT's mixed batches nor vLLM take it."""
    run = a_run(settings=settle([Layer("recipe", {"use_dora": True})]).as_json())
    card = render_card(run, data(), a_report())
    assert "### The adapter" in card
    assert "Several adapters" not in card
    assert "vLLM" not in card


def test_a_config_file_is_named_on_the_card_without_its_folder() -> None:
    settled = settle([Layer("/home/me/secret/my.yaml", {"lora_r": 8})])
    card = render_card(a_run(settings=settled.as_json()), data(), a_report())
    assert "| `lora_r` | 8 | my.yaml |" in card
    assert "secret" not in card


def settings_on(card: str) -> list[str]:
    """Those in the table of what differs."""
    return re.findall(r"^\| `(\w+)` \| .* \| .* \|$", card.partition("## Training")[2].partition("<details>")[0], re.M)


def test_the_card_lists_the_settings_whose_value_differs_from_the_default() -> None:
    written = {"lora_r": 8, "seed": 42, "lora_target_modules": "all-linear", "learning_rate": "2e-4", "output_dir": "x"}
    card = render_card(a_run(settings=settle([Layer("recipe", written)]).as_json()), data(), a_report())
    assert settings_on(card) == ["lora_r"]


def test_a_run_on_the_defaults_has_no_table_of_settings() -> None:
    card = render_card(a_run(settings=settle([Layer("recipe", {"seed": 42})]).as_json()), data(), a_report())
    assert settings_on(card) == []
    assert "differ from the defaults" not in card
    assert "## Training\n\n<details>" in card


def test_the_snippet_asks_a_base_without_a_chat_template_as_the_training_did() -> None:
    plain = base_model("ns/base", COMMIT) | {"has_chat_template": False}
    assert 'tokenizer(question + "\\n"' in render_card(a_run(base_model=plain), data(), a_report())


REFERENCE_RUNS = sorted(path.parent for path in (Path(__file__).parent.parent / "model_cards").glob("*/run.json"))


def test_there_are_reference_cards() -> None:
    assert [folder.name for folder in REFERENCE_RUNS] == ["credit_memo", "finsent", "text2sql"]


INPUTS = {"run.json", "data.json", "report.json", "verified.json", "loss_curve.png", "training_log.jsonl"}


@pytest.mark.parametrize("folder", REFERENCE_RUNS, ids=lambda folder: folder.name)
def test_a_reference_card_is_what_its_files_render_to(folder: Path) -> None:
    """After a wanted change of the template, write them again: `python tests/test_card.py`."""
    rendered = dict(card_files(folder))
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there - INPUTS == set(rendered) - INPUTS
    for name, content in rendered.items():
        assert (folder / name).read_bytes() == content


if __name__ == "__main__":
    for reference in REFERENCE_RUNS:
        for name, content in card_files(reference):
            (reference / name).parent.mkdir(exist_ok=True)
            (reference / name).write_bytes(content)
