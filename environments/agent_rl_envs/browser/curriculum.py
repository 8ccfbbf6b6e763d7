"""Curricula as samplers of tasks: easier versions of them first, as a pure function of the group's index.

Both change entries of `Task.data` that the environment reads; wherever a sampler goes (`agent_rl.train`, a recipe's
`curriculum`), what they return goes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from agent_rl.types import Task

TaskSampler: TypeAlias = Callable[[int], Task]
"""The task of the group of an index, as in `agent_rl.train`."""

Schedule: TypeAlias = Callable[[int], float]
"""A value for the group of an index."""


def linear(first: float, last: float, groups: int) -> Schedule:
    """From `first` to `last` over so many groups, and `last` from then on."""
    return lambda index: first + (last - first) * min(1.0, index / groups)


def multiplicative(first: float, last: float, groups: int) -> Schedule:
    """`first` times 1, 2, 3, ... at even intervals, `last` at most and after `groups` groups: the schedule of TTI
    (arXiv:2506.07976, section 5.1: h = clip(h_min * i, h_min, h_max))."""
    stages = max(1, -(-last // first))
    return lambda index: min(last, first * (1 + int(index * (stages - 1) / groups))) if index < groups else last


def more_actions(task_at: TaskSampler, horizon: Schedule) -> TaskSampler:
    """Horizon curriculum (TTI, arXiv:2506.07976): a task's budget of actions is that of `horizon`, rounded."""
    return lambda index: _with(task_at(index), max_actions=max(1, round(horizon(index))))


def sub_instructions(task_at: TaskSampler, solved: Schedule) -> TaskSampler:
    """Sub-instruction curriculum (QWeb's warm-start, arXiv:1812.09195, section 4.2): this share of a task is solved
    beforehand by the oracle; a schedule goes from most of it to 0."""
    return lambda index: _with(task_at(index), solved_share=min(1.0, max(0.0, solved(index))))


def _with(task: Task, **entries: float) -> Task:
    return replace(task, data={**task.data, **entries})
