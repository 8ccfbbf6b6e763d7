"""Calls to actors: what another process raised comes out as itself, and a process that is gone as `Lost`."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from contextlib import suppress
from typing import Any

import ray
import ray.exceptions

Actor = Any
"""The handle of an actor. Ray makes its methods when it runs, so that no type checker knows them."""

Ref = Any
"""What a call will return, wherever that is (`ray.ObjectRef`)."""


class Lost(Exception):
    """The process that was asked has ended, or its answer has gone with its node."""


class ArgumentLost(Exception):
    """What the call was given as a `Ref` has gone with the process that was to make it, or had it."""


async def answer(call: Ref) -> Any:
    """What a call returns. Cancelled, it cancels the call. Raises what the call raised, `Lost`, or `ArgumentLost`."""
    try:
        return await _awaitable(call)
    except ray.exceptions.RayTaskError as error:
        raise _cause(error) from error
    except ray.exceptions.RayError as error:
        raise Lost(str(error)) from error
    except BaseException:
        ray.cancel(call)
        raise


async def tell(call: Ref) -> None:
    """Wait for a call whose actor may be gone: then it needs not know."""
    with suppress(Lost):
        await answer(call)


def wait_for(call: Ref, timeout_s: float | None = None) -> Any:
    """What a call returns; blocks. Raises what the call raised, `Lost`, `ArgumentLost`, or `TimeoutError`."""
    try:
        return ray.get(call, timeout=timeout_s)
    except ray.exceptions.RayTaskError as error:
        raise _cause(error) from error
    except ray.exceptions.GetTimeoutError as error:
        raise TimeoutError(str(error)) from error
    except ray.exceptions.RayError as error:
        raise Lost(str(error)) from error


def end(actors: Iterable[Actor]) -> None:
    """Kill what is left of the actors."""
    for actor in actors:
        ray.kill(actor, no_restart=True)


def _awaitable(call: Ref) -> Awaitable[Any]:
    return call


def _cause(error: ray.exceptions.RayTaskError) -> BaseException:
    """What the other process raised; its traceback there is in the text of `error`."""
    if isinstance(error.cause, ray.exceptions.RayError):
        return ArgumentLost(str(error.cause))
    return error.cause if isinstance(error.cause, BaseException) else error
