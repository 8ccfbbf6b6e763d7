"""Rollout workers: actors with environments, tools and sandboxes, who play whole episodes."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio

from agent_rl.cluster.calls import Actor
from agent_rl.cluster.inference import ReplicatedEngine
from agent_rl.cluster.serving import Serving
from agent_rl.engine.base import Engine
from agent_rl.rollout.control import Gate
from agent_rl.rollout.group import PlayWithin
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.site import Cast, lasting, open_play
from agent_rl.tool.services import ToolServices, lend, siblings_of, tool_services
from agent_rl.types import Task, Trajectory


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
        self._playing = 0
        self._left = anyio.Event()
        self._play: PlayWithin
        self._lent: ToolServices

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None, None]:
        """Engine, tools, and who acts. Episodes that were cancelled close before these do."""
        async with (
            self._opened_engine() as self._engine,
            tool_services(self._cast.config.tools, self._codec.ends) as self._lent,
        ):
            with lasting():
                async with open_play(self._cast, self._codec, self._engine, self._turns) as self._play:
                    yield
                    while self._playing:
                        self._left = anyio.Event()
                        await self._left.wait()

    async def play(
        self, task: Task, group_index: int, member: int, seed: int, limits: RolloutLimits | None
    ) -> Trajectory:
        """See `PlayEpisode`. Siblings have equal seeds."""
        within = limits or self._cast.config.limits
        self._playing += 1
        try:
            async with self._slots:
                with lend(self._lent), siblings_of((task.environment, task.id, seed)):
                    return await self._play(task, group_index=group_index, member=member, seed=seed, limits=within)
        finally:
            self._playing -= 1
            self._left.set()

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
