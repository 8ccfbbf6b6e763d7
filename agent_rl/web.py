"""HTTP servers as parts of a program: uvicorn without its signals, a listening socket, requests that end with the peer.

Knows starlette and uvicorn. Refuses to know what is served.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from agent_rl.errors import ConfigError

try:
    import uvicorn
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp
except ImportError as error:
    raise ConfigError("An HTTP server needs starlette and uvicorn: pip install 'agent-rl[serve]'.") from error

KEEP_ALIVE_S = 30  # longer than clients keep an idle connection, so that none sends into one that is being closed


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; `port` 0 takes a free one. Raises `ConfigError` when the port cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise ConfigError(f"Cannot listen on {host}:{port}: {error}. Choose port 0 for any free one.") from error
    return listener


def listen_at(path: Path) -> socket.socket:
    """A listening Unix socket. Raises `ConfigError` when it cannot be had."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise ConfigError(f"Cannot listen on {path}: {error}.") from error
    return listener


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket, *, lifespan: bool = False) -> AsyncGenerator[None, None]:
    """Serve `app` while the block is open. Who connects before it is up waits in the socket's backlog."""
    server = _Server(app, lifespan)

    async def serve() -> None:
        with anyio.CancelScope(shield=True), listener:  # cancelled, the server still closes its connections
            await server.serve([listener])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        try:
            yield
        finally:
            server.should_exit = True


async def while_connected(request: Request, answer: Callable[[], Awaitable[Response]]) -> Response:
    """The answer, given up as soon as the peer hangs up. The request's body must have been read."""
    response = Response(status_code=499)  # nobody reads it
    failure: Exception | None = None

    async def watch(scope: anyio.CancelScope) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, tasks.cancel_scope)
        try:
            response = await answer()
        except Exception as error:  # noqa: BLE001  # out of the task group as itself, not as a group
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return response


class _Server(uvicorn.Server):
    """Uvicorn as a part of a program, whose signals are its own."""

    def __init__(self, app: ASGIApp, lifespan: bool) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on" if lifespan else "off",
            timeout_graceful_shutdown=1,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave them alone."""
        yield
