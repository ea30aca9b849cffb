"""Personal data in texts: e-mail addresses, telephone and card numbers, IBANs, national ids; found, and masked.

Numbers count only where a checksum, a strict way of writing or a word before them says what they are: a plain figure of
as many digits is none.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from typing import Literal

Kind = Literal["email", "phone", "iban", "card", "national_id"]

MASKS = {"email": "[EMAIL]", "phone": "[PHONE]", "iban": "[IBAN]", "card": "[CARD]", "national_id": "[NATIONAL_ID]"}
"""What stands in the place of each kind after masking."""


@dataclass(frozen=True)
class Personal:
    """One place in a text."""

    kind: Kind
    start: int
    end: int
    """The character after the last one."""
    what: str = ""
    """Of a national id: which, such as `US SSN`."""


@dataclass(frozen=True)
class NationalId:
    """How the numbers of one country are told from plain figures."""

    name: str
    pattern: re.Pattern[str]
    check: str
    """The module of `stdnum` that checks the digits; empty where the pattern says all."""
    context: re.Pattern[str] | None = None
    """What has to stand shortly before it: a figure of that form is otherwise nothing."""


def _id(name: str, pattern: str, check: str, context: str = "") -> NationalId:
    whole = rf"(?<![\w.,/+-]){pattern}(?![\w/]|[.,-]\d)"
    return NationalId(name, re.compile(whole), check, re.compile(rf"\b(?:{context})\b", re.I) if context else None)


NATIONAL_IDS = (
    _id("US SSN", r"\d{3}-\d{2}-\d{4}", "us.ssn"),
    _id("US SSN", r"\d{9}", "us.ssn", "SSN|social security"),
    _id("UK NINO", r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]", ""),
    _id("UK NHS number", r"\d{3}[ -]?\d{3}[ -]?\d{4}", "gb.nhs", "NHS"),
    _id("DE IdNr", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", "de.idnr",
        r"Steuer-?ID|IdNr\.?|Identifikationsnummer|Steueridentifikationsnummer|tax ID"),
    _id("FR NIR", r"[12] ?\d{2} ?(?:0[1-9]|1[0-2]|[2-9]\d) ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}", "fr.nir"),
    _id("ES DNI", r"\d{8}-[A-Z]", "es.dni"),
    _id("ES DNI", r"\d{8} ?[A-Z]", "es.dni", "DNI|NIF|documento nacional"),
    _id("ES NIE", r"[XYZ]-?\d{7}-?[A-Z]", "es.nie"),
    _id("IT codice fiscale", r"[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]", "it.codicefiscale"),
    _id("PL PESEL", r"\d{11}", "pl.pesel", "PESEL"),
    _id("NL BSN", r"\d{9}", "nl.bsn", "BSN|burgerservicenummer|sofinummer"),
    _id("SE personnummer", r"(?:\d{2})?\d{6}[-+]\d{4}", "se.personnummer"),
    _id("FI henkilötunnus", r"\d{6}[-+A]\d{3}[0-9A-FHJ-NPR-Y]", "fi.hetu"),
    _id("DK CPR", r"\d{6}-?\d{4}", "dk.cpr", "CPR|personnummer"),
    _id("NO fødselsnummer", r"\d{6} ?\d{5}", "no.fodselsnummer", "fødselsnummer|fodselsnummer|personnummer"),
    _id("BE national number", r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", "be.nn"),
    _id("CH AHV", r"756\.\d{4}\.\d{4}\.\d{2}", "ch.ssn"),
    _id("AT Versicherungsnummer", r"\d{4} ?\d{6}", "at.vnr", "SVNR|Versicherungsnummer|Sozialversicherungsnummer"),
    _id("BR CPF", r"\d{3}\.\d{3}\.\d{3}-\d{2}", "br.cpf"),
    _id("CA SIN", r"\d{3}[ -]?\d{3}[ -]?\d{3}", "ca.sin", "SIN|social insurance"),
    _id("IN Aadhaar", r"\d{4}[ -]?\d{4}[ -]?\d{4}", "in_.aadhaar", "Aadhaar|UIDAI"),
    _id("CN identity number", r"\d{17}[\dX]", "cn.ric"),
    _id("TR kimlik", r"\d{11}", "tr.tckimlik", "T\\.?C\\.?|kimlik"),
    _id("MX CURP", r"[A-Z]{4}\d{6}[HM][A-Z]{5}[A-Z\d]\d", "mx.curp"),
)  # fmt: skip
"""The national ids that are looked for."""
NEAR = 40
"""Characters before a number in which the word that names it must stand."""

EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.)+[A-Za-z]{2,24}(?![\w@])")
NO_PERSON = re.compile(r"(?:^git@)|@(?:.+\.)?(?:example\.(?:com|org|net)|localhost)$|\.(?:example|invalid|test)$", re.I)
"""Addresses that are nobody's: those reserved for examples, and those of git."""
DIGITS = re.compile(
    r"\d[\d ().+/–-]{5,}[\dA-Z]|[A-Z]{2}\d\d ?[A-Z\d]{4}|[A-Z]{4,6}\d{2}|[A-Z]{2} ?\d\d ?\d\d|[XYZ]-?\d{7}"
)
"""What each number looked for has in it: texts without are passed over."""
IBAN = re.compile(r"(?<![\w])[A-Z]{2}\d{2}(?: ?[A-Z\d]{4}){2,7}(?: ?[A-Z\d]{1,4})?(?!\w)")
CARD = re.compile(
    r"(?<![\w.,/+=-])(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}|3\d{3}([ -])\d{6}\2\d{5}|\d{13,16})(?![\w/]|[.,-]\d)"
)
CARD_PREFIX = re.compile(
    r"4(?=\d{12}(?:\d{3})?$)|(?:5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720|6011|65|64[4-9]|62|35)(?=\d*$)|3[0689]|3[47]"
)
CARD_WORDS = re.compile(r"\b(?:card|visa|mastercard|amex|american express|credit|debit|Karte|carte|tarjeta)\b", re.I)
INTERNATIONAL = re.compile(r"(?<![\w+])(?:\+|00)\d[\d ().\-–/]{6,18}\d(?!\w)")
NORTH_AMERICAN = re.compile(
    r"(?<![\w.+-])(?:1[-. ])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[-.])[2-9]\d{2}[-.]\d{4}(?![\w-]|\.\d)"
)


def personal_data(text: str, region: str | None = None) -> list[Personal]:
    """Where a text holds personal data, in order and apart from each other.

    `region` is the country, such as `DE`, whose telephone numbers are meant where none is named; without it those
    with + and a country's number are found, and North American ones in their usual form.
    """
    found = list(_emails(text)) if "@" in text else []
    if DIGITS.search(text):
        found += [*_ibans(text), *_cards(text), *_national_ids(text), *_phones(text, region)]
    return _apart(found)


def masked(text: str, region: str | None = None) -> str:
    """The text with what stands for each kind, such as `[EMAIL]`, in the place of personal data."""
    found = personal_data(text, region)
    if not found:
        return text
    parts, at = [], 0
    for one in found:
        parts += [text[at : one.start], MASKS[one.kind]]
        at = one.end
    return "".join([*parts, text[at:]])


def _apart(found: list[Personal]) -> list[Personal]:
    """Places that do not overlap: of two the one that was looked for first stays."""
    kept: list[Personal] = []
    for one in found:
        if all(one.end <= other.start or one.start >= other.end for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: one.start)


def _emails(text: str) -> Iterator[Personal]:
    for found in EMAIL.finditer(text):
        if not NO_PERSON.search(found.group()):
            yield Personal("email", found.start(), found.end())


def _ibans(text: str) -> Iterator[Personal]:
    from stdnum import iban

    for found in IBAN.finditer(text):
        for end in _ends(found.group()):  # a word in capitals may follow
            if iban.is_valid(found.group()[:end]):
                yield Personal("iban", found.start(), found.start() + end)
                break


def _ends(written: str) -> list[int]:
    return [len(written), *(at for at in range(len(written) - 1, 14, -1) if written[at] == " ")]


def _cards(text: str) -> Iterator[Personal]:
    from stdnum import luhn

    for found in CARD.finditer(text):
        digits = re.sub(r"\D", "", found.group())
        is_grouped = len(digits) < len(found.group())
        is_long_enough = len(digits) > 14 or _named(text, found.start(), CARD_WORDS)
        if (is_grouped or is_long_enough) and CARD_PREFIX.match(digits) and luhn.is_valid(digits):
            if len(set(digits)) > 2:
                yield Personal("card", found.start(), found.end())


def _national_ids(text: str) -> Iterator[Personal]:
    for one in NATIONAL_IDS:
        for found in one.pattern.finditer(text):
            if one.context is not None and not _named(text, found.start(), one.context):
                continue
            if not one.check or _checker(one.check)(found.group()):
                yield Personal("national_id", found.start(), found.end(), one.name)


@lru_cache
def _checker(module: str):  # type: ignore[no-untyped-def]
    return import_module(f"stdnum.{module}").is_valid


def _named(text: str, start: int, words: re.Pattern[str]) -> bool:
    return words.search(text, max(0, start - NEAR), start) is not None


def _phones(text: str, region: str | None) -> Iterator[Personal]:
    if region is not None:
        import phonenumbers

        for match in phonenumbers.PhoneNumberMatcher(text, region):
            yield Personal("phone", match.start, match.end)
        return
    for pattern, country in ((INTERNATIONAL, None), (NORTH_AMERICAN, "US")):
        for found in pattern.finditer(text):
            if _is_phone(found.group(), country):
                yield Personal("phone", found.start(), found.end())


def _is_phone(written: str, region: str | None) -> bool:
    import phonenumbers

    number = f"+{written[2:]}" if region is None and written.startswith("00") else written
    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(number, region)))
    except phonenumbers.NumberParseException:
        return False
