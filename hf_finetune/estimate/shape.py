"""What a base model is made of, from its config alone: its layers, and which of them are held in few bits."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import RecipeError, first_line
from hf_finetune.model import BaseModel
from hf_finetune.resolve import explaining_refusals

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Linear:
    """A linear layer, less the output head."""

    name: str
    inputs: int
    outputs: int
    is_quantized: bool
    """Whether it is held in 4 or 8 bits where a base is, by transformers' own rule."""

    @property
    def size(self) -> int:
        """The values of its matrix."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Shape:
    """The sizes of a causal language model."""

    name: str
    architecture: str
    num_parameters: int
    """All of them; a head that is tied to the embeddings counts once."""
    linears: tuple[Linear, ...]
    num_layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    is_tied: bool
    """Whether the output head is the embeddings."""
    is_mixture: bool
    """Whether it has experts, of which a token uses a few."""
    max_positions: int
    config: Any = field(repr=False, compare=False)
    """Transformers' own, from which the model can be built again."""

    @property
    def quantized_parameters(self) -> int:
        """The values that are held in few bits where the base is."""
        return sum(layer.size for layer in self.linears if layer.is_quantized)

    @property
    def plain_parameters(self) -> int:
        """The values that are not: embeddings, head, norms, biases, and experts that are no linear layers."""
        return self.num_parameters - self.quantized_parameters

    @property
    def largest_quantized(self) -> int:
        """The values of the largest layer that is dequantised at a time."""
        return max((layer.size for layer in self.linears if layer.is_quantized), default=0)


def shape_of(base: BaseModel) -> Shape:
    """The shape of a base that was found, of which only config.json is read.

    Raises:
        RecipeError: when it cannot be had, or is no causal language model that transformers knows.
    """
    from transformers import AutoConfig

    with explaining(base.name):
        config = AutoConfig.from_pretrained(_config_file(base), trust_remote_code=False)
    return shape_of_config(config, base.name)


def shape_of_config(config: Any, name: str) -> Shape:
    """The shape of the model that transformers builds of a config.

    Raises:
        RecipeError: when it builds none.
    """
    with explaining(name):
        model = empty_model(config)
    return shape_of_model(model, name)


def shape_of_model(model: Any, name: str) -> Shape:
    """The shape of a model that is built, if without what its tensors hold."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.base import get_keys_to_not_convert
    from transformers.quantizers.quantizers_utils import should_convert_module

    config = model.config
    head, kept = model.get_output_embeddings(), get_keys_to_not_convert(model)
    text = config.get_text_config()
    heads = int(_first(text, "num_attention_heads") or 1)
    linears = tuple(
        Linear(at, *_sizes(layer), should_convert_module(at, kept))
        for at, layer in model.named_modules()
        if isinstance(layer, nn.Linear | Conv1D) and layer is not head
    )
    return Shape(
        name=name,
        architecture=type(model).__name__,
        num_parameters=sum(p.numel() for p in model.parameters()),
        linears=linears,
        num_layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        intermediate=int(_first(text, "intermediate_size", "ffn_dim", "n_inner") or 4 * text.hidden_size),
        heads=heads,
        kv_heads=int(_first(text, "num_key_value_heads") or heads),
        head_size=int(_first(text, "head_dim") or text.hidden_size // heads),
        vocabulary=int(text.vocab_size),
        is_tied=head is not None and head.weight is model.get_input_embeddings().weight,
        is_mixture=bool(_first(text, "num_local_experts", "num_experts", "n_routed_experts")),
        max_positions=int(_first(text, "max_position_embeddings") or 0),
        config=config,
    )


def empty_model(config: Any, dtype: "torch.dtype | None" = None, attention: str | None = None) -> Any:
    """The model of a config, with tensors that have sizes and hold nothing; its attention is transformers' choice where
    none is named."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=dtype, trust_remote_code=False, attn_implementation=attention
        )
    model.tie_weights()
    return model


def _config_file(base: BaseModel) -> str:
    """The base's config.json, downloaded if need be."""
    from huggingface_hub import hf_hub_download

    if not base.commit:
        return str(Path(base.location) / "config.json")
    with explaining_refusals(
        base.name, base.revision or "main", "base model", file="config.json",
        other="Name a model that transformers can load.", instead="name a folder with model_name_or_path",
    ):  # fmt: skip
        return str(hf_hub_download(base.name, "config.json", revision=base.commit))


@contextmanager
def explaining(name: str) -> Iterator[None]:
    """Turns what transformers raises on a base's config into an error that says what to do."""
    from huggingface_hub.errors import StrictDataclassError

    known = (ValueError, OSError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, ImportError)
    try:
        yield
    except (*known, StrictDataclassError) as error:
        text = str(error)
        why = (
            "its architecture is not known to the transformers that is installed. Install a newer one, or take another"
            if "does not recognize this architecture" in text or "Unrecognized model" in text
            else "it is no causal language model. Take one that writes text"
            if "Unrecognized configuration class" in text
            else "it needs code of its own, which is not run. Take one that transformers knows"
            if "trust_remote_code" in text
            else f"no model can be built of its config.json ({first_line(error)}). Mend it, or take another"
        )
        raise RecipeError(f"base model {name!r}: {why}.") from error


def _sizes(layer: Any) -> tuple[int, int]:
    """The inputs and outputs of a linear layer; GPT-2's hold their matrix the other way round."""
    if hasattr(layer, "in_features"):
        return int(layer.in_features), int(layer.out_features)
    return int(layer.weight.shape[0]), int(layer.weight.shape[1])


def _first(config: Any, *names: str) -> Any:
    """The first value that a config has under one of the names; None if it has none."""
    return next((value for name in names if (value := getattr(config, name, None))), None)
