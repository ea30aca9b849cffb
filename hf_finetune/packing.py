"""Rows laid end to end: no padding, and a beginning that rows share is computed once, with gradients."""

import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import first_line

if TYPE_CHECKING:
    import torch

ATTENTION = "hf_finetune_packed"
INPUTS = ("input_ids", "position_ids", "attention_mask")
INNER = ("sdpa", "eager")
LAYERS = {"full_attention", "sliding_attention"}
NO_LOSS = -100
EAGER_SCORES = 512 * 512
"""Up to so many scores a head, torch's plain operations are faster on a CPU than its kernel, above all backward."""

Batch = dict[str, Any]


def pack(rows: Sequence[Sequence[Sequence[int]]], labels: Sequence[Sequence[int]]) -> Batch:
    """One sequence of token ids for rows that are given as segments; equal beginnings of rows stand in it once.

    A row is the tokens of its segments one after another, and sees only them; `labels[i]` has a label for each of its
    tokens, -100 where no loss is taken. Rows with the same first segments share them: the packed tokens are a tree of
    segments, level by level. What comes after the last token that a label is predicted from is left out.

    Returns:
        `input_ids` and `position_ids`, (1, tokens); `shift_labels`, (supervised,), and `predictors` and `rows`, of the
        same shape: the packed token that each is predicted from, and the row it is of; `levels`: what the attention
        needs, see `_level`.
    """
    import torch

    needed = [max((n for n, label in enumerate(own) if label != NO_LOSS), default=0) for own in labels]
    if not any(needed):
        needed[0] = 1  # a batch is not empty
    tokens: list[int] = []
    positions: list[int] = []
    paths: list[list[int]] = [[] for _ in rows]
    levels = []
    for depth in range(max(map(len, rows))):
        segments: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
        for number, row in enumerate(rows):
            before = paths[number]
            segment = tuple(row[depth][: needed[number] - len(before)]) if depth < len(row) else ()
            if segment:
                key = (tuple(before[-1:]), segment)
                if key not in segments:
                    start = len(tokens)
                    tokens += segment
                    positions += range(len(before), len(before) + len(segment))
                    segments[key] = [*before, *range(start, len(tokens))]
                paths[number] = segments[key]
        if segments:
            levels.append(_level([path[-len(own) :] for (_, own), path in segments.items()], list(segments.values())))
    supervised = [
        (path[place - 1], label, row)
        for row, (path, own) in enumerate(zip(paths, labels, strict=True))
        for place, label in enumerate(own)
        if place and label != NO_LOSS
    ]
    predictors, targets, of_rows = torch.tensor(supervised, dtype=torch.long).reshape(-1, 3).unbind(1)
    return {
        "input_ids": torch.tensor([tokens]),
        "position_ids": torch.tensor([positions]),
        "shift_labels": targets,
        "predictors": predictors,
        "rows": of_rows,
        "levels": levels,
    }


def shared_start(sequences: Sequence[list[int]]) -> int:
    """How many tokens all the sequences begin with; the first and the last in order differ the soonest."""
    first, last = min(sequences), max(sequences)
    return next(
        (place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first)
    )


def supervised(batch: Batch) -> Batch:
    """A padded batch with `shift_labels`, `predictors` and `rows`, as `pack` gives them, of its rows end to end."""
    import torch

    labels = torch.nn.functional.pad(batch["labels"], (0, 1), value=NO_LOSS)[:, 1:].flatten()
    predictors = (labels != NO_LOSS).nonzero().flatten()
    of_rows = predictors // batch["labels"].shape[1]
    return batch | {"predictors": predictors, "shift_labels": labels[predictors], "rows": of_rows}


def _level(segments: Sequence[Sequence[int]], paths: Sequence[Sequence[int]]) -> dict[str, "torch.Tensor"]:
    """Segments that are computed in one call of the attention, padded to a rectangle there and nowhere else.

    Returns:
        `queries` (segments, longest segment): the packed tokens of each; `keys` (segments, longest path): those of the
        segments before it and its own; `places` as `queries`: where a query stands in its path; `kept`: which of the
        flattened queries are no padding. A query sees the keys up to its own place, so padding is never seen.
    """
    import torch

    longest, width = max(map(len, segments)), max(map(len, paths))
    return {
        "queries": torch.tensor([[*own, *[0] * (longest - len(own))] for own in segments]),
        "keys": torch.tensor([[*path, *[0] * (width - len(path))] for path in paths]),
        "places": torch.tensor(
            [
                [*range(len(path) - len(own), len(path)), *[0] * (longest - len(own))]
                for own, path in zip(segments, paths, strict=True)
            ]
        ),
        "kept": torch.tensor([n * longest + i for n, own in enumerate(segments) for i in range(len(own))]),
    }


class PackedModel:
    """A causal language model that takes packed batches: its attention keeps rows apart, its head sees what it needs.

    Everything else of the model runs as it is, adapters too: the attention it was loaded with is called once for each
    level, on rectangles, and its output head is given only the positions that a label is predicted from.
    """

    def __init__(self, model: Any) -> None:
        """Takes a transformers model, with or without an adapter; nothing of it changes before `switch(True)`."""
        self.base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.inner = self.base.config._attn_implementation
        self._levels: Sequence[dict[str, torch.Tensor]] = ()
        self._masks: dict[tuple[int, int], torch.Tensor] = {}

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

        is_packed = "levels" in lean
        if is_packed and (why := self.refusal()):
            return why
        was_training, losses = self.base.training, []
        self.base.eval()
        try:
            with torch.no_grad():
                losses.append(self.losses(self.base, padded, supervised_only=False))
            with torch.set_grad_enabled(was_training), self.switched(is_packed):
                losses.append(self.losses(self.base, lean).detach())
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
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

    def losses(self, model: Any, batch: Batch, supervised_only: bool = True) -> "torch.Tensor":
        """The cross-entropy of each of a batch's `shift_labels`, in float32.

        `model` is the one of the constructor, or what wraps it, as DDP does. `supervised_only`: its output head is
        given the batch's `predictors` alone.
        """
        from torch.nn.functional import cross_entropy

        def predicting(positions: "torch.Tensor") -> "torch.Tensor":
            return positions.flatten(0, 1).index_select(0, batch["predictors"])

        # Both are kept: gradient checkpointing runs the layers again later.
        self._levels, self._masks = batch.get("levels", ()), {}
        inputs = {name: batch[name] for name in INPUTS if name in batch}
        if not supervised_only:
            logits = predicting(model(**inputs, use_cache=False).logits)
        else:
            head = self.base.get_output_embeddings()
            with head.register_forward_pre_hook(lambda _, hidden: (predicting(hidden[0]),)):
                logits = model(**inputs, use_cache=False).logits
        return cross_entropy(logits.float(), batch["shift_labels"], reduction="none")

    def attend(
        self, module: Any, query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", **options: Any
    ) -> "torch.Tensor":
        """The attention of a layer, level by level; query, key and value are (1, heads, tokens, size of a head)."""
        import torch

        if "sliding_window" not in options and getattr(module.config, "sliding_window", None):
            raise ValueError("its attention is not told its sliding window")
        parts = []
        for number, level in enumerate(self._levels):
            q, k, v = (_rectangles(x, level[of]) for x, of in ((query, "queries"), (key, "keys"), (value, "keys")))
            is_small = q.requires_grad and not q.is_cuda and q.shape[2] * k.shape[2] <= EAGER_SCORES
            inner = _attention("eager" if is_small else self.inner, module)
            window = options.get("sliding_window") or k.shape[2]
            # The first level is plainly causal, for which sdpa has better kernels than for a mask.
            is_plain = number == 0 and self.inner == "sdpa" and not is_small and q.shape[2] <= window
            visible = None if is_plain else self._mask(number, window, query.dtype)
            output = inner(module, q, k, v, visible, **options)[0]  # (segments, longest segment, heads, size of a head)
            parts.append(output.flatten(0, 1).index_select(0, level["kept"]))
        return torch.cat(parts)[None]

    def _mask(self, number: int, window: int, dtype: "torch.dtype") -> "torch.Tensor":
        """What is added to a level's scores, (segments, 1, queries, keys): 0 where a query sees a key, else the least
        number. It is the same in all layers of a kind."""
        import torch

        if (number, window) not in self._masks:
            level = self._levels[number]
            places = torch.arange(level["keys"].shape[1], dtype=torch.int32, device=level["keys"].device)
            behind = level["places"].int()[:, None, :, None] - places
            seen = (behind >= 0) & (behind < window)
            mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
            self._masks[number, window] = mask.masked_fill_(~seen, torch.finfo(dtype).min)
        return self._masks[number, window]


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


def _rectangles(x: "torch.Tensor", index: "torch.Tensor") -> "torch.Tensor":
    """(1, heads, tokens, size) and (segments, length) -> (segments, heads, length, size)."""
    heads, _, size = x[0].shape
    return x[0].index_select(1, index.flatten()).view(heads, *index.shape, size).transpose(0, 1)


def _attention(name: str, module: Any) -> Callable[..., Any]:
    """The attention function of that name; the eager one is in the file of each architecture."""
    from transformers import AttentionInterface

    if name == "eager":
        return sys.modules[type(module).__module__].eager_attention_forward  # type: ignore[no-any-return]
    return AttentionInterface()[name]  # type: ignore[no-any-return]
