"""Credit memos: run it with `accelerate launch -m hf_finetune recipes/credit_memo.py`."""

from collections.abc import Sequence

from hf_finetune import LocalFile, Recipe, memo, register
from hf_finetune.demo import rows_file
from hf_finetune.memo import Borrower, Memo


@register("credit_memo")
class CreditMemo(Recipe[Borrower]):
    """Writes a credit memo on a borrower from its ratios: five fixed sections, and a rating as the last line.

    The rows that ship with it are invented: consistent accounts drawn at random, rated by the EM score (Altman 2005,
    "An emerging market credit scoring system for corporate bonds"), with memos written by rule. Rows of real companies
    with agencies' ratings go in through `--data`; a row may bring a memo of its own. A ratio that no company can have
    is told, left out of the question, and never repeated in a memo.

    Marks: `form`, the sections in order, none empty, the rating last; `faith`, every figure is an input or follows
    from two of them, to rounding; the rating, exact, within a letter and investment grade or not, where the row's is
    known. `sound` is form and faith and the exact rating.

    Limits: faith is about figures; that a sentence judges them well is not marked, nor that all of them are spoken of.
    The memos know ratios alone: no market, no owners, no collateral. A rating is a guess at a letter, an agency's with
    real rows, the score's with invented ones. A draft for an analyst, never a decision on credit.
    """

    base_model = "Qwen/Qwen2.5-1.5B-Instruct"
    dataset = LocalFile(str(rows_file("credit_memo")))
    license = "apache-2.0"
    primary_metric = "sound"
    hyperparameters = {"max_length": 1024}  # question and memo are 500-700 tokens

    def prompt(self, row: Borrower) -> str:
        return memo.prompt(row)

    def completion(self, row: Borrower) -> str:
        return memo.completion(row)

    def parse(self, text: str) -> Memo | None:
        return memo.read(text)

    def mark(self, row: Borrower, prediction: Memo | None) -> dict[str, float]:
        return memo.marks(row, prediction)

    def group(self, row: Borrower) -> str:
        return " ".join(row.name.casefold().split())

    def remarks(self, rows: Sequence[Borrower]) -> Sequence[str]:
        return memo.remarks(rows)
