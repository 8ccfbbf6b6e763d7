"""The siblings of one task, run concurrently; infrastructure failures get another attempt. Knows nothing of engines."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from functools import partial
from typing import Protocol

import anyio

from agent_rl.concurrency import collect
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.tool.services import siblings_of
from agent_rl.types import Failure, Group, Task, Trajectory


class PlayEpisode(Protocol):
    """One attempt at one episode, such as `run_episode` with its environment, agent and limits bound."""

    def __call__(self, task: Task, *, group_index: int, member: int, seed: int) -> Awaitable[Trajectory]:
        """Never raises for what the environment, a tool or the engine did: that is in the trajectory."""
        ...


class PlayWithin(Protocol):
    """A `PlayEpisode` that can also be given other limits than those that are bound."""

    def __call__(
        self, task: Task, *, group_index: int, member: int, seed: int, limits: RolloutLimits = ...
    ) -> Awaitable[Trajectory]:
        """See `PlayEpisode`."""
        ...


class PlayGroup(Protocol):
    """What plays the siblings of one task, such as `run_group`."""

    def __call__(
        self,
        play: PlayEpisode,
        task: Task,
        *,
        index: int,
        group_size: int,
        seed: int,
        max_attempts: int = 3,
        retry_delay_s: float = 1.0,
    ) -> Awaitable[Group]:
        """See `run_group`."""
        ...


async def run_group(
    play: PlayEpisode,
    task: Task,
    *,
    index: int,
    group_size: int,
    seed: int,
    max_attempts: int = 3,
    retry_delay_s: float = 1.0,
    first_member: int = 0,
) -> Group:
    """All members, each tried up to `max_attempts` times with the same seed while it fails in a retryable way.

    They are numbered from `first_member` on. Between attempts it waits `retry_delay_s`, then twice as long, and so on;
    the last attempt keeps the failures of those before it. What still fails is kept as a failed member, which
    `Group.valid` leaves out; a group may end without any valid member, and the consumer decides what that means. A
    failed member never cancels its siblings.
    """

    async def member_of_group(member: int) -> Trajectory:
        earlier: tuple[Failure, ...] = ()
        while True:
            trajectory = await play(task, group_index=index, member=member, seed=seed)
            failure = trajectory.failure
            if failure is None or not failure.retryable or len(earlier) + 1 >= max_attempts:
                return replace(trajectory, earlier_failures=earlier)
            await anyio.sleep(retry_delay_s * 2 ** len(earlier))
            earlier = (*earlier, failure)

    with siblings_of((task.environment, task.id, seed)):
        trajectories = await collect(
            partial(member_of_group, member) for member in range(first_member, first_member + group_size)
        )
    return Group(index, task, tuple(trajectories))
