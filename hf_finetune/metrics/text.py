"""Marks of free text. A row may have several accepted references: a reference is a text, or a sequence of texts.

A prediction of None, an unreadable answer, is the empty text to ROUGE, BLEU and chrF, and never an exact match.
A row with an empty sequence of references raises ValueError with the row's number from 1.
"""

import math
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sacrebleu.metrics.base

Reference = str | Sequence[str]

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")


def collapse_spaces(text: str) -> str:
    """The text without white space at its ends, and with one space for each run of it inside."""
    return " ".join(text.split())


def exact_match(
    references: Sequence[Reference],
    predictions: Sequence[str | None],
    normalise: Callable[[str], str] = collapse_spaces,
) -> float:
    """The share of answers that equal one of their references, both normalised, 0-1; 0 for no rows."""
    right = sum(
        given is not None and normalise(given) in map(normalise, wanted)
        for wanted, given in zip(_accepted(references), predictions, strict=True)
    )
    return right / len(references) if references else 0.0


def rouge(references: Sequence[Reference], predictions: Sequence[str | None]) -> dict[str, float]:
    """`rouge1`, `rouge2` and `rougeL`: F-measures meaned over rows, each of the best reference, 0-1; 0 for no rows.

    Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", through the rouge_score library, without its
    stemmer. That library sees the letters a-z and digits alone: text in another script gets 0.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(ROUGE_TYPES)
    rows = [scorer.score_multi(*row) for row in zip(_accepted(references), _texts(predictions), strict=True)]
    return {name: sum(float(row[name].fmeasure) for row in rows) / max(1, len(rows)) for name in ROUGE_TYPES}


def bleu(references: Sequence[Reference], predictions: Sequence[str | None]) -> float:
    """BLEU of all rows together as sacrebleu has it (13a tokens, up to four of them in a row), 0-1; 0 for no rows.

    Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation". It is 0 where no answer
    has four tokens: use `chrf` or `exact_match` for short ones.
    """
    from sacrebleu.metrics.bleu import BLEU

    # force: sacrebleu else warns of answers that look as if they were split into tokens, and marks them all the same.
    return _corpus_score(BLEU(force=True), references, predictions)


def chrf(references: Sequence[Reference], predictions: Sequence[str | None]) -> float:
    """chrF2 of all rows together as sacrebleu has it (up to six characters in a row), 0-1; 0 for no rows.

    Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation".
    """
    from sacrebleu.metrics.chrf import CHRF

    return _corpus_score(CHRF(), references, predictions)


def perplexity(losses: Sequence[float], tokens: Sequence[int]) -> float:
    """e to the mean loss of a token, 1 or more; infinite where that is more than a float holds.

    `losses` are each row's nats, summed over its gold completion, and `tokens` the number of tokens they are of.

    Raises:
        ValueError: for a loss that is not a number, or no tokens at all.
    """
    for number, (loss, count) in enumerate(zip(losses, tokens, strict=True), start=1):
        if math.isnan(loss) or count < 0:
            raise ValueError(f"row {number}: the loss of its {count} tokens is {loss}. Give nats and a count.")
    if sum(tokens) == 0:
        raise ValueError("there are no tokens. Perplexity is that of one token or more.")
    try:
        return math.exp(sum(losses) / sum(tokens))
    except OverflowError:
        return math.inf


def _corpus_score(
    metric: "sacrebleu.metrics.base.Metric", references: Sequence[Reference], predictions: Sequence[str | None]
) -> float:
    rows = list(zip(_accepted(references), _texts(predictions), strict=True))
    if not rows:
        return 0.0
    # The n-th references of all rows make one stream. sacrebleu leaves None out, and takes "" for an accepted text.
    streams = list(zip_longest(*(wanted for wanted, _ in rows)))
    percent: float = metric.corpus_score([given for _, given in rows], streams).score
    return min(1.0, percent / 100)  # a perfect BLEU is 100.00000000000004


def _accepted(references: Sequence[Reference]) -> list[list[str]]:
    """Each row's accepted texts, as a list also where there is one."""
    rows = [[reference] if isinstance(reference, str) else list(reference) for reference in references]
    for number, row in enumerate(rows, start=1):
        if not row:
            raise ValueError(f"row {number}: there is no reference. Give one accepted text or more.")
    return rows


def _texts(predictions: Sequence[str | None]) -> list[str]:
    return [given or "" for given in predictions]
