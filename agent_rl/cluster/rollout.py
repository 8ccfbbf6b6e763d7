"""Rollout workers: actors with environments, tools and sandboxes, who play whole episodes."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from agent_rl.cluster.calls import Actor
from agent_rl.cluster.dispatch import Assignment
from agent_rl.cluster.inference import ReplicatedEngine
from agent_rl.cluster.serving import Serving
from agent_rl.engine.base import Engine
from agent_rl.rollout.control import Gate
from agent_rl.rollout.group import PlayWithin
from agent_rl.site import Cast, lasting, open_play
from agent_rl.tool.services import ToolServices, lend, siblings_of, tool_services
from agent_rl.types import Trajectory

_MOMENT_S = 0.01  # that finished episodes wait for others


class RolloutWorker(Serving):
    """An actor: plays episodes with an engine of its own for `episodes` at once, or with `replicas` that it asks.

    It plays `slots` at a time, or as many as come. What its tools share and hold open (caches, pools of sandboxes) is
    the worker's.
    """

    def __init__(self, cast: Cast, folder: Path, gpu: bool, episodes: int, slots: int, replicas: Sequence[str]) -> None:
        super().__init__(cast, folder, gpu and not replicas, episodes)
        self._slots = anyio.CapacityLimiter(slots or math.inf)
        self._shared = ReplicatedEngine(replicas) if replicas else None
        self._turns = Gate()
        self._scopes: dict[int, anyio.CancelScope] = {}  # of the episodes that run
        self._ended: list[tuple[int, Trajectory]] = []
        self._news = anyio.Event()
        self._broken: Exception | None = None
        self._tasks: TaskGroup
        self._play: PlayWithin
        self._lent: ToolServices

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None, None]:
        """Engine, tools, and who acts. Episodes that still run are cancelled, and close before these do."""
        async with (
            self._opened_engine() as self._engine,
            tool_services(self._cast.config.tools, self._codec.ends) as self._lent,
        ):
            with lasting():
                async with (
                    open_play(self._cast, self._codec, self._engine, self._turns) as self._play,
                    anyio.create_task_group() as self._tasks,
                ):
                    yield
                    self._tasks.cancel_scope.cancel()

    async def play(self, assigned: Sequence[Assignment], dropped: Sequence[int]) -> None:
        """Start episodes, and cancel those that were `dropped`."""
        for number in dropped:
            if scope := self._scopes.get(number):
                scope.cancel()
        for assignment in assigned:
            self._tasks.start_soon(self._play_one, assignment)

    async def finished(self) -> list[tuple[int, Trajectory]]:
        """The episodes that have ended since the last call, by number: waits for one, and a moment for others.

        Raises what an episode raised, if that is no failure that its trajectory could hold.
        """
        await self._news.wait()
        await anyio.sleep(_MOMENT_S)
        if self._broken is not None:
            raise self._broken
        self._news = anyio.Event()
        ended, self._ended = self._ended, []
        return ended

    async def _play_one(self, assignment: Assignment) -> None:
        number, task, seed = assignment.number, assignment.task, assignment.seed
        with anyio.CancelScope() as self._scopes[number]:
            try:
                async with self._slots:
                    with lend(self._lent), siblings_of((task.environment, task.id, seed)):  # siblings have equal seeds
                        trajectory = await self._play(
                            task,
                            group_index=assignment.group_index,
                            member=assignment.member,
                            seed=seed,
                            limits=assignment.limits or self._cast.config.limits,
                        )
                self._ended.append((number, trajectory))
            except Exception as error:  # noqa: BLE001  # the driver is to know
                self._broken = error
            finally:
                del self._scopes[number]
            self._news.set()

    async def hold(self, held: bool) -> None:
        """Whether episodes wait before their next turn."""
        (self._turns.close if held else self._turns.open)()

    async def find_replica(self, name: str, actor: Actor) -> None:
        """The inference replica `name` is this actor from here on."""
        assert self._shared is not None
        self._shared.find(name, actor)

    async def metrics(self) -> dict[str, float]:
        """Of the tools, since the last call."""
        return self._lent.metrics()

    def _opened_engine(self) -> AbstractAsyncContextManager[Engine]:
        return self.own_engine() if self._shared is None else self._shared
