"""The config and tokenizer of a base -> those of its merged weights, which transformers 4 and 5 read alike."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.files import read_json, write_json
from hf_finetune.ship.published import BESIDE_WEIGHTS

if TYPE_CHECKING:
    import torch


def copy_texts(files: Path, folder: Path) -> None:
    """Copies the base's config, tokenizer, chat template and licence, as they are."""
    for path in {path for pattern in BESIDE_WEIGHTS for path in files.glob(pattern)}:
        if path.is_file():
            shutil.copy(path, folder / path.name)


def settle_config(path: Path, dtype: "torch.dtype", own_head: bool) -> None:
    """Has a config say what the weights are now: of this dtype, quantised no more, and with or without an own head."""
    config = read_json(path)
    if own_head:
        config["tie_word_embeddings"] = False
    config.pop("quantization_config", None)
    config["dtype"] = config["torch_dtype"] = str(dtype).removeprefix("torch.")
    write_json(path, config)


def make_readable(folder: Path, stop_token_id: int) -> None:
    """Has a model's folder say the same to transformers 4 and 5, and nothing of the machine that wrote it.

    Version 5 writes `rope_parameters`, of which version 4 knows nothing: it takes 10,000 for the base of the rotary
    embedding, silently. The token that ends answers is made one that generation stops at.
    """
    config = read_json(folder / "config.json")
    for own in (config, config.get("text_config") or {}):
        _name_rope_for_version_4(own)
    write_json(folder / "config.json", config)
    path = folder / "tokenizer_config.json"
    if path.is_file():
        tokenizer = read_json(path)
        if tokenizer.get("tokenizer_class") == "TokenizersBackend":
            tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
        write_json(path, {k: v for k, v in tokenizer.items() if k not in ("is_local", "local_files_only", "backend")})
    path = folder / "generation_config.json"
    generation = read_json(path) if path.is_file() else {}
    stops = generation.get("eos_token_id", config.get("eos_token_id"))
    stops = stops if isinstance(stops, list) else [] if stops is None else [stops]
    if stop_token_id not in stops:
        generation["eos_token_id"] = [stop_token_id, *stops]
    elif not path.is_file():
        generation["eos_token_id"] = stops
    write_json(path, generation)


def _name_rope_for_version_4(config: dict[str, Any]) -> None:
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict):
        return
    local = rope.get("sliding_attention")
    rope = rope.get("full_attention", rope)
    config.setdefault("rope_theta", rope.get("rope_theta"))
    if isinstance(local, dict):
        config.setdefault("rope_local_base_freq", local.get("rope_theta"))
    if rope.get("rope_type", "default") != "default":
        config.setdefault("rope_scaling", {k: v for k, v in rope.items() if k != "rope_theta"})
