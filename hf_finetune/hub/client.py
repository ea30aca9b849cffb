"""The Hub's client as a push uses it: patient where a request may be made twice, and clear where it is refused."""

import json
import re
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from hf_finetune.errors import RecipeError, plural
from hf_finetune.interruption import Interrupted

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

Result = TypeVar("Result")

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which the same request may succeed."""
TRIES = 4
LONGEST_WAIT = 60.0
CONNECT_SECONDS, ANSWER_SECONDS = 30.0, 300.0
LONGEST_TEXT = 300
TRUSTED = (
    "Make the repo, name this workflow in its settings as a trusted publisher, and give the job the permission "
    "id-token: write."
)
NOT_TWICE = "what it has already is not sent again"


@cache
def client() -> "HfApi":
    """The Hub's client, which gives up where the Hub says nothing for minutes."""
    import httpx2
    from huggingface_hub import HfApi, set_client_factory

    seconds = httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS).as_dict()

    def limit(request: "httpx2.Request") -> None:  # some calls of the client ask for no limit at all
        request.extensions["timeout"] = seconds

    set_client_factory(lambda: httpx2.Client(follow_redirects=True, event_hooks={"request": [limit]}))
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
    """Whether the same request may succeed soon."""
    import httpx2

    wrapped, error = error, _cause(error)
    if isinstance(error, json.JSONDecodeError):  # the page of a gateway, or half an answer
        return True
    if asked_wait(error) > LONGEST_WAIT:
        return False
    if error is not wrapped and (_is_of_storage(error) or status(error) in (400, 404)):
        return True  # an upload's addresses expire, and its parts are gone once they are put together
    if status(error):
        return status(error) in TRANSIENT
    return isinstance(error, httpx2.TransportError) and not isinstance(error, httpx2.UnsupportedProtocol)


def wait(attempt: int, error: Exception) -> None:
    """Waits as long as the Hub asks for, else a second, two, four."""
    time.sleep(min(LONGEST_WAIT, asked_wait(_cause(error)) or 2.0**attempt))


def asked_wait(error: Exception) -> float:
    """The seconds after which the Hub wants to be asked again, or 0."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    headers = getattr(getattr(error, "response", None), "headers", {})
    limit, asked = parse_ratelimit_headers(headers), str(headers.get("Retry-After", "")).strip()
    if status(error) == 429 and limit and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    if asked.isdecimal():
        return float(asked)
    try:
        return max(0.0, (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # no date, or one without its zone
        return 0.0


def status(error: Exception) -> int:
    """The status of the answer that an error is about, or 0."""
    return int(getattr(getattr(_cause(error), "response", None), "status_code", 0) or 0)


def _cause(error: Exception) -> Exception:
    """What befell an upload, without what the client wraps it in."""
    wrapped = error.__cause__ if type(error) is RuntimeError else None
    return wrapped if isinstance(wrapped, Exception) else error


def _is_of_storage(error: Exception) -> bool:
    """Whether it is not the Hub itself that answered, but the storage to which it sends large files."""
    address = getattr(getattr(error, "response", None), "url", None)
    return address is not None and not str(address).startswith(f"{endpoint()}/")


@contextmanager
def explaining(repo_id: str) -> Iterator[None]:
    """Turns the Hub's refusals and a network's failures into errors that say what to do, without the token.

    Raises:
        RecipeError: instead of them.
    """
    try:
        yield
    except RecipeError:
        raise
    except Interrupted:
        _close_bars()
        raise
    except Exception as error:
        meaning = _meaning(repo_id, _cause(error))
        if not meaning:
            raise
        _close_bars()
        raise RecipeError(f"push to {repo_id}: {meaning}") from None


def _close_bars() -> None:
    """Ends the client's bars: it leaves those of an upload that failed open, and they would end after the message."""
    from tqdm import tqdm

    for bar in list(tqdm._instances):  # type: ignore[attr-defined]
        bar.close()


def _meaning(repo_id: str, error: Exception) -> str:
    """What an error means and what to do, in a line; nothing where it is a defect of ours."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OIDCError

    said = _said(error)
    if isinstance(error, HfHubHTTPError):
        return _refusal(repo_id, error)
    if isinstance(error, HFValidationError):
        return f"is no name of a repo ({said}). Write it as owner/name."
    if isinstance(error, LocalTokenNotFoundError):
        return "there is no token. Log in with `hf auth login`, or set HF_TOKEN."
    if isinstance(error, OIDCError):
        return f"no token by OIDC ({said}). {TRUSTED}"
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.InvalidURL):
        return f"HF_ENDPOINT is {endpoint()!r}, no address of a Hub ({said}). Write it as https://huggingface.co."
    if isinstance(error, httpx2.HTTPError):
        return f"the Hub cannot be reached ({said}). Push again when it can; {NOT_TWICE}."
    if not isinstance(error, OSError) and _is_ours(error):
        return ""
    if isinstance(error, json.JSONDecodeError | LookupError | TypeError | AttributeError):
        return f"{endpoint()} gives answers that are not the Hub's ({said}). Look for a proxy, and push again."
    if isinstance(error, ValueError):  # the client's word for a card that the Hub refuses
        return f"{said}. Mend that, and push again."
    if isinstance(error, OSError | RuntimeError):  # a file that is gone, or hf_xet's word for any failure
        return f"the upload has failed ({said}). Push again; {NOT_TWICE}."
    return ""


def _is_ours(error: Exception) -> bool:
    """Whether our own code has raised it: then it is a defect, and no odd answer over which the client stumbled."""
    *_, last = traceback.walk_tb(error.__traceback__)
    return str(last[0].f_globals.get("__name__", "")).startswith("hf_finetune.")


def _refusal(repo_id: str, error: "HfHubHTTPError") -> str:
    """What the Hub's answer means, and what to do."""
    code, said, asked = status(error), _said(error), asked_wait(error)
    when = f"in {plural(round(asked), 'second')}" if asked else "later"
    login = "Log in again with `hf auth login`, or set another HF_TOKEN, and push again."
    if str(error.response.url).endswith("/oauth/token"):
        return f"no token by OIDC ({said}). {TRUSTED}"
    if _is_of_storage(error):
        return f"the Hub's storage did not take a file ({said}). Push again {when}; {NOT_TWICE}."
    if code == 401:
        return f"the Hub does not accept the token: it is wrong, or has expired. {login}"
    if code in (402, 403) and re.search(r"quota|storage|limit", said, re.I):
        return f"there is no room for it ({said}). Free some at {endpoint()}/settings/billing, and push again."
    if code == 403:
        return f"this token may not write there ({said}). {login}"
    if code == 404:
        return f"the repo or revision is not there, or hidden from this token ({said}). Check the name, and push again."
    if code == 409:
        return f"something else is at work there ({said}). Push again in a minute; {NOT_TWICE}."
    if code == 412:
        return str(overtaken(repo_id)).split(": ", 1)[1]
    if code in TRANSIENT:
        return f"the Hub did not do it ({said}). Push again {when}; {NOT_TWICE}."
    return f"the Hub refuses it ({said}). Mend that, and push again."


def _said(error: Exception) -> str:
    """What an error or the Hub says, in a line of bounded length, without secrets."""
    text = getattr(error, "server_message", None) or str(error) or type(error).__name__
    line = " ".join(without_token(text).split())
    return (f"{line[:LONGEST_TEXT]}..." if len(line) > LONGEST_TEXT else line).rstrip(".")


def without_token(text: str) -> str:
    """A text without the user's token, whichever form the Hub or a proxy quotes it in, and without signed addresses."""
    import httpx2
    from huggingface_hub import get_token
    from huggingface_hub.errors import OIDCError

    try:
        token = get_token()
    except (OIDCError, httpx2.HTTPError):  # a token that cannot be had cannot be quoted
        token = None
    text = text.replace(token, "hf_***") if token else text
    text = re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]*", r"\1", text)
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
