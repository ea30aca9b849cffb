"""The main job without --demo: base model and data set read from a loopback Hub by the real clients."""

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import sample_rows
from hf_finetune.files import read_json
from hf_finetune.recipe import load_recipe
from loopback_hub import LoopbackHub

RECIPE = Path(__file__).parent.parent / "recipes" / "finsent.py"


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        yield running


def phrasebank(rows: list[dict[str, str]]) -> bytes:
    """A zip in the published layout of the Financial PhraseBank, latin-1, with the litter of a Macintosh."""
    text = "".join(f"{row['sentence']}@{row['label']}\r\n" for row in rows)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("FinancialPhraseBank-v1.0/README.txt", "about")
        archive.writestr("FinancialPhraseBank-v1.0/Sentences_50Agree.txt", text.encode("latin-1"))
        archive.writestr("__MACOSX/FinancialPhraseBank-v1.0/._Sentences_50Agree.txt", b"\x00")
    return content.getvalue()


def client(hub: LoopbackHub, home: Path, *command: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=inherited | hub.environment(home),
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


LOCATE = """
import json, sys
from hf_finetune import HubDataset, RecipeError
from hf_finetune.data.reading import read_records
for arguments in json.loads(sys.argv[1]):
    try:
        located = HubDataset(**arguments).locate()
        rows = [record.values for record in read_records(located, ["sentence", "label"])]
        print(json.dumps([located.name, located.commit, rows]))
    except RecipeError as error:
        print(json.dumps(str(error)))
"""


def test_parquet_json_and_csv_of_a_repo_are_read_at_their_commit(hub: LoopbackHub, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = sample_rows(1)
    table = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    content = {
        "a": {"data/train-0.parquet": table.getvalue(), "data/train-1.parquet": table.getvalue(), "README.md": b"#"},
        "b": {"rows.json": json.dumps(rows).encode()},
        "c": {"rows.csv": b"sentence;label\nup;positive\n", "other.json": b"[]"},
    }
    commits = {name: hub.add_repo(f"ns/{name}", repo_type="dataset", files=files) for name, files in content.items()}
    asked = [{"id": "ns/a"}, {"id": "ns/b"}, {"id": "ns/c", "file": "rows.csv"}, {"id": "ns/c"},
             {"id": "ns/c", "file": "*.tsv"}, {"id": "ns/c", "file": "none.csv"}]  # fmt: skip
    done = client(hub, tmp_path / "home", "-c", LOCATE, json.dumps(asked), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    parquet, as_json, as_csv, several, none, missing = map(json.loads, done.stdout.splitlines())
    assert parquet == ["ns/a", commits["a"], rows + rows]
    assert as_json == ["ns/b", commits["b"], rows]
    assert as_csv == ["ns/c", commits["c"], [{"sentence": "up", "label": "positive"}]]
    assert "holds files of several kinds" in several
    assert "no readable file matches '*.tsv'" in none
    assert "none.csv" in missing


@pytest.mark.slow
def test_the_recipe_runs_from_the_hub_and_records_both_commits(
    hub: LoopbackHub, tmp_path: Path, tiny_base: Path
) -> None:
    recipe = load_recipe(str(RECIPE))
    model = hub.add_repo(recipe.base_model, files=tiny_base)
    archive = {"data/FinancialPhraseBank-v1.0.zip": phrasebank(sample_rows(20)), "script.py": b"raise SystemExit(1)"}
    archive["README.md"] = b"---\nlicense: cc-by-nc-sa-3.0\n---\n"
    data = hub.add_repo("takala/financial_phrasebank", repo_type="dataset", files=archive)
    launcher = ["-m", "accelerate.commands.accelerate_cli", "launch", "--quiet"]
    words = ["-m", "hf_finetune", str(RECIPE), "max_steps=2", "max_length=512"]
    done = client(hub, tmp_path / "home", *launcher, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "finsent"
    run = read_json(folder / "run.json")
    assert run["base_model"] | {"name": recipe.base_model, "revision": "main", "commit": model} == run["base_model"]
    assert (run["data"]["commit"], run["data"]["license"]) == (data, "cc-by-nc-sa-3.0")
    assert run["base_model"]["license"] is None
    config = read_json(folder / "adapter" / "adapter_config.json")
    assert (config["base_model_name_or_path"], config["revision"]) == (recipe.base_model, model)
    card = (folder / "adapter" / "README.md").read_text()
    assert f"base_model: {recipe.base_model}" in card
    assert "license: cc-by-nc-sa-3.0" in card
    snippet = card.split("```python\n")[1].split("```")[0]
    (folder / "adapter" / "snippet.py").write_text("import sys; sys.modules['hf_finetune'] = None\n" + snippet)
    answered = client(hub, tmp_path / "other", "snippet.py", cwd=folder / "adapter")
    assert answered.returncode == 0, answered.stderr

    # Both branches move on; a run that was killed in its evaluation goes on with what it was begun with.
    hub.add_repo(recipe.base_model, files={"config.json": b"{}"})
    changed = {"data/FinancialPhraseBank-v1.0.zip": phrasebank(sample_rows(10))}
    assert hub.add_repo("takala/financial_phrasebank", repo_type="dataset", files=changed) != data
    report = (folder / "report.json").read_bytes()
    (folder / "report.json").unlink()
    (folder / "run.json").write_text(json.dumps(run | {"finished": ""}))
    done = client(hub, tmp_path / "home", *launcher, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resume    goes on from checkpoint-2 of 2 steps" in done.stdout
    assert (folder / "report.json").read_bytes() == report
    assert read_json(folder / "run.json")["data"] == run["data"]
