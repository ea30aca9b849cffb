"""How much a run has to download of the Hub, as the Hub's own client finds out: without downloading it."""

import glob
from collections.abc import Sequence
from typing import Any


def missing_bytes(repo_id: str, commit: str, names: Sequence[str], repo_type: str = "model") -> int | None:
    """The bytes of those files that are not in the cache yet; None where the Hub cannot be asked."""
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import tqdm

    class Silent(tqdm):  # nothing is downloaded, so that no bar is shown
        def __init__(self, *args: Any, **given: Any) -> None:
            super().__init__(*args, **given | {"disable": True})  # type: ignore[no-untyped-call]

    patterns = [glob.escape(name) for name in names]
    try:
        files = snapshot_download(
            repo_id, repo_type=repo_type, revision=commit, allow_patterns=patterns, dry_run=True, tqdm_class=Silent
        )
    except (httpx2.HTTPError, OSError):
        return None
    return sum(file.file_size or 0 for file in files if file.will_download)
