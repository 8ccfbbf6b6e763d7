"""Episodes on their way to a rollout worker, and trajectories on their way back, many in one call.

A call of Ray costs both processes about a millisecond, whatever it carries: as much as some environments take for an
episode. So what is asked for while a call is under way goes with the next one, and episodes that end within a moment
come back together.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import anyio

from agent_rl.cluster.calls import Actor, Lost, answer
from agent_rl.concurrency import collect
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.types import Task, Trajectory


@dataclass(frozen=True, slots=True)
class Assignment:
    """An episode to play. `limits` are those of the run, if not given; `number` is told with its trajectory."""

    number: int
    task: Task
    group_index: int
    member: int
    seed: int
    limits: RolloutLimits | None


@dataclass(slots=True, eq=False)
class _Waiting:
    """Who asked for an episode."""

    ended: anyio.Event = field(default_factory=anyio.Event)
    trajectory: Trajectory | None = None


class Dispatch:
    """Between those who want episodes played and one `RolloutWorker`, for as long as `exchange` runs."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        self._numbers = itertools.count()
        self._waiting: dict[int, _Waiting] = {}
        self._assigned: dict[int, Assignment] = {}  # and not sent yet
        self._dropped: list[int] = []  # sent, but nobody waits any more
        self._news = anyio.Event()
        self._left = anyio.Event()
        self._scope = anyio.CancelScope()
        self._closed = False

    async def play(
        self, task: Task, group_index: int, member: int, seed: int, limits: RolloutLimits | None
    ) -> Trajectory:
        """See `PlayEpisode`. Raises `Lost` when the worker ends before the episode."""
        number, waiting = next(self._numbers), _Waiting()
        if self._closed:
            raise Lost("the worker has ended")
        self._waiting[number] = waiting
        self._assigned[number] = Assignment(number, task, group_index, member, seed, limits)
        self._news.set()
        try:
            await waiting.ended.wait()
        except BaseException:
            if self._assigned.pop(number, None) is None:
                self._dropped.append(number)
                self._news.set()
            raise
        finally:
            del self._waiting[number]
            self._left.set()
        if waiting.trajectory is None:
            raise Lost("the worker has ended")
        return waiting.trajectory

    async def drained(self) -> None:
        """Until nobody waits for an episode."""
        while self._waiting:
            self._left = anyio.Event()
            await self._left.wait()

    async def exchange(self) -> None:
        """Until `close`, or until the worker is lost. Raises what no episode may raise, such as `UserError`."""
        try:
            with self._scope:
                await collect([self._send, self._receive])
        except* Lost:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Whoever still waits is told that the worker is lost. Idempotent."""
        self._closed = True
        for waiting in self._waiting.values():
            waiting.ended.set()
        self._scope.cancel()

    async def _send(self) -> None:
        while True:
            await self._news.wait()
            self._news = anyio.Event()
            assigned, self._assigned = list(self._assigned.values()), {}
            dropped, self._dropped = self._dropped, []
            await answer(self.actor.play.remote(assigned, dropped))

    async def _receive(self) -> None:
        while True:
            for number, trajectory in await answer(self.actor.finished.remote()):
                if waiting := self._waiting.get(number):
                    waiting.trajectory = trajectory
                    waiting.ended.set()
