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
    "doubles": ("2 * n", lambda n: 2 * n),
    "squares": ("n * n", lambda n: n * n),
    "cubes": ("n ** 3", lambda n: n**3),
}
"""What is done to each number first: in words, in Python, and done. So the answer is none of the numbers."""

SUMMARIES: Mapping[str, tuple[str, Callable[[list[int]], Any]]] = {
    "total": ("sum", sum),
    "largest": ("max", max),
    "smallest": ("min", min),
    "median": ("median", statistics.median),
}
"""What is asked of the numbers."""

VOCABULARY = (*SUMMARIES, *CHANGES, *"boxed import statistics sum max min".split())
"""Words that a small tokenizer should keep whole."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A question, the programs that such questions call for, which of them this one does, and the answer."""

    question: str
    programs: tuple[str, ...]
    right: int
    answer: str


def make_problem(rng: np.random.Generator, *, test: bool, changes: int) -> Problem:
    """Three numbers, what is done to each (one of so many `changes`), a summary. Train and test share no numbers."""
    kinds = [(change, summary) for change in list(CHANGES)[:changes] for summary in SUMMARIES]
    right = int(rng.integers(len(kinds)))
    change, summary = kinds[right]
    while True:
        numbers = [int(number) for number in rng.integers(10, 100, size=3)]
        answer = SUMMARIES[summary][1]([CHANGES[change][1](number) for number in numbers])
        if (sum(numbers) % 4 == 0) is test and answer not in numbers:
            break
    question = f"What is the {summary} of the {change} of these numbers: {', '.join(map(str, numbers))}?"
    return Problem(question, tuple(_program(*kind, numbers) for kind in kinds), right, str(answer))


def _program(change: str, summary: str, numbers: list[int]) -> str:
    function = SUMMARIES[summary][0]
    opening = "from statistics import median\n" if function == "median" else ""
    return f"{opening}{function}([{CHANGES[change][0]} for n in {numbers}])"
