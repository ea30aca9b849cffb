"""Tensors, one after another -> safetensors files of at most so many bytes, named as transformers looks for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hf_finetune.errors import first_line
from hf_finetune.files import write_json
from hf_finetune.interruption import interruption

if TYPE_CHECKING:
    import torch


@contextmanager
def as_os_error() -> Iterator[None]:
    """Has safetensors say as other writers do that the disk is full.

    Raises:
        OSError: instead of its own.
    """
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise OSError(first_line(error)) from error


class Shards:
    """Weights in files of at most so many bytes, with an index where there are several."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self.held: dict[str, torch.Tensor] = {}
        self.written: list[list[str]] = []
        self.total = 0

    def __enter__(self) -> "Shards":
        return self

    def add(self, name: str, tensor: "torch.Tensor") -> None:
        """Takes a tensor; what was taken before is written where it would become too much."""
        interruption.stop_if_requested()
        if self.held and sum(own.nbytes for own in self.held.values()) + tensor.nbytes > self.most_bytes:
            self._write()
        self.held[name] = tensor.contiguous()
        self.total += tensor.nbytes

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Writes the rest and gives the files the names that transformers looks for."""
        if kind is not None:
            return
        self._write()
        count = len(self.written)
        names = [f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]
        names = names if count > 1 else ["model.safetensors"]
        for number, name in enumerate(names):
            (self.folder / f"{number}.partial").rename(self.folder / name)
        if count > 1:
            weight_map = {key: name for name, keys in zip(names, self.written, strict=True) for key in keys}
            index = {"metadata": {"total_size": self.total}, "weight_map": weight_map}
            write_json(self.folder / "model.safetensors.index.json", index)

    def _write(self) -> None:
        from safetensors.torch import save_file

        with as_os_error():
            save_file(self.held, self.folder / f"{len(self.written)}.partial", metadata={"format": "pt"})
        self.written.append(list(self.held))
        self.held = {}
