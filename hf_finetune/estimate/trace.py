"""A real training step on tensors without content: what is alive at each moment of it, and its operations.

The model's own code, the adapter's and this package's run on torch's `meta` device, with one layer and with two; each
further layer takes what the second one does. Nothing is downloaded, and no memory is used. What a GPU does otherwise
is put in its place: the flash or memory-efficient attention, which keeps query, key, value, output and a number for
each query and head (arXiv:2205.14135, section 3.1; arXiv:2112.05682), and the mask of a byte of fused dropout.
"""

import copy
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from hf_finetune.estimate.lengths import Row, padded
from hf_finetune.estimate.shape import Shape, empty_model
from hf_finetune.estimate.steps import Kind, Layers, Step, Steps
from hf_finetune.lora import fuse
from hf_finetune.packed_model import PackedModel
from hf_finetune.packing import Batch, supervised
from hf_finetune.settings import Settings
from hf_finetune.train.batches import packed_batch

UNTRACEABLE = (RuntimeError, NotImplementedError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
"""What the code of an architecture may raise when it looks into tensors that hold nothing."""


class Tracer:
    """Traces the steps of one model in one kind of training."""

    def __init__(self, shape: Shape, settings: Settings, kind: Kind) -> None:
        """Raises one of UNTRACEABLE where the model cannot be built so."""
        self.shape, self.settings, self.kind = shape, settings, kind
        self._models = {layers: _Traced(shape, layers, settings, kind) for layers in (1, 2)}

    def steps(self, rows: Sequence[Row]) -> Steps:
        """The step of a batch of those rows, for any number of layers that compute their activations again."""
        batch = self._batch(rows)
        again = cache(lambda: self._layers(batch, checkpoints=True))
        return Steps(self.shape.num_layers, batch["input_ids"].numel(), self._layers(batch, checkpoints=False), again)

    def _layers(self, batch: Batch, checkpoints: bool) -> Layers:
        return _one_and_more(*[self._models[layers].step(batch, checkpoints) for layers in (1, 2)])

    def _batch(self, rows: Sequence[Row]) -> Batch:
        if self.kind.is_packed:
            return _on_meta(packed_batch(rows, self.settings.shared_prefix))
        filled = padded(rows)
        batch = {name: torch.tensor([row[name] for row in filled]) for name in ("input_ids", "labels")}
        size, width = batch["input_ids"].shape
        mask = torch.ones(size, 1, width, width, dtype=torch.bool, device="meta")  # what transformers would make of it
        return _on_meta(supervised(batch)) | {"attention_mask": mask}


def _one_and_more(one: Step, two: Step) -> Layers:
    """The step with one layer, and what a further layer adds, from the steps with one and with two.

    What is kept grows with each layer; what comes and goes beside it is that of one layer.
    """
    passing = max(two.peak - two.kept, one.peak - one.kept)
    layer = two + one * -1
    return Layers(replace(one, peak=one.kept + passing), replace(layer, peak=layer.kept))


class _Traced:
    """A model of few layers on the meta device, ready to make steps."""

    def __init__(self, shape: Shape, layers: int, settings: Settings, kind: Kind) -> None:
        model = empty_model(_with_layers(shape.config, layers), kind.dtype)
        self.model = _trained_whole(model) if kind.is_full else _with_adapter(model, settings, kind)
        self.kind = kind
        self.lean = _Lean(self.model, kind.attention)
        self.model.train()
        self.own = [*self.model.parameters(), *self.model.buffers()]
        self.own += [p.grad for p in self.own if p.grad is not None]
        self.is_supervised = settings.supervised_only or not kind.is_packed

    def step(self, batch: Batch, checkpoints: bool) -> Step:
        self._checkpoint(checkpoints)
        live = _Live(self.own)
        with self.lean.switched(self.kind.is_packed), _on_device(self.kind.attention, live), live:
            loss = self.lean.losses(self.model, batch, self.is_supervised).sum()
            kept = live.now
            torch.autograd.backward(loss)
        return Step(kept, live.peak, live.flops, live.moved, live.kernels)

    def _checkpoint(self, checkpoints: bool) -> None:
        """Has the layers compute their activations again, or not, whatever they did in the step before.

        Only then, or where the embeddings are trained, does the first layer give a gradient for its input.
        """
        base = self.lean.base
        base.activation_checkpointing_disable()
        base.disable_input_require_grads()
        if checkpoints:
            base.activation_checkpointing_enable({"use_reentrant": False})
        elif self.kind.is_full:
            base.enable_input_require_grads()


class _Lean(PackedModel):
    """The packed model, with the attention of the device that is meant."""

    def __init__(self, model: Any, attention: str) -> None:
        super().__init__(model)
        self.is_on_cpu = attention == "cpu"

    def _takes_eager(self, q: torch.Tensor, k: torch.Tensor) -> bool:
        return self.is_on_cpu and super()._takes_eager(q, k)


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are alive, besides the model's own, and the operations."""

    def __init__(self, own: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.flops = self.moved = 0.0
        self.kernels = 0
        self._alive = {tensor.untyped_storage()._cdata: 0 for tensor in own}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [tensor for tensor in _tensors(out) if self._note(tensor.untyped_storage())]
        if (not made and not func._schema.is_mutable) or func._opname in ("empty", "new_empty", "empty_like"):
            return out  # a view, or room for a kernel that is counted itself
        self.kernels += 1
        count = flop_registry.get(func._overloadpacket)
        if count is None:
            self.moved += sum(tensor.nbytes for tensor in (*_tensors((args, kwargs)), *made))
        else:
            self.flops += float(count(*args, **(kwargs or {}), out_val=out))
        return out

    def add(self, flops: float) -> None:
        """Counts a kernel that no dispatch shows."""
        self.flops += flops
        self.kernels += 1

    def _note(self, storage: Any) -> bool:
        """Whether a storage is a new one, which is counted while it is alive."""
        key = storage._cdata
        if key in self._alive:
            return False
        self._alive[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key)
        return True

    def _forget(self, key: int) -> None:
        self.now -= self._alive.pop(key, 0)


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor) and leaf.device.type == "meta"]


@contextmanager
def _on_device(attention: str, live: _Live) -> Iterator[None]:
    """Inside, what the device that is meant computes in another way than the meta device is replaced.

    The functions themselves are, since torch looks for no overrides while activations are computed again.
    """
    functional = torch.nn.functional
    plain = functional.dropout, functional.scaled_dot_product_attention

    def attend(query: Any, key: Any, value: Any, attn_mask: Any = None, *args: Any, **given: Any) -> Any:
        # The memory-efficient kernel takes no groups of heads; torch then computes the scores one by one.
        if attention == "efficient" and given.get("enable_gqa"):
            return plain[1](query, key, value, attn_mask, *args, **given)
        pairs = query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]
        flops = 2.0 * (pairs / 2 if given.get("is_causal") else pairs) * (query.shape[3] + value.shape[3])
        return _Kernel.apply(query, key, value, lambda times: live.add(times * flops))  # type: ignore[no-untyped-call]

    try:
        functional.scaled_dot_product_attention = attend
        functional.dropout = plain[0] if attention == "cpu" else _fused_dropout  # type: ignore[assignment]
        yield
    finally:
        functional.dropout, functional.scaled_dot_product_attention = plain


def _fused_dropout(x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    return torch.ops.aten.native_dropout(x, p, True)[0] if training and p else x


class _Kernel(torch.autograd.Function):
    """What a fused attention keeps and gives."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, count: Callable[..., None]
    ) -> Any:
        out = query.new_empty((*query.shape[:3], value.shape[3]))
        weights = query.new_empty(query.shape[:3], dtype=torch.float32)
        count(1.0)
        ctx.count = count
        ctx.save_for_backward(query, key, value, out, weights)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        query, key, value, _, _ = ctx.saved_tensors
        ctx.count(2.5)  # the scores again, and four products (arXiv:2205.14135, appendix B)
        collected = torch.empty_like(query, dtype=torch.float32)  # in which the query's gradient is summed up
        given = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None
        del collected
        return given


def _trained_whole(model: Any) -> Any:
    """The model with gradients in all its layers; those of the vocabulary are added by who asks, as workspace."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
        if embeddings is not None:
            embeddings.weight.requires_grad_(False)
    return model


def _with_adapter(model: Any, settings: Settings, kind: Kind) -> Any:
    """The model with an adapter in float32 that has gradients already, as it has from the second step on."""
    from hf_finetune.model import adapter_config

    config = adapter_config(model, settings)
    from peft import get_peft_model

    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        adapted = get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            # Autocast casts it in the plain computation, and there is no autocast on the meta device.
            parameter.data = parameter.data.to(torch.float32 if kind.is_fused else kind.dtype)
            parameter.grad = torch.zeros_like(parameter)
    if kind.is_fused:
        fuse(adapted)
    return adapted


def _with_layers(config: Any, layers: int) -> Any:
    """A copy of the config with so many layers; what it lists for each layer is cut."""
    small = copy.deepcopy(config)
    text = small.get_text_config()
    before = int(text.num_hidden_layers)
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == before and before > 2:
            setattr(text, name, value[:layers])
    text.num_hidden_layers = layers
    return small


def _on_meta(batch: Batch) -> Batch:
    from accelerate.utils import send_to_device

    return dict(send_to_device(batch, "meta"))
