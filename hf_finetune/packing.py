"""Rows -> a batch in which they lie end to end: no padding, and what rows begin with stands there once."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

NO_LOSS = -100
"""The label of a token that no loss is taken of, as transformers has it."""

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

    needed = [max((n for n, label in enumerate(own) if label != NO_LOSS), default=0) for own in labels]
    if not any(needed):
        needed[0] = 1  # a batch is not empty
    laid = _Layout(beginning, rows, needed)
    supervised = [
        (path[place - 1], label, row)
        for row, (path, own) in enumerate(zip(laid.paths, labels, strict=True))
        for place, label in enumerate(own)
        if place and label != NO_LOSS
    ]
    predicting, targets, of_rows = torch.tensor(supervised, dtype=torch.long).reshape(-1, 3).unbind(1)
    predictors, predicted_from = torch.unique(predicting, return_inverse=True)
    start = range(laid.common)
    return {
        "input_ids": torch.tensor([laid.tokens]),
        "position_ids": torch.tensor([laid.positions]),
        "predictors": predictors,
        "shift_labels": targets,
        "predicted_from": predicted_from,
        "rows": of_rows,
        "trees": (_tree(0, [start], [laid.common for _ in start]), _tree(laid.common, laid.branches, laid.ends)),
    }


class _Layout:
    """Rows of segments as one sequence of tokens: a tree in depth-first order, its rows cut to what is `needed`."""

    def __init__(
        self, beginning: Sequence[int], rows: Sequence[Sequence[Sequence[int]]], needed: Sequence[int]
    ) -> None:
        self.rows = [[segment for segment in row if segment] for row in rows]
        self.needed = needed
        self.tokens = list(beginning[: max(needed)])
        self.common = len(self.tokens)
        self.positions = list(range(self.common))
        """Of each token, its place in its rows."""
        self.ends = [0] * self.common
        """Of each token, the first one after it that it does not lead to."""
        self.paths = [list(range(self.common)) for _ in rows]
        """The tokens of each row."""
        self.branches = [branch for branch in self._add(range(len(rows)), 0) if branch]

    def _add(self, some: Iterable[int], depth: int) -> list[range]:
        """Adds the segments from that depth on of rows that are one up to there; the tokens of each of its branches."""
        alike: dict[tuple[int, ...], list[int]] = {}
        for row in some:
            if depth < len(self.rows[row]):
                segment = tuple(self.rows[row][depth][: max(0, self.needed[row] - len(self.paths[row]))])
                alike.setdefault(segment, []).append(row)
        added = []
        for segment, own in alike.items():
            start, before = len(self.tokens), self.paths[own[0]]
            self.tokens += segment
            self.positions += range(len(before), len(before) + len(segment))
            self.ends += segment  # until what comes below it is there
            for row in own:
                self.paths[row] = [*before, *range(start, len(self.tokens))]
            self._add(own, depth + 1)
            self.ends[start : start + len(segment)] = [len(self.tokens)] * len(segment)
            added.append(range(start, len(self.tokens)))
        return added


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
