"""The tool server: JSON over HTTP for tools that should not run where the rollout runs.

    GET    /tools                             what there is
    POST   /tools/NAME                        call a tool without state; the body is its arguments
    POST   /episodes                          open an episode, for toolsets; DELETE /episodes/KEY closes it
    POST   /episodes/KEY/tools/NAME           call a tool in an episode
    GET    /health, GET /metrics              for whoever watches; metrics as Prometheus text

A call's answer is `{"content", "error"}` as in a `ToolResult`; a failure of the tool itself is 500 with `{"failure"}`.
Where too many calls wait already it is 503 with `Retry-After`, and nothing was run. Knows HTTP, limits and metrics; who
runs the calls (this process or workers) is a `Backend`.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio

from agent_rl.errors import ConfigError, RolloutFailure
from agent_rl.serve.episodes import Episodes, Served
from agent_rl.tool import Tool, run_tool_calls
from agent_rl.types import ToolCall
from agent_rl.web import while_connected

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Receive, Scope, Send
except ImportError as error:
    raise ConfigError(f"The tool server needs another package ({error}): pip install 'agent-rl[serve]'.") from error

RETRY_AFTER_S = 1
UNKNOWN_EPISODE = 410


class Backend(Protocol):
    """Who runs calls. Each method answers one kind of request."""

    async def open_episode(self) -> Response:
        """`{"episode": KEY}`."""
        ...

    async def close_episode(self, key: str) -> Response:
        """Empty."""
        ...

    async def call(self, key: str | None, name: str, body: bytes) -> Response:
        """Run a call of the tool `name`, in the episode `key` if it is given."""
        ...


class InProcess:
    """The `Backend` that runs calls in this process."""

    def __init__(self, served: Served, episodes: Episodes) -> None:
        self._tools = served.tools
        self._episodes = episodes

    async def open_episode(self) -> Response:
        """An instance of each toolset."""
        return JSONResponse({"episode": self._episodes.start()}, status_code=201)

    async def close_episode(self, key: str) -> Response:
        """Idempotent."""
        await self._episodes.close(key)
        return Response(status_code=204)

    async def call(self, key: str | None, name: str, body: bytes) -> Response:
        """The result as JSON."""
        try:
            arguments = json.loads(body)
        except ValueError as error:
            return JSONResponse({"detail": f"the body is no JSON: {error}"}, status_code=400)
        try:
            if key is None:
                return await _run(self._tools, name, arguments)
            with self._episodes.using(key) as tools:
                return await _run(tools, name, arguments)
        except KeyError:
            return unknown_episode()


async def _run(tools: Any, name: str, arguments: Any) -> Response:
    try:
        (result,) = await run_tool_calls(tools, [ToolCall("", name, arguments)])
    except RolloutFailure as failure:
        record = failure.record()
        content = {"kind": record.kind, "message": record.message, "traceback": record.traceback}
        return JSONResponse({"failure": content}, status_code=500)
    return JSONResponse({"content": result.content, "error": result.error})


def unknown_episode() -> Response:
    """The answer to a call in an episode that is over, or whose worker died."""
    return JSONResponse({"detail": "There is no such episode, or it is over."}, status_code=UNKNOWN_EPISODE)


class _Metrics:
    """What the server counts, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter("agent_rl_tool_calls", "Calls answered.", ["tool", "outcome"], registry=self.registry)
        self.refused = Counter("agent_rl_tool_refused", "Calls refused for load.", registry=self.registry)
        self.seconds = Histogram(
            "agent_rl_tool_call_seconds", "From request to answer.", ["tool"], registry=self.registry
        )
        self.running = Gauge("agent_rl_tool_running", "Calls that run.", registry=self.registry)
        self.waiting = Gauge("agent_rl_tool_waiting", "Calls that wait for their turn.", registry=self.registry)


class _Turns:
    """So many calls run, so many more wait; the rest is refused."""

    def __init__(self, max_running: int, max_waiting: int, metrics: _Metrics) -> None:
        self._semaphore = anyio.Semaphore(max_running)
        self._max_waiting = max_waiting
        self._waiting = 0
        self._metrics = metrics

    @property
    def is_full(self) -> bool:
        return self._semaphore.value == 0 and self._waiting >= self._max_waiting

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None, None]:
        self._waiting += 1
        self._metrics.waiting.set(self._waiting)
        try:
            await self._semaphore.acquire()
        finally:
            self._waiting -= 1
            self._metrics.waiting.set(self._waiting)
        try:
            with self._metrics.running.track_inprogress():
                yield
        finally:
            self._semaphore.release()


class ToolApp:
    """The routes of the tool server over a backend."""

    def __init__(self, served: Served, backend: Backend, *, max_running: int, max_waiting: int) -> None:
        self._backend = backend
        self._names = {tool.name for tool in (*served.tools, *served.stateful)}
        self._definitions = {
            "tools": [_described(tool, stateful=False) for tool in served.tools]
            + [_described(tool, stateful=True) for tool in served.stateful]
        }
        self._metrics = _Metrics()
        self._turns = _Turns(max_running, max_waiting, self._metrics)

    def asgi(self) -> Starlette:
        """The application."""
        return Starlette(
            routes=[
                Route("/tools", self._list, methods=["GET"]),
                Route("/tools/{name}", self._call, methods=["POST"]),
                Route("/episodes", self._open, methods=["POST"]),
                Route("/episodes/{episode}", self._close, methods=["DELETE"]),
                Route("/episodes/{episode}/tools/{name}", self._call, methods=["POST"]),
                Route("/health", self._health, methods=["GET"]),
                Route("/metrics", self._show_metrics, methods=["GET"]),
            ]
        )

    async def _list(self, request: Request) -> Response:
        return JSONResponse(self._definitions)

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _show_metrics(self, request: Request) -> Response:
        return Response(generate_latest(self._metrics.registry), media_type="text/plain; version=0.0.4")

    async def _open(self, request: Request) -> Response:
        return await self._backend.open_episode()

    async def _close(self, request: Request) -> Response:
        return await self._backend.close_episode(request.path_params["episode"])

    async def _call(self, request: Request) -> Response:
        key, name = request.path_params.get("episode"), request.path_params["name"]
        if self._turns.is_full:
            self._metrics.refused.inc()
            return JSONResponse(
                {"detail": "Too many calls wait already."}, 503, headers={"Retry-After": str(RETRY_AFTER_S)}
            )
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response(status_code=499)

        async def answer() -> Response:
            async with self._turns.turn():
                return await self._backend.call(key, name, body)

        began = time.perf_counter()
        response = await while_connected(request, answer)
        known = name if name in self._names else "unknown"
        self._metrics.calls.labels(known, str(response.status_code)).inc()
        self._metrics.seconds.labels(known).observe(time.perf_counter() - began)
        return response


def _described(tool: Tool, *, stateful: bool) -> Mapping[str, Any]:
    return {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "timeout_s": tool.timeout_s,
        "max_output_chars": tool.max_output_chars,
        "max_output_tokens": tool.max_output_tokens,
        "effects": tool.effects,
        "stateful": stateful,
    }


def with_token(app: ASGIApp, token: str) -> ASGIApp:
    """Only for who says `Authorization: Bearer TOKEN`; without a token, for everyone."""
    if not token:
        return app
    expected = f"Bearer {token}".encode()

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, expected):
                refusal = JSONResponse({"detail": "The token is missing or wrong."}, status_code=401)
                return await refusal(scope, receive, send)
        await app(scope, receive, send)

    return guarded
