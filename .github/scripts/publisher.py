"""Sees before a training whether what comes of it can be pushed; of the libraries it needs the Hub's client alone."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from hf_finetune.errors import RecipeError
from hf_finetune.hub.rights import Target, check_target


def main(environment: Mapping[str, str]) -> str:
    """What is wrong, in a sentence with what to do; empty where all is well."""
    model = environment.get("MODEL", "")
    if not model:
        return "No repository to publish in: name one such as acme/finsent (in a release the variable RELEASE_MODEL)."
    if environment.get("WITH_TOKEN") == "true" and not environment.get("HF_TOKEN"):
        return "RELEASE_WITH_TOKEN is true, but there is no secret HF_TOKEN: add it, or remove the variable."
    if "--merged" in environment.get("OPTIONS", "").split() and environment.get("HF_OIDC_RESOURCE"):
        return "--merged pushes to two repositories, and a token by trusted publishing is for one: use an access token."
    try:
        check_target(Target(model))
    except RecipeError as error:
        return " ".join(str(error).split())  # a second line would end the workflow command
    return ""


if __name__ == "__main__":
    fault = main(os.environ)
    if fault:
        sys.exit(f"::error::{fault}")
