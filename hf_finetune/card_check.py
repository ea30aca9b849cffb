"""What the Hub would refuse on a card, and what a reader must not meet on one; no network is needed."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hf_finetune.errors import RecipeError, nearest
from hf_finetune.licences import LICENSES

KEYS = frozenset(
    "base_model base_model_relation datasets language library_name license license_link license_name model-index "
    "pipeline_tag tags".split()
)
"""Of the metadata that a card of ours has."""
RELATIONS = frozenset("adapter finetune merge quantized".split())
PIPELINE_TAGS = frozenset(
    "text-generation text-classification token-classification question-answering table-question-answering "
    "summarization translation fill-mask sentence-similarity feature-extraction text-ranking "
    "zero-shot-classification".split()
)
"""The Hub's tasks that are about text."""
HUB_ID = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
_LOCAL_PATH = re.compile(
    r"(?<![\w./-])/(?:home|root|tmp|Users|mnt|var|private|workspace|kaggle|scratch)\b(?:/[^\s`'\")|]*)?"
    r"|(?<![\w./-])/(?:content|data|datasets|gpfs|lustre|Volumes|opt/ml)/[\w.~-][^\s`'\")|]*"
    r"|\bfile://[^\s`'\")|]*"
    r"|(?<![\w/])~\w*/[^\s`'\")|]*"
    r"|(?<!\w)[A-Za-z]:\\[^\s`'\")|]*"
)


def check_card(text: str, quoted: Iterable[str] = ()) -> None:
    """Whether a card can be published; `quoted` are texts of others on it, which may speak of paths and of None.

    Raises:
        RecipeError: telling all that is wrong.
    """
    header, body = _parts(text)
    for quote in quoted:
        body = body.replace(quote, "")
    found = [*_faults_of_header(header), *_faults_of_results(header), *_faults_of_body(body)]
    if found:
        raise RecipeError(
            f"card: it cannot be published: {'; '.join(found)}. Mend what the run's files say of it, and write it "
            f"again with hf-finetune card RUN."
        )


def check_docstring(recipe: Mapping[str, Any], advice: str = "Leave that out of it") -> None:
    """Whether the docstring of a recipe, as run.json has that, can be quoted on a card.

    Raises:
        RecipeError: when it names a path of somebody's machine.
    """
    paths = local_paths(recipe["docstring"])
    if paths:
        raise RecipeError(
            f"recipe {recipe['name']!r}: its docstring goes onto the model card and names the path {paths[0]}. "
            f"{advice}."
        )


def local_paths(text: str) -> list[str]:
    """The paths of somebody's machine that a text names."""
    return [found[0].rstrip(".,;:") for found in _LOCAL_PATH.finditer(text)]


def _parts(text: str) -> tuple[dict[str, Any], str]:
    """The metadata and the Markdown of a card."""
    import yaml

    try:
        start, header, body = text.split("---\n", 2)
        values = yaml.safe_load(header)
    except (ValueError, yaml.YAMLError) as error:
        raise RecipeError("card: its metadata are no YAML between two lines of ---. Write the card again.") from error
    if start or not isinstance(values, dict):
        raise RecipeError("card: its metadata are no YAML mapping at its top. Write the card again.")
    return values, body


def _faults_of_header(header: Mapping[str, Any]) -> Iterator[str]:
    """What the Hub would refuse, and what would send a reader astray."""
    yield from (f"{name!r} is no metadata of the Hub. {nearest(name, KEYS)}" for name in header if name not in KEYS)
    license, relation = header.get("license"), header.get("base_model_relation")
    if "license" in header and str(license) not in LICENSES:
        yield f"license is {license!r}, which the Hub does not know"
    for key in ("base_model", "datasets"):
        ids = header.get(key, [])
        for own in ids if isinstance(ids, list) else [ids]:
            if not re.fullmatch(HUB_ID, str(own)):
                yield f"{key} is {own!r}, no Hub id such as 'owner/name'"
    if ("base_model" in header) != (str(relation) in RELATIONS):
        yield f"base_model_relation is {relation!r} where base_model is {header.get('base_model')!r}"
    if str(header.get("pipeline_tag")) not in PIPELINE_TAGS:
        yield f"pipeline_tag is {header.get('pipeline_tag')!r}, which the Hub does not know"
    is_adapter = relation == "adapter" or "lora" in header.get("tags", [])
    if header.get("library_name") != ("peft" if is_adapter else "transformers"):
        what = "an adapter" if is_adapter else "whole weights"
        yield f"library_name is {header.get('library_name')!r}, which is not what loads {what}"
    for text in _texts(header):
        if text in ("None", "null", "nan", ""):
            yield f"the metadata have a value {text!r}"
        yield from (f"the metadata name the path {path}" for path in local_paths(text))


def _faults_of_results(header: Mapping[str, Any]) -> Iterator[str]:
    """Whether there are metrics, and each is a number."""
    results = [result for entry in header.get("model-index") or [] for result in entry.get("results", [])]
    metrics = [metric for result in results for metric in result.get("metrics", [])]
    if not metrics:
        yield "there are no metrics in model-index"
    for metric in metrics:
        value = metric.get("value")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            yield f"the metric {metric.get('type')!r} is {value!r}, no number"


def _faults_of_body(body: str) -> Iterator[str]:
    """What no reader should meet: gaps, the text of an absent value, paths of somebody's machine."""
    if "[More Information Needed]" in body:
        yield "it says [More Information Needed]"
    yield from (f"it names the path {path}" for path in local_paths(body))
    prose = re.sub(r"^(`{3,}).*?^\1$|`[^`\n]*`", "", body, flags=re.M | re.S)
    prose = re.sub(r"^\|[^|\n]*\|", "|", prose, flags=re.M)  # a row's name may be None
    absent = re.search(r"[^\n]{0,30}\b(?:None|nan)\b", prose)
    if absent:
        yield f"it says {absent[0].strip()!r}"


def _texts(value: Any) -> Iterator[str]:
    """All texts in nested metadata; of an absent value its name."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for own in value:
            yield from _texts(own)
    elif value is None or isinstance(value, str):
        yield "None" if value is None else value
