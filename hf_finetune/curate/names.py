"""What --keep, --drop, --region and --language may name: a misspelt word is told before hours of work, not after."""

import re
from collections.abc import Sequence

from hf_finetune.curate.settling import Fate
from hf_finetune.errors import RecipeError, nearest

CHECKS = frozenset(
    """
    ai_disclaimer bracketed_placeholder broken_csv broken_json comment_line control_character different_questions
    duplicate_column empty_answer empty_prompt first_turn last_turn lost_character mis_decoded missing_column
    missing_turn mixed_types new_label no_label no_rating not_an_object not_read not_turns personal_data placeholder
    prompt_injection ragged_row repeats_prompt role_order same_answers special_token template_leftover too_long
    truncated_answer uneven_pair unknown_label unknown_role unsupported_content very_short_answer
    """.split()
) | {fate.check for fate in Fate if fate not in (Fate.KEPT, Fate.NOT_DRAWN)}
"""All that may be found in a row, or in a row beside others."""
SPECIAL_LANGUAGES = ("code", "multilingual")


def check_names(option: str, names: Sequence[str]) -> None:
    """Whether each name is that of a check.

    Raises:
        RecipeError: when one is not.
    """
    for name in names:
        if name not in CHECKS:
            raise RecipeError(f"{option} {name}: there is no such check. {nearest(name, CHECKS)}")


def check_region(region: str | None) -> None:
    """Whether it is a country whose telephone numbers are known; with another one none would be found.

    Raises:
        RecipeError: when it is not.
    """
    if region is not None:
        from phonenumbers import SUPPORTED_REGIONS

        if region not in SUPPORTED_REGIONS:
            raise RecipeError(f"--region {region}: is no country. Write it in two capital letters, such as DE.")


def check_languages(languages: Sequence[str]) -> None:
    """Whether each could be a language on a card of the Hub.

    Raises:
        RecipeError: when one could not.
    """
    for one in languages:
        if one not in SPECIAL_LANGUAGES and not re.fullmatch("[a-z]{2,3}", one):
            raise RecipeError(f"--language {one}: is no code of a language. Write two or three letters, such as en.")
