"""A row and the memo written on it -> marks in 0-1: form, faith, rating."""

import re

from hf_finetune.memo.faith import findings
from hf_finetune.memo.rating import NOT_RATED, is_investment_grade, notches
from hf_finetune.memo.reading import Memo
from hf_finetune.memo.row import SECTIONS, Borrower, known_rating

FEWEST_WORDS = 3
"""A section with fewer is empty: `None.`, `N/A`, `To be done`."""
TOO_SHORT = f", or has fewer than {FEWEST_WORDS} words"


def marks(row: Borrower, memo: Memo | None) -> dict[str, float]:
    """All marks of one memo; those on the rating only where the row's is known. None is an unreadable memo.

    `form`: the five sections in order, none empty, the rating last. `supported_figures`: the share of the figures that
    are inputs or follow from two, 0 where there is no figure, for such a memo analyses nothing; `faith`: whether that
    is all of them. `sound`: form, faith, and the right rating where one is known.
    """
    supported = 0.0 if memo is None else _supported(row, memo)
    form, faith = float(not form_faults(memo)), float(supported == 1)
    rating = _rating_marks(row, memo)
    sound = form * faith * rating.get("rating_exact", 1.0)
    return {"sound": sound, "form": form, "faith": faith, "supported_figures": supported, **rating}


def _supported(row: Borrower, memo: Memo) -> float:
    found = findings(row, memo.text)
    return sum(one.fault is None for one in found) / len(found) if found else 0.0


def _rating_marks(row: Borrower, memo: Memo | None) -> dict[str, float]:
    truth = known_rating(row)
    if truth is None:
        return {}
    said = None if memo is None or memo.rating == NOT_RATED else memo.rating
    return {
        "rating_exact": float(said == truth),
        "rating_within_one_notch": float(said is not None and notches(said, truth) <= 1),
        "investment_grade": float(said is not None and is_investment_grade(said) == is_investment_grade(truth)),
    }


def form_faults(memo: Memo | None) -> list[str]:
    """What is wrong with a memo's form, in words."""
    if memo is None:
        return [f"it has no section; it must have {', '.join(SECTIONS)}"]
    headings = [section.heading for section in memo.sections]
    faults = [f"section {name!r} is missing" for name in SECTIONS if name not in headings]
    faults += [f"{name!r} is none of the sections" for name in headings if name and name not in SECTIONS]
    faults += ["there is text above the first section"] if "" in headings else []
    if not faults and headings != list(SECTIONS):
        faults.append(f"the sections are {', '.join(headings)}; they must be {', '.join(SECTIONS)}, in that order")
    faults += [
        f"section {section.heading!r} is empty{TOO_SHORT}" for section in memo.sections if _is_empty(section.body)
    ]
    return faults + (["the last line is no rating line, or two of them disagree"] if memo.rating is None else [])


def _is_empty(body: str) -> bool:
    return len(re.findall(r"[^\W_]+", body)) < FEWEST_WORDS


def faults(row: Borrower, memo: Memo | None) -> list[str]:
    """All that keeps a memo from full marks, in words: for people, and for rows that bring a memo of their own."""
    found = form_faults(memo)
    if memo is None:
        return found
    figures = findings(row, memo.text)
    found += [] if figures else ["it has no figures"]
    found += [f"{one.figure!r} is not supported: {one.fault}" for one in figures if one.fault]
    if _rating_marks(row, memo).get("rating_exact") == 0:
        found.append(f"its rating is {memo.rating}, that of the row {known_rating(row)}")
    return found
