"""What is served, and the state of those who use it: one instance of each toolset per episode.

Knows lifetimes: an episode is opened, used, and closed on request, after an idle time, or with the server.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import anyio

from agent_rl.concurrency import collect, shielded
from agent_rl.errors import UserError
from agent_rl.tool import Tool, Toolset

_CLOSE_TIMEOUT_S = 10.0
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """Tools without state, and kinds of toolsets. Raises `UserError` for two tools of one name."""

    tools: tuple[Tool, ...] = ()
    toolsets: tuple[type[Toolset], ...] = ()

    def __post_init__(self) -> None:
        names = [tool.name for tool in (*self.tools, *self.stateful)]
        if len(set(names)) < len(names):
            raise UserError(f"Two of the served tools have one name: {', '.join(names)}.")

    @property
    def stateful(self) -> tuple[Tool, ...]:
        """The toolsets' tools, not bound to any instance: for their definitions."""
        return tuple(tool for kind in self.toolsets for tool in kind.offered())


@dataclass(slots=True)
class _Episode:
    toolsets: Sequence[Toolset]
    tools: Sequence[Tool]
    running: int = 0
    last_used: float = field(default_factory=time.monotonic)


class Episodes:
    """The open episodes of one server process."""

    def __init__(self, served: Served, idle_s: float) -> None:
        self._served = served
        self._idle_s = idle_s
        self._open: dict[str, _Episode] = {}

    def __len__(self) -> int:
        return len(self._open)

    def start(self) -> str:
        """Make an instance of each toolset and return the key of the new episode."""
        key = uuid.uuid4().hex
        toolsets = [kind() for kind in self._served.toolsets]
        self._open[key] = _Episode(toolsets, [tool for toolset in toolsets for tool in toolset.tools])
        return key

    @contextmanager
    def using(self, key: str) -> Generator[Sequence[Tool], None, None]:
        """All tools of an episode, which is not idle meanwhile. Raises `KeyError` when it is not open."""
        episode = self._open[key]
        episode.running += 1
        try:
            yield (*self._served.tools, *episode.tools)
        finally:
            episode.running -= 1
            episode.last_used = time.monotonic()

    async def close(self, key: str) -> None:
        """Close an episode's toolsets. One that is not open is closed already."""
        episode = self._open.pop(key, None)
        for toolset in episode.toolsets if episode is not None else ():
            async with shielded(_CLOSE_TIMEOUT_S):
                try:
                    await toolset.close()
                except Exception:
                    _logger.exception("closing the toolset %s failed", type(toolset).__name__)

    @asynccontextmanager
    async def kept(self) -> AsyncGenerator[None, None]:
        """While the block is open, idle episodes are closed; when it ends, all are."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._close_idle)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    await collect([lambda key=key: self.close(key) for key in list(self._open)])

    async def _close_idle(self) -> None:
        while True:
            await anyio.sleep(min(self._idle_s / 4, 60.0))
            oldest = time.monotonic() - self._idle_s
            idle = [key for key, e in self._open.items() if not e.running and e.last_used < oldest]
            await collect([lambda key=key: self.close(key) for key in idle])
