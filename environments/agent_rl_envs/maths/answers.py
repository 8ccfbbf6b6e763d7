"""Whether two answers say the same: numbers by value, other text by its characters. Pure functions of texts."""

from __future__ import annotations

import re
from fractions import Fraction

_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}")
_WRAPPED = re.compile(r"\\(?:text|mathrm|mbox)\{([^{}]*)\}")
_NOISE = re.compile(r"\\left|\\right|\\[!,;: ]|\\%|[$%\s]|(?<=\d),(?=\d{3}\b)")


def boxed(text: str) -> str | None:
    """What stands in the last `\\boxed{...}`, braces inside it included; `None` where there is none."""
    start = text.rfind("\\boxed{")
    depth = 0
    for end in range(start + len("\\boxed"), len(text) if start >= 0 else 0):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[start + len("\\boxed{") : end].strip()
    return None


def stated_answer(text: str) -> str:
    """The answer of a data set's row: in its last box, behind `####` (GSM8K), or all of it."""
    found = boxed(text)
    return found if found is not None else text.rpartition("####")[2].strip()


def same_answer(given: str, gold: str) -> bool:
    """Equal numbers (`1,200`, `0.5`, `\\frac{1}{2}`, `50/100`), or equal characters but for layout and case."""
    mine, theirs = _plain(given), _plain(gold)
    numbers = _number(mine), _number(theirs)
    return mine == theirs if None in numbers else numbers[0] == numbers[1]


def _plain(text: str) -> str:
    text = _WRAPPED.sub(r"\1", _FRACTION.sub(r"\1/\2", text))
    return _NOISE.sub("", text).rstrip(".").casefold()


def _number(text: str) -> Fraction | None:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None
