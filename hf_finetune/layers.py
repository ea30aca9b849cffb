"""Where the settings of a run come from: defaults < recipe < demo < YAML file < command line, the last one winning."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from pydantic import ValidationError

from hf_finetune.errors import SHOWN_FAULTS, RecipeError, first_line, nearest
from hf_finetune.settings import Settings

COMMAND_LINE = "command line"
WHERE_ALL_STAND = "hf-finetune run RECIPE --dry-run lists all settings."
ELSEWHERE = {
    "bf16": "Write dtype=bfloat16.",
    "fp16": "Write dtype=float16.",
    "bf16_full_eval": "Write dtype=bfloat16.",
    "fp16_full_eval": "Write dtype=float16.",
}
"""What transformers' TrainingArguments have under other names, and what it is here."""


@dataclass(frozen=True)
class Layer:
    """Some values and where they were written."""

    origin: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Settled:
    """The settings of a run and the origin of each: `default` or a layer's name."""

    values: Settings
    origins: Mapping[str, str]

    def as_json(self) -> dict[str, dict[str, Any]]:
        """Value and origin of each setting, for run.json."""
        values = self.values.model_dump()
        # A config file is named without its folder: the card prints origins.
        return {name: {"value": values[name], "origin": Path(self.origins[name]).name} for name in values}


def settle(layers: Sequence[Layer]) -> Settled:
    """The settings that the layers give together, the last one winning.

    Raises:
        RecipeError: every unknown name (with the nearest known one), value of the wrong type, and contradiction.
    """
    settled, faults = settle_what_can_be(layers)
    if faults:
        more = [f"(and {len(faults) - SHOWN_FAULTS} more faults)"] if len(faults) > SHOWN_FAULTS else []
        raise RecipeError("\n".join(faults[:SHOWN_FAULTS] + more))
    return settled


def settle_what_can_be(layers: Sequence[Layer]) -> tuple[Settled, list[str]]:
    """The settings that the layers give without what is wrong in them, and all that is wrong."""
    merged = {name: value for layer in layers for name, value in layer.values.items()}
    origins = {name: layer.origin for layer in layers for name in layer.values}
    faults: list[str] = []
    try:
        values = Settings(**merged)
    except ValidationError as error:
        by_name = _by_name(error.errors())
        faults = [_in_words(own, origins) for own in by_name.values()]
        values = Settings(**{name: value for name, value in merged.items() if name not in by_name})
        origins = {name: origin for name, origin in origins.items() if name not in by_name}
    every_origin = {name: origins.get(name, "default") for name in Settings.model_fields}
    return Settled(values, every_origin), faults or contradictions(values, every_origin)


def read_yaml(path: Path) -> Layer:
    """The settings of a YAML file: a flat mapping of names to values.

    Raises:
        RecipeError: no such file, not YAML (with the line), not a flat mapping, or a name given twice.
    """
    content, names = _load_yaml(path)
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: is {type(content).__name__}, not name: value lines. Write for example lora_r: 16.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecipeError(f"{path}: {', '.join(twice)} is given twice. Give it once.")
    nested = [str(name) for name, value in content.items() if isinstance(value, dict) and name != "gates"]
    if nested:
        raise RecipeError(f"{path}: {', '.join(nested)} holds further settings. Write all of them on one level.")
    return Layer(str(path), {str(name): value for name, value in content.items()})


def _load_yaml(path: Path) -> tuple[Any, list[str]]:
    """What a YAML file holds, an empty mapping for nothing, and the names at its top, of which PyYAML drops doubles."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        top = yaml.compose(text, yaml.SafeLoader)
        names = [str(key.value) for key, _ in top.value] if isinstance(top, yaml.MappingNode) else []
        content = yaml.safe_load(text)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}. Check the path after --config.") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: is not UTF-8 text. Save it as UTF-8.") from error
    except (yaml.reader.ReaderError, ValueError) as error:
        raise RecipeError(f"{path}: is not YAML ({first_line(error)}). Write name: value lines.") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        tab = "\t" in str(error.problem) or "'\\t'" in str(error.problem)
        fix = "Replace the tab by spaces: YAML allows none in front of a name." if tab else "Write name: value lines."
        raise RecipeError(f"{path}: line {line}: is not YAML ({error.problem}). {fix}") from error
    return ({} if content is None else content), names


def parse_assignments(words: Sequence[str]) -> Layer:
    """The settings written as `name=value` on the command line.

    Raises:
        RecipeError: a word without `=`, or a name given twice.
    """
    values: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        name = name.strip().lstrip("-")
        if not sign:
            raise RecipeError(f"{COMMAND_LINE}: {word!r} is no setting. Write name=value, for example lora_r=16.")
        if name in values:
            raise RecipeError(f"{COMMAND_LINE}: {name} is given twice. Give it once.")
        values[name] = value.strip()
    return Layer(COMMAND_LINE, values)


def check_machine(settled: Settled) -> None:
    """Whether this machine has what the settings ask for.

    Raises:
        RecipeError: an experiment tracker that is not installed; float16 without a GPU.
    """
    import torch

    settings, origins = settled.values, settled.origins
    absent = [name for name in settings.report_to if name != "none" and importlib.util.find_spec(name) is None]
    if absent:
        raise RecipeError(
            f"{origins['report_to']}: report_to is {absent[0]}, which is not installed. "
            f"Install it with: pip install 'hf_finetune[{absent[0]}]'"
        )
    if settings.dtype == "float16" and not torch.cuda.is_available():
        raise RecipeError(f"{origins['dtype']}: dtype is float16, which needs a GPU. Leave it out: dtype=auto.")


def _by_name(errors: Sequence[Any]) -> dict[str, Any]:
    """The errors by the setting that they are about: one of two types has an error for each, and the last one tells."""
    return {str(error["loc"][0]): error for error in errors}


def _in_words(error: Any, origins: Mapping[str, str]) -> str:
    name = str(error["loc"][0])
    origin = origins[name]
    if error["type"] == "extra_forbidden":
        hint = ELSEWHERE.get(name) or nearest(name, Settings.model_fields, otherwise=WHERE_ALL_STAND)
        return f"{origin}: no setting is called {name!r}. {hint}"
    field = Settings.model_fields[name]
    kinds = get_args(field.annotation)
    message = str(error["msg"]).replace("Input should", "it should").removeprefix("Value error, ")
    if field.annotation is bool:
        message = "it should be true or false"  # pydantic: "a valid boolean, unable to interpret input"
    elif bool in kinds:
        message += ", true or false"
    elif NoneType in kinds and error["type"] == "literal_error":
        message += ", or none"
    where = ": ".join(map(str, error["loc"][:2])) if name == "gates" else name
    return f"{origin}: {where} is {error['input']!r}; {message}. The default is {field.default!r}."


def contradictions(values: Settings, origins: Mapping[str, str]) -> list[str]:
    """What cannot be had together, a sentence each with its origin."""
    found = []
    if values.load_in_4bit and values.load_in_8bit:
        found.append(
            f"{origins['load_in_8bit']}: load_in_8bit=true contradicts load_in_4bit=true "
            f"({origins['load_in_4bit']}). Add load_in_4bit=false."
        )
    if values.group_by == "prefix" and not (values.padding_free and values.shared_prefix):
        found.append(
            f"{origins['group_by']}: group_by=prefix needs padding_free and shared_prefix, which compute equal "
            f"beginnings once. Leave these on, or leave group_by out."
        )
    if values.load_in_8bit and values.use_dora:
        found.append(
            f"{origins['use_dora']}: DoRA does not train on an 8-bit base (PEFT 0.21). "
            f"Use 4 bits, or leave out use_dora."
        )
    return found
