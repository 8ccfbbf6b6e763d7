"""Inference replicas: actors with an engine, and the engine of a rollout worker that asks them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio

from agent_rl.cluster.calls import Actor, Lost, answer, tell
from agent_rl.cluster.serving import Serving
from agent_rl.engine.base import GenerationRequest
from agent_rl.engine.replicas import Replicas
from agent_rl.errors import ProviderFailure
from agent_rl.site import lasting
from agent_rl.types import Generation

if TYPE_CHECKING:
    import torch


class InferenceReplica(Serving):
    """An actor: one engine with the policy."""

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None, None]:
        """The engine."""
        async with self.own_engine() as self._engine:
            with lasting():
                yield

    async def generate(self, request: GenerationRequest) -> Generation:
        """See `Engine.generate`."""
        return await self._engine.generate(request)

    async def abort(self, session: str) -> None:
        """See `Engine.abort`."""
        await self._engine.abort(session)

    async def release(self, session: str) -> None:
        """See `Engine.release`."""
        await self._engine.release(session)


class ReplicatedEngine:
    """An `Engine`: an episode stays at the replica of its first request, as long as that is there.

    Requests carry their whole context, so that another replica can go on with an episode of a lost one.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._replicas = Replicas(names)
        self._actors: dict[str, Actor] = {}
        self._found = anyio.Event()
        self.weight_version = 0
        for replica in self._replicas.all:
            self._replicas.lose(replica)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        return None

    def find(self, name: str, actor: Actor) -> None:
        """The replica `name` is this actor from here on."""
        self._actors[name] = actor
        self._replicas.find(self._replicas.named(name))
        self._found.set()
        self._found = anyio.Event()

    async def generate(self, request: GenerationRequest) -> Generation:
        """See `Engine.generate`. While no replica is there it waits, within the deadline of the episode's turn."""
        while True:
            try:
                replica = self._replicas.of(request.session)
            except ProviderFailure:
                await self._found.wait()
                continue
            actor = self._actors[replica.name]
            try:
                generation: Generation = await answer(actor.generate.remote(request))
            except Lost:
                if self._actors[replica.name] is actor:  # nobody has replaced it meanwhile
                    self._replicas.lose(replica)
                continue
            self.weight_version = max(self.weight_version, int(generation.weight_versions_R.max(initial=0)))
            return generation

    async def abort(self, session: str) -> None:
        """See `Engine.abort`."""
        if (replica := self._replicas.home(session)) is not None:
            await tell(self._actors[replica.name].abort.remote(session))

    async def release(self, session: str) -> None:
        """See `Engine.release`."""
        if (replica := self._replicas.home(session)) is not None:
            self._replicas.forget(session)
            await tell(self._actors[replica.name].release.remote(session))

    async def update_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Raises `RuntimeError`: replicas get their weights from the learner, not from who asks them."""
        raise RuntimeError("send weights to the replicas")
