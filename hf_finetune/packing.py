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
    """One sequence of token ids for rows that all begin alike and then are given as segments.

    A row is the tokens of `beginning` and of its segments one after another, and sees only them; `labels[i]` has a
    label for each of its tokens, -100 where no loss is taken. The beginning stands in the sequence once, and so do the
    first segments of rows in which these are equal: the packed tokens are a tree in depth-first order. What comes after
    the last token that a label is predicted from is left out.

    Returns:
        `input_ids` and `position_ids`, (1, tokens); `predictors`: the packed tokens that a label is predicted from;
        `shift_labels`, (supervised,), and `predicted_from` and `rows`, of the same shape: which predictor each is
        predicted from, and the row it is of; `trees`: the beginning, and what follows it, as the attention sees them.
    """
    import torch

    rows = [[segment for segment in row if segment] for row in rows]
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
        "trees": (_tree(0, [range(common)], [common] * common), _tree(common, branches, ends)),
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


def _tree(common: int, branches: Sequence[range], ends: Sequence[int]) -> Tree:
    """What the attention needs for packed tokens that fall apart into branches which see nothing of each other.

    The branches are padded to a rectangle there, and nowhere else. A token sees all of the `common` tokens before the
    first branch, and the tokens of its own branch that lead to it. Two rows `a b c` and `a b d`, and a row `e`:

        tokens  0 1 2 3 | 4      what stands there: a b c d | e
        ends    4 4 3 4 | 5      c ends before d, so d does not see it; a and b go on to the end of the branch

    Returns:
        `common`; `tokens`, (branches, longest branch): the numbers of those of each branch, the first of all branches
        being 0, with the branch's first for padding; `ends`, of the same shape: the first token after each that it does
        not lead to, 0 for padding; `kept`: which of the flattened tokens are no padding; `is_causal`: there are no
        common tokens, and each token leads to all that come after it in its branch.
    """
    import torch

    longest = max(map(len, branches), default=0)

    def rectangle(values: Iterable[Sequence[int]]) -> "torch.Tensor":
        return torch.tensor([list(own) for own in values], dtype=torch.long)

    return {
        "common": common,
        # Padding that sees nothing would give a softmax without a number in float16.
        "tokens": rectangle(
            [token - common for token in (*own, *[own.start] * (longest - len(own)))] for own in branches
        ),
        "ends": rectangle([*(ends[token] - common for token in own), *[0] * (longest - len(own))] for own in branches),
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
        """Inside, what all batches begin with is computed with the first of them only.

        For packed batches with one and the same beginning, from which no label is predicted, and without gradients.
        """
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
