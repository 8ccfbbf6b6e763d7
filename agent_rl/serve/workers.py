"""Worker processes behind one tool server: each is a tool server of its own, on a Unix socket.

An episode stays with the worker that opened it; calls without state go to the one that has least to do. A worker that
dies takes its episodes with it, their calls fail from then on, and another one takes its place.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE

import anyio
import httpx
from anyio.abc import Process
from starlette.responses import JSONResponse, Response

from agent_rl.concurrency import shielded
from agent_rl.errors import UserError
from agent_rl.serve.server import unknown_episode

START_TIMEOUT_S = 60.0
_RESTART_DELAY_S = 1.0
_STOP_TIMEOUT_S = 10.0
_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Worker:
    """One process and the connections to it. `episodes` are those that it has open."""

    socket: Path
    http: httpx.AsyncClient
    running: int = 0
    taken: int = 0  # calls so far; among equally busy ones, the next goes to who had fewer
    is_up: bool = False
    episodes: set[str] = field(default_factory=set[str])


class Workers:
    """The `Backend` that passes calls on to workers."""

    def __init__(self, workers: Sequence[_Worker]) -> None:
        self._workers = workers
        self._homes: dict[str, _Worker] = {}

    async def open_episode(self) -> Response:
        """In the worker that has the fewest."""
        worker = min(self._up(), key=lambda worker: len(worker.episodes), default=None)
        if worker is None:
            return _no_worker()
        response = await self._send(worker, "POST", "/episodes")
        if response.status_code == 201:
            key: str = httpx.Response(201, content=bytes(response.body)).json()["episode"]
            self._homes[key] = worker
            worker.episodes.add(key)
        return response

    async def close_episode(self, key: str) -> Response:
        """Idempotent."""
        worker = self._homes.pop(key, None)
        if worker is None or key not in worker.episodes:
            return Response(status_code=204)
        worker.episodes.discard(key)
        return await self._send(worker, "DELETE", f"/episodes/{key}")

    async def call(self, key: str | None, name: str, body: bytes) -> Response:
        """In the episode's worker, or in the least busy one."""
        if key is None:
            worker = min(self._up(), key=lambda worker: (worker.running, worker.taken), default=None)
            return _no_worker() if worker is None else await self._send(worker, "POST", f"/tools/{name}", body)
        worker = self._homes.get(key)
        if worker is None or key not in worker.episodes:
            self._homes.pop(key, None)
            return unknown_episode()
        response = await self._send(worker, "POST", f"/episodes/{key}/tools/{name}", body)
        if response.status_code == unknown_episode().status_code:  # closed for being idle
            worker.episodes.discard(key)
        return response

    def _up(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.is_up]

    async def _send(self, worker: _Worker, method: str, path: str, body: bytes = b"") -> Response:
        worker.running += 1
        worker.taken += 1
        try:
            answer = await worker.http.request(method, path, content=body)
        except httpx.TransportError as error:
            message = f"the worker process died: {type(error).__name__}"
            return JSONResponse({"failure": {"kind": "crash", "message": message, "traceback": ""}}, 500)
        finally:
            worker.running -= 1
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))


def _no_worker() -> Response:
    return JSONResponse({"detail": "No worker is up."}, 503, headers={"Retry-After": "1"})


@asynccontextmanager
async def worker_processes(arguments: Sequence[str], count: int) -> AsyncGenerator[Workers, None]:
    """`count` processes of `agent-rl serve ARGUMENTS --socket PATH`, kept running while the block is open.

    Raises `UserError` when one cannot start.
    """
    with tempfile.TemporaryDirectory(prefix="agent-rl-serve-") as folder:
        workers = [_worker(Path(folder) / f"{index}.sock") for index in range(count)]
        async with anyio.create_task_group() as tasks:
            try:
                async with anyio.create_task_group() as starting:
                    for worker in workers:
                        starting.start_soon(tasks.start, _keep_running, arguments, worker)
                yield Workers(workers)
            finally:
                tasks.cancel_scope.cancel()


def _worker(socket: Path) -> _Worker:
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    return _Worker(socket, httpx.AsyncClient(transport=transport, base_url="http://worker", timeout=None))


async def _keep_running(
    arguments: Sequence[str], worker: _Worker, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    first = True
    async with worker.http:
        while True:
            worker.socket.unlink(missing_ok=True)
            command = [sys.executable, "-m", "agent_rl.cli", "serve", *arguments, "--socket", str(worker.socket)]
            process = await anyio.open_process(command, stdin=PIPE, stdout=None, stderr=None)
            try:
                await _wait_until_up(process, worker)
                worker.is_up = True
                if first:
                    task_status.started()
                    first = False
                await process.wait()
            finally:
                worker.is_up = False
                worker.episodes.clear()
                async with shielded(_STOP_TIMEOUT_S):
                    await _stop(process)
            _logger.error("a worker of the tool server ended with exit code %s; starting another", process.returncode)
            await anyio.sleep(_RESTART_DELAY_S)


async def _wait_until_up(process: Process, worker: _Worker) -> None:
    with anyio.fail_after(START_TIMEOUT_S):
        while True:
            if process.returncode is not None:
                raise UserError(f"A worker of the tool server did not start: it ended with {process.returncode}.")
            try:
                if (await worker.http.get("/health")).status_code == 200:
                    return
            except httpx.TransportError:
                await anyio.sleep(0.05)


async def _stop(process: Process) -> None:
    """It ends by itself when its stdin does; what does not is killed."""
    with anyio.move_on_after(_STOP_TIMEOUT_S / 2):
        await process.aclose()
