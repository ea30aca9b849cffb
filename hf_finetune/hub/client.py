"""The Hub's client as a push uses it: patient where a request may be made twice, and clear where it is refused."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from hf_finetune.errors import RecipeError, first_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

Result = TypeVar("Result")

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which the same request may succeed."""
TRIES = 4
LONGEST_WAIT = 60.0
CONNECT_SECONDS, ANSWER_SECONDS = 30.0, 300.0


@cache
def client() -> "HfApi":
    """The Hub's client, which gives up where the Hub says nothing for minutes."""
    import httpx2
    from huggingface_hub import HfApi, set_client_factory

    timeout = httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
    set_client_factory(lambda: httpx2.Client(follow_redirects=True, timeout=timeout))
    return HfApi(library_name="hf_finetune")


def patiently(call: Callable[[], Result]) -> Result:
    """What a request gives that may be made twice; after a passing failure it is made again."""
    for attempt in range(TRIES - 1):
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            wait(attempt, error)
    return call()


def is_transient(error: Exception) -> bool:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return _status(error) in TRANSIENT
    return isinstance(error, httpx2.TransportError)


def wait(attempt: int, error: Exception) -> None:
    """Waits as long as the Hub asks for, else a second, two, four."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    asked = str(headers.get("Retry-After", ""))
    time.sleep(min(LONGEST_WAIT, float(asked) if asked.isdecimal() else 2.0**attempt))


def _status(error: Exception) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)


@contextmanager
def explaining(repo_id: str) -> Iterator[None]:
    """Turns the Hub's refusals and a network's failures into errors that say what to do, without the token.

    Raises:
        RecipeError: instead of them.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OIDCError

    what = f"push to {repo_id}"
    try:
        yield
    except RecipeError:
        raise
    except HFValidationError as error:
        raise RecipeError(f"{what}: is no name of a repo ({first_line(error)}). Write it as owner/name.") from None
    except LocalTokenNotFoundError:
        raise RecipeError(f"{what}: there is no token. Log in with `hf auth login`, or set HF_TOKEN.") from None
    except OIDCError as error:
        raise RecipeError(
            f"{what}: no token by OIDC ({without_token(first_line(error))}). Give the job the permission id-token: "
            f"write, and name this workflow as the repo's trusted publisher."
        ) from None
    except HfHubHTTPError as error:
        raise RecipeError(f"{what}: {_refusal(repo_id, error)}") from None
    except httpx2.HTTPError as error:
        reason = without_token(first_line(error)) or type(error).__name__
        raise RecipeError(f"{what}: the Hub cannot be reached ({reason}). Push again when it can.") from None
    except ValueError as error:  # the client's word for a card that the Hub refuses
        raise RecipeError(f"{what}: {without_token(' '.join(str(error).split()))}.") from None


def _refusal(repo_id: str, error: "HfHubHTTPError") -> str:
    """What the Hub's answer means, and what to do."""
    status = _status(error)
    said = without_token(error.server_message or first_line(error)).rstrip(".")
    login = "Log in again with `hf auth login`, or set another HF_TOKEN, and push again."
    if status == 401:
        return f"the Hub does not accept the token: it is wrong, or has expired. {login}"
    if status == 403 and re.search(r"quota|storage|limit", said, re.I):
        return f"there is no room for it ({said}). Free some at {endpoint()}/settings/billing, and push again."
    if status == 403:
        return f"this token may not write there ({said}). {login}"
    if status == 404:
        return f"the repo or revision is not there, or hidden from this token ({said}). Check the name, and push again."
    if status == 412:
        return str(overtaken(repo_id)).split(": ", 1)[1]
    if status in TRANSIENT:
        return f"the Hub did not do it ({said or status}). Push again later: what it has already is not sent again."
    return f"the Hub refuses it ({said or status}). Mend that, and push again."


def without_token(text: str) -> str:
    """A text without the user's token, whichever form the Hub or a proxy quotes it in."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import OIDCError

    try:
        token = get_token()
    except OIDCError:  # a token that cannot be had cannot be quoted
        token = None
    text = text.replace(token, "hf_***") if token else text
    return re.sub(r"\bhf_(?:jwt_|oauth_)?[A-Za-z0-9._-]{16,}", "hf_***", text)


def endpoint() -> str:
    """The address of the Hub."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def page(repo_id: str) -> str:
    """The address of a repo."""
    return f"{endpoint()}/{repo_id}"


def overtaken(repo_id: str) -> RecipeError:
    """The error where somebody else has committed since the push began."""
    return RecipeError(
        f"push to {repo_id}: somebody else has changed it in the meantime, and nothing of this was added. "
        f"Look at {page(repo_id)}/commits, then push again."
    )
