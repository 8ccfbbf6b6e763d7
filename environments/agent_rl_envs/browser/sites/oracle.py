"""How the oracle goes through the sites: stages, each of which sets fields and presses something, on what is seen.

A field that shows its value already is left alone, so that it does not matter who filled it in. Where a page does not
show what comes next, somebody has gone astray, and the way goes back. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent_rl.types import Message
from agent_rl_envs.browser.acting import act
from agent_rl_tools.browser import Node, PageView

_TEXTS = ("textbox", "searchbox", "spinbutton")


@dataclass(frozen=True, slots=True)
class Stage:
    """Fields by their labels, with a text, an option or whether it is checked; then what to press."""

    role: str
    name: str
    fields: Mapping[str, str | bool] = field(default_factory=dict[str, str | bool])


def press(name: str, fields: Mapping[str, str | bool] | None = None) -> Stage:
    """A button, after these fields."""
    return Stage("button", name, fields or {})


def link(name: str) -> Stage:
    """A link."""
    return Stage("link", name)


class Way:
    """Where somebody is on it."""

    def __init__(self, stages: Sequence[Stage], answer: str) -> None:
        self._stages, self._answer, self._at = stages, answer, 0

    def next(self, view: PageView) -> Message:
        """The next action on a page that looks like this; a stage is over once what it presses is pressed."""
        if self._at == len(self._stages):
            return Message("assistant", self._answer or "done")  # whether browser_stop is offered or not
        stage = self._stages[self._at]
        for label, value in stage.fields.items():
            node = _field(view, label)
            if node is None:
                return act("back")
            if (move := _setting(node, value)) is not None:
                return move
        target = view.find(stage.role, stage.name)
        if target is None:
            return act("back")
        self._at += 1
        return act("click", ref=target.ref)


def _field(view: PageView, label: str) -> Node | None:
    roles = (*_TEXTS, "combobox", "listbox", "checkbox", "radio")
    return next((node for node in view.elements(*roles) if node.name == label), None)


def _setting(node: Node, value: str | bool) -> Message | None:
    """What is left to do on a field."""
    if isinstance(value, bool):
        return act("click", ref=node.ref) if ("checked" in node.states) is not value else None
    if node.value in (value, "\u2022" * len(value)):  # the latter is a password
        return None
    return act("type", ref=node.ref, text=value) if node.role in _TEXTS else act("select", ref=node.ref, option=value)
