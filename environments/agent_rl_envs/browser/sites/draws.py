"""Names, days and choices from random numbers, for the populations of all sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TypeVar

import numpy as np

T = TypeVar("T")
FIRST = (
    "Ada Ben Clara David Elena Felix Grace Hugo Irene Jonas Karin Liam Maria Nils Olga Paul Quentin Rosa Simon Tara "
    "Ulrich Vera Walter Xenia Yusuf Zoe Amir Bella Cyril Dora Emil Fiona Gregor Hanna Igor Judith"
).split()
LAST = (
    "Adler Brandt Cole Diaz Evans Fischer Gomez Hansen Ivanov Jansen Keller Lopez Meyer Novak Olsen Park Quinn Rossi "
    "Silva Tanaka Unger Vidal Weber Young Zeman"
).split()


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is known on all sites."""

    name: str
    email: str

    @property
    def handle(self) -> str:
        """The name on the forum."""
        return self.email.partition("@")[0].replace(".", "_")


def people(rng: np.random.Generator, count: int) -> list[Person]:
    """People of different first names."""
    names = [f"{FIRST[i]} {one(rng, LAST)}" for i in order(rng, len(FIRST))[:count]]
    return [Person(name, name.lower().replace(" ", ".") + "@example.com") for name in names]


def one(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """One of them."""
    return choices[int(rng.integers(len(choices)))]


def order(rng: np.random.Generator, count: int) -> list[int]:
    """0, 1, ... in a random order."""
    return [int(i) for i in rng.permutation(count)]


def chance(rng: np.random.Generator, share: float) -> bool:
    """True in this share of cases."""
    return bool(rng.random() < share)


def later(day: str, days: int) -> str:
    """So many days after a day."""
    return (date.fromisoformat(day[:10]) + timedelta(days=days)).isoformat()


def clock(minutes: int) -> str:
    """Minutes since midnight as 09:30."""
    return f"{minutes // 60:02}:{minutes % 60:02}"
