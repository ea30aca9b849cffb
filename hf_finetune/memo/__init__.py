"""Credit memos: rows, the memo written from them, and marks for form, faith to the figures, and rating."""

from hf_finetune.memo.faith import Finding, findings
from hf_finetune.memo.marks import faults, form_faults, marks
from hf_finetune.memo.rating import NOT_RATED, RATINGS, em_score, rating_letter, rating_of_score
from hf_finetune.memo.reading import Memo, Section, read
from hf_finetune.memo.remarks import remarks
from hf_finetune.memo.row import SECTIONS, Borrower, prompt
from hf_finetune.memo.writing import completion, write

__all__ = [
    "NOT_RATED",
    "RATINGS",
    "SECTIONS",
    "Borrower",
    "Finding",
    "Memo",
    "Section",
    "completion",
    "em_score",
    "faults",
    "findings",
    "form_faults",
    "marks",
    "prompt",
    "rating_letter",
    "rating_of_score",
    "read",
    "remarks",
    "write",
]
