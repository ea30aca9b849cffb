"""Sees before a training that what comes of it can be published: asks the Hub for a token, and for the repository."""

import os
import re
import sys
from collections.abc import Mapping


def main(environment: Mapping[str, str]) -> str:
    """What is wrong, in a sentence with what to do; empty where all is well."""
    model = environment.get("MODEL", "")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        return f"No repository to publish in ({model!r}): set the variable RELEASE_MODEL to an id such as acme/finsent."
    if environment.get("WITH_TOKEN") == "true" and not environment.get("HF_TOKEN"):
        return "RELEASE_WITH_TOKEN is true, but there is no secret HF_TOKEN: add it, or remove the variable."
    if environment.get("WITH_TOKEN") != "true" and environment.get("HF_OIDC_RESOURCE") != model:
        return "HF_OIDC_RESOURCE is not the repository: the token would be of another one."

    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, OIDCError

    try:
        token = get_token()  # the exchange alone tells that the repository knows this workflow
    except (HfHubHTTPError, OIDCError) as error:
        return (
            f"{model}: the Hub gives this workflow no token ({one_line(error)}). Make the repository, and add this "
            f"workflow in its settings as a trusted publisher."
        )
    try:
        if environment.get("WITH_TOKEN") == "true":
            HfApi().whoami(token=token)  # a person's token can make the repository
        else:
            HfApi().model_info(model, token=token)
    except HfHubHTTPError as error:
        return f"{model}: the Hub does not take the token ({one_line(error)}). Renew it, or make the repository."
    return ""


def one_line(error: Exception) -> str:
    """An error's text in one line, so that it ends no workflow command early."""
    return " ".join(str(error).split()).rstrip(".")


if __name__ == "__main__":
    fault = main(os.environ)
    if fault:
        sys.exit(f"::error::{fault}")
