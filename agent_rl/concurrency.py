"""The few concurrency helpers, on anyio task groups. The only module that starts tasks on behalf of others."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")


async def collect(functions: Iterable[Callable[[], Awaitable[T]]]) -> list[T]:
    """Run all concurrently and return their results in order. If one raises, the others are cancelled first."""
    calls = list(functions)
    results: list[T | None] = [None] * len(calls)

    async def run(index: int, call: Callable[[], Awaitable[T]]) -> None:
        results[index] = await call()

    async with anyio.create_task_group() as tasks:
        for index, call in enumerate(calls):
            tasks.start_soon(run, index, call)
    return results  # pyright: ignore[reportReturnType]  # every slot is filled once the group has ended


async def in_thread(function: Callable[[], T]) -> T:
    """Run blocking code of a user in a thread of its own, so that it waits for nobody and nobody waits for it.

    Cancelled, it is left behind: Python cannot stop a thread, which ends when its function returns.
    """
    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(math.inf))


@asynccontextmanager
async def shielded(timeout_s: float) -> AsyncGenerator[None, None]:
    """Finish teardown under cancellation, but never wait longer than `timeout_s`."""
    with anyio.move_on_after(timeout_s, shield=True):
        yield
