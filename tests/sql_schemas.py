"""Invented schemas, and a database that is filled with rows by chance, without a look at any query."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

LIBRARY = """
CREATE TABLE authors (author_id INTEGER PRIMARY KEY, full_name TEXT, born INTEGER, country TEXT);
CREATE TABLE books (
    book_id INTEGER PRIMARY KEY, author_id INTEGER NOT NULL REFERENCES authors (author_id),
    title TEXT NOT NULL, genre TEXT, pages INTEGER, bought_on DATE
);
CREATE TABLE loans (
    loan_id INTEGER PRIMARY KEY, book_id INTEGER NOT NULL REFERENCES books (book_id), reader TEXT NOT NULL,
    weeks INTEGER
);
"""
SHOP = """
CREATE TABLE customers (customer_id INTEGER PRIMARY KEY, name TEXT NOT NULL, town TEXT, is_member INTEGER);
CREATE TABLE goods (good_id INTEGER PRIMARY KEY, label TEXT NOT NULL, shelf TEXT, price REAL, stock INTEGER);
CREATE TABLE sales (
    sale_id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL, good_id INTEGER NOT NULL, quantity INTEGER NOT NULL,
    sold_on DATE, FOREIGN KEY (customer_id) REFERENCES customers (customer_id),
    FOREIGN KEY (good_id) REFERENCES goods (good_id)
);
"""
HOSPITAL = """
CREATE TABLE wards (ward_id INTEGER PRIMARY KEY, ward_name TEXT NOT NULL, floor INTEGER, beds INTEGER);
CREATE TABLE nurses (nurse_id INTEGER PRIMARY KEY, nurse_name TEXT NOT NULL, ward_id INTEGER, wage REAL);
CREATE TABLE stays (
    stay_id INTEGER PRIMARY KEY, patient TEXT NOT NULL, ward_id INTEGER, began DATE, ended DATE, cost REAL,
    FOREIGN KEY (ward_id) REFERENCES wards (ward_id)
);
"""
SCHEMAS = {"library": LIBRARY, "shop": SHOP, "hospital": HOSPITAL}

Draw = Callable[[random.Random, int], object]


def _one_of(*values: object) -> Draw:
    return lambda chance, number: chance.choice(values)


def _number(low: int, high: int) -> Draw:
    return lambda chance, number: chance.randint(low, high)


def _day(chance: random.Random, number: int) -> str:
    return f"{chance.randint(2022, 2024)}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"


def _own(chance: random.Random, number: int) -> int:
    return number + 1


WORDS = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "willow")
DRAWS: dict[str, dict[str, Draw]] = {
    "authors": {"author_id": _own, "full_name": _one_of(*WORDS), "born": _number(1900, 1990),
                "country": _one_of("Peru", "Chad", "Fiji", "Oman", None)},
    "books": {"book_id": _own, "author_id": _number(1, 250), "title": _one_of(*WORDS, *(f"{w} II" for w in WORDS)),
              "genre": _one_of("crime", "poetry", "travel", None), "pages": _number(90, 110), "bought_on": _day},
    "loans": {"loan_id": _own, "book_id": _number(1, 250), "reader": _one_of(*WORDS), "weeks": _number(1, 6)},
    "customers": {"customer_id": _own, "name": _one_of(*WORDS), "town": _one_of("Bern", "Graz", "Turku", None),
                  "is_member": _number(0, 1)},
    "goods": {"good_id": _own, "label": _one_of(*WORDS), "shelf": _one_of("A", "B", "C", "D"),
              "price": lambda chance, number: chance.randint(2, 60) / 4, "stock": _number(0, 12)},
    "sales": {"sale_id": _own, "customer_id": _number(1, 250), "good_id": _number(1, 250), "quantity": _number(1, 9),
              "sold_on": _day},
    "wards": {"ward_id": _own, "ward_name": _one_of(*WORDS), "floor": _number(0, 5), "beds": _number(2, 30)},
    "nurses": {"nurse_id": _own, "nurse_name": _one_of(*WORDS), "ward_id": _one_of(None, *range(1, 251)),
               "wage": lambda chance, number: chance.randint(40, 90) / 2},
    "stays": {"stay_id": _own, "patient": _one_of(*WORDS), "ward_id": _one_of(None, *range(1, 251)), "began": _day,
              "ended": _one_of(None, "2024-02-01", "2024-06-30"), "cost": _number(100, 130)},
}  # fmt: skip
"""What the values of each column are drawn from; some rows of each table meet no row of the other."""


def write_database(path: Path, name: str, count: int = 300, seed: int = 0) -> Path:
    """The path of a SQLite file with the tables of a schema and `count` rows in each."""
    chance = random.Random(seed)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMAS[name])
        for table, draws in DRAWS.items():
            if f"TABLE {table} " in SCHEMAS[name]:
                rows = [tuple(draw(chance, number) for draw in draws.values()) for number in range(count)]
                connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(draws))})", rows)
        connection.commit()
    return path
