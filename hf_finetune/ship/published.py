"""What may leave this machine: the files of an adapter's or a merged model's folder, looked at without loading them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.card_check import local_paths
from hf_finetune.chat import ChatFormat
from hf_finetune.errors import first_line, plural
from hf_finetune.files import read_json, sha256
from hf_finetune.hub.publish import TEXTS
from hf_finetune.ship.finished import Finished

if TYPE_CHECKING:
    import torch

CARD = "README.md"
PICTURES = ("*.png", "*.svg", ".eval_results/*.yaml")
ADAPTER = (CARD, "adapter_config.json", "adapter_model.safetensors", *PICTURES)
BESIDE_WEIGHTS = (*TEXTS, "LICENSE*", "NOTICE*", "USE_POLICY*")
"""What of a base's files goes with merged weights."""
MERGED = (CARD, "model*.safetensors", "model.safetensors.index.json", *BESIDE_WEIGHTS, *PICTURES)

KNOWN = {"adapter": ADAPTER, "merged": MERGED}

_SHAPE = {"r": "lora_r", "lora_alpha": "lora_alpha", "use_rslora": "use_rslora", "use_dora": "use_dora"}
"""What an adapter's config says of how its weights are used, and the run's setting of that."""
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")
_SNIPPET = re.compile(r"^```python\n(.*?)\n```$", re.DOTALL | re.MULTILINE)
_USAGE = "\n## How to use it\n"


def snippets_of(folder: Path) -> list[str]:
    """The Python snippets of the card's last chapters; the first one shows how the model is loaded and asked."""
    try:
        card = (folder / CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    return _SNIPPET.findall(card.rpartition(_USAGE)[2])


def files_of(folder: Path, form: str) -> list[Path]:
    """The files of a form's folder that are pushed."""
    return sorted({path for pattern in KNOWN[form] for path in folder.glob(pattern) if path.is_file()})


def hashes_of(folder: Path, form: str) -> dict[str, str]:
    """The hash of each file that is pushed and loaded: all but the card and its pictures."""
    shown = {path for pattern in (CARD, *PICTURES) for path in folder.glob(pattern)}
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files_of(folder, form) if path not in shown}


def foreign_files(folder: Path, form: str) -> list[str]:
    """The names of the files in a form's folder that this package did not put there."""
    own = files_of(folder, form)
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p not in own)


def faults_of_adapter(finished: Finished, folder: Path) -> list[str]:
    """What is wrong with an adapter's folder, a sentence each with what to do."""
    return [*_faults_of_files(folder, "adapter"), *faults_of_training(finished, folder)]


def faults_of_training(finished: Finished, folder: Path) -> list[str]:
    """Whether an adapter's weights and config are those that were trained and evaluated; a sentence on each fault."""
    again = f"Remove {folder} and start the run's command again: it takes the adapter from its checkpoint."
    tensors, unreadable = _tensors(folder / "adapter_model.safetensors", again)
    faults = [*unreadable, *_faults_of_config(finished, folder, again)]
    return [*faults, *(_faults_of_tensors(finished, folder, tensors, again) if tensors else [])]


def fault_of_template(finished: Finished, chat: ChatFormat) -> str:
    """What is wrong where the base's chat template is no longer that of the training; else nothing."""
    if finished.run.base_model.get("chat_template_sha256") in (None, chat.template_sha256):
        return ""
    return "its chat template is another one than in training. Put that back, or train again."


def faults_of_merged(finished: Finished, folder: Path) -> list[str]:
    """What is wrong with a merged model's folder, a sentence each with what to do."""
    return [
        *_faults_of_files(folder, "merged"),
        *_faults_of_weights(finished, folder),
        *_faults_of_texts(finished, folder),
    ]


def _faults_of_files(folder: Path, form: str) -> Iterator[str]:
    """Files that do not belong there, and texts that hold a token or a path of this machine."""
    for name in foreign_files(folder, form):
        if name != ".gitattributes":  # where the folder is a clone; it is not pushed
            yield f"{name}: is no part of what is pushed. Remove it."
    for path in files_of(folder, form):
        name = path.relative_to(folder).as_posix()
        if path.suffix in (".json", ".md", ".jinja", ".yaml", ".txt"):
            yield from _faults_of_text(name, path)
    if not snippets_of(folder):
        yield f"{CARD}: has no Python snippet that loads the model. Write the card again: hf-finetune card RUN."


def _faults_of_text(name: str, path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    if _TOKEN.search(text):
        yield f"{name}: holds an access token. Take it out, and revoke it on the Hub."
    # The card's own check knows what it quotes, and pieces of words may look like paths.
    is_free = name == CARD or name.startswith(("tokenizer.json", "vocab.", "merges."))
    if not is_free and (found := local_paths(text)):
        yield f"{name}: names {found[0]}, a path of this machine. Take it out."


def _tensors(path: Path, again: str) -> tuple[dict[str, "torch.Tensor"], list[str]]:
    """The tensors of a file; else what is wrong with it, and how it is made again."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path), []
    except FileNotFoundError:
        return {}, [f"{path.name}: is missing. {again}"]
    except (OSError, SafetensorError) as error:
        return {}, [f"{path.name}: cannot be read ({first_line(error)}). {again}"]


def _faults_of_config(finished: Finished, folder: Path, again: str) -> Iterator[str]:
    """What an adapter's config says of its base, its kind and its shape."""
    name = "adapter_config.json"
    config = _object(folder / name)
    if config is None:
        yield f"{name}: {'is damaged' if (folder / name).exists() else 'is missing'}. {again}"
        return
    base, commit = finished.run.base_model["name"], finished.run.base_model["commit"]
    named = str(config.get("base_model_name_or_path"))
    if Path(named).is_absolute() or named.startswith((".", "~")) or "\\" in named:
        yield f"{name}: names its base by the path {named!r}, which is nobody else's. Write {base!r}."
    elif (named, config.get("revision")) != (base, commit):
        yield f"{name}: names the base {named!r} at {config.get('revision')}, not {base!r} at {commit}. Write that."
    if config.get("task_type") != "CAUSAL_LM":
        yield f"{name}: task_type is {config.get('task_type')!r}, so it is loaded as another model. Write CAUSAL_LM."
    for own, trained in _SHAPE.items():
        value = getattr(finished.settings, trained)
        if config.get(own, value) != value:
            yield f"{name}: {own} is {config[own]}, and was trained as {value}. Write that."


def _faults_of_tensors(
    finished: Finished, folder: Path, tensors: dict[str, "torch.Tensor"], again: str
) -> Iterator[str]:
    """What an adapter's file holds: the weights that were evaluated, all of them, and no others."""
    name, training = "adapter_model.safetensors", finished.run.training
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        yield f"{name}: holds values that are no numbers. Train it again."
    at_zero = [tensor for key, tensor in tensors.items() if "lora_B" in key]
    if at_zero and not any(tensor.any() for tensor in at_zero):
        yield f"{name}: changes nothing: all of lora_B is zero. Train it for more steps."
    whole = [key for key in tensors if "lora_" not in key]
    values = sum(tensor.numel() for tensor in tensors.values())
    if whole or values > training["trainable_parameters"]:
        size = sum(tensors[key].nbytes for key in whole) / 2**20
        yield (
            f"{name}: holds {values:,} values, of which {training['trainable_parameters']:,} were trained"
            + (f"; {whole[0]} and the like take {size:.1f} MiB" if whole else "")
            + ". Save the adapter without them."
        )
    if training.get("adapter_sha256") not in (None, sha256(folder / name)):
        yield f"{name}: is not the file that was evaluated. {again}"


def _faults_of_weights(finished: Finished, folder: Path) -> Iterator[str]:
    """What a merged model's weights are: those that were compared, as its config says."""
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError) as error:
        yield f"config.json: cannot be read ({first_line(error)}). Merge again."
        return
    facts = finished.report.merged
    if "quantization_config" in config:
        yield "config.json: says that the weights are quantised, and they are not. Take quantization_config out."
    if config.get("dtype") != facts.get("dtype"):
        yield f"config.json: says dtype {config.get('dtype')}, merged as {facts.get('dtype')}. Merge again."
    for own in (config, config.get("text_config") or {}):
        if "rope_parameters" in own and "rope_theta" not in own:
            yield "config.json: has no rope_theta, so transformers 4 takes 10,000 for it. Merge again."
    here, known = {path.name: sha256(path) for path in folder.glob("*.safetensors")}, facts.get("files", {})
    wrong = sorted(name for name in here.keys() | known.keys() if here.get(name) != known.get(name))
    if wrong:
        yield f"{wrong[0]}: is missing or not the file that was compared with the adapter. Merge again."


def _faults_of_texts(finished: Finished, folder: Path) -> Iterator[str]:
    """What goes with a merged model's weights: tokenizer, chat template and the token that ends answers."""
    has_words = (folder / "tokenizer.json").is_file() or list(folder.glob("*.model"))
    missing = ["tokenizer.json"] if not has_words else []
    missing += [] if (folder / "tokenizer_config.json").is_file() else ["tokenizer_config.json"]
    if missing:
        yield f"{missing[0]}: is missing, so nobody can ask the model. Merge again."
        return
    config, path = _object(folder / "tokenizer_config.json"), folder / "generation_config.json"
    generation = _object(path) if path.is_file() else {}
    if config is None or generation is None:
        yield f"{path.name if config is not None else 'tokenizer_config.json'}: is damaged. Merge again."
        return
    if config.get("tokenizer_class") == "TokenizersBackend":
        yield "tokenizer_config.json: names the class TokenizersBackend, which transformers 4 lacks. Merge again."
    has_template = bool(config.get("chat_template")) or (folder / "chat_template.jinja").is_file()
    if finished.run.base_model["has_chat_template"] and not has_template:
        yield "chat_template.jinja: is missing, so questions are asked otherwise than in training. Merge again."
    stops = generation.get("eos_token_id")
    stop = finished.run.base_model["stop_token_id"]
    if stop not in (stops if isinstance(stops, list) else [stops]):
        yield f"generation_config.json: does not stop at token {stop}, which ends the trained answers. Merge again."


def _object(path: Path) -> dict[str, Any] | None:
    """The object of a JSON file; None where it holds none."""
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def in_a_line(faults: list[str]) -> str:
    """The faults one after another, with how many there are where it is more than one."""
    return faults[0] if len(faults) == 1 else f"{plural(len(faults), 'fault')}: " + " ".join(faults)
