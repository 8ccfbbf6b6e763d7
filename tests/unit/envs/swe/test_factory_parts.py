"""What the task factory is made of: edits that keep the rest of a file, statements that do not tell the solution."""

import ast

import pytest

from agent_rl.seeding import stream
from agent_rl_envs.swe.factory.mutations import mutations
from agent_rl_envs.swe.factory.statements import Symptom, find_symptom, leaks, statement_at, write_statement

SOURCE = '''"""Äö: bytes are not characters."""

import os


class Shelf:
    @property
    def free(self):
        """How many."""
        return self.count - self.reserved  # what is left


def find(items, key=None, *, strict=True):
    """Find."""
    if not items:
        return None
    found = []
    for index, item in enumerate(items):
        if item is None:
            continue
        if 0 <= index < len(items) and key in item:
            found.append(item[index + 1 :])
        else:
            found.append(max(item, key or ""))
    return found
'''.encode()


def made() -> dict[str, list[str]]:
    """Changed lines by kind."""
    kinds: dict[str, list[str]] = {}
    before = SOURCE.decode().splitlines()
    for mutation in mutations(SOURCE):
        after = mutation.applied(SOURCE).decode().splitlines()
        changed = [line.strip() for line in after if line not in before]
        kinds.setdefault(mutation.kind, []).extend(changed)
    return kinds


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("operator", "return self.count + self.reserved  # what is left"),
        ("removed_not", "if items:"),
        ("removed_guard", "pass"),
        ("comparison", "if item is not None:"),
        ("comparison", "if 0 < index < len(items) and key in item:"),
        ("comparison", "if 0 <= index <= len(items) and key in item:"),
        ("comparison", "if 0 <= index < len(items) and key not in item:"),
        ("boolean", "if 0 <= index < len(items) or key in item:"),
        ("removed_condition", "if key in item:"),
        ("break_for_continue", "break"),
        ("constant", "found.append(item[index + 2 :])"),
        ("off_by_one", "found.append(item[index + 1 - 1 :])"),
        ("wrong_function", 'found.append(min(item, key or ""))'),
        ("swapped_arguments", 'found.append(max(key or "", item))'),
        ("default", "def find(items, key=None, *, strict=False):"),
        ("early_return", "return found"),
        ("stub", "raise NotImplementedError"),
        ("returns_nothing", "return None"),
        ("deleted_branch", "pass"),
    ],
)
def test_bugs_of_each_kind(kind: str, line: str):
    assert line in made()[kind] or (line in SOURCE.decode() and kind in made())


def test_all_else_stays_as_it_is():
    """Comments, blank lines and the rest of the line; and what is made is another program."""
    for mutation in mutations(SOURCE):
        after = mutation.applied(SOURCE)
        assert after.startswith(SOURCE[: mutation.start])
        assert after.endswith(SOURCE[mutation.end :])
        if mutation.is_possible(SOURCE):
            assert ast.dump(ast.parse(after)) != ast.dump(ast.parse(SOURCE))


def test_docstrings_are_left_alone():
    text = SOURCE.decode()
    for mutation in mutations(SOURCE):
        assert "How many." in mutation.applied(SOURCE).decode()
        assert mutation.function in ("Shelf.free", "find")
    stub = next(m for m in mutations(SOURCE) if m.kind == "stub" and m.function == "find")
    assert stub.applied(SOURCE).decode() == text[: text.index("    if not items")] + "    raise NotImplementedError\n"


def test_the_first_line_is_that_of_the_decorator():
    assert {m.function: m.first_line for m in mutations(SOURCE)} == {"Shelf.free": 7, "find": 13}


def test_what_is_no_python_has_no_bugs():
    assert mutations(b"def f(:") == []
    assert not next(iter(mutations(b"def f(a):\n    return a < 1\n"))).is_possible(b"x = (")


# --- statements -----------------------------------------------------------------------------------------------------

TEST = """def test_parts():
    items = [1, 2]
    assert chunks(
        items, 2
    ) == [[1, 2]]
    with raises(ValueError):
        chunks(items, 0)
"""


def test_the_check_that_failed_is_shown():
    assert statement_at(TEST, 4) == "assert chunks(\n    items, 2\n) == [[1, 2]]"
    assert statement_at(TEST, 7) == "chunks(items, 0)"
    assert statement_at("def f(:", 1) == ""


def test_a_statement_says_what_was_called_expected_and_got():
    symptom = find_symptom("t.py::test_parts", "AssertionError", "assert [[1]] == [[1, 2]]\n  more", TEST, 3, True)
    text = write_statement([symptom], stream("x"))
    assert "`chunks`" in text
    assert "chunks(\n    items, 2\n) == [[1, 2]]" in text
    assert "the left side is `[[1]]`, the right side `[[1, 2]]`" in text


def test_an_error_is_told_as_one():
    symptom = find_symptom("t.py::test_parts", "TypeError", "bad <object at 0x7f00aa> <obj...f00aa1>", TEST, 3, False)
    assert "It raises `TypeError`: bad <object> <obj...>" in write_statement([symptom], stream("x"))


def test_forms_vary_and_a_seed_repeats_them():
    symptom = Symptom("t.py::test_parts", "assert f(1) == 2", "AssertionError", "assert 1 == 2", True)
    texts = {write_statement([symptom], stream("form", seed)) for seed in range(20)}
    assert len(texts) > 5
    assert write_statement([symptom], stream("form", 3)) in texts


def test_functions_to_write_anew_are_named():
    text = write_statement([], stream("x"), stubs=[("Shelf.free", "src/shelf.py")])
    assert "`Shelf.free`" in text
    assert "src/shelf.py" in text


def test_a_line_of_the_solution_is_a_leak():
    assert leaks("the line `return a + total` is wrong", ["    return a + total"])
    assert not leaks("return a", ["    return a"])  # too short to tell anything
    assert not leaks("something else", ["    return a + total"])
