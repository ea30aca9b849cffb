"""A fine-tuned model of whatever origin: an adapter or whole weights, in a folder or on the Hub at a commit."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hf_finetune.chat import ChatFormat
from hf_finetune.errors import RecipeError, plural
from hf_finetune.files import read_json, read_jsonl, sha256
from hf_finetune.folder import holds_run
from hf_finetune.model import BaseModel, load_tokenizer
from hf_finetune.resolve import explaining_refusals, resolve_commit

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
MODEL_FILES = ("config.json", "tokenizer*", "*.jinja", "special_tokens_map.json")


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned model that was found."""

    name: str
    """Its Hub id, or the folder's own name."""
    folder: Path
    """Where its files are; of whole weights on the Hub all but the weights."""
    commit: str | None = None
    base: str | None = None
    """The base model that an adapter names; None for whole weights."""
    base_revision: str | None = None
    train_rows: Path | None = None
    """Where it lies in a run's folder: the rows that it was trained on."""

    @property
    def is_adapter(self) -> bool:
        """Whether it needs its base to be loaded."""
        return self.base is not None

    @property
    def weights(self) -> BaseModel:
        """Whole weights, as what `load_base_model` takes."""
        return BaseModel(self.name, self.name if self.commit else str(self.folder), None, self.commit)

    @property
    def base_settings(self) -> dict[str, str]:
        """The settings that name an adapter's base, where that is a Hub id or a folder here."""
        if not self.base or not ("/" in self.base or Path(self.base).is_dir()):
            return {}
        return {"model_name_or_path": self.base, "model_revision": self.base_revision or "main"}

    def identity(self) -> dict[str, Any]:
        """What run.json says of it: never a path."""
        config = "adapter_config.json" if self.is_adapter else "config.json"
        files = [path for path in (self.folder / config, *sorted(self.folder.glob("*.safetensors"))) if path.is_file()]
        return {"name": self.name, "commit": self.commit, "files": {path.name: sha256(path) for path in files}}

    def check_base(self, name: str) -> None:
        """Whether a base is the one that an adapter was trained on, as far as names tell; of paths the last part does.

        Raises:
            RecipeError: when it has another name.
        """
        if self.base and Path(self.base).name != Path(name).name:
            shown = Path(name).name if Path(name).is_dir() else name
            raise RecipeError(
                f"{self.name}: was trained on the base {self.base!r}, not on {shown!r}. "
                f"Name that one with model_name_or_path=ID_OR_FOLDER."
            )

    def check_rows(self, rows: Sequence[Any]) -> None:
        """Whether none of the rows is known to have been trained on.

        Raises:
            RecipeError: telling how many are.
        """
        trained = {_as_text(row) for row in read_jsonl(self.train_rows)} if self.train_rows else set()
        seen = sum(_as_text(asdict(row)) in trained for row in rows)
        if seen:
            raise RecipeError(
                f"{self.name}: was trained on {seen:,} of the {plural(len(rows), 'test row')} ({self.train_rows}). "
                f"Give the run's own rows, seed and sizes of splits, or rows kept apart with --all-rows --data PATH."
            )

    def chat(self, base: ChatFormat) -> ChatFormat:
        """How whole weights are asked: as their own tokenizer says, or as the base where they have none.

        Raises:
            RecipeError: when its tokens are others than the base's.
        """
        if self.is_adapter or not (self.folder / "tokenizer_config.json").is_file():
            return base
        own = load_tokenizer(self.weights)
        if own.get_vocab() != base.tokenizer.get_vocab():
            raise RecipeError(
                f"{self.name}: its tokenizer is not the base's. Name the base that it was made from with "
                f"model_name_or_path=ID_OR_FOLDER."
            )
        return ChatFormat.of(own)


def check_vocabulary(model: Any, chat: ChatFormat, name: str) -> None:
    """Whether a model has an embedding for each token that it may be asked with.

    Raises:
        RecipeError: when it has fewer.
    """
    has, needs = model.get_input_embeddings().weight.shape[0], max(chat.tokenizer.get_vocab().values()) + 1
    if has < needs:
        raise RecipeError(
            f"{name}: knows {has:,} tokens, and the base's tokenizer has {needs:,}. Name the base that it was made "
            f"from with model_name_or_path=ID_OR_FOLDER."
        )


def _as_text(row: Mapping[str, Any]) -> str:
    return json.dumps(row, sort_keys=True, default=str)  # as write_jsonl() writes what JSON has no form for


def find_tuned(name: str) -> Tuned:
    """The adapter or model of a folder, a run's folder, or a Hub id (`owner/name` or `owner/name@revision`).

    Raises:
        RecipeError: when it is not there, or holds neither.
    """
    folder = Path(name).expanduser()
    if not name:
        raise RecipeError("--adapter: is empty. Name an adapter's folder, a run's, or a Hub id.")
    if folder.is_dir():
        if holds_run(folder) and not (folder / "adapter").is_dir():
            raise RecipeError(f"{name}: the run has no adapter yet. Start its command again, so that it ends.")
        if not (folder / "adapter").is_dir():
            return _described(folder.resolve().name, folder, None)
        trained = folder / "splits" / "train.jsonl"
        of_run = _described(folder.resolve().name, folder / "adapter", None)
        return replace(of_run, train_rows=trained if trained.is_file() else None)
    if name.startswith((".", "/", "~")):
        raise RecipeError(f"{name}: there is no such folder. Name an adapter's folder, a run's, or a Hub id.")
    repo_id, _, revision = name.partition("@")
    try:
        commit = resolve_commit(repo_id, revision or "main", "adapter")
    except RecipeError as error:
        raise RecipeError(f"{name}: there is no such folder here; on the Hub: {error}") from error
    return _described(repo_id, _download(repo_id, commit), commit)


def _download(repo_id: str, commit: str) -> Path:
    """The folder in the cache with an adapter's files, or with the config of whole weights."""
    from huggingface_hub import snapshot_download

    with explaining_refusals(
        repo_id, commit, "adapter", file="adapter_config.json", other="Name another.",
        instead="name a folder of your own",
    ):  # fmt: skip
        return Path(snapshot_download(repo_id, revision=commit, allow_patterns=[*ADAPTER_FILES, *MODEL_FILES]))


def _described(name: str, folder: Path, commit: str | None) -> Tuned:
    missing = [file for file in ADAPTER_FILES if not (folder / file).is_file()]
    if not missing:
        base, revision = _base_of(name, folder / "adapter_config.json")
        return Tuned(name, folder, commit, base, revision)
    if len(missing) == 1:
        raise RecipeError(f"{name}: has no {missing[0]}. Save it with save_pretrained (safetensors, not pickle).")
    if not (folder / "config.json").is_file():
        raise RecipeError(
            f"{name}: holds neither an adapter nor a model. Name an adapter's folder, a run's, or a Hub id."
        )
    return Tuned(name, folder, commit)


def _base_of(name: str, config: Path) -> tuple[str, str | None]:
    """The base and its revision that an adapter's config names."""
    try:
        values = read_json(config)
        base, revision = values["base_model_name_or_path"], values.get("revision")
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{name}: its adapter_config.json is damaged. Save the adapter again.") from error
    if not base:
        raise RecipeError(
            f"{name}: its adapter_config.json names no base. Write its Hub id as base_model_name_or_path."
        )
    return str(base), revision
