"""Dispatched against consumed: whether training sees the episodes that were started, or a choice of them.

Cumulative since the run began or was resumed. The two can differ while groups are on their way, and agree in the end:
nothing is dropped. A difference that stays says that the order favours short episodes, or some tasks. Write-only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from agent_rl.types import Group, Task


@dataclass(slots=True)
class _Tally:
    episodes: int = 0
    turns: int = 0
    tokens: int = 0

    def add(self, group: Group) -> None:
        for episode in group.valid:
            self.episodes += 1
            self.turns += episode.steps
            self.tokens += episode.sampled_tokens


@dataclass(slots=True)
class Mix:
    """Counts groups as they are dispatched, finished and consumed; `metrics` compares."""

    _tags_dispatched: Counter[str] = field(default_factory=Counter[str])
    _tags_consumed: Counter[str] = field(default_factory=Counter[str])
    _finished: _Tally = field(default_factory=_Tally)
    _consumed: _Tally = field(default_factory=_Tally)

    def dispatch(self, task: Task) -> None:
        """A group of `task` begins. Tasks without tags count by their environment."""
        self._tags_dispatched.update(_tags(task))

    def finish(self, group: Group) -> None:
        """A group has ended."""
        self._finished.add(group)

    def consume(self, groups: Iterable[Group]) -> None:
        """A training step took these groups."""
        for group in groups:
            self._consumed.add(group)
            self._tags_consumed.update(_tags(group.task))

    def metrics(self) -> dict[str, float]:
        """Turns and sampled tokens per valid episode, finished and consumed; how far apart the mixes of tasks are.

        `task_distance` is the total variation distance between the tags of dispatched and consumed groups: 0 when they
        have the same shares, 1 when they have nothing in common.
        """
        metrics = {"task_distance": _distance(self._tags_dispatched, self._tags_consumed)}
        for name, tally in (("finished", self._finished), ("consumed", self._consumed)):
            if tally.episodes:
                metrics[f"{name}_turns"] = tally.turns / tally.episodes
                metrics[f"{name}_tokens"] = tally.tokens / tally.episodes
        return metrics


def _tags(task: Task) -> tuple[str, ...]:
    return task.tags or (task.environment,)


def _distance(left: Counter[str], right: Counter[str]) -> float:
    if not left or not right:
        return 0.0
    return sum(abs(left[tag] / left.total() - right[tag] / right.total()) for tag in left | right) / 2
