"""Scripted solvers of some pages: from the instruction and what the page looks like, the next action. Pure.

Each is asked anew after every action, and looks at the page to know what is left to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from agent_rl.types import Message
from agent_rl_envs.browser.acting import act
from agent_rl_tools.browser import Node, PageView

Solver = Callable[[str, PageView], Message]
SOLVERS: dict[str, Solver] = {}
_FIELDS = ("textbox", "spinbutton")
_ORDINALS = {"1st": 0, "2nd": 1, "3rd": 2}


def _solves(*pages: str) -> Callable[[Solver], Solver]:
    def register(solver: Solver) -> Solver:
        SOLVERS.update(dict.fromkeys(pages, solver))
        return solver

    return register


def _click(node: Node | None) -> Message:
    if node is None:
        raise NotImplementedError("the page shows nothing that this solver knows")
    return act("click", ref=node.ref)


def _quoted(instruction: str) -> list[str]:
    return re.findall(r'"([^"]*)"', instruction)


def _fields(view: PageView) -> list[Node]:
    return [node for node in view.elements(*_FIELDS) if "readonly" not in node.states]


def _named(view: PageView, name: str) -> Node | None:
    """The last element of this name: what is in others comes after them."""
    return next((node for node in reversed(list(view.elements())) if node.name == name), None)


def _lines(view: PageView) -> list[str]:
    """Texts of the page in order, as they are read."""
    return [node.name for node in view.nodes if node.name and node.role in ("text", "cell", "columnheader", "heading")]


def _fill(view: PageView, texts: Sequence[str], submit: str) -> Message:
    """The fields in order, then a button."""
    for field, text in zip(_fields(view), texts, strict=False):
        shown = "\u2022" * len(text) if field.value.startswith("\u2022") else text
        if field.value != shown:
            return act("type", ref=field.ref, text=text)
    return _click(view.find("button", submit))


def _toggle(view: PageView, role: str, wanted: Sequence[str], submit: str = "Submit") -> Message:
    """The boxes that should be checked and are not, or the other way round, then a button."""
    for node in view.elements(role):
        if ("checked" in node.states) is not (node.name in wanted):
            return _click(node)
    return _click(view.find("button", submit))


# --- clicks ---------------------------------------------------------------------------------------------------------


@_solves("click-test")
def _click_test(instruction: str, view: PageView) -> Message:
    return _click(next(view.elements("button"), None))


@_solves("click-test-2", "click-test-transfer")
def _click_test_2(instruction: str, view: PageView) -> Message:
    return _click(view.find("button", instruction.rstrip(".").split()[-1]))


@_solves("click-button")
def _click_button(instruction: str, view: PageView) -> Message:
    return _click(view.find("button", _quoted(instruction)[0]))


@_solves("click-button-sequence")
def _click_button_sequence(instruction: str, view: PageView) -> Message:
    first = next((node for node in view.elements("button") if "focused" in node.states), None)
    return _click(view.find("button", "TWO" if first is not None and first.name == "ONE" else "ONE"))


@_solves("click-link")
def _click_link(instruction: str, view: PageView) -> Message:
    return _click(_named(view, _quoted(instruction)[0]))


@_solves("click-tab")
def _click_tab(instruction: str, view: PageView) -> Message:
    return _click(_named(view, instruction.removeprefix("Click on ").rstrip(".")))


@_solves("click-dialog-2")
def _click_dialog(instruction: str, view: PageView) -> Message:
    wanted = _quoted(instruction)[0]
    return _click(view.find("button", "Close" if wanted == "x" else wanted))


@_solves("click-color")
def _click_color(instruction: str, view: PageView) -> Message:
    found = re.search(r"the (\w+) colored", instruction)
    return _click(view.find("clickable", found[1]) if found else None)


@_solves("ascending-numbers")
def _ascending_numbers(instruction: str, view: PageView) -> Message:
    """After the first click there are squares instead of numbers, in their order."""
    return _click(view.find("clickable", "1") or next(view.elements("rect"), None))


@_solves("navigate-tree")
def _navigate_tree(instruction: str, view: PageView) -> Message:
    wanted = _named(view, _quoted(instruction)[0])
    if wanted is not None:
        return _click(wanted)
    return _click(next((node for node in view.elements("clickable") if ".expandable-hitarea" in node.name), None))


@_solves("focus-text")
def _focus_text(instruction: str, view: PageView) -> Message:
    return _click(next(iter(_fields(view)), None))


@_solves("focus-text-2")
def _focus_text_2(instruction: str, view: PageView) -> Message:
    return _click(_fields(view)[next(place for word, place in _ORDINALS.items() if word in instruction)])


@_solves("identify-shape")
def _identify_shape(instruction: str, view: PageView) -> Message:
    kinds = {"circle": "Circle", "rect": "Rectangle", "polygon": "Triangle"}
    for node in view.nodes:
        if node.role in kinds:
            return _click(view.find("button", kinds[node.role]))
        if node.role in ("text", "clickable") and len(node.name) == 1:
            return _click(view.find("button", "Number" if node.name.isdecimal() else "Letter"))
    return _click(None)


# --- choices --------------------------------------------------------------------------------------------------------


@_solves("click-checkboxes", "click-checkboxes-large", "click-checkboxes-transfer")
def _click_checkboxes(instruction: str, view: PageView) -> Message:
    listed = instruction.removeprefix("Select ").removesuffix(" and click Submit.")
    return _toggle(view, "checkbox", listed.split(", "))


@_solves("click-option")
def _click_option(instruction: str, view: PageView) -> Message:
    wanted = view.find("radio", instruction.removeprefix("Select ").removesuffix(" and click Submit."))
    if wanted is not None and "checked" not in wanted.states:
        return _click(wanted)
    return _click(view.find("button", "Submit"))


@_solves("choose-list")
def _choose_list(instruction: str, view: PageView) -> Message:
    wanted = instruction.removeprefix("Select ").removesuffix(" from the list and click Submit.")
    chosen = next(view.elements("combobox"))
    if chosen.value != wanted:
        return act("select", ref=chosen.ref, option=wanted)
    return _click(view.find("button", "Submit"))


# --- texts ----------------------------------------------------------------------------------------------------------


@_solves("enter-text", "enter-text-dynamic")
def _enter_text(instruction: str, view: PageView) -> Message:
    return _fill(view, _quoted(instruction), "Submit")


@_solves("enter-text-2")
def _enter_text_2(instruction: str, view: PageView) -> Message:
    text = _quoted(instruction)[0]
    return _fill(view, [text.upper() if "upper case" in instruction else text.lower()], "Submit")


@_solves("enter-password")
def _enter_password(instruction: str, view: PageView) -> Message:
    return _fill(view, _quoted(instruction) * 2, "Submit")


@_solves("login-user")
def _login_user(instruction: str, view: PageView) -> Message:
    return _fill(view, _quoted(instruction), "Login")


@_solves("find-word")
def _find_word(instruction: str, view: PageView) -> Message:
    at = re.search(r"the (\d+)", instruction)
    words = re.findall(r"\w+", " ".join(_lines(view)))
    return _fill(view, [words[int(at[1]) - 1]] if at else [], "Submit")


@_solves("simple-arithmetic")
def _simple_arithmetic(instruction: str, view: PageView) -> Message:
    one, sign, other = re.findall(r"(-?\d+)\s*([-+x*])\s*(-?\d+)", " ".join(_lines(view)))[0]
    result = {"+": int(one) + int(other), "-": int(one) - int(other)}.get(sign, int(one) * int(other))
    return _fill(view, [str(result)], "Submit")


@_solves("read-table")
def _read_table(instruction: str, view: PageView) -> Message:
    label = instruction.removeprefix("Enter the value of ").partition(" into")[0]
    return _fill(view, [_after(label, _lines(view))], "Submit")


@_solves("read-table-2")
def _read_table_2(instruction: str, view: PageView) -> Message:
    lines = list(_lines(view))
    asked = [node.name.rstrip(" :") for node in _before_fields(view)]
    return _fill(view, [_after(label, lines) for label in asked], "Submit")


def _after(label: str, lines: Sequence[str]) -> str:
    at = next((i for i, line in enumerate(lines) if line.rstrip(" :") == label), None)
    return lines[at + 1] if at is not None and at + 1 < len(lines) else ""


def _before_fields(view: PageView) -> Iterator[Node]:
    """The text before each field."""
    before: Node | None = None
    for node in view.nodes:
        if node.role in _FIELDS and before is not None:
            yield before
        if node.role == "text":
            before = node
