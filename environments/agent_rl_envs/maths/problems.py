"""Made-up questions about lists of numbers, and what an interpreter may be asked for them.

The words say which of a few computations is called for. Pure functions of random numbers.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

CHANGES: Mapping[str, tuple[str, Callable[[int], int]]] = {
    "": ("n", lambda n: n),
    "the squares of ": ("n * n", lambda n: n * n),
    "the doubles of ": ("2 * n", lambda n: 2 * n),
}
"""What is done to each number first: in words, in Python, and done."""

SUMMARIES: Mapping[str, tuple[str, Callable[[list[int]], Any]]] = {
    "total": ("sum", sum),
    "largest": ("max", max),
    "smallest": ("min", min),
    "median": ("median", statistics.median),
}
"""What is asked of the numbers."""

VOCABULARY = (*SUMMARIES, *"squares doubles boxed import statistics sum max min".split())
"""Words that a small tokenizer should keep whole."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A question, the programs that such questions call for, which of them this one does, and the answer."""

    question: str
    programs: tuple[str, ...]
    right: int
    answer: str


def make_problem(rng: np.random.Generator, *, test: bool, changes: bool) -> Problem:
    """Three numbers; with `changes`, something is done to each of them first. Train and test share no numbers."""
    numbers = _numbers(rng)
    while (sum(numbers) % 4 == 0) is not test:
        numbers = _numbers(rng)
    kinds = [(change, summary) for change in (CHANGES if changes else [""]) for summary in SUMMARIES]
    right = int(rng.integers(len(kinds)))
    change, summary = kinds[right]
    answer = SUMMARIES[summary][1]([CHANGES[change][1](number) for number in numbers])
    question = f"What is the {summary} of {change}these numbers: {', '.join(map(str, numbers))}?"
    return Problem(question, tuple(_program(*kind, numbers) for kind in kinds), right, str(answer))


def _numbers(rng: np.random.Generator) -> list[int]:
    return [int(number) for number in rng.integers(10, 100, size=3)]


def _program(change: str, summary: str, numbers: list[int]) -> str:
    function = SUMMARIES[summary][0]
    opening = "from statistics import median\n" if function == "median" else ""
    values = f"[{CHANGES[change][0]} for n in {numbers}]" if change else f"{numbers}"
    return f"{opening}{function}({values})"
