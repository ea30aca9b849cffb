"""Personal data is found by its checksum, its form or the word before it; a plain figure is none."""

import random

import pytest

from hf_finetune.data.personal import MASKS, masked, personal_data

FOUND = {
    "an address": (
        "Write to lena.brandt+news@mail.firma-nord.de today.",
        "email",
        "lena.brandt+news@mail.firma-nord.de",
    ),
    "an address in brackets": ("Lena <l@nord.co.uk>", "email", "l@nord.co.uk"),
    "a telephone number with a country": ("Ring +49 30 901820 at noon.", "phone", "+49 30 901820"),
    "a telephone number from abroad": ("Ring 0049 30 901820 at noon.", "phone", "0049 30 901820"),
    "a North American number": ("Call (212) 736-5000.", "phone", "(212) 736-5000"),
    "a North American number with hyphens": ("Call 212-736-5000.", "phone", "212-736-5000"),
    "a North American number with full stops": ("Call 212.736.5000 now", "phone", "212.736.5000"),
    "a North American number with its country": ("Call +1 212-736-5000 now", "phone", "+1 212-736-5000"),
    "an IBAN": ("to DE89370400440532013000, please", "iban", "DE89370400440532013000"),
    "an IBAN in groups": ("to GB29 NWBK 6016 1331 9268 19 AND more", "iban", "GB29 NWBK 6016 1331 9268 19"),
    "a card": ("charge 4012 8888 8888 1881 now", "card", "4012 8888 8888 1881"),
    "a card with hyphens": ("charge 5555-5555-5555-4444 now", "card", "5555-5555-5555-4444"),
    "a card of American Express": ("charge 3782 822463 10005 now", "card", "3782 822463 10005"),
    "a card without spaces": ("My credit card is 4012888888881881.", "card", "4012888888881881"),
    "a US SSN": ("SSN 536-90-4399.", "national_id", "536-90-4399"),
    "a US SSN without hyphens": ("Her SSN is 536904399.", "national_id", "536904399"),
    "a UK NINO": ("NINO AB 12 34 56 C, thanks", "national_id", "AB 12 34 56 C"),
    "a UK NHS number": ("NHS number 943 476 5870.", "national_id", "943 476 5870"),
    "a German IdNr": ("Steuer-ID: 36 574 261 809.", "national_id", "36 574 261 809"),
    "a French NIR without spaces": ("NIR 295109912611193.", "national_id", "295109912611193"),
    "a French NIR": ("n° 2 95 10 99 126 111 93.", "national_id", "2 95 10 99 126 111 93"),
    "a Spanish DNI": ("DNI 54362315K.", "national_id", "54362315K"),
    "a Spanish DNI with a hyphen": ("con 54362315-K.", "national_id", "54362315-K"),
    "a Spanish NIE": ("con X2482300W.", "national_id", "X2482300W"),
    "a codice fiscale": ("C.F. RCCMNL83S18D969H", "national_id", "RCCMNL83S18D969H"),
    "a PESEL": ("PESEL 44051401359", "national_id", "44051401359"),
    "a BSN": ("BSN 111222333.", "national_id", "111222333"),
    "a personnummer": ("född 880320-0016.", "national_id", "880320-0016"),
    "a henkilötunnus": ("tunnus 131052-308T.", "national_id", "131052-308T"),
    "a CPF": ("CPF 390.533.447-05.", "national_id", "390.533.447-05"),
    "an AHV number": ("AHV 756.9217.0769.85", "national_id", "756.9217.0769.85"),
    "a Belgian number": ("nr 85.07.30-033.28.", "national_id", "85.07.30-033.28"),
    "a Chinese identity number": ("ID 360426199101010071", "national_id", "360426199101010071"),
}


@pytest.mark.parametrize(("text", "kind", "where"), FOUND.values(), ids=FOUND)
def test_personal_data_is_found_where_it_stands(text: str, kind: str, where: str) -> None:
    assert [(one.kind, text[one.start : one.end]) for one in personal_data(text)] == [(kind, where)]
    assert masked(text) == text.replace(where, MASKS[kind])


CHECKED = [text for text, kind, _ in FOUND.values() if kind not in ("email", "phone") and "SSN" not in text]
CHECKED.remove(FOUND["a UK NINO"][0])  # as a US SSN, it has no checksum


@pytest.mark.parametrize("text", CHECKED)
def test_a_number_whose_checksum_is_wrong_is_none(text: str) -> None:
    digits = [at for at, sign in enumerate(text) if sign.isdigit()]
    wrong = text[: digits[-1]] + str((int(text[digits[-1]]) + 1) % 10) + text[digits[-1] + 1 :]
    assert personal_data(wrong) == []


@pytest.mark.parametrize(
    "text",
    [
        "user@example.com, lena@nord.example and git@github.com are nobody's.",
        "The handle @lena and 5@ each are no addresses.",
        "In 2019 and 2020, 1234567890 and 12345678901 units were sold.",
        "Order 536904399 and part 943-476-5870-1 were late.",
        "Pi is 3.14159265358979323846 and 0.4012888888881881 is a share.",
        "The card came on 2021-03-04; 4012888888881882 is no number of one.",
        "ISBN 978-3-16-148410-0, version 10.0.19045.3803, at 192.168.100.200.",
        "1 234 567 890 euros, 12,345,678.90 dollars, 100 200 300 400 500 600.",
        "id 4012888888881881 in the table",
        "2^64 is 18446744073709551616, a time stamp 1700000000000000.",
        "PLN 44051401359 was paid.",
        "Part 7-536-90-4399, file_536-90-4399 and 1.536-90-4399 are lost.",
        "000-12-3456 and 666-12-3456 are given to nobody.",
        "Numbers such as +1 000 000 0000 or +12 are none.",
    ],
)
def test_plain_figures_are_no_personal_data(text: str) -> None:
    assert personal_data(text) == []
    assert masked(text) is text or masked(text) == text


@pytest.mark.parametrize(
    ("form", "most"),
    [
        ("{:016d}", 0), ("{:015d}", 0), ("{:011d}", 0), ("{:009d}", 0), ("{:,}", 0), ("{:018d}", 3),
        ("0.{:016d}", 0), ("{:.6e}", 0),
    ],
)  # fmt: skip
def test_random_figures_are_hardly_ever_taken_for_personal_data(form: str, most: int) -> None:
    chance = random.Random(7)
    wide = int(form[3:5]) if form.startswith("{:0") else 12
    texts = [f"The value is {form.format(chance.randrange(10**wide))} here." for _ in range(5_000)]
    assert sum(map(bool, map(personal_data, texts))) <= most


def test_numbers_of_a_region_are_found_without_its_code() -> None:
    text = "Ring 030 901820 at noon."
    assert personal_data(text) == []
    assert masked(text, "DE") == "Ring [PHONE] at noon."


def test_several_places_are_masked_and_the_rest_of_the_text_stays() -> None:
    text = "lena@nord.de, +49 30 901820 – DE89 3704 0044 0532 0130 00 – lena@nord.de: “ja”"
    assert masked(text) == "[EMAIL], [PHONE] – [IBAN] – [EMAIL]: “ja”"


def test_masked_text_holds_nothing_more_to_mask() -> None:
    for text, _, _ in FOUND.values():
        assert personal_data(masked(text)) == []
