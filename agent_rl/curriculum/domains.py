"""Domains of tasks, what training saw of them, and the contract of algorithms that weigh them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agent_rl.errors import ConfigError
from agent_rl.types import Task

Array: TypeAlias = NDArray[np.float64]
State: TypeAlias = Mapping[str, Array]
"""What an algorithm has learned, as named arrays; NaN is what was not seen yet."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """The valid episodes E of one training step, as flat arrays.

    `group_E` numbers the groups; `advantage_E` is the mean |advantage| of the episode's tokens, 0 where its group was
    not trained on; `reward_E` the reward, `success_E` 1 or 0, `score_E` an estimate of the norm of its score (see
    `gvm`).
    """

    domain_E: NDArray[np.int64]
    group_E: NDArray[np.int64]
    advantage_E: Array
    reward_E: Array
    success_E: Array
    score_E: Array

    def means(self, values_E: Array, domains: int) -> Array:
        """The mean of each domain (D,), NaN where it has no episode."""
        counts_D = np.bincount(self.domain_E, minlength=domains)
        sums_D = np.bincount(self.domain_E, values_E, minlength=domains)
        return np.divide(sums_D, counts_D, out=np.full(domains, np.nan), where=counts_D > 0)


class Weighting(Protocol):
    """How domains are weighed: options and pure functions. States are replaced, never changed."""

    def start(self, domains: int) -> State:
        """Before anything was seen."""
        ...

    def weights(self, state: State) -> Array:
        """The chance (D,) of each domain to be drawn next; they sum to 1."""
        ...

    def update(self, state: State, outcomes: Outcomes) -> State:
        """After a training step."""
        ...


class Domains:
    """Tasks by domain: `of[position]` is the number of a task's domain, `members[domain]` are its positions.

    `by` says what the tasks of a domain share: all `tags`, the `environment`, nothing (`task`: each is a domain of its
    own), or else the first of their tags that begins with `by`, such as `difficulty:`. Raises `ConfigError` when no tag
    does.
    """

    def __init__(self, tasks: Sequence[Task], by: str) -> None:
        keys = [_key(task, by) for task in tasks]
        if by not in ("tags", "environment", "task") and not any(keys):
            known = sorted({tag for task in tasks for tag in task.tags})[:10]
            raise ConfigError(
                f"No task has a tag that begins with {by!r}: curriculum.domain is tags, environment, task, or the "
                f"beginning of a tag. These tasks have {', '.join(known) or 'no tags'}."
            )
        names = dict.fromkeys(keys)
        self.names = tuple(names)
        numbers = {name: number for number, name in enumerate(names)}
        self.of = [numbers[key] for key in keys]
        self.members: list[list[int]] = [[] for _ in names]
        for position, domain in enumerate(self.of):
            self.members[domain].append(position)

    def __len__(self) -> int:
        return len(self.names)


def softmax(values: Array) -> Array:
    """exp(values) with the sum 1."""
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def smoothed(old: Array, new: Array, rate: float) -> Array:
    """(1 - rate) old + rate new, where there is something new; the new value alone where there was no old one."""
    mixed = np.where(np.isnan(old), new, (1 - rate) * old + rate * new)
    return np.where(np.isnan(new), old, mixed)


def _key(task: Task, by: str) -> str:
    if by == "task":
        return task.id
    if by == "environment":
        return task.environment
    if by == "tags":
        return ",".join(task.tags)
    return next((tag for tag in task.tags if tag.startswith(by)), "")
