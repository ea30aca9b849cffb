"""Financial sentiment: run it with `accelerate launch -m hf_finetune recipes/finsent.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hf_finetune import HubDataset, Recipe, register
from hf_finetune.metrics import accuracy, macro_f1

LABELS = ("negative", "neutral", "positive")


@dataclass(frozen=True)
class Sentence:
    """One row: a sentence of financial news and what it means for the company's share price."""

    sentence: str
    label: Literal["negative", "neutral", "positive"]


@register("finsent")
class FinancialSentiment(Recipe[Sentence]):
    """Says whether a sentence of financial news is good, bad or neither for the company's share price.

    The data are the Financial PhraseBank (Malo et al. 2014): sentences of English news on companies, marked by 5 to 8
    people with a background in finance; the rows used are those on which at least half of them agreed.

    Limits: single sentences about mostly Nordic companies, written before 2014. It reads no tables, no irony and no
    second sentence, it is no forecast of a price, and the licence of the data forbids commercial use.
    """

    base_model = "Qwen/Qwen2.5-1.5B-Instruct"
    dataset = HubDataset(
        "takala/financial_phrasebank",
        file="data/FinancialPhraseBank-v1.0.zip",
        member="FinancialPhraseBank-v1.0/Sentences_50Agree.txt",
    )
    license = "cc-by-nc-sa-3.0"
    primary_metric = "macro_f1"  # accuracy would reward calling everything neutral
    hyperparameters = {"max_length": 256}  # sentences are short

    def prompt(self, row: Sentence) -> str:
        return f"Is this news negative, neutral or positive for the company's share price?\n\n{row.sentence}"

    def completion(self, row: Sentence) -> str:
        return row.label

    def choices(self, row: Sentence) -> Sequence[str]:
        return LABELS

    def parse(self, text: str) -> str | None:
        answer = text.strip().strip(".").lower()
        return answer if answer in LABELS else None

    def score(self, rows: Sequence[Sentence], predictions: Sequence[str | None]) -> dict[str, float]:
        gold = [row.label for row in rows]
        return {"accuracy": accuracy(gold, predictions), "macro_f1": macro_f1(gold, predictions)}
