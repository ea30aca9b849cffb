"""`hf finetune`: the installed program as an extension of the Hub's own command line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home where `hf extensions install OWNER/hf-finetune` has put this program."""
    program = shutil.which("hf-finetune", path=str(Path(sys.executable).parent))
    assert program is not None
    folder = tmp_path / ".local" / "share" / "hf" / "extensions" / "hf-finetune"
    folder.mkdir(parents=True)
    manifest = {
        "owner": "acme", "repo": "hf-finetune", "repo_id": "acme/hf-finetune", "short_name": "finetune",
        "executable_path": program, "type": "python", "installed_at": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def hf(home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    program = [sys.executable, "-c", "import sys; from huggingface_hub.cli.hf import main; sys.exit(main())"]
    own = os.environ | {"HOME": str(home), "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    return subprocess.run([*program, *words], env=own, capture_output=True, text=True, check=False, timeout=120)


def test_its_commands_are_reached_by_hf(home: Path) -> None:
    done = hf(home, "finetune", "list")
    assert done.returncode == 0, done.stderr
    assert "finsent" in done.stdout


def test_its_exit_code_is_passed_on(home: Path) -> None:
    for words, code in ((("card", "nowhere"), 1), (("--nonsense",), 2)):
        done = hf(home, "finetune", *words)
        assert done.returncode == code
        assert "Traceback" not in done.stderr
