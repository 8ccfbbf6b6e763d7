"""An event loop whose clock jumps to the next timer when nothing else is to be done: hours pass in moments."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


def run_in_virtual_time(function: Callable[[], Awaitable[T]]) -> T:
    """What `function()` returns. It must wait for timers and its own tasks only: not for files, threads or sockets.

    Raises `RuntimeError` when everything waits and no timer is set.
    """
    return anyio.run(function, backend_options={"loop_factory": VirtualTimeLoop})


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A `loop_factory` of asyncio's runners."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Jump(self))

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self.now


# For tests: the value of a fixture `anyio_backend`, for a file or by `parametrize`.
VIRTUAL_TIME = ("asyncio", {"loop_factory": VirtualTimeLoop})


class _Jump(selectors.DefaultSelector):
    """Waits for no file: time passes instead."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, Any]]:
        if timeout is None:
            raise RuntimeError("everything waits, and no timer is set: nothing will ever happen")
        self._loop.now += timeout
        return super().select(0)
