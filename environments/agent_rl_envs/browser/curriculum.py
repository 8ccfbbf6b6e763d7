"""Curricula as samplers of tasks: easier versions of them first, as a pure function of the group's index.

Both change entries of `Task.data` that the environment reads; wherever a sampler goes (`agent_rl.train`, a recipe's
`curriculum`), what they return goes.
"""

from __future__ import annotations

from dataclasses import replace

from agent_rl.curriculum import TaskSampler
from agent_rl.curriculum.schedules import Schedule
from agent_rl.types import Task


def more_actions(task_at: TaskSampler, horizon: Schedule) -> TaskSampler:
    """Horizon curriculum (TTI, arXiv:2506.07976): a task's budget of actions is that of `horizon`, rounded."""
    return lambda index: _with(task_at(index), max_actions=max(1, round(horizon(index))))


def sub_instructions(task_at: TaskSampler, solved: Schedule) -> TaskSampler:
    """Sub-instruction curriculum (QWeb's warm-start, arXiv:1812.09195, section 4.2): this share of a task is solved
    beforehand by the oracle; a schedule goes from most of it to 0."""
    return lambda index: _with(task_at(index), solved_share=min(1.0, max(0.0, solved(index))))


def _with(task: Task, **entries: float) -> Task:
    return replace(task, data={**task.data, **entries})
