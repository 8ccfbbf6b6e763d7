"""The contract between a curriculum and the training loop, and the curriculum that never changes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from agent_rl.credit.estimator import Advantages
from agent_rl.rollout.group import PlayEpisode, PlayWithin
from agent_rl.seeding import stream
from agent_rl.types import Group, Task

T = TypeVar("T")

TaskSampler: TypeAlias = Callable[[int], Task]
"""Which task the group of a given index plays; a pure function, so that any order of events gives the same tasks."""


def shuffled_epochs(tasks: Sequence[T], seed: int) -> Callable[[int], T]:
    """Each epoch visits every task once, in an order of its own."""

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> list[int]:
        return stream(seed, "task order", epoch).permutation(len(tasks)).tolist()

    return lambda index: tasks[order(index // len(tasks))[index % len(tasks)]]


class Curriculum:
    """What each group plays: its task, how many episodes, within which limits. This one never changes.

    A curriculum that follows results decides all this when a group is admitted. The loop calls `begin`, then `admit`
    whenever slots become free and `observe` after the credit of each step, in the logical order of training; so what
    is decided depends on no timing. What was decided for groups in flight is part of the state, since it followed from
    results of steps before.
    """

    def __init__(self, task_at: TaskSampler, group_size: int) -> None:
        self.task_at = task_at
        self._group_size = group_size

    def group_size(self, index: int) -> int:
        """Episodes of an admitted group."""
        return self._group_size

    def within_limits(self, play: PlayWithin) -> PlayEpisode:
        """`play` within the limits of each group, where those change."""
        return play

    def begin(self, capacity: int) -> None:
        """Training starts or goes on, and so many groups may be in flight."""

    def admit(self, count: int) -> None:
        """So many more groups may start, those of the next indices."""

    def observe(self, groups: Sequence[Group], advantages: Mapping[int, Advantages]) -> None:
        """A step consumed `groups`; `advantages`, by index, are those of the groups that it was trained on."""

    def metrics(self) -> dict[str, float]:
        """What it does now."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: plain containers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, before `begin`."""
