"""What anybody may plausibly do on a page: the moves of the random agent, and how actions are written. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

import numpy as np

from agent_rl.types import Message, ToolCall
from agent_rl_tools.browser import Node, PageView

_FIELDS = ("textbox", "searchbox", "spinbutton")
_LISTS = ("combobox", "listbox")


def act(name: str, **arguments: object) -> Message:
    """A call of the tool `browser_<name>`."""
    return Message("assistant", "", (ToolCall("call_0", f"browser_{name}", arguments),))


def plausible_texts(instruction: str) -> list[str]:
    """What an instruction may want typed: what stands in quotation marks, else its longer words and numbers."""
    quoted = re.findall(r'"([^"]+)"', instruction)
    return quoted or re.findall(r"\w[\w/:.@-]*\d|\w{4,}", instruction) or ["text"]


def random_move(view: PageView, instruction: str, rng: np.random.Generator, offered: Collection[str]) -> Message:
    """An action that fits some element, drawn evenly over elements. `offered` are names of tools.

    Where nothing can be acted on, the page is looked at again, or the task is ended.
    """
    moves = [move for node in view.elements() if view.sees(node) and (move := _move(view, node, instruction, rng))]
    moves = [(name, arguments) for name, arguments in moves if f"browser_{name}" in offered]
    if not moves:
        return act("snapshot") if "browser_snapshot" in offered else Message("assistant", "")
    name, arguments = moves[int(rng.integers(len(moves)))]
    return act(name, **arguments)


_Move = tuple[str, dict[str, object]]


def _move(view: PageView, node: Node, instruction: str, rng: np.random.Generator) -> _Move | None:
    if "disabled" in node.states:
        return None
    pick = _picker(rng)
    if node.role in _FIELDS and "readonly" not in node.states:
        return "type", {"ref": node.ref, "text": pick(plausible_texts(instruction))}
    if node.role in _LISTS and (options := view.options(node.ref)):
        return "select", {"ref": node.ref, "option": pick(options)}
    return "click", {"ref": node.ref}


def _picker(rng: np.random.Generator) -> Callable[[list[str]], str]:
    return lambda choices: choices[int(rng.integers(len(choices)))]
