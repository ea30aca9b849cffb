"""A Hub id and a revision -> the commit they mean now, with the Hub's reasons for refusing told apart."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hf_finetune.errors import RecipeError, first_line

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

TIMEOUT_SECONDS = 20.0


def resolve_commit(repo_id: str, revision: str, role: str = "base model") -> str:
    """The commit hash (40 hexadecimal digits) of a branch, tag or commit; `role` is what the repo is used as.

    Without a network, and for a commit that is in the cache, the cache tells.

    Raises:
        RecipeError: no such repo or revision, no access, a bad id, or no network and nothing in the cache.
    """
    import httpx2
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OIDCError

    what, repo_type = described(repo_id, role), repo_type_of(role)
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        with suppress(RecipeError):  # of a commit, what is in the cache is all there is to know
            return _cached_commit(repo_id, revision, role, what)
    if constants.HF_HUB_OFFLINE:
        return _cached_commit(repo_id, revision, role, f"{what}: HF_HUB_OFFLINE is set")
    api = HfApi()
    try:
        info = api.repo_info(repo_id, revision=revision, repo_type=repo_type, timeout=TIMEOUT_SECONDS)
        if info.gated:
            api.auth_check(repo_id, repo_type=repo_type)
    except HFValidationError as error:
        raise _bad_id(what) from error
    except OIDCError as error:
        raise RecipeError(
            f"{what}: no token by OIDC: {first_line(error)}. Unset HF_OIDC_RESOURCE, or mend it."
        ) from error
    except HfHubHTTPError as error:
        raise refusal(repo_id, revision, role, error) from error
    except (httpx2.HTTPError, OfflineModeIsEnabled, OSError) as error:
        return _cached_commit(repo_id, revision, role, f"{what}: the Hub cannot be reached ({first_line(error)})")
    return str(info.sha)


def find_card(repo_id: str, commit: str, role: str) -> Path | None:
    """The README.md of a repo at a commit, from the cache if it is there; None where there is none to be had now."""
    import httpx2
    from huggingface_hub import hf_hub_download

    with suppress(httpx2.HTTPError, OSError):  # a run does not stop for want of it
        return Path(hf_hub_download(repo_id, "README.md", repo_type=repo_type_of(role), revision=commit))
    return None


def described(repo_id: str, role: str) -> str:
    """What a repo is called in messages."""
    return f"{role} {repo_id!r}"


def repo_type_of(role: str) -> str:
    """The Hub's type of a repo that is used as `base model`, `adapter` or `data set`."""
    return "dataset" if role == "data set" else "model"


@contextmanager
def explaining_refusals(
    repo_id: str, revision: str, role: str, *, file: str, other: str, instead: str
) -> Iterator[None]:  # fmt: skip
    """Turns what the client raises in the block, where `file` is asked for, into errors that say what to do.

    `other` is what to do where that is not there, `instead` what can be done without the Hub.
    """
    import httpx2
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    what = described(repo_id, role)
    try:
        yield
    except LocalEntryNotFoundError as error:
        raise RecipeError(
            f"{what}: {file or 'its files'} cannot be downloaded now and is not in the local cache. "
            f"Connect to the network, or {instead}."
        ) from error
    except EntryNotFoundError as error:
        raise RecipeError(f"{what}: has no file {file!r} at {revision!r}. {other}") from error
    except HfHubHTTPError as error:
        raise refusal(repo_id, revision, role, error) from error
    except (httpx2.HTTPError, OfflineModeIsEnabled) as error:
        raise RecipeError(f"{what}: could not be downloaded ({first_line(error)}). Try again, or {instead}.") from error


def refusal(repo_id: str, revision: str, role: str, error: "HfHubHTTPError") -> RecipeError:
    """The error for an answer of the Hub that is a refusal, with what to do about it."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    what = described(repo_id, role)
    page = f"{constants.ENDPOINT}/{'datasets/' if role == 'data set' else ''}{repo_id}"
    login = (
        "use a token of an account that has access" if get_token() else "log in with `hf auth login` or set HF_TOKEN"
    )
    if isinstance(error, GatedRepoError):
        who = "this token has no access to it" if get_token() else "you are not logged in"
        return RecipeError(f"{what}: is gated, and {who}. Accept its terms at {page}, then {login}.")
    if isinstance(error, RevisionNotFoundError):
        return RecipeError(f"{what}: has no revision {revision!r}. Choose a branch, tag or commit listed at {page}.")
    # Without a token the Hub answers 401 for all it hides; with a good one 403 or 404, so 401 means a bad one.
    if get_token() and getattr(error.response, "status_code", 0) == 401:
        return RecipeError(f"{what}: the Hub does not accept your token. Log in again with `hf auth login`.")
    if isinstance(error, RepositoryNotFoundError):
        return RecipeError(f"{what}: the Hub has none of that name, or it is private. Check the spelling, or {login}.")
    return RecipeError(f"{what}: the Hub refused: {first_line(error)}. Try again later.")


def _cached_commit(repo_id: str, revision: str, role: str, why: str) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            repo_id, revision=revision, repo_type=repo_type_of(role), local_files_only=True, allow_patterns=[]
        )
    except HFValidationError as error:
        raise _bad_id(described(repo_id, role)) from error
    except LocalEntryNotFoundError as error:
        otherwise = "name a folder or file of your own"
        otherwise = f"or {otherwise}" if role == "adapter" else f"{otherwise}, or try --demo, which needs neither"
        raise RecipeError(
            f"{why}, and revision {revision!r} is not in the local cache. Connect to the network, {otherwise}."
        ) from error
    return Path(folder).name


def _bad_id(what: str) -> RecipeError:
    return RecipeError(f"{what}: is neither a folder here nor a Hub id such as 'owner/name'. Correct it.")
