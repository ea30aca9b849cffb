"""A training step by formula, for models whose code cannot be run on tensors without content (mixtures of experts)."""

from collections.abc import Sequence

from hf_finetune.estimate.lengths import Row
from hf_finetune.estimate.shape import Shape
from hf_finetune.estimate.steps import Kind, Layers, Step, Steps
from hf_finetune.packing import NO_LOSS

KERNELS = 300
"""Of a layer, forward and backward, as counted in a Llama with an adapter on each linear layer."""
LOGITS_BYTES = 12
"""Of a logit while the loss goes back: its logarithm of softmax, and two gradients, in float32."""


def formula_steps(shape: Shape, kind: Kind, rows: Sequence[Row]) -> Steps:
    """The step of a batch of those rows, after what a Llama keeps for its backward pass.

    For each token a layer keeps the input of both norms in float32, of each linear layer in the precision that is
    computed in (with the mask of its dropout), query, key, value and output of the attention, and three times the
    intermediate size (Korthikanti et al., arXiv:2205.05198, section 4.1, for other layers).
    """
    lengths = [len(row["input_ids"]) for row in rows]
    tokens = sum(lengths) if kind.is_packed else len(rows) * max(lengths)
    labels = sum(label != NO_LOSS for row in rows for label in row["labels"])
    size, active = kind.dtype.itemsize, _experts_used(shape)
    wide, inner = shape.hidden, shape.intermediate * active
    query, key = shape.heads * shape.head_size, 2 * shape.kv_heads * shape.head_size
    kept = tokens * (8 * wide + size * (2 * query + key + 3 * inner) + (size + 1) * (5 * wide + query + inner))
    parameters = wide * (2 * query + key) + 3 * wide * inner
    passes = 3 if kind.is_full else 2
    scores = sum(length * length / 2 for length in lengths) * query * 2 * 2 * 3.5
    flops = 2 * passes * tokens * parameters + scores
    moved = 3.0 * kept
    logits = LOGITS_BYTES * labels * shape.vocabulary
    head = Step(logits, logits, 2 * 2 * labels * wide * shape.vocabulary, 2 * logits, 50)
    layer = Step(kept, kept, flops, moved, KERNELS)
    again = Step(size * tokens * wide, size * tokens * wide, flops * (1 + 1 / passes), moved * 1.3, KERNELS * 1.4)
    checkpointed = Layers(head + layer + again * 0.1, again)
    return Steps(shape.num_layers, tokens, Layers(head + layer, layer), lambda: checkpointed)


def _experts_used(shape: Shape) -> int:
    """How many experts a token goes through; one where there are none."""
    text = shape.config.get_text_config()
    return int(getattr(text, "num_experts_per_tok", None) or 1) if shape.is_mixture else 1
