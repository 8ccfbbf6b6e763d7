"""Stored episodes with another reward: no model, no environment, nothing written to the store."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypedDict

import numpy as np

from agent_rl.errors import UserError
from agent_rl.evaluate.report import succeeds
from agent_rl.evaluate.statistics import Estimate, mean
from agent_rl.registry import Registry
from agent_rl.types import Group, Trajectory

RewardFunction: TypeAlias = Callable[[Trajectory], float]
"""The reward of a whole episode. It sees the task's `data`, every message, tool result and reward."""

_REWARDS: Registry[RewardFunction] = Registry("reward", "a function of an episode", "", callable)


class Rescored(TypedDict):
    """One row: an episode with its reward as stored and as it would be."""

    group: int
    member: int
    task: str
    old: float
    new: float


class Rescoring(NamedTuple):
    """Means over tasks, of valid episodes; `gained` and `lost` are the episodes that now succeed, or no longer do."""

    old: Estimate
    new: Estimate
    episodes: int
    gained: tuple[Rescored, ...]
    lost: tuple[Rescored, ...]


def load_reward(target: str) -> RewardFunction:
    """The function named as `package.module:function`. Raises `UserError` when there is none."""
    if ":" not in target:
        raise UserError(f"{target!r} does not say where the reward is: write package.module:function.")
    return _REWARDS.get(target)


def rescored(groups: Iterable[Group], reward: RewardFunction) -> Iterator[Rescored]:
    """A row for each valid episode. Raises `UserError` where the function fails or returns no finite number."""
    for group in groups:
        for episode in group.valid:
            yield Rescored(
                group=group.index,
                member=episode.member,
                task=group.task.id,
                old=episode.reward,
                new=_reward_of(episode, reward),
            )


def _reward_of(episode: Trajectory, reward: RewardFunction) -> float:
    where = f"episode {episode.group_index}.{episode.member}"
    try:
        value = float(reward(episode))
    except Exception as error:
        raise UserError(f"The reward failed on {where}: {type(error).__name__}: {error}.") from error
    if not math.isfinite(value):
        raise UserError(f"The reward of {where} is {value}: it must be a finite number.")
    return value


def summarize(rows: Iterable[Rescored], threshold: float, output: Path | None = None) -> Rescoring:
    """Write each row as a line of `output`, if given, and say what changed. Raises `UserError` for no row at all."""
    old: dict[int, list[float]] = {}
    new: dict[int, list[float]] = {}
    gained: list[Rescored] = []
    lost: list[Rescored] = []
    with nullcontext() if output is None else output.open("w", encoding="utf-8") as lines:
        for row in rows:
            old.setdefault(row["group"], []).append(row["old"])
            new.setdefault(row["group"], []).append(row["new"])
            before, after = succeeds(row["old"], threshold), succeeds(row["new"], threshold)
            if before != after:
                (gained if after else lost).append(row)
            if lines is not None:
                lines.write(json.dumps(row) + "\n")
    if not old:
        raise UserError("There is no valid episode to score.")
    return Rescoring(_over_tasks(old), _over_tasks(new), sum(map(len, old.values())), tuple(gained), tuple(lost))


def _over_tasks(rewards: Mapping[int, Sequence[float]]) -> Estimate:
    return mean(np.array([sum(of_one) / len(of_one) for of_one in rewards.values()], np.float64))
