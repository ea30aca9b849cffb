"""Sample rows for text2sql: questions about invented databases. `python -m hf_finetune.demo.questions` writes them."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hf_finetune.sql import REFUSAL

COUNT = 800
REFUSALS = 0.08
"""The share of questions that the database cannot answer."""


@dataclass(frozen=True)
class Words:
    """A column whose values are words: how it is called in a question, and some of its values."""

    name: str
    called: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Number:
    """A column of numbers: how it is called in a question, and between what they lie."""

    name: str
    called: str
    low: int
    high: int


@dataclass(frozen=True)
class Things:
    """A table: one of its rows and several as they are called, what names a row, words, numbers, and its parent."""

    table: str
    one: str
    many: str
    label: str
    words: tuple[Words, ...]
    numbers: tuple[Number, ...]
    parent: str = ""
    """The table that `PARENT_id` points to."""


Database = dict[str, Things]
Asked = tuple[str, str] | None
"""A question and its query; None where a database has no such question."""


def _database(*things: Things) -> Database:
    return {one.table: one for one in things}


CITIES = ("Ulmhaven", "Port Velden", "Sarnow", "Brexley", "Tolmin Bay", "Arkenfeld")
COUNTRIES = ("Norland", "Estria", "Velmark")
CURRENCIES = ("EUR", "USD", "CHF", "NOK")
DATABASES = (
    _database(
        Things("branches", "branch", "branches", "name", (Words("city", "city", CITIES),),
               (Number("employees", "number of employees", 4, 90), Number("opened", "opening year", 1960, 2022))),
        Things("loans", "loan", "loans", "borrower",
               (Words("purpose", "purpose", ("house", "car", "studies", "machine")),
                Words("status", "status", ("open", "repaid", "late"))),
               (Number("amount", "amount", 2000, 90000), Number("months", "term in months", 6, 240)), "branches"),
    ),
    _database(
        Things("funds", "fund", "funds", "name", (Words("currency", "currency", CURRENCIES),),
               (Number("fee", "yearly fee", 1, 9), Number("founded", "founding year", 1985, 2023))),
        Things("holdings", "holding", "holdings", "company",
               (Words("sector", "sector", ("energy", "banks", "health", "transport")),),
               (Number("shares", "number of shares", 100, 9000), Number("price", "price", 3, 400)), "funds"),
    ),
    _database(
        Things("customers", "customer", "customers", "name",
               (Words("city", "city", CITIES), Words("segment", "segment", ("retail", "corporate", "public"))),
               (Number("age", "age", 18, 90),)),
        Things("invoices", "invoice", "invoices", "number",
               (Words("status", "status", ("paid", "due", "disputed")),),
               (Number("total", "total", 50, 9000), Number("days_late", "days of delay", 1, 120)), "customers"),
    ),
    _database(
        Things("insurers", "insurer", "insurers", "name", (Words("country", "country", COUNTRIES),),
               (Number("capital", "capital", 10, 900),)),
        Things("claims", "claim", "claims", "holder",
               (Words("cause", "cause", ("fire", "water", "theft", "storm")),
                Words("decision", "decision", ("accepted", "refused", "pending"))),
               (Number("damage", "damage", 100, 70000), Number("year", "year", 2012, 2024)), "insurers"),
    ),
    _database(
        Things("cards", "card", "cards", "owner",
               (Words("kind", "kind", ("credit", "debit", "prepaid")), Words("currency", "currency", CURRENCIES)),
               (Number("credit_limit", "credit limit", 500, 20000), Number("issued", "year of issue", 2015, 2024))),
        Things("payments", "payment", "payments", "shop",
               (Words("category", "category", ("food", "travel", "clothes", "fuel")),),
               (Number("amount", "amount", 2, 900),), "cards"),
    ),
    _database(
        Things("bonds", "bond", "bonds", "issuer",
               (Words("rating", "rating", ("AAA", "AA", "A", "BBB", "BB")), Words("currency", "currency", CURRENCIES)),
               (Number("coupon", "coupon", 1, 9), Number("maturity", "year of maturity", 2025, 2050),
                Number("volume", "volume", 50, 900))),
    ),
    _database(
        Things("employees", "employee", "employees", "name",
               (Words("department", "department", ("audit", "risk", "trading", "payroll")),
                Words("city", "city", CITIES)),
               (Number("salary", "salary", 28000, 120000), Number("hired", "year of hiring", 1999, 2024))),
    ),
    _database(
        Things("suppliers", "supplier", "suppliers", "name", (Words("country", "country", COUNTRIES),),
               (Number("score", "quality score", 1, 100),)),
        Things("orders", "order", "orders", "product",
               (Words("status", "status", ("shipped", "open", "cancelled")),),
               (Number("quantity", "quantity", 1, 500), Number("cost", "cost", 10, 8000)), "suppliers"),
    ),
)  # fmt: skip

UNANSWERABLE = (
    "What will the weather be in {city} tomorrow?",
    "Who wrote the anthem of {city}?",
    "Which {one} has the most followers?",
    "What colour is the logo of each {one}?",
    "How tall is the owner of the oldest {one}?",
    "Which {many} were mentioned in the news this morning?",
    "What is the shoe size of every {label}?",
    "How many tigers live in {city}?",
    "Which {one} will be the best next year?",
    "What did the {label} eat for lunch?",
)


def rows(seed: int = 7) -> Iterator[dict[str, str]]:
    """The rows, each question once: the same for the same seed."""
    chance = random.Random(seed)
    seen: set[str] = set()
    while len(seen) < COUNT:
        database = chance.choice(DATABASES)
        things = chance.choice(list(database.values()))
        is_refused = chance.random() < REFUSALS
        asked = _unanswerable(things, chance) if is_refused else chance.choice(ASKED)(database, things, chance)
        if asked and asked[0] not in seen:
            seen.add(asked[0])
            yield {"question": asked[0], "answer": asked[1], "context": schema(database)}


def schema(database: Database) -> str:
    """The CREATE TABLE statements of a database."""
    return "\n".join(map(_create, database.values()))


def _create(things: Things) -> str:
    columns = ["id INTEGER PRIMARY KEY", f"{things.label} TEXT"]
    columns += [f"{one.name} TEXT" for one in things.words] + [f"{one.name} INTEGER" for one in things.numbers]
    columns += [f"{things.parent}_id INTEGER REFERENCES {things.parent} (id)"] if things.parent else []
    return f"CREATE TABLE {things.table} ({', '.join(columns)});"


def _unanswerable(things: Things, chance: random.Random) -> Asked:
    words = {"city": chance.choice(CITIES), "one": things.one, "many": things.many, "label": things.label}
    return chance.choice(UNANSWERABLE).format(**words), REFUSAL


def _listed(database: Database, things: Things, chance: random.Random) -> Asked:
    word, value = _word(things, chance)
    question = chance.choice(
        [
            f"List the {things.label} of all {things.many} with {word.called} {value}.",
            f"Which {things.many} have the {word.called} {value}? Give the {things.label}.",
            f"Show the {things.label} of each {things.one} whose {word.called} is {value}.",
        ]
    )
    return question, f"SELECT {things.label} FROM {things.table} WHERE {word.name} = '{value}'"


def _compared(database: Database, things: Things, chance: random.Random) -> Asked:
    number = chance.choice(things.numbers)
    bound = chance.randint(number.low, number.high)
    sign, said = chance.choice([(">", "more than"), ("<", "less than"), (">=", "at least"), ("<=", "at most")])
    question = chance.choice(
        [
            f"List the {things.label} of all {things.many} with a {number.called} of {said} {bound}.",
            f"Which {things.many} have a {number.called} of {said} {bound}? Give the {things.label}.",
        ]
    )
    return question, f"SELECT {things.label} FROM {things.table} WHERE {number.name} {sign} {bound}"


def _counted(database: Database, things: Things, chance: random.Random) -> Asked:
    word, value = _word(things, chance)
    question = chance.choice(
        [
            f"How many {things.many} have the {word.called} {value}?",
            f"Count the {things.many} whose {word.called} is {value}.",
            f"What is the number of {things.many} with {word.called} {value}?",
        ]
    )
    return question, f"SELECT COUNT(*) FROM {things.table} WHERE {word.name} = '{value}'"


def _aggregated(database: Database, things: Things, chance: random.Random) -> Asked:
    word, value = _word(things, chance)
    number = chance.choice(things.numbers)
    call, said = chance.choice([("AVG", "average"), ("MAX", "highest"), ("MIN", "lowest"), ("SUM", "sum of the")])
    question = f"What is the {said} {number.called} of {things.many} with {word.called} {value}?"
    return question, f"SELECT {call}({number.name}) FROM {things.table} WHERE {word.name} = '{value}'"


def _grouped(database: Database, things: Things, chance: random.Random) -> Asked:
    word, _ = _word(things, chance)
    number = chance.choice(things.numbers)
    if chance.random() < 0.4:
        question = f"How many {things.many} are there for each {word.called}?"
        return question, f"SELECT {word.name}, COUNT(*) FROM {things.table} GROUP BY {word.name}"
    call, said = chance.choice([("AVG", "average"), ("MAX", "highest"), ("MIN", "lowest"), ("SUM", "total")])
    question = chance.choice(
        [
            f"Show the {said} {number.called} of {things.many} for each {word.called}.",
            f"For each {word.called}, what is the {said} {number.called} of its {things.many}?",
        ]
    )
    return question, f"SELECT {word.name}, {call}({number.name}) FROM {things.table} GROUP BY {word.name}"


def _ordered(database: Database, things: Things, chance: random.Random) -> Asked:
    number = chance.choice(things.numbers)
    end, said = chance.choice([("DESC", "highest"), ("ASC", "lowest")])
    count = chance.choice([1, 1, 2, 3, 5])
    which = f"the {things.one}" if count == 1 else f"the {count} {things.many}"
    question = f"Give the {things.label} of {which} with the {said} {number.called}."
    return question, f"SELECT {things.label} FROM {things.table} ORDER BY {number.name} {end} LIMIT {count}"


def _nested(database: Database, things: Things, chance: random.Random) -> Asked:
    number = chance.choice(things.numbers)
    sign, said = chance.choice([(">", "above"), ("<", "below")])
    question = f"Which {things.many} have a {number.called} {said} the average? Give the {things.label}."
    inner = f"SELECT AVG({number.name}) FROM {things.table}"
    return question, f"SELECT {things.label} FROM {things.table} WHERE {number.name} {sign} ({inner})"


def _joined(database: Database, things: Things, chance: random.Random) -> Asked:
    if not things.parent:
        return None
    parent = database[things.parent]
    word, value = _word(parent, chance)
    join = f"FROM {things.table} JOIN {parent.table} ON {things.table}.{parent.table}_id = {parent.table}.id"
    where = f"WHERE {parent.table}.{word.name} = '{value}'"
    whose = f"{things.many} of {parent.many} with {word.called} {value}"
    if chance.random() < 0.4:
        return f"How many {whose} are there?", f"SELECT COUNT(*) {join} {where}"
    if chance.random() < 0.5:
        number = chance.choice(things.numbers)
        return (
            f"What is the total {number.called} of the {whose}?",
            f"SELECT SUM({things.table}.{number.name}) {join} {where}",
        )
    return f"List the {things.label} of all {whose}.", f"SELECT {things.table}.{things.label} {join} {where}"


def _word(things: Things, chance: random.Random) -> tuple[Words, str]:
    word = chance.choice(things.words)
    return word, chance.choice(word.values)


ASKED: tuple[Callable[[Database, Things, random.Random], Asked], ...] = (
    _listed, _compared, _counted, _aggregated, _grouped, _ordered, _nested, _joined,
)  # fmt: skip

if __name__ == "__main__":
    for one in rows():
        print(json.dumps(one, ensure_ascii=False))  # noqa: T201  # for a file
