"""The base's weights, as far as their names, sizes and headers tell: nothing of them is loaded."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from hf_finetune.doctor.downloads import missing_bytes
from hf_finetune.doctor.line import Line, fault, ok, warning
from hf_finetune.doctor.subject import Subject
from hf_finetune.files import read_json
from hf_finetune.model import BaseModel
from hf_finetune.resolve import TIMEOUT_SECONDS

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
"""What is loaded where weights lie in a folder; other files of this kind beside it are not."""
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
PICKLES = (".bin", ".pt", ".pth")
OTHERS = (".gguf", ".h5", ".msgpack", ".onnx", ".ot")


def files(subject: Subject) -> Iterator[Line]:
    """Whether there are weights that are safe to load, all of them; how large they are."""
    base = subject.base
    if base is None:
        return
    sizes = _listed(base)
    if sizes is None:
        return
    tensors = {name: size for name, size in sizes.items() if name.endswith(".safetensors") and "/" not in name}
    pickles = {name: size for name, size in sizes.items() if name.endswith(PICKLES) and _are_weights(name)}
    loaded = _loaded(tensors) or pickles
    subject.weights_bytes = sum(loaded.values())
    if not tensors and not pickles:
        other = [name for name in sizes if name.endswith(OTHERS)]
        what = f"its weights are {other[0]}, which is not read here" if other else "it has no weights"
        yield fault(what, "name the repo or folder that holds model.safetensors")
    elif "adapter_model.safetensors" in tensors and len(tensors) == 1:
        yield fault("it is an adapter, and no base model", "name the base in its adapter_config.json")
    elif not tensors:
        yield warning(
            f"its weights are pickles ({min(pickles)}), which can run code as they are loaded",
            "name a base with safetensors, or its revision=refs/pr/N that has them",
        )
    else:
        yield ok(
            f"safetensors, {_size(subject.weights_bytes)}"
            + (_to_fetch(subject, base, list(loaded)) if base.commit else "")
        )


def whole(subject: Subject) -> Iterator[Line]:
    """Whether the weights in a folder are whole, and of the shapes that config.json says."""
    if subject.base is None or subject.base.commit:
        return
    folder = Path(subject.base.location)
    index = folder / INDEX
    is_sharded = index.is_file() and not (folder / SINGLE).is_file()  # of both, transformers loads the single file
    named = set(read_json(index)["weight_map"].values()) if is_sharded else set()
    lost = sorted(name for name in named if not (folder / name).is_file())
    if lost:
        yield fault(f"{lost[0]} is not there, which {INDEX} names", "fetch the base again")
    shapes: dict[str, list[int]] = {}
    for path in sorted(folder / name for name in named - set(lost) or {SINGLE} if (folder / name).is_file()):
        try:
            shapes |= _shapes(path)
        except (OSError, SafetensorError) as error:
            yield fault(f"{path.name} is not whole: {error}", "fetch the base again")
            return
    yield from _misfits(subject, shapes)


def _shapes(path: Path) -> dict[str, list[int]]:
    """The shape of each tensor of a safetensors file, whose header is held against its length as it is opened."""
    with safe_open(path, framework="np") as file:
        return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping


def _misfits(subject: Subject, shapes: Mapping[str, list[int]]) -> Iterator[Line]:
    """Tensors whose shape is not the one that config.json makes."""
    if subject.skeleton is None or not shapes or getattr(subject.config, "quantization_config", None):
        return
    wanted = {name: list(p.shape) for name, p in subject.skeleton.named_parameters()}
    misfits = [name for name in wanted if name in shapes and shapes[name] != wanted[name]]
    if misfits:
        name = misfits[0]
        more = f" (and {len(misfits) - 1} more)" if len(misfits) > 1 else ""
        yield fault(
            f"the weights do not fit config.json: {name} is {shapes[name]}, not {wanted[name]}{more}",
            "fetch config.json and weights of one and the same base",
        )


def _listed(base: BaseModel) -> dict[str, int] | None:
    """Name and size of each file of the base; None where the Hub cannot be asked."""
    if not base.commit:
        folder = Path(base.location)
        return {
            path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()
        }
    import httpx2
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return None
    try:
        info = HfApi().model_info(base.name, revision=base.commit, files_metadata=True, timeout=TIMEOUT_SECONDS)
    except (httpx2.HTTPError, OSError):
        return None
    return {file.rfilename: file.size or 0 for file in info.siblings or []}


def _loaded(tensors: Mapping[str, int]) -> Mapping[str, int]:
    """The files that transformers loads, of those with safetensors: the single one, or its shards, if there are any."""
    shards = {name: size for name, size in tensors.items() if SHARD.fullmatch(name)}
    return {SINGLE: tensors[SINGLE]} if SINGLE in tensors else shards or tensors


def _to_fetch(subject: Subject, base: BaseModel, names: Sequence[str]) -> str:
    """How much of the weights is to be downloaded; it is left in the subject."""
    missing = missing_bytes(base.name, base.commit or "", names)
    if missing is None:
        return ""
    subject.missing_bytes = missing
    if 0 < missing < subject.weights_bytes:
        return f", of which {_size(missing)} are to be downloaded by the run"
    return ", to be downloaded by the run" if missing else ", in the cache"


def _are_weights(name: str) -> bool:
    return "/" not in name and name.startswith(("pytorch_model", "model", "consolidated"))


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.0f} MiB"
