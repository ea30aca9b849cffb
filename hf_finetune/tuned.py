"""A fine-tuned model of whatever origin: an adapter or whole weights, in a folder or on the Hub at a commit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_finetune.errors import RecipeError
from hf_finetune.files import read_json, sha256
from hf_finetune.model import BaseModel
from hf_finetune.resolve import explaining_refusals, resolve_commit

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned model that was found."""

    name: str
    """Its Hub id, or the folder's own name."""
    folder: Path
    """Where its files are, of whole weights on the Hub only their config."""
    commit: str | None = None
    base: str | None = None
    """The base model that an adapter names; None for whole weights."""
    base_revision: str | None = None

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

    def check_base(self, base: BaseModel) -> None:
        """Whether a base is the one that an adapter was trained on, as far as names tell; folders keep the last part.

        Raises:
            RecipeError: when it has another name.
        """
        if self.base and Path(self.base).name != Path(base.name).name:
            raise RecipeError(
                f"{self.name}: was trained on the base {self.base!r}, not on {base.name!r}. "
                f"Name that one with model_name_or_path=ID_OR_FOLDER."
            )


def find_tuned(name: str) -> Tuned:
    """The adapter or model of a folder, a run's folder, or a Hub id (`owner/name` or `owner/name@revision`).

    Raises:
        RecipeError: when it is not there, or holds neither.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        inside = folder / "adapter"
        return _described(folder.resolve().name, inside if inside.is_dir() else folder, None)
    if name.startswith((".", "/", "~")):
        raise RecipeError(f"{name}: there is no such folder. Name an adapter's folder, a run's, or a Hub id.")
    repo_id, _, revision = name.partition("@")
    commit = resolve_commit(repo_id, revision or "main", "adapter")
    return _described(repo_id, _download(repo_id, commit), commit)


def _download(repo_id: str, commit: str) -> Path:
    """The folder in the cache with an adapter's files, or with the config of whole weights."""
    from huggingface_hub import snapshot_download

    with explaining_refusals(
        repo_id, commit, "adapter", file="adapter_config.json", other="Name another.",
        instead="name a folder of your own",
    ):  # fmt: skip
        return Path(snapshot_download(repo_id, revision=commit, allow_patterns=[*ADAPTER_FILES, "config.json"]))


def _described(name: str, folder: Path, commit: str | None) -> Tuned:
    missing = [file for file in ADAPTER_FILES if not (folder / file).is_file()]
    if not missing:
        config = read_json(folder / "adapter_config.json")
        return Tuned(name, folder, commit, str(config["base_model_name_or_path"]), config.get("revision"))
    if len(missing) == 1:
        raise RecipeError(f"{name}: has no {missing[0]}. Save it with save_pretrained (safetensors, not pickle).")
    if not (folder / "config.json").is_file():
        raise RecipeError(
            f"{name}: holds neither an adapter nor a model. Name an adapter's folder, a run's, or a Hub id."
        )
    return Tuned(name, folder, commit)
