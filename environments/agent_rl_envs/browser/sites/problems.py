"""What a task on the sites is: an instruction, the changes it wants, the answer, and the way a user would go.

Each app has templates in its `tasks.py`: functions of a world and random numbers. What is wanted is computed from the
records, the way goes through the pages: that it leads to what is wanted says that both understood the task alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import numpy as np

from agent_rl_envs.browser.sites.checks import Change
from agent_rl_envs.browser.sites.oracle import Stage
from agent_rl_envs.browser.sites.world import World

T = TypeVar("T")


class Unsuitable(Exception):
    """This world has no such task, or not with these numbers."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One task. `answer` is empty where only the state counts; without `wanted`, nothing may change."""

    instruction: str
    way: Sequence[Stage]
    wanted: Sequence[Change] = field(default_factory=tuple[Change, ...])
    answer: str = ""

    @property
    def actions(self) -> int:
        """How many the way takes at most, before the one that ends it."""
        return sum(len(stage.fields) + 1 for stage in self.way)


Template: TypeAlias = Callable[[World, np.random.Generator], Problem]

REGISTERED: dict[str, tuple[str, Template]] = {}
"""By name: the app, and what makes a problem. Complete once `templates.py` is imported."""


def template(app: str) -> Callable[[Template], Template]:
    """Register a template."""

    def add(make: Template) -> Template:
        assert make.__name__ not in REGISTERED, f"there are two templates {make.__name__}"
        REGISTERED[make.__name__] = (app, make)
        return make

    return add


def pick(rng: np.random.Generator, choices: Iterable[T]) -> T:
    """One of them. Raises `Unsuitable` where there are none."""
    listed = list(choices)
    if not listed:
        raise Unsuitable
    return listed[int(rng.integers(len(listed)))]


def some(rng: np.random.Generator, choices: Iterable[T], count: int) -> list[T]:
    """So many of them, in a random order. Raises `Unsuitable` where there are fewer."""
    listed = list(choices)
    if len(listed) < count:
        raise Unsuitable
    return [listed[int(i)] for i in rng.permutation(len(listed))[:count]]


def only(found: Iterable[T]) -> T:
    """The one there is. Raises `Unsuitable` where there are none or several: the task would be ambiguous."""
    listed = list(found)
    if len(listed) != 1:
        raise Unsuitable
    return listed[0]
