"""Personal data in texts: e-mail addresses, telephone and card numbers, IBANs, national ids; found, and masked.

Numbers count only where a checksum, a strict way of writing or a word before them says what they are: a plain figure of
as many digits is none. Patterns begin with a fixed sign or a digit, which Python's search skips to: texts without such
signs cost next to nothing.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Literal, cast

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
class Number:
    """How one kind of number is told from plain figures."""

    kind: Kind
    name: str
    pattern: re.Pattern[str]
    is_valid: Callable[[str], bool]
    context: re.Pattern[str] | None = None
    """What has to stand shortly before it, where a figure of that form is otherwise nothing."""


NEAR = 40
"""Characters before a number in which the word that names it must stand."""
CARD = re.compile(
    r"4\d{12}(?:\d{3})?|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|"
    r"6(?:011|5\d\d|4[4-9]\d|2\d\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|3[47]\d{13}|3[0689]\d{12}"
)
"""How numbers begin, and how long they are: Visa, Mastercard, Discover and UnionPay, JCB, American Express, Diners."""


@lru_cache
def _stdnum(module: str) -> Callable[[str], bool]:
    return cast(Callable[[str], bool], import_module(f"stdnum.{module}").is_valid)


def _id(name: str, pattern: str, module: str, context: re.Pattern[str] | None = None) -> Number:
    return Number("national_id", name, re.compile(pattern), lambda number: _stdnum(module)(number), context)


def _named_id(name: str, pattern: str, module: str) -> Number:
    """One that counts only after one of its words."""
    return _id(name, pattern, module, re.compile(rf"\b(?:{WORDS[name]})", re.I))


def _is_card(written: str) -> bool:
    digits = re.sub(r"\D", "", written)
    return CARD.fullmatch(digits) is not None and _stdnum("luhn")(digits)


def _is_chinese(written: str) -> bool:
    try:
        return _stdnum("cn.ric")(written)
    except KeyError:  # python-stdnum 2.2, where the first digits are a province and no county
        return False


def _is_american(written: str) -> bool:
    return _is_phone(written, "US")


def _is_phone(written: str, region: str | None) -> bool:
    import phonenumbers

    number = f"+{written[2:]}" if region is None and written.startswith("00") else written
    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(number, region)))
    except phonenumbers.NumberParseException:
        return False


CARD_WORDS = re.compile(r"card|visa|amex|american express|credit|debit|payment|karte|carte|tarjeta", re.I)
APART = r"(?<![\d])(?:{})(?!\d)"
WORDS = {
    "FR NIR": r"NIR\b|INSEE|s[ée]curit[ée] sociale",
    "US SSN": "SSN|social security",
    "NL BSN": "BSN|burgerservicenummer|sofinummer",
    "CA SIN": r"SIN\b|social insurance",
    "UK NHS number": "NHS",
    "DK CPR": "CPR|personnummer",
    "AT Versicherungsnummer": "SVNR|Versicherungsn|Sozialvers",
    "DE IdNr": r"Steuer-?ID|IdNr|Identifikationsn|Steueridentif|tax ID",
    "PL PESEL": "PESEL",
    "TR kimlik": "kimlik",
    "NO fødselsnummer": "f[øo]dselsn|personnummer",
    "IN Aadhaar": "Aadhaar|UIDAI",
    "ES DNI": "DNI|NIF|documento nacional",
}
"""By which words before a number it is told from other figures of its form."""
NUMBERS: dict[str, tuple[Number, ...]] = {
    "plain": (
        Number("card", "", re.compile(r"\d{13,16}"), _is_card, CARD_WORDS),  # of all figures 2 % would pass
        _named_id("FR NIR", r"[12]\d{14}", "fr.nir"),
        Number("national_id", "CN identity number", re.compile(r"\d{17}[\dX]"), _is_chinese),
        _named_id("US SSN", r"\d{9}", "us.ssn"),
        _named_id("NL BSN", r"\d{9}", "nl.bsn"),
        _named_id("CA SIN", r"\d{9}", "ca.sin"),
        _named_id("UK NHS number", r"\d{10}", "gb.nhs"),
        _named_id("DK CPR", r"\d{10}", "dk.cpr"),
        _named_id("AT Versicherungsnummer", r"\d{10}", "at.vnr"),
        _named_id("DE IdNr", r"\d{11}", "de.idnr"),
        _named_id("PL PESEL", r"\d{11}", "pl.pesel"),
        _named_id("TR kimlik", r"\d{11}", "tr.tckimlik"),
        _named_id("NO fødselsnummer", r"\d{11}", "no.fodselsnummer"),
        _named_id("IN Aadhaar", r"\d{12}", "in_.aadhaar"),
    ),
    "ssn": (_id("US SSN", r"\d{3}-\d{2}-\d{4}", "us.ssn"),),
    "dated": (
        _id("SE personnummer", r"(?:\d{2})?\d{6}[-+]\d{4}", "se.personnummer"),
        _id("FI henkilötunnus", r"\d{6}[-+A]\d{3}[0-9A-Y]", "fi.hetu"),
        _named_id("DK CPR", r"\d{6}-\d{4}", "dk.cpr"),
    ),
    "belgian": (_id("BE national number", r".*", "be.nn"),),
    "swiss": (_id("CH AHV", r"756.*", "ch.ssn"),),
    "brazilian": (_id("BR CPF", r".*", "br.cpf"),),
    "spanish": (
        _id("ES DNI", r"\d{8}-[A-Z]", "es.dni"),
        _named_id("ES DNI", r"\d{8} ?[A-Z]", "es.dni"),
    ),
    "dotted": (Number("phone", "", re.compile(r".*"), _is_american),),
    "spaced": (
        Number("card", "", re.compile(APART.format(r"\d{4}([ -])\d{4}\1\d{4}\1\d{4}")), _is_card),
        Number("card", "", re.compile(APART.format(r"3\d{3}([ -])\d{6}\1\d{5}")), _is_card),
        Number("phone", "", re.compile(APART.format(r"(?:1[- ])?[2-9]\d\d-[2-9]\d\d-\d{4}")), _is_american),
        _id("FR NIR", APART.format(r"[12] \d\d \d\d \d\d \d{3} \d{3} \d\d"), "fr.nir"),
        _named_id("UK NHS number", APART.format(r"\d{3}[ -]\d{3}[ -]\d{4}"), "gb.nhs"),
        _named_id("DE IdNr", APART.format(r"\d\d \d{3} \d{3} \d{3}"), "de.idnr"),
        _named_id("AT Versicherungsnummer", APART.format(r"\d{4} \d{6}"), "at.vnr"),
        _named_id("NO fødselsnummer", APART.format(r"\d{6} \d{5}"), "no.fodselsnummer"),
        _named_id("CA SIN", APART.format(r"\d{3}[ -]\d{3}[ -]\d{3}"), "ca.sin"),
        _named_id("IN Aadhaar", APART.format(r"\d{4}[ -]\d{4}[ -]\d{4}"), "in_.aadhaar"),
    ),
}  # fmt: skip
"""By the form that a number is written in, what it may be."""
WRITTEN = re.compile(
    r"[0-9](?<![\w.,/+-][0-9])(?:"
    r"(?P<plain>\d{8,17}X?)"
    r"|(?P<ssn>\d\d-\d\d-\d{4})"
    r"|(?P<dated>\d{5}(?:\d\d)?[-+A]\d{3}[0-9A-Y])"
    r"|(?P<belgian>\d\.\d\d\.\d\d-\d{3}\.\d\d)"
    r"|(?P<swiss>\d\d\.\d{4}\.\d{4}\.\d\d)"
    r"|(?P<brazilian>\d\d\.\d{3}\.\d{3}-\d\d)"
    r"|(?P<spanish>\d{7}[- ]?[A-Z])"
    r"|(?P<dotted>\d\d\.\d{3}\.\d{4})"
    r"|(?P<spaced>\d{0,5}(?:[ -]\d{2,6}){1,7})"
    r")(?![\w/]|[.,-]\d)"
)
"""All forms of numbers that begin with a digit."""
LETTERED: tuple[Number, ...] = (
    _id("IT codice fiscale", r"(?<!\w)[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z](?!\w)", "it.codicefiscale"),
    _id("MX CURP", r"(?<!\w)[A-Z]{4}\d{6}[HM][A-Z]{5}[A-Z\d]\d(?!\w)", "mx.curp"),
    _id("ES NIE", r"(?<!\w)[XYZ]-?\d{7}-?[A-Z](?!\w)", "es.nie"),
    Number("national_id", "UK NINO", re.compile(
        r"(?<!\w)(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D](?!\w)"),
        lambda number: True),
)  # fmt: skip
"""Numbers that begin with capital letters."""
IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z\d]{4}){2,7}(?: ?[A-Z\d]{1,4})?(?!\w)")
CLASSES = bytes(
    ord("0") if chr(byte).isdigit() else ord("A") if 65 <= byte <= 90 else ord(" ") if byte < 128 else ord(".")
    for byte in range(256)
)
"""Of each byte of UTF-8 what it is: a digit, a capital letter, another sign of ASCII, a part of another one."""
LETTERS_AND_DIGITS = (b"AA00", b"AA 00", b"A0000000", b"A 0000000")
"""What numbers that begin with letters have in them."""
FEWEST_DIGITS = 6

BEFORE_AT = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}\Z")
AFTER_AT = re.compile(r"@(?:[\w-]{1,63}\.)+[A-Za-z]{2,24}(?![\w@])")
NOBODY = re.compile(r"^git@|@(?:.+\.)?(?:example\.(?:com|org|net)|localhost)$|\.(?:example|invalid|test)$", re.I)
"""Addresses that are nobody's: those reserved for examples, and those of git."""
INTERNATIONAL = re.compile(r"\+(?<![\w+]\+)\d[\d ().\-–/]{6,18}\d(?!\w)")
FROM_ABROAD = re.compile(r"00(?<![\w+.,]00)[1-9]\d{0,2}[ (./-][\d ().\-–/]{5,16}\d(?!\w)")
BRACKETED = re.compile(r"\([2-9]\d\d\) ?[2-9]\d\d[-.]\d{4}(?![\w-]|\.\d)")


def personal_data(text: str, region: str | None = None) -> list[Personal]:
    """Where a text holds personal data, in order and apart from each other.

    `region` is the country, such as `DE`, whose telephone numbers are meant where none is named; without it those
    with + and a country's number are found, and North American ones in their usual form.
    """
    found = list(_emails(text)) if "@" in text else []
    classes = text.encode("utf-8", "surrogatepass").translate(CLASSES)
    if classes.count(b"0") >= FEWEST_DIGITS:
        if any(sign in classes for sign in LETTERS_AND_DIGITS):
            found += [*_ibans(text), *_lettered(text)]
        found += [*_written(text), *_phones(text, region)]
    return _apart(found) if found else found


def masked(text: str, region: str | None = None) -> str:
    """The text with what stands for each kind, such as `[EMAIL]`, in the place of personal data."""
    parts, at = [], 0
    for one in personal_data(text, region):
        parts += [text[at : one.start], MASKS[one.kind]]
        at = one.end
    return "".join([*parts, text[at:]])


def _apart(found: list[Personal]) -> list[Personal]:
    """Places that do not overlap: of two the longer one stays."""
    kept: list[Personal] = []
    for one in sorted(found, key=lambda one: one.start - one.end):
        if all(one.end <= other.start or one.start >= other.end for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: one.start)


def _emails(text: str) -> Iterator[Personal]:
    at = text.find("@")
    while at >= 0:
        start = max(0, at - 65)
        before, after = BEFORE_AT.search(text[start:at]), AFTER_AT.match(text, at)
        if before and after and not NOBODY.search(before.group() + after.group()):
            yield Personal("email", start + before.start(), after.end())
        at = text.find("@", at + 1)


def _ibans(text: str) -> Iterator[Personal]:
    is_valid = _stdnum("iban")
    for found in IBAN.finditer(text):
        written = found.group()
        spaces = [at for at in range(len(written) - 1, 14, -1) if written[at] == " "]  # a word in capitals may follow
        end = next((end for end in (len(written), *spaces) if is_valid(written[:end])), None)
        if end is not None:
            yield Personal("iban", found.start(), found.start() + end)


def _lettered(text: str) -> Iterator[Personal]:
    for number in LETTERED:
        for found in number.pattern.finditer(text):
            if number.is_valid(found.group()):
                yield Personal(number.kind, found.start(), found.end(), number.name)


def _written(text: str) -> Iterator[Personal]:
    """Numbers that begin with a digit, by the form that they are written in."""
    for found in WRITTEN.finditer(text):
        form = found.lastgroup or ""
        for number in NUMBERS[form]:
            inner = number.pattern.search if form == "spaced" else number.pattern.fullmatch
            match = inner(found.group())
            if (
                match is None
                or not _is_named(text, found.start(), number.context)
                or not number.is_valid(match.group())
            ):
                continue
            start = found.start() + match.start()
            yield Personal(number.kind, start, start + len(match.group()), number.name)
            break


def _is_named(text: str, start: int, words: re.Pattern[str] | None) -> bool:
    return words is None or words.search(text[max(0, start - NEAR) : start]) is not None


def _phones(text: str, region: str | None) -> Iterator[Personal]:
    if region is not None:
        import phonenumbers

        for match in phonenumbers.PhoneNumberMatcher(text, region):
            yield Personal("phone", match.start, match.end)
        return
    for pattern, country in ((INTERNATIONAL, None), (FROM_ABROAD, None), (BRACKETED, "US")):
        for found in pattern.finditer(text):
            if _is_phone(found.group(), country):
                yield Personal("phone", found.start(), found.end())
