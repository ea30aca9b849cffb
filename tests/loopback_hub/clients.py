"""Runs the real client: huggingface_hub, in a process of its own."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loopback_hub.server import LoopbackHub

PRELUDE = """
import json, os
from pathlib import Path
import huggingface_hub as hf

api = hf.HfApi()

def tried(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except Exception as error:
        return type(error).__name__

def status(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Exception as error:
        while not hasattr(error, "response") and error.__cause__ is not None:
            error = error.__cause__
        return error.response.status_code if hasattr(error, "response") else type(error).__name__
    return 200

def commit(repo, files, message="a commit", **kwargs):
    adds = [hf.CommitOperationAdd(path, data) for path, data in files.items()]
    return api.create_commit(repo, adds, commit_message=message, **kwargs)
"""


def client(
    hub: LoopbackHub, home: Path, script: str, token: str | None = None, extra: Mapping[str, str] | None = None
) -> Any:
    """Run a client script and give back what it left in `answer`."""
    own = {name: text for name, text in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
    code = PRELUDE + textwrap.dedent(script) + "\nprint(json.dumps(answer))"
    environment = {**own, **hub.environment(home, token), **(extra or {})}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
