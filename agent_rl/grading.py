"""Scoring that may fail, hang or burn CPU: none of it harms other episodes, and all of it is the grader's failure.

An environment calls `grade` inside `step`. An unknown reward is not a reward of 0: the episode is tried again, and then
left out of its group.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar, cast

import anyio
import anyio.to_process

from agent_rl.concurrency import in_thread
from agent_rl.errors import GraderFailure, boundary

T = TypeVar("T")
Place: TypeAlias = Literal["here", "thread", "process"]


async def grade(
    function: Callable[..., T | Awaitable[T]], *arguments: Any, timeout_s: float = 30.0, place: Place = "here"
) -> T:
    """`function(*arguments)`, within `timeout_s`.

    `here`: on the event loop, for an async function (a judge behind HTTP) or one that takes microseconds. `thread`: for
    one that waits; it is left behind at the deadline, since Python cannot stop a thread. `process`: for one that
    computes or may crash; a worker process is killed at the deadline. It must be importable, its values picklable.

    Raises `GraderFailure`: kind `timeout`, or `crash` for whatever the function raises.
    """
    with boundary(GraderFailure, "grading"), anyio.fail_after(timeout_s):
        call = partial(function, *arguments)
        if place == "process":
            result = await anyio.to_process.run_sync(call, cancellable=True)
        elif place == "thread":
            result = await in_thread(call)
        else:
            result = call()
        return cast(T, await result if inspect.isawaitable(result) else result)
