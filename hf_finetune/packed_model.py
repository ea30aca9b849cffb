"""A model that computes packed batches: what rows share once, with gradients, and the head only at labels."""

import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import first_line
from hf_finetune.memory import is_full
from hf_finetune.packing import Batch, Tree

if TYPE_CHECKING:
    import torch

ATTENTION = "hf_finetune_packed"
INPUTS = ("input_ids", "position_ids", "attention_mask")
INNER = ("sdpa", "eager")
LAYERS = {"full_attention", "sliding_attention"}
EAGER_SCORES = 512 * 512
"""Up to so many scores a head, torch's plain operations are faster on a CPU than its kernel, above all backward."""


class PackedModel:
    """A causal language model that takes packed batches: its attention keeps rows apart, its head sees what it needs.

    Everything else of the model runs as it is, adapters too: the attention it was loaded with is called on
    rectangles, and its output head is given only the positions that a label is predicted from.
    """

    def __init__(self, model: Any) -> None:
        """Takes a transformers model, with or without an adapter; nothing of it changes before `switch(True)`."""
        self.base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.inner = self.base.config._attn_implementation
        self._trees: Sequence[Tree] = ()
        self._positions: Any = None
        self._masks: dict[tuple[int, int], torch.Tensor] = {}
        self._remembered: dict[Any, Any] | None = None

    def refusal(self) -> str | None:
        """Why this model cannot take packed batches, as far as its configuration tells; None when it can."""
        name = type(self.base).__name__
        other = set(getattr(self.base.config.get_text_config(), "layer_types", None) or ()) - LAYERS
        return (
            f"{name} takes no other attention" if not self.base._supports_attention_backend
            else f"attn_implementation {self.inner} keeps rows apart in its own way" if self.inner not in INNER
            else f"{name} takes no position_ids" if "position_ids" not in signature(type(self.base).forward).parameters
            else f"{name} has layers of {', '.join(sorted(other))}" if other
            else f"{name} keeps a state from token to token" if self.base._is_stateful
            else None
        )  # fmt: skip

    def fault(self, padded: Batch, lean: Batch) -> str | None:
        """What is wrong with the losses of the labels of the same rows, packed or padded, with only what they need.

        The losses they are held against are those of the padded rows, with the logits of all positions.
        """
        import torch

        is_packed = "trees" in lean
        if is_packed and (why := self.refusal()):
            return why
        was_training, losses = self.base.training, []
        self.base.eval()
        try:
            with torch.no_grad():
                losses.append(self.losses(self.base, padded, supervised_only=False))
            with torch.set_grad_enabled(was_training), self.switched(is_packed):
                losses.append(self.losses(self.base, lean).detach())
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            if is_full(error):
                raise
            return first_line(error)
        finally:
            self.base.train(was_training)
        apart = float((losses[0] - losses[1]).abs().mean())
        is_exact = self.base.dtype == torch.float32 and not torch.is_autocast_enabled(self.base.device.type)
        return None if apart <= (1e-3 if is_exact else 0.1) else f"the losses differ by {apart:.4f} a token"

    @contextmanager
    def switched(self, packed: bool) -> Iterator[None]:
        """Inside, the model takes packed batches, or padded ones; afterwards padded ones."""
        self.switch(packed)
        try:
            yield
        finally:
            self.switch(packed=False)

    def switch(self, packed: bool) -> None:
        """From now on the model takes packed batches; or padded ones, as it did before."""
        from transformers import AttentionInterface

        if packed:
            # Weak, since transformers keeps its attention functions for good, and this one would keep the model.
            AttentionInterface.register(ATTENTION, partial(_attend, weakref.ref(self)))
        self.base.set_attn_implementation(ATTENTION if packed else self.inner)

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Inside, what all batches begin with is computed with the first of them only.

        For packed batches with one and the same beginning, from which no label is predicted, and without gradients.
        """
        self._remembered = {}
        try:
            yield
        finally:
            self._remembered = None

    def forget(self) -> None:
        """What is remembered begins anew, as after a batch for which memory was too small in the middle."""
        self._remembered = {}

    def losses(self, model: Any, batch: Batch, supervised_only: bool = True) -> "torch.Tensor":
        """The cross-entropy of each of a batch's `shift_labels`, in float32.

        `model` is the one of the constructor, or what wraps it, as DDP does. `supervised_only`: its output head is
        given the batch's `predictors` alone.
        """
        # Both are kept: gradient checkpointing runs the layers again later.
        self._trees, self._masks = batch.get("trees", ()), {}
        known = self._trees[1]["common"] if self._trees and self._remembered else 0
        self._positions = batch["position_ids"][0] if self._trees else None
        inputs = {name: batch[name][:, known:] for name in INPUTS if name in batch}
        predictors = batch["predictors"] - known

        def predicting(positions: "torch.Tensor") -> "torch.Tensor":
            return positions.flatten(0, 1).index_select(0, predictors)

        if not supervised_only:
            logits = predicting(model(**inputs, use_cache=False).logits)
        else:
            head = self.base.get_output_embeddings()
            with head.register_forward_pre_hook(lambda _, hidden: (predicting(hidden[0]),)):
                logits = model(**inputs, use_cache=False).logits
        return -logits.float().log_softmax(-1)[batch["predicted_from"], batch["shift_labels"]]

    def attend(
        self, module: Any, query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", **options: Any
    ) -> "torch.Tensor":
        """The attention of a layer: of what rows begin with, then of all branches at once, which see that too.

        Query, key and value are (1, heads, tokens, size of a head); the result is (1, tokens, heads, size of a head).
        """
        import torch

        if "sliding_window" not in options and getattr(module.config, "sliding_window", None):
            raise ValueError("its attention is not told its sliding window")
        beginning, branches = self._trees
        common, parts = branches["common"], []
        if self._remembered and module in self._remembered:
            common_key, common_value = self._remembered[module]
        else:
            common_query, query = query[:, :, :common], query[:, :, common:]
            common_key, key = key[:, :, :common], key[:, :, common:]
            common_value, value = value[:, :, :common], value[:, :, common:]
            if common:
                parts.append(self._attend_in(beginning, module, common_query, common_key, common_value, **options))
            if self._remembered is not None:
                self._remembered[module] = common_key.clone(), common_value.clone()
        if query.shape[2]:
            query, key, value = (_rectangle(x, branches["tokens"]) for x in (query, key, value))
            if common:
                key = torch.cat([common_key.expand(len(key), -1, -1, -1), key], 2)
                value = torch.cat([common_value.expand(len(value), -1, -1, -1), value], 2)
            parts.append(self._attend_in(branches, module, query, key, value, **options))
        return torch.cat(parts)[None]

    def _attend_in(
        self, tree: Tree, module: Any, q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", **options: Any
    ) -> "torch.Tensor":
        """One call of the attention that the model was loaded with; the result is (tokens, heads, size of a head)."""
        is_small = self._takes_eager(q, k)
        inner = _attention("eager" if is_small else self.inner, module)
        window = options.get("sliding_window") or k.shape[2]
        # sdpa has better kernels for what is plainly causal than for a mask.
        is_plain = tree["is_causal"] and self.inner == "sdpa" and not is_small and q.shape[2] <= window
        mask = None if is_plain else self._mask(tree, window, q.dtype)
        output: torch.Tensor = inner(module, q, k, v, mask, **options)[0]
        return output.flatten(0, 1).index_select(0, tree["kept"])

    def _takes_eager(self, q: "torch.Tensor", k: "torch.Tensor") -> bool:
        """Whether plain operations are faster than the kernel."""
        return q.requires_grad and not q.is_cuda and q.shape[2] * k.shape[2] <= EAGER_SCORES

    def _mask(self, tree: Tree, window: int, dtype: "torch.dtype") -> "torch.Tensor":
        """What is added to a tree's scores, (branches, 1, queries, keys): 0 where a query sees a key, else the least
        number. It is the same in all layers of a kind."""
        import torch

        tokens, common = tree["tokens"], tree["common"]
        width = common + tokens.shape[1]
        key = common, min(window, width)
        if key not in self._masks:
            seen = (tokens[:, None] <= tokens[:, :, None]) & (tokens[:, :, None] < tree["ends"][:, None])
            seen = torch.nn.functional.pad(seen, (common, 0), value=True)
            if window < width:
                places = self._positions[common + tokens].int()
                before = self._positions[:common].int().expand(len(places), -1)
                seen &= places[:, :, None] - torch.cat([before, places], 1)[:, None] < window
            mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
            self._masks[key] = mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]
        return self._masks[key]


def _attend(
    taking: "weakref.ref[PackedModel]",
    module: Any,
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    mask: object,
    **options: Any,
) -> tuple["torch.Tensor", None]:
    """What transformers calls in each layer."""
    model = taking()
    if model is None or mask is not None:
        raise ValueError("its attention has a mask of its own")
    return model.attend(module, query, key, value, **options), None


def _rectangle(x: "torch.Tensor", index: "torch.Tensor") -> "torch.Tensor":
    """(1, heads, tokens, size) and (rows, length) -> (rows, heads, length, size)."""
    heads, _, size = x[0].shape
    return x[0].index_select(1, index.flatten()).view(heads, *index.shape, size).transpose(0, 1)


def _attention(name: str, module: Any) -> Callable[..., Any]:
    """The attention function of that name; the eager one is in the file of each architecture."""
    from transformers import AttentionInterface

    if name == "eager":
        return sys.modules[type(module).__module__].eager_attention_forward  # type: ignore[no-any-return]
    return AttentionInterface()[name]  # type: ignore[no-any-return]
