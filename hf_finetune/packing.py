"""Rows laid end to end: no padding, and a beginning that rows share is computed once, with gradients."""

import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
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
Tree = dict[str, Any]


def pack(beginning: Sequence[int], rows: Sequence[Sequence[Sequence[int]]], labels: Sequence[Sequence[int]]) -> Batch:
    """One sequence of token ids for rows that begin alike and then are given as segments; nothing stands in it twice.

    A row is the tokens of `beginning` and of its segments one after another, and sees only them; `labels[i]` has a
    label for each of its tokens, -100 where no loss is taken. Rows whose first segments are equal share these too: the
    packed tokens are a tree in depth-first order. What comes after the last token that a label is predicted from is
    left out.

    Returns:
        `input_ids` and `position_ids`, (1, tokens); `predictors`: the packed tokens that a label is predicted from;
        `shift_labels`, (supervised,), and `predicted_from` and `rows`, of the same shape: which predictor each is
        predicted from, and the row it is of; `trees`: the beginning, and what follows it, as the attention sees them.
    """
    import torch

    needed = [max((n for n, label in enumerate(own) if label != NO_LOSS), default=0) for own in labels]
    if not any(needed):
        needed[0] = 1  # a batch is not empty
    tokens = list(beginning[: max(needed)])
    common = len(tokens)
    positions = list(range(common))
    paths = [list(positions) for _ in rows]
    ends = [0] * common
    branches: list[range] = []

    def add(some: Iterable[int], depth: int) -> None:
        """Adds the segments from that depth on of rows that are one up to there."""
        alike: dict[tuple[int, ...], list[int]] = {}
        for row in some:
            if depth < len(rows[row]):
                segment = tuple(rows[row][depth][: max(0, needed[row] - len(paths[row]))])
                alike.setdefault(segment, []).append(row)
        for segment, own in alike.items():
            start, before = len(tokens), paths[own[0]]
            tokens.extend(segment)
            positions.extend(range(len(before), len(before) + len(segment)))
            ends.extend([0] * len(segment))
            for row in own:
                paths[row] = [*before, *range(start, len(tokens))]
            add(own, depth + 1)
            ends[start : start + len(segment)] = [len(tokens)] * len(segment)
            if depth == 0 and len(tokens) > start:
                branches.append(range(start, len(tokens)))

    add(range(len(rows)), 0)
    supervised = [
        (path[place - 1], label, row)
        for row, (path, own) in enumerate(zip(paths, labels, strict=True))
        for place, label in enumerate(own)
        if place and label != NO_LOSS
    ]
    predicting, targets, of_rows = torch.tensor(supervised, dtype=torch.long).reshape(-1, 3).unbind(1)
    predictors, predicted_from = torch.unique(predicting, return_inverse=True)
    return {
        "input_ids": torch.tensor([tokens]),
        "position_ids": torch.tensor([positions]),
        "predictors": predictors,
        "shift_labels": targets,
        "predicted_from": predicted_from,
        "rows": of_rows,
        "trees": (
            _tree(0, [range(common)], positions, [common] * common),
            _tree(common, branches, positions, ends),
        ),
    }


def shared_start(sequences: Sequence[list[int]]) -> int:
    """How many tokens all the sequences begin with; the first and the last in order differ the soonest."""
    first, last = min(sequences), max(sequences)
    return next(
        (place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first)
    )


def supervised(batch: Batch) -> Batch:
    """A padded batch with what `pack` gives for the loss, of its rows end to end."""
    import torch

    labels = torch.nn.functional.pad(batch["labels"], (0, 1), value=NO_LOSS)[:, 1:].flatten()
    predictors = (labels != NO_LOSS).nonzero().flatten()
    return batch | {
        "predictors": predictors,
        "shift_labels": labels[predictors],
        "predicted_from": torch.arange(len(predictors), device=predictors.device),
        "rows": predictors // batch["labels"].shape[1],
    }


def _tree(common: int, branches: Sequence[range], positions: Sequence[int], ends: Sequence[int]) -> Tree:
    """What the attention needs for packed tokens that fall apart into branches which see nothing of each other.

    The branches are padded to a rectangle there, and nowhere else. A token sees all of the `common` tokens before the
    first branch, and those before it in its branch which do not end before it.

    Returns:
        `common`; `tokens`, (branches, longest branch): those of each branch, counted from the first branch on; `places`
        and `ends`, of the same shape: a token's position in its row, and the first token that is not below it, 0 for
        padding; `kept`: which of the flattened tokens are no padding; `is_causal`: a token sees just those before it.
    """
    import torch

    longest = max(map(len, branches), default=0)

    def rectangle(values: Iterable[Sequence[int]]) -> "torch.Tensor":
        return torch.tensor([[*own, *[0] * (longest - len(own))] for own in values], dtype=torch.long)

    return {
        "common": common,
        "tokens": rectangle(range(own.start - common, own.stop - common) for own in branches),
        "places": rectangle(positions[own.start : own.stop] for own in branches),
        "ends": rectangle([end - common for end in ends[own.start : own.stop]] for own in branches),
        "kept": torch.tensor([n * longest + i for n, own in enumerate(branches) for i in range(len(own))]).long(),
        "is_causal": not common and all(ends[token] == own.stop for own in branches for token in own),
    }


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

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Inside, without gradients, batches have one beginning, and it is computed with the first of them only."""
        self._remembered = {}
        try:
            yield
        finally:
            self._remembered = None

    def losses(self, model: Any, batch: Batch, supervised_only: bool = True) -> "torch.Tensor":
        """The cross-entropy of each of a batch's `shift_labels`, in float32.

        `model` is the one of the constructor, or what wraps it, as DDP does. `supervised_only`: its output head is
        given the batch's `predictors` alone.
        """
        # Both are kept: gradient checkpointing runs the layers again later.
        self._trees, self._masks = batch.get("trees", ()), {}
        known = self._trees[1]["common"] if self._remembered else 0
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
        (start, branches), parts = self._trees, []
        common = branches["common"]
        if self._remembered and module in self._remembered:
            seen_by_all = self._remembered[module]
        else:
            (first, query), *halves = ((x[:, :, :common], x[:, :, common:]) for x in (query, key, value))
            seen_by_all, (key, value) = zip(*halves, strict=True)
            if common:
                parts.append(self._attend_in(start, module, first, *seen_by_all, **options))
            if self._remembered is not None:
                self._remembered[module] = [x.clone() for x in seen_by_all]
        if query.shape[2]:
            q, *own = (_rectangle(x, branches["tokens"]) for x in (query, key, value))
            if common:
                starts = [x.expand(len(q), -1, -1, -1) for x in seen_by_all]
                own = [torch.cat(halves, 2) for halves in zip(starts, own, strict=True)]
            parts.append(self._attend_in(branches, module, q, *own, **options))
        return torch.cat(parts)[None]

    def _attend_in(
        self, tree: Tree, module: Any, q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", **options: Any
    ) -> "torch.Tensor":
        """One call of the attention that the model was loaded with; the result is (tokens, heads, size of a head)."""
        is_small = q.requires_grad and not q.is_cuda and q.shape[2] * k.shape[2] <= EAGER_SCORES
        inner = _attention("eager" if is_small else self.inner, module)
        window = options.get("sliding_window") or k.shape[2]
        # sdpa has better kernels for what is plainly causal than for a mask.
        is_plain = tree["is_causal"] and self.inner == "sdpa" and not is_small and q.shape[2] <= window
        mask = None if is_plain else self._mask(tree, window, q.dtype)
        output: torch.Tensor = inner(module, q, k, v, mask, **options)[0]
        return output.flatten(0, 1).index_select(0, tree["kept"])

    def _mask(self, tree: Tree, window: int, dtype: "torch.dtype") -> "torch.Tensor":
        """What is added to a tree's scores, (branches, 1, queries, keys): 0 where a query sees a key, else the least
        number. It is the same in all layers of a kind."""
        import torch

        tokens, places, common = tree["tokens"], tree["places"], tree["common"]
        key = common, window
        if key not in self._masks:
            seen = (tokens[:, None] <= tokens[:, :, None]) & (tokens[:, :, None] < tree["ends"][:, None])
            seen = torch.nn.functional.pad(seen, (common, 0), value=True)
            before = torch.arange(common, device=places.device).expand(len(places), -1)
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
