"""Marks of several answers to one prompt, drawn by sampling."""

import math
from collections.abc import Sequence


def pass_at_k(num_samples: Sequence[int], num_correct: Sequence[int], k: int) -> float:
    """The chance that at least one of k answers to a prompt is right, meaned over prompts, 0-1; 0 for no rows.

    Each prompt has `num_samples` answers, `num_correct` of them right. The unbiased estimate of Chen et al. 2021,
    "Evaluating Large Language Models Trained on Code" (arXiv:2107.03374), section 2.1: of all sets of k answers the
    share that holds a right one.

    Raises:
        ValueError: when k is below 1 or above a row's number of answers, or more are right than there are.
    """
    if k < 1:
        raise ValueError(f"k is {k}. It must be 1 or more.")
    chances = []
    for number, (samples, correct) in enumerate(zip(num_samples, num_correct, strict=True), start=1):
        if k > samples:
            raise ValueError(f"row {number}: k is {k}, and there are {samples} answers. Draw more, or lower k.")
        if not 0 <= correct <= samples:
            raise ValueError(f"row {number}: {correct} of {samples} answers cannot be right.")
        chances.append(1 - math.comb(samples - correct, k) / math.comb(samples, k))
    return sum(chances) / len(chances) if chances else 0.0
