"""Problem statements made of what failing tests show: what was called, what was expected, what came instead.

A statement never has a line of the solution, and names no place but what the tests call. Pure functions.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_MAX_EXAMPLES, _LONGEST = 3, 400
_PLAIN = 12  # shortest line of a solution that is looked for in a statement


@dataclass(frozen=True, slots=True)
class Symptom:
    """How a test fails: the code of the check, and what was said. Empty where it is not known."""

    test: str
    code: str
    error: str
    message: str
    by_test: bool

    def to_data(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


_TITLES = (
    "{subject} does not behave as it should",
    "Wrong behaviour in {subject}",
    "{subject}: unexpected result",
    "Bug report: {subject}",
    "Regression in {subject}",
)
_OPENINGS = (
    "Since a recent change the following no longer works.",
    "I ran into this when I updated to the latest commit.",
    "The behaviour below contradicts what is documented and tested.",
    "We depend on this, and it broke.",
    "This used to work.",
)
_CLOSINGS = (
    "Please find the cause and mend it without changing anything else.",
    "A fix should keep all other behaviour as it is.",
    "I have not looked into the cause.",
    "Everything else that I use seems to be fine.",
)
_STUBS = (
    "`{function}` in `{path}` is not implemented: it only raises `NotImplementedError`.",
    "The body of `{function}` in `{path}` was lost.",
    "`{function}` (`{path}`) has to be written anew.",
)
_STUB_CLOSINGS = (
    "Implement it as its name, its docstring and its callers ask for.",
    "Write it so that all tests pass again.",
)


def write_statement(
    symptoms: Sequence[Symptom], rng: np.random.Generator, stubs: Sequence[tuple[str, str]] = ()
) -> str:
    """A report of one or more bugs. `stubs` are (function, path) of those that have no body left."""
    shown = _chosen(symptoms, rng)
    subject = _subject(shown)
    parts = [f"# {_one(_TITLES, rng).format(subject=subject)}", ""]
    if stubs:
        parts += [_one(_STUBS, rng).format(function=function, path=path) for function, path in stubs]
        parts += [_one(_STUB_CLOSINGS, rng), ""]
    else:
        parts += [_one(_OPENINGS, rng), ""]
    for symptom in shown:
        parts += [*_example(symptom, rng), ""]
    return "\n".join([*parts, _one(_CLOSINGS, rng)])


def leaks(statement: str, added_lines: Sequence[str]) -> bool:
    """Whether a line of the solution can be read in the statement."""
    return any(len(line.strip()) >= _PLAIN and line.strip() in statement for line in added_lines)


def find_symptom(test: str, error: str, message: str, source: str, line: int, by_test: bool) -> Symptom:
    """Of a failure in this line of a test's file."""
    return Symptom(test, statement_at(source, line), error, _cleaned(message), by_test)


def statement_at(source: str, line: int) -> str:
    """The innermost simple statement, or the head of a `with`, that a line belongs to."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    best: ast.stmt | None = None
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno):
            inner = best is None or node.lineno >= best.lineno
            if inner and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.If | ast.Try):
                best = node
    if best is None:
        return ""
    text = ast.get_source_segment(source, best, padded=True) or ""
    lines = text.splitlines()
    indent = min((len(entry) - len(entry.lstrip()) for entry in lines if entry.strip()), default=0)
    code = "\n".join(entry[indent:] for entry in lines)
    return code if len(code) <= _LONGEST else ""


def _chosen(symptoms: Sequence[Symptom], rng: np.random.Generator) -> list[Symptom]:
    """Different ones, those that show code first."""
    order = [symptoms[int(i)] for i in rng.permutation(len(symptoms))]
    order.sort(key=lambda symptom: not symptom.code)
    unlike: dict[tuple[str, str], Symptom] = {}
    for symptom in order:
        unlike.setdefault((symptom.code, symptom.message if not symptom.code else ""), symptom)
    return list(unlike.values())[:_MAX_EXAMPLES]


def _example(symptom: Symptom, rng: np.random.Generator) -> list[str]:
    name = symptom.test.rpartition("::")[2].partition("[")[0]
    if not symptom.code:
        return [f"`{name}` fails with `{_first_line(symptom)}`."]
    head = _one(("For example:", "To reproduce:", "This should hold, and does not:", "Consider"), rng)
    code = ["```python", symptom.code, "```"]
    said = _first_line(symptom)
    if symptom.by_test:
        got = _difference(symptom.message)
        tail = f"Instead: {got}" if got else f"It fails: `{said}`" if said else "It fails."
    else:
        tail = f"It raises `{symptom.error}`" + (f": {said}" if said else "")
    return [head, *code, tail]


def _difference(message: str) -> str:
    """`got X, expected Y` of the messages of unittest and pytest."""
    text = message.partition("\n")[0]
    if match := re.fullmatch(r"assert (.+) == (.+)", text):
        return f"the left side is `{match[1]}`, the right side `{match[2]}`"
    if match := re.fullmatch(r"(?:Lists|Tuples|Dicts|Sets)? ?(?:differ: )?(.+) != (.+?)(?: : .*)?", text):
        return f"the first value is `{match[1]}`, the second `{match[2]}`"
    return ""


def _first_line(symptom: Symptom) -> str:
    return symptom.message.partition("\n")[0][:200]


def _subject(symptoms: Sequence[Symptom]) -> str:
    """What the tests call, or what they are called."""
    for symptom in symptoms:
        names = _called(symptom.code)
        if names:
            return f"`{names[0]}`"
    name = symptoms[0].test.rpartition("::")[2].partition("[")[0].removeprefix("test_") if symptoms else "this"
    return name.replace("_", " ")


def _called(code: str) -> list[str]:
    """Functions that a check calls, without those of testing."""
    try:
        tree = ast.parse(code if not code.rstrip().endswith(":") else f"{code} pass")
    except SyntaxError:
        return []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if not re.search(r"assert|raises|warns|pytest|^(list|len|str|repr|sorted|set|dict|tuple|type|next)$", name):
                names.append(name)
    return names


def _cleaned(message: str) -> str:
    """Without what differs from run to run: addresses in memory, temporary folders."""
    text = re.sub(r" at 0x[0-9a-f]+|(?<=\.\.\.)[0-9a-f]+(?=>)", "", message)
    text = re.sub(r"/(?:tmp|workspace|run)/\S*", "...", text)
    return text[:_LONGEST]


def _one(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def symptom_from(data: Mapping[str, Any]) -> Symptom:
    """The symptom again."""
    return Symptom(**data)
