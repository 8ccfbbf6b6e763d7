"""Small languages: settings, rows, versions, templates, sums."""

from __future__ import annotations

import re
from collections.abc import Mapping


def split_row(line: str, separator: str = ",") -> list[str]:
    """The cells of a row; those in double quotes may have separators, and two quotes for one."""
    cells: list[str] = []
    cell = ""
    quoted = False
    index = 0
    while index < len(line):
        letter = line[index]
        if quoted and letter == '"' and line[index + 1 : index + 2] == '"':
            cell += '"'
            index += 1
        elif letter == '"':
            quoted = not quoted
        elif letter == separator and not quoted:
            cells.append(cell)
            cell = ""
        else:
            cell += letter
        index += 1
    if quoted:
        raise ValueError("a quote is not closed")
    return [*cells, cell]


def parse_settings(text: str) -> dict[str, str]:
    """Lines of `name = value`; `#` begins a comment, a later line wins."""
    settings: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"line {number} is no setting")
        settings[name.strip()] = value.strip()
    return settings


def version_key(version: str) -> tuple[tuple[int, ...], int, str]:
    """Sorts versions: numbers by value, zeros at the end left out, pre-releases before the release."""
    numbers, _, label = version.partition("-")
    parts = [int(part) for part in numbers.split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts), 0 if label else 1, label


def newer(first: str, second: str) -> bool:
    """Whether the first version comes after the second."""
    return version_key(first) > version_key(second)


def fill(template: str, values: Mapping[str, object]) -> str:
    """`{name}` replaced by its value, `{{` by `{`; an unknown name is an error."""

    def value_of(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        if match[1] not in values:
            raise KeyError(match[1])
        return str(values[match[1]])

    return re.sub(r"\{\{|\}\}|\{(\w+)\}", value_of, template)


def parse_query(text: str) -> dict[str, list[str]]:
    """`a=1&b=2&a=3` by name."""
    found: dict[str, list[str]] = {}
    for part in text.lstrip("?").split("&"):
        if not part:
            continue
        name, _, value = part.partition("=")
        found.setdefault(name, []).append(value.replace("+", " "))
    return found


def evaluate(expression: str) -> float:
    """A sum or product of numbers, with brackets."""
    tokens = re.findall(r"\d+(?:\.\d+)?|[-+*/()]", expression)
    if "".join(tokens) != expression.replace(" ", ""):
        raise ValueError("there is something that is no sum")
    value, rest = _sum(tokens)
    if rest:
        raise ValueError(f"nobody expected {rest[0]!r}")
    return value


def _sum(tokens: list[str]) -> tuple[float, list[str]]:
    value, tokens = _product(tokens)
    while tokens and tokens[0] in "+-":
        right, rest = _product(tokens[1:])
        value = value + right if tokens[0] == "+" else value - right
        tokens = rest
    return value, tokens


def _product(tokens: list[str]) -> tuple[float, list[str]]:
    value, tokens = _atom(tokens)
    while tokens and tokens[0] in "*/":
        right, rest = _atom(tokens[1:])
        value = value * right if tokens[0] == "*" else value / right
        tokens = rest
    return value, tokens


def _atom(tokens: list[str]) -> tuple[float, list[str]]:
    if not tokens:
        raise ValueError("it ends too early")
    head, rest = tokens[0], tokens[1:]
    if head == "-":
        value, rest = _atom(rest)
        return -value, rest
    if head == "(":
        value, rest = _sum(rest)
        if not rest or rest[0] != ")":
            raise ValueError("a bracket is not closed")
        return value, rest[1:]
    return float(head), rest


def brackets_match(text: str) -> bool:
    """Whether each bracket is closed by one of its kind."""
    pairs = {")": "(", "]": "[", "}": "{"}
    waiting: list[str] = []
    for letter in text:
        if letter in pairs.values():
            waiting.append(letter)
        elif letter in pairs and (not waiting or waiting.pop() != pairs[letter]):
            return False
    return not waiting
