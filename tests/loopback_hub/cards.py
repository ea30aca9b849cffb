"""What the Hub accepts at the top of a README.md."""

import re
from typing import Any

import yaml

LICENCES = set(
    """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
    eupl-1.1 eupl-1.2 gemma gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr
    llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail
    openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
    """.split()
)


def metadata(card: str) -> dict[str, Any] | None:
    """Give back the YAML at the top of a card: empty if there is none, nothing if it cannot be read."""
    top = re.match(r"---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    try:
        read = yaml.safe_load(top[1]) if top else None
    except yaml.YAMLError:
        return None
    return read if isinstance(read, dict) else {} if read is None else None


def complaints(card: str) -> list[str]:
    """Give back what is wrong with a card's metadata."""
    found = metadata(card)
    if found is None:
        return ["YAML metadata could not be read"]
    told = []
    if "license" in found and not LICENCES.issuperset(listed(found["license"])):
        told.append(f'"license" must be one of [{", ".join(sorted(LICENCES))}]')
    for name, place in (("base_model", "models"), ("datasets", "datasets")):
        for value in listed(found.get(name, [])):
            if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", str(value)):
                told.append(f'"{name}" with value "{value}" is not valid. Use an id from https://hf.co/{place}.')
    return told


def listed(value: Any) -> list[Any]:
    """Give back a value as a list."""
    return value if isinstance(value, list) else [value]
