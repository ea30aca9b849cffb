"""Licences: an adapter never promises more than its data and its base allow, and nothing is guessed."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from conftest import sample_rows, write_rows
from hf_finetune.begin import Request, license_of_base, license_of_data
from hf_finetune.data.sources import LocalFile
from hf_finetune.demo import BASE_MODEL
from hf_finetune.errors import RecipeError
from hf_finetune.layers import Layer, settle
from hf_finetune.licences import LICENSES, NON_COMMERCIAL, adapter_license, conflict, read_license
from hf_finetune.model import BaseModel
from hf_finetune.pipeline import run_recipe
from hf_finetune.recipe import load_recipe


def source(name: str, license: str | None) -> dict[str, Any]:
    return {"name": name, "license": license}


def derived(claimed: str | None, data: str | None, base: str | None) -> str | None:
    return adapter_license(claimed, source("ns/rows", data), source("ns/base", base))


def test_licenses_are_whole_ids() -> None:
    assert [name for name in LICENSES if name.endswith("-")] == []
    assert {"cc-by-3.0", "cc-by-nc-sa-3.0", "cdla-permissive-2.0", "mit"} <= LICENSES


@pytest.mark.parametrize("claimed", ["apache-2.0", "mit", "cc-by-4.0"])
@pytest.mark.parametrize(
    ("demanded", "reason"),
    [
        ("cc-by-nc-4.0", "forbids commercial use"), ("intel-research", "forbids commercial use"),
        ("cc-by-nc-sa-3.0", "demands the same licence"), ("cc-by-sa-4.0", "demands the same licence"),
        ("gpl-3.0", "demands the same licence"), ("odbl", "demands the same licence"),
        ("cc-by-nd-4.0", "allows nothing to be made of it"),
    ],
)  # fmt: skip
def test_a_strict_source_never_becomes_a_permissive_adapter(claimed: str, demanded: str, reason: str) -> None:
    with pytest.raises(
        RecipeError, match=rf"'{claimed}', but the data set 'ns/rows' is under '{demanded}', which {reason}"
    ):
        derived(claimed, demanded, "apache-2.0")
    with pytest.raises(RecipeError, match=rf"the base model 'ns/base' is under '{demanded}', which {reason}"):
        derived(claimed, None, demanded)


def test_the_error_names_a_licence_that_fits() -> None:
    with pytest.raises(RecipeError, match=r"Write license = 'cc-by-nc-4\.0' in"):
        derived("mit", "cc-by-nc-4.0", "apache-2.0")
    with pytest.raises(RecipeError, match=r"Write license = 'cc-by-nc-sa-4\.0' in"):
        derived("mit", "cc-by-nc-4.0", "cc-by-nc-sa-4.0")
    with pytest.raises(RecipeError, match="Write license = 'other' in the recipe"):
        derived("mit", "cc-by-sa-4.0", "cc-by-nc-4.0")


@pytest.mark.parametrize(
    ("claimed", "data", "base"),
    [
        ("cc-by-nc-sa-3.0", "cc-by-nc-sa-3.0", "apache-2.0"), ("cc-by-sa-4.0", "cc-by-sa-3.0", "mit"),
        ("cc-by-nc-4.0", "cc-by-4.0", "cc-by-nc-4.0"), ("apache-2.0", "mit", "apache-2.0"),
        ("apache-2.0", None, None), ("mit", "unknown", None), ("other", "cc-by-nc-nd-4.0", "gpl-3.0"),
        ("gemma", None, "gemma"),
    ],
)  # fmt: skip
def test_what_its_sources_allow_may_be_claimed(claimed: str, data: str | None, base: str | None) -> None:
    assert derived(claimed, data, base) == claimed


def test_an_older_version_of_a_share_alike_licence_does_not_do() -> None:
    assert "same licence" in conflict("cc-by-sa-3.0", "cc-by-sa-4.0")


@pytest.mark.parametrize("base", ["gemma", "llama3.1", "other", "a licence that the hub does not know"])
def test_terms_of_their_own_come_along(base: str) -> None:
    assert derived("apache-2.0", "mit", base) == "other"


def test_an_unknown_licence_stays_unknown() -> None:
    assert derived(None, "cc-by-nc-4.0", "apache-2.0") is None
    assert adapter_license("mit", {}, {}) == "mit"  # a run.json of before licences were noted


def test_each_of_several_licences_counts() -> None:
    with pytest.raises(RecipeError, match="is under 'gfdl'"):
        derived("cc-by-sa-3.0", "cc-by-sa-3.0, gfdl", None)


def test_all_named_licences_are_the_hubs() -> None:
    assert NON_COMMERCIAL <= LICENSES


def card(folder: Path, header: str) -> Path:
    (folder / "README.md").write_text(f"---\n{header}\n---\n\n# A model\n", encoding="utf-8")
    return folder / "README.md"


def test_a_cards_licence_is_read(tmp_path: Path) -> None:
    assert read_license(card(tmp_path, "license: Apache-2.0")) == {"license": "apache-2.0"}
    assert read_license(card(tmp_path, "license: [cc-by-sa-3.0, gfdl]")) == {"license": "cc-by-sa-3.0, gfdl"}
    named = read_license(card(tmp_path, "license: other\nlicense_name: qwen-research"))
    assert named == {"license": "other", "license_name": "qwen-research"}


@pytest.mark.parametrize("header", ["", "language: en", "licence: mit", "- a\n- b", "license: [", "license:", "\x00"])
def test_a_card_without_a_licence_gives_none(tmp_path: Path, header: str) -> None:
    assert read_license(card(tmp_path, header)) == {"license": None}


def test_no_card_gives_no_licence(tmp_path: Path) -> None:
    assert read_license(None) == read_license(tmp_path / "README.md") == {"license": None}
    (tmp_path / "README.md").write_bytes(b"---\n\xff")
    assert read_license(tmp_path / "README.md") == {"license": None}


def test_the_licences_are_noted_when_a_run_is_begun_and_stay(tmp_path: Path) -> None:
    from test_card import a_run

    base = BaseModel("my-base", str(tmp_path), None, None)
    card(tmp_path, "license: mit")
    run = a_run(base_model={}, data={})
    assert license_of_base(run, base) == {"license": "mit"}
    assert license_of_base(a_run(base_model={"license": None}), base) == {"license": None}
    assert license_of_data(run, {"name": "rows.csv", "is_on_hub": False, "commit": None}) == {"license": None}
    noted = a_run(data={"license": "other", "license_name": "theirs", "is_on_hub": True})
    assert license_of_data(noted, noted.data) == {"license": "other", "license_name": "theirs"}


def test_a_conflict_stops_a_run_before_its_training(tmp_path: Path) -> None:
    shutil.copytree(BASE_MODEL, tmp_path / "base")
    card(tmp_path / "base", "license: cc-by-nc-4.0")
    values = {"model_name_or_path": str(tmp_path / "base"), "max_steps": 1, "max_length": 256}
    recipe = load_recipe(str(Path(__file__).parent.parent / "recipes" / "finsent.py"))
    write_rows(tmp_path / "rows.jsonl", sample_rows(12))
    source, settled = LocalFile(str(tmp_path / "rows.jsonl")), settle([Layer("command line", values)])
    request = Request(recipe, "finsent", source, settled, tmp_path / "run", "apache-2.0")
    with pytest.raises(RecipeError, match=r"says 'apache-2\.0', but the base model 'base' is under 'cc-by-nc-4\.0'"):
        run_recipe(request)
    assert not (tmp_path / "run").exists()


def test_a_hub_that_cannot_be_reached_stops_nothing() -> None:
    from test_card import COMMIT, a_run

    base = BaseModel("nobody/has-this-one", "nobody/has-this-one", "main", COMMIT)
    assert license_of_base(a_run(base_model={}), base) == {"license": None}
