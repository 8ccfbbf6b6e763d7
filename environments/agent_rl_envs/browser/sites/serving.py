"""The sites' server process of a run: started when it is needed, again when it has died, shared by all episodes.

Each episode has a database in it, under a name that nobody can guess; the episode's proxy adds it to every request, so
that an address shows the same site of another database to each of them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.abc
import httpx
from anyio.streams.buffered import BufferedByteReceiveStream

from agent_rl.concurrency import shielded
from agent_rl.errors import EnvironmentFailure, UserError
from agent_rl_envs.browser.sites import EPISODE_HEADER, SECRET_HEADER
from agent_rl_tools.browser import Route

APP_NAMES = ("shop", "forum", "mail", "admin", "forms", "calendar")
_START_TIMEOUT_S = 60.0
_TIMEOUT_S = 10.0
_LONGEST_LINE = 1000
_MODULE = "agent_rl_envs.browser.sites.server"


@asynccontextmanager
async def open_sites() -> AsyncGenerator[Sites, None]:
    """A server for as long as the block lasts. Raises `UserError` where what it is made of is not installed."""
    if any(importlib.util.find_spec(needed) is None for needed in ("starlette", "uvicorn")):
        raise UserError("The sites need starlette and uvicorn: pip install 'agent-rl[browser]'.")
    sites = Sites()
    try:
        yield sites
    finally:
        async with shielded(_TIMEOUT_S):
            await sites.close()


class _Server:
    """One process, and the way to talk to it."""

    def __init__(self, process: anyio.abc.Process, port: int, secret: str) -> None:
        self.process, self.port = process, port
        headers = {SECRET_HEADER: secret}
        base = f"http://127.0.0.1:{port}/episodes/"
        self.client = httpx.AsyncClient(base_url=base, headers=headers, timeout=_TIMEOUT_S, trust_env=False)

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def ask(self, method: str, name: str, content: bytes = b"") -> bytes:
        """Raises `EnvironmentFailure` when the server is gone, does not answer in time, or has failed itself."""
        try:
            response = await self.client.request(method, name, content=content)
        except httpx.HTTPError as error:
            self.kill()  # one that hangs: the next episode starts another
            raise EnvironmentFailure("The server of the sites has died or does not answer.", kind="died") from error
        if response.is_error:
            raise EnvironmentFailure(f"A page of the sites failed: {response.text}")
        return response.content

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()

    async def close(self) -> None:
        await self.client.aclose()
        self.kill()
        await self.process.aclose()


class Sites:
    """The server, whichever process it is at the moment."""

    def __init__(self) -> None:
        self._server: _Server | None = None
        self._lock = anyio.Lock()

    async def open(self, image: bytes) -> OpenSites:
        """A database for one episode. Raises `EnvironmentFailure` when the server does not start."""
        opened = OpenSites(await self._running())
        try:
            await opened.reset(image)
        except BaseException:
            await opened.close()
            raise
        return opened

    async def close(self) -> None:
        """End the process."""
        if self._server is not None:
            await self._server.close()

    async def _running(self) -> _Server:
        async with self._lock:
            if self._server is None or not self._server.alive:
                if self._server is not None:
                    await self._server.close()
                self._server = await _start()
            return self._server


class OpenSites:
    """The sites of one episode."""

    def __init__(self, server: _Server) -> None:
        self._server, self._name = server, secrets.token_hex(16)

    @property
    def routes(self) -> Mapping[str, Route]:
        """For the episode's proxy."""
        route = Route(self._server.port, {EPISODE_HEADER: self._name})
        return {f"{name}.test": route for name in APP_NAMES}

    @property
    def alive(self) -> bool:
        """Whether the server lives."""
        return self._server.alive

    async def reset(self, image: bytes) -> None:
        """Put a database in place of the one that is there. Raises `EnvironmentFailure`."""
        await self._server.ask("PUT", self._name, image)

    async def image(self) -> bytes:
        """The database as it is. Raises `EnvironmentFailure`, also when a page has failed."""
        return await self._server.ask("GET", self._name)

    async def close(self) -> None:
        """Drop the database, under cancellation too. Idempotent."""
        async with shielded(_TIMEOUT_S):
            with suppress(EnvironmentFailure):  # the database is gone with its server
                if self._server.alive:
                    await self._server.ask("DELETE", self._name)


async def _start() -> _Server:
    secret = secrets.token_hex(16)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = await anyio.open_process(
        [sys.executable, "-m", _MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None,
        env=environment,
        start_new_session=True,  # an interrupt is for us
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with anyio.fail_after(_START_TIMEOUT_S):
            await process.stdin.send(f"{secret}\n".encode())
            line = await BufferedByteReceiveStream(process.stdout).receive_until(b"\n", _LONGEST_LINE)
    except (TimeoutError, OSError, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.EndOfStream) as error:
        async with shielded(_TIMEOUT_S):
            await process.aclose()
        raise EnvironmentFailure("The server of the sites does not start; its messages are above.") from error
    except BaseException:
        async with shielded(_TIMEOUT_S):
            await process.aclose()
        raise
    return _Server(process, json.loads(line)["port"], secret)
