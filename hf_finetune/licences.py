"""Which licence an adapter may have, given what those of its data set and its base demand."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_finetune.errors import RecipeError

LICENSES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 afl-3.0
    artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl
    lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
    openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl wtfpl
    fair-noncommercial-research-license deepfloyd-if-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4
    grok2-community gemma unknown other
    """.split()
)
"""Licence ids that the Hub's model cards accept (its documentation, "Licenses")."""

NON_COMMERCIAL = frozenset(
    "fair-noncommercial-research-license deepfloyd-if-license apple-amlr h-research intel-research".split()
)
"""Those that allow research only, besides the ones with `nc` in their id."""
SHARE_ALIKE = frozenset("cc-by-sa cc-by-nc-sa gpl agpl lgpl gfdl osl eupl odbl cdla-sharing".split())
"""What is made of these has the same licence, in this version or a later one."""
OWN_TERMS = frozenset(
    "llama gemma grok2-community deepfloyd-if-license openrail openrail++ bigscience-openrail-m "
    "creativeml-openrail-m bigscience-bloom-rail other".split()
)
"""Terms of their own, which go along with what is made of them."""


def read_license(readme: Path | None) -> dict[str, str | None]:
    """`license` as a card's metadata give it, None where they do not, and of a licence `other` its `license_name`."""
    import yaml

    try:
        text = readme.read_text(encoding="utf-8") if readme else ""
        header = yaml.safe_load(text.split("---\n", 2)[1]) if text.startswith("---\n") else None
    except (OSError, ValueError, IndexError, yaml.YAMLError):
        header = None  # somebody else's card, and no reason to stop
    header = header if isinstance(header, dict) else {}
    given = header.get("license")
    ids = [str(one).lower() for one in (given if isinstance(given, list) else [given]) if one]
    named = {"license_name": str(header["license_name"])} if "other" in ids and header.get("license_name") else {}
    return {"license": ", ".join(ids) or None, **named}


def noted(facts: Mapping[str, Any]) -> dict[str, str | None]:
    """What run.json has of a source's licence; empty where it was never looked for."""
    return {name: facts[name] for name in ("license", "license_name") if name in facts}


def adapter_license(claimed: str | None, data: Mapping[str, Any], base: Mapping[str, Any]) -> str | None:
    """The adapter's licence: what the recipe claims, or `other` where terms of their own come along with that.

    `data` and `base` are those of run.json. What is not known of them demands nothing; None stays None.

    Raises:
        RecipeError: when the data set's or the base's licence does not allow what the recipe claims.
    """
    if claimed is None:
        return None
    demanded = [
        (what, one)
        for what, source in ((f"data set {data.get('name')!r}", data), (f"base model {base.get('name')!r}", base))
        for one in _ids(source.get("license"))
    ]
    for what, one in demanded:
        reason = conflict(claimed, one)
        if reason:
            ids = [own for _, own in demanded]
            fitting = next(own for own in (*ids, "other") if not any(conflict(own, each) for each in ids))
            raise RecipeError(
                f"license: the recipe says {claimed!r}, but the {what} is under {one!r}, which {reason}. "
                f"Write license = {fitting!r} in the recipe, or take another data set or base."
            )
    return "other" if any(one != claimed and _has_own_terms(one) for _, one in demanded) else claimed


def conflict(claimed: str, source: str) -> str:
    """Why something that is made of a source under one licence cannot be under the other; empty where it can."""
    if claimed == source or claimed in ("other", "unknown"):
        return ""
    family, version = _parted(source)
    if "-nd" in source:
        return "allows nothing to be made of it and shared"
    if family in SHARE_ALIKE and not (_parted(claimed)[0] == family and _parted(claimed)[1] >= version):
        return "demands the same licence of what is made of it"
    return "forbids commercial use" if _is_non_commercial(source) and not _is_non_commercial(claimed) else ""


def _ids(license: str | None) -> list[str]:
    return [one for one in (license or "").split(", ") if one and one != "unknown"]


def _is_non_commercial(license: str) -> bool:
    return license in NON_COMMERCIAL or "nc" in license.split("-")


def _has_own_terms(license: str) -> bool:
    return license not in LICENSES or _parted(license)[0] in OWN_TERMS


def _parted(license: str) -> tuple[str, list[int]]:
    """A licence's family and its version: `llama3.1` is `llama`, `[3, 1]`."""
    found = re.fullmatch(r"(.*?)-?(\d+(?:\.\d+)*)?", license)
    return (found[1], [int(part) for part in (found[2] or "").split(".") if part]) if found else (license, [])
