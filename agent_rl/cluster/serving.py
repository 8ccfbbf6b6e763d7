"""What every actor with a policy does: it serves until it is told to stop, and takes weights meanwhile."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio

from agent_rl.chat.codec import ChatCodec
from agent_rl.cluster.weights import Receiver, Update
from agent_rl.engine.base import Engine
from agent_rl.site import Cast, engine_of


class Serving(ABC):
    """Base of actors. Everything that is open belongs to the call of `serve`, which lasts as long as the actor.

    Its engine, if it has one, is for `episodes` at once, and may write to `folder`.
    """

    def __init__(self, cast: Cast, folder: Path, gpu: bool, episodes: int) -> None:
        if gpu:
            cast.model.to("cuda")  # pyright: ignore[reportArgumentType]  # its decorator hides the signature
        self._cast, self._folder, self._episodes = cast, folder, episodes
        self._codec = ChatCodec(cast.tokenizer, cast.config.tool_parser)
        self._open = anyio.Event()
        self._stopped = anyio.Event()
        self._closed = anyio.Event()
        self._receiver = Receiver()
        self._engine: Engine

    @abstractmethod
    def opened(self) -> AbstractAsyncContextManager[None]:
        """What the actor needs while it serves."""

    def own_engine(self) -> AbstractAsyncContextManager[Engine]:
        """The engine of this actor."""
        return engine_of(self._cast, self._codec, self._folder, self._episodes)

    async def serve(self) -> None:
        """Until `stop`."""
        try:
            async with self.opened():
                self._open.set()
                await self._stopped.wait()
        finally:
            self._closed.set()

    async def stop(self) -> None:
        """Let `serve` end, and wait until everything is closed."""
        self._stopped.set()
        await self._closed.wait()

    async def ready(self) -> None:
        """Until everything is open."""
        await self._open.wait()

    async def update_weights(self, update: Update | None, version: int) -> bool:
        """Sample with these weights from here on; whether that could be done: if not, all of them are needed."""
        weights = None if update is None else self._receiver.take(update)
        if weights is None:
            return False
        await self._engine.update_weights(weights, version)
        return True
