"""GitHub's API, as the workflows of this repository ask it."""

import json
import os
import urllib.request
from typing import Any


def ask(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """What GitHub's API answers about this repository."""
    request = urllib.request.Request(
        f"{os.environ['GITHUB_API_URL']}/repos/{os.environ['GITHUB_REPOSITORY']}/{path}",
        data=None if body is None else json.dumps(body).encode(),
        method=method,
        headers={
            "Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
