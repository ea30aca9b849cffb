"""What a text may hold that it should not: placeholders, special tokens, broken characters, personal data."""

import re
from collections import Counter
from collections.abc import Iterator

from hf_finetune.data.cleaning import CONTROL, MIS_DECODED, has_control
from hf_finetune.data.personal import MASKS, personal_data
from hf_finetune.data.samples import Finding

CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`|<(?:script|style|template)\b.*?(?:</|\Z)", re.S)
DOUBLE = re.compile(r"\{\{\s*[A-Za-z_][\w. -]{0,40}\s*\}\}")
SINGLE = re.compile(
    r"\{(?<![\w${\\(=\[\"']\{)"
    r"(?:(?:(?:user|first|last|full|your|company|customer|product|author|bot|assistant|model|agent)[_ ]?)?name|author|"
    r"company|customer|username|topic|question|context|input|instruction|answer|date|city|country|product)\}(?![\w}])",
    re.I,
)
"""A name in braces that only a placeholder has: set notation and code have others."""
TEMPLATING = re.compile(
    r"jinja|templat|placeholder|handlebars|mustache|\bvue\b|angular|latex|\bliquid\b|\bf-?strings?\b|format\(|\bhelm\b|"
    r"ansible|"
    r"github actions|bibtex|\$\{|\\begin|\bf[\"']|</\w|\bdef |\bfunction\b|\bclass \w+|=>",
    re.I,
)
"""Words of texts in which braces are what is written about."""
BRACKETED = re.compile(
    r"\[(?:(?:insert|your|enter)\b[^\]\n]{0,60}|(?:TODO|TBD|PLACEHOLDER|FIXME)\b[^\]\n]{0,40})\]|"
    r"<(?:your|insert|enter)[ _-][\w -]{1,40}>",
    re.I,
)
SPECIAL_BEGINS = (
    "<|", "<｜", "INST]", "<<SYS", "<</SYS", "_of_turn>", "<bos>", "<eos>", "<pad>", "<unk>", "<mask>",
    "[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]",
)  # fmt: skip
SPECIAL = re.compile(
    r"<\|[a-z_0-9]{2,40}\|>|<｜[\w▁ ]{2,40}｜>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk|mask)>|"
    r"\[(?:CLS|SEP|PAD|MASK|UNK)\]"
)
"""What chat templates and tokenizers write themselves."""
ROLE_MARK = re.compile(
    r"^(?:###\s*(?:Instruction|Response|Input|Human|Assistant|User|System)\s*:|(?:Human|USER|ASSISTANT)\s*:\s)", re.M
)
INJECTION = re.compile(
    r"\b(?:ignore|disregard|forget)\s+(?:all\s+)?(?:of\s+)?(?:the\s+|your\s+|any\s+|my\s+)?"
    r"(?:previous|prior|above|earlier|preceding)\s+(?:instruction|prompt|message|direction|command)s?\b|"
    r"\b(?:reveal|print|repeat) (?:your|the) system prompt\b",
    re.I,
)
DISCLAIMER = re.compile(
    r"\bas an ai(?: language model| assistant| model|-powered|,)|\bi(?:'|’| a)m (?:just|only) an ai\b|"
    r"\bas a (?:large )?language model\b",
    re.I,
)
UNKNOWN = "\ufffd"
NOTHING = ("none", "n/a", "na", "todo", "tbd", "null", "undefined", "-", "--", "?", "...", "…", ".")
CELL_ERRORS = ("nan", "#n/a", "#ref!", "#value!", "#div/0!", "#name?", "#null!", "#num!", "<na>", "nat")
MIDDLE = re.compile(
    r"(?:,|\b(?:and|or|the|an|of|to|with|for|in|is|are|was|that|which|by|from|as|at|because|"
    r"und|oder|der|die|das|et|le|la|les|de))\Z"
)
LIST_ITEM = re.compile(r"\s*(?:[-*•–+|#>]|\(?\w{1,3}[.):])\s*\S")


def faults_of_text(text: str, has_personal: bool = True, region: str | None = None) -> Iterator[Finding]:
    """What is wrong with one text; messages go on after the words for its place.

    Each pattern is tried only on texts that have a sign or a word of it: looking for that is a hundred times as fast.
    """
    if "{" in text:
        yield from _placeholders(text)
    if "[" in text or "<" in text:
        yield from _brackets(text)
    yield from _leftovers(text)
    yield from _characters(text)
    if has_personal:
        yield from _personal(text, region)


def _placeholders(text: str) -> Iterator[Finding]:
    """`placeholder`."""
    if not (DOUBLE.search(text) or SINGLE.search(text)):
        return
    prose = CODE.sub(" ", text)
    found = None if TEMPLATING.search(prose) else DOUBLE.search(prose) or SINGLE.search(prose)
    if found:
        what = f"holds a placeholder that nobody filled in: {found.group()!r}."
        yield Finding("placeholder", True, what, "Put the value in its place, in all rows.")


def _brackets(text: str) -> Iterator[Finding]:
    """`bracketed_placeholder`, which letters to fill in have rightly; `special_token`, which ends a turn anywhere."""
    if bracketed := BRACKETED.search(text):
        what = f"holds what looks like a placeholder: {bracketed.group()!r}."
        yield Finding("bracketed_placeholder", False, what, "Fill it in, unless the text is a form.")
    found = SPECIAL.search(text) if any(begin in text for begin in SPECIAL_BEGINS) else None
    if special := found.group() if found else _end_of_text(text):
        what = f"holds {special!r}, a special token of a chat template."
        yield Finding("special_token", True, what, "Take it out: the template writes its own.")


def _end_of_text(text: str) -> str:
    """<s> or </s> where it is no pair of HTML's."""
    opened, closed = text.count("<s>"), text.count("</s>")
    begins, ends = text.lstrip().startswith("<s>"), text.rstrip().endswith("</s>")
    if (ends and opened < closed) or "</s><s>" in text:
        return "</s>"
    return "<s>" if begins and (opened > closed or (ends and opened == 1)) else ""


def _leftovers(text: str) -> Iterator[Finding]:
    """`template_leftover`, `prompt_injection`, `ai_disclaimer`."""
    may_be_mark = "###" in text or "Human:" in text or "USER:" in text or "ASSISTANT:" in text
    if may_be_mark and (found := ROLE_MARK.search(text)):
        what = f"holds {found.group().strip()!r}: a template's mark inside a text."
        yield Finding("template_leftover", False, what, "Split it into turns, or take the mark out.")
    small = text.lower()
    may_inject = "ignore" in small or "disregard" in small or "forget" in small or "system prompt" in small
    if may_inject and (found := INJECTION.search(text)):
        what = f"holds {found.group()!r}: a prompt injection."
        yield Finding("prompt_injection", False, what, "Drop the row, unless injections are what is to be learnt.")
    if ("an ai" in small or "language model" in small) and (found := DISCLAIMER.search(text)):
        what = f"holds {found.group()!r}: what another model says of itself."
        yield Finding("ai_disclaimer", False, what, "Drop the row, or rewrite the answer.")


def _characters(text: str) -> Iterator[Finding]:
    """`control_character`, `lost_character`, `mis_decoded`."""
    if has_control(text) and (found := CONTROL.search(text)):
        what = f"holds the control character U+{ord(found.group()):04X}."
        yield Finding("control_character", True, what, "Take it out; --fix more does.")
    if text.isascii():
        return
    if UNKNOWN in text:
        what = f"holds U+FFFD, a character that was lost: {_around(text, text.index(UNKNOWN))!r}."
        yield Finding("lost_character", False, what, "Read its source again in the right encoding.")
    elif MIS_DECODED.search(text):
        from ftfy.badness import BADNESS_RE

        if bad := BADNESS_RE.search(text):
            what = f"holds mis-decoded text: {_around(text, bad.start())!r}."
            yield Finding("mis_decoded", True, what, "Read its source in the right encoding; --fix more repairs it.")


def _around(text: str, at: int) -> str:
    return text[max(0, at - 15) : at + 15]


def _personal(text: str, region: str | None) -> Iterator[Finding]:
    """`personal_data`: how many of each kind, never which."""
    found = personal_data(text, region)
    if found:
        kinds = Counter(one.what or MASKS[one.kind].strip("[]").lower() for one in found)
        what = ", ".join(f"{count} × {kind}" for kind, count in kinds.items())
        yield Finding(
            "personal_data", False, f"holds personal data: {what}.", "Mask it with --mask-personal, or drop the row."
        )


def says_nothing(answer: str) -> str:
    """`error` for an empty cell that became text, `nothing` for an answer without content, else nothing."""
    if len(answer) > 12:
        return ""
    folded = answer.casefold()
    if folded in CELL_ERRORS:
        return "error"
    is_bare = answer.isascii() and not any(sign.isalnum() for sign in answer)  # an emoji may be an answer
    return "nothing" if folded in NOTHING or is_bare else ""


def ends_a_sentence(answer: str) -> bool:
    """Whether a text's last sign is no letter, or its last line is short or one of a list or a table."""
    last = answer[answer.rfind("\n") + 1 :]
    return not answer[-1:].isalpha() or len(last) < 40 or LIST_ITEM.match(last) is not None


def breaks_off(answer: str, should_end: bool) -> str:
    """How an answer breaks off, in words; empty where it does not."""
    if answer.count("```") % 2 and answer.count("````") == 0:
        return "opens a block of code (```) that is not closed"
    if should_end and (answer.endswith(",") or not ends_a_sentence(answer)):
        return "ends within a sentence"
    return "ends within a sentence" if len(answer) > 80 and MIDDLE.search(answer[-12:]) else ""
