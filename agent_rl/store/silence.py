"""A PostgreSQL that accepts what it is sent and never answers. libpq would wait for it as long as the network lasts."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import psycopg

T = TypeVar("T")


def impatient(timeout_s: float) -> type[psycopg.Connection[Any]]:
    """Connections that are closed, with an `OperationalError`, when the server says nothing for `timeout_s`."""

    class Impatient(psycopg.Connection[Any]):
        def wait(self, gen: Generator[Any, Any, T], *args: Any, **options: Any) -> T:
            return super().wait(_while_answered(gen, timeout_s, self.close), *args, **options)

    return Impatient


def _while_answered(
    generator: Generator[Any, Any, T], timeout_s: float, close: Callable[[], None]
) -> Generator[Any, Any, T]:
    """`generator`, which is sent what the socket is ready for, and now and then that it is ready for nothing."""
    heard = time.monotonic()
    ready: Any = None
    while True:
        try:
            wanted = generator.send(ready)
        except StopIteration as end:
            return end.value
        ready = yield wanted
        if ready:
            heard = time.monotonic()
        elif time.monotonic() - heard > timeout_s:
            close()
            raise psycopg.OperationalError(f"no answer for {timeout_s:g} s")
