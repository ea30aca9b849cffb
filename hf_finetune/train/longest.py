"""Which batch of a training needs the most memory, as far as its rows decide that."""

from collections.abc import Callable, Iterable, Sequence
from heapq import nlargest
from typing import TYPE_CHECKING, Any

from hf_finetune.packing import NO_LOSS, Batch, shared_start

if TYPE_CHECKING:
    from hf_finetune.train.batches import Pieces

LAID_OUT = 16
"""So many batches are laid out at most, the likeliest first: what rows share is only seen then."""

Numbers = Sequence[int]


class Needs:
    """About how many bytes the activations of a model need for rows: laid out, or at most, by their lengths alone."""

    def __init__(self, model: Any, pieces: "Pieces", shares_prefix: bool, pads: bool, all_logits: bool) -> None:
        config = model.config.get_text_config()
        self.pieces, self.pads, self.all_logits = pieces, pads, all_logits
        self.vocabulary: int = config.vocab_size
        self.layers_width: int = config.num_hidden_layers * config.hidden_size
        # The kernels of a GPU keep no scores for the backward pass.
        has_scores = model.device.type == "cpu" or config._attn_implementation == "eager"
        heads = getattr(config, "num_attention_heads", 0)  # a Mamba has none
        self.score_rows: int = config.num_hidden_layers * heads if has_scores else 1
        self.lengths = [len(row["input_ids"]) for row in pieces.rows]
        self.labels = [sum(label != NO_LOSS for label in row["labels"]) for row in pieces.rows]
        ids = [list(row["input_ids"]) for row in pieces.rows[:-1]]
        self.shared = shared_start(ids) if shares_prefix and not pads else 0

    def at_most(self, numbers: Numbers) -> float:
        """What the rows need where they share nothing but the beginning that all rows have."""
        lengths = [self.lengths[number] for number in numbers]
        longest = max(lengths)
        own = [longest if self.pads else length - self.shared for length in lengths]
        tokens = self.shared + sum(own)
        scores = self.shared**2 + len(own) * max(own) * longest
        labels = tokens if self.all_logits else sum(self.labels[number] for number in numbers)
        return self._bytes(tokens, scores, labels)

    def laid_out(self, numbers: Numbers) -> float:
        """What they need as the batch that they make."""
        batch = self.pieces.collate([self.pieces.rows[number] for number in numbers])
        rows, length = batch["input_ids"].shape
        scores = rows * length**2
        if "trees" in batch:
            trees = [(tree["tokens"], tree["common"]) for tree in batch["trees"]]
            scores = sum(tokens.numel() * (common + tokens.shape[-1]) for tokens, common in trees)
        return self._bytes(rows * length, scores, self._num_logits(batch, rows * length))

    def _num_logits(self, batch: Batch, tokens: int) -> int:
        return tokens if self.all_logits or "predictors" not in batch else len(batch["predictors"])

    def _bytes(self, tokens: int, scores: int, logits: int) -> float:
        """34 a token and element of its state, 5 a score (arXiv:2205.05198, section 4.1); about 10 a logit."""
        return 34 * self.layers_width * tokens + 5 * self.score_rows * scores + 10 * self.vocabulary * logits


def neediest(
    batches: Iterable[Numbers], at_most: Callable[[Numbers], float], laid_out: Callable[[Numbers], float]
) -> Numbers:
    """The one of the batches that needs the most; the first of those alike, none where there are none.

    Batches are only laid out as long as one that was may still be outdone.
    """
    found: Numbers = ()
    most = -1.0
    for batch in nlargest(LAID_OUT, batches, key=at_most):
        if at_most(batch) <= most:
            break
        if (own := laid_out(batch)) > most:
            found, most = batch, own
    return found
