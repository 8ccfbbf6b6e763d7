"""An event loop for callers that have none."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import anyio.from_thread

from agent_rl.tool.config import ToolsConfig
from agent_rl.tool.services import SERVICES, ToolServices, tool_services

T = TypeVar("T")

_CLOSE_S = 10.0


class EventLoopThread:
    """An event loop in a thread of its own, with what a run lends to its episodes (`share`, the tools' cache).

    A daemon: who forgets to close an environment can still leave Python.
    """

    def __init__(self) -> None:
        self._context = contextvars.copy_context()
        self._ready = threading.Event()
        self._portal: anyio.from_thread.BlockingPortal | None = None
        self._thread = threading.Thread(target=anyio.run, args=(self._serve,), name="agent_rl.gym", daemon=True)
        self._thread.start()
        self._ready.wait()

    async def _serve(self) -> None:
        async with tool_services(ToolsConfig()) as services, anyio.from_thread.BlockingPortal() as portal:
            self._portal = portal
            self._context.run(_lend, services)
            self._ready.set()
            await portal.sleep_until_stopped()

    def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Run `call` there and wait for it, in a copy of the context that made this thread."""
        assert self._portal is not None, "the thread has started"
        return self._context.copy().run(self._portal.call, call)

    def close(self) -> None:
        """End the thread."""
        assert self._portal is not None, "the thread has started"
        self._portal.start_task_soon(self._portal.stop)
        self._thread.join(_CLOSE_S)


def _lend(services: ToolServices) -> None:
    SERVICES.set(services)
