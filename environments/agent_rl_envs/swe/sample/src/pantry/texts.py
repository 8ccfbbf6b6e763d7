"""Texts: names, labels, and how they are cut."""

from __future__ import annotations

import re

_ROMAN = ((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"))
_ROMAN_SMALL = ((10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"))
_IRREGULAR = {"person": "people", "child": "children", "mouse": "mice"}


def slug(title: str, separator: str = "-", longest: int = 0) -> str:
    """A title as a part of an address: lower case, words joined by `separator`, at most `longest` characters."""
    words = re.findall(r"[a-z0-9]+", title.lower())
    text = separator.join(words)
    if longest and len(text) > longest:
        cut = text[:longest]
        if separator in cut and text[longest] != separator:
            cut = cut.rpartition(separator)[0]
        return cut.rstrip(separator)
    return text


def truncate(text: str, width: int, ending: str = "...") -> str:
    """The text, or its beginning and `ending`, in at most `width` characters."""
    if len(text) <= width:
        return text
    if width <= len(ending):
        return ending[:width]
    return text[: width - len(ending)].rstrip() + ending


def plural(word: str, count: int = 2) -> str:
    """The word as it is said of `count` things."""
    if count == 1:
        return word
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in ("a", "e", "i", "o", "u", ""):
        return word[:-1] + "ies"
    return word + "s"


def roman(number: int) -> str:
    """A number from 1 to 3999 in Roman digits."""
    if not 0 < number < 4000:
        raise ValueError("only 1 to 3999 can be written so")
    digits: list[str] = []
    for value, digit in _ROMAN + _ROMAN_SMALL:
        while number >= value:
            digits.append(digit)
            number -= value
    return "".join(digits)


def from_roman(text: str) -> int:
    """What Roman digits stand for."""
    values = {digit: value for value, digit in _ROMAN + _ROMAN_SMALL if len(digit) == 1}
    total = 0
    for index, digit in enumerate(text):
        value = values[digit]
        if index + 1 < len(text) and values[text[index + 1]] > value:
            total -= value
        else:
            total += value
    return total


def snake_case(name: str) -> str:
    """`someName` as `some_name`."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    spaced = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", spaced)
    return spaced.replace("-", "_").lower()


def camel_case(name: str, first_upper: bool = False) -> str:
    """`some_name` as `someName`."""
    parts = [part for part in name.split("_") if part]
    if not parts:
        return ""
    head = parts[0].capitalize() if first_upper else parts[0].lower()
    return head + "".join(part.capitalize() for part in parts[1:])


def wrap(text: str, width: int) -> list[str]:
    """Lines of whole words, each of at most `width` characters unless a word alone is longer."""
    if width < 1:
        raise ValueError("the width must be positive")
    lines: list[str] = []
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    if line:
        lines.append(line)
    return lines


def common_prefix(first: str, second: str) -> str:
    """What both begin with."""
    length = 0
    while length < min(len(first), len(second)) and first[length] == second[length]:
        length += 1
    return first[:length]


def is_palindrome(text: str) -> bool:
    """Whether its letters and digits read the same backwards."""
    letters = [letter.lower() for letter in text if letter.isalnum()]
    return letters == letters[::-1]
