"""The HTTP server: `/e/<episode>/v1/chat/completions` and `/v1/models` for each episode that is open.

Knows HTTP and lifetimes. What is answered is the recording's business.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Self

from agent_rl.chat.codec import ChatCodec
from agent_rl.concurrency import shielded
from agent_rl.engine.base import Engine
from agent_rl.gateway.protocol import Refused, parse_request
from agent_rl.gateway.recording import Recording
from agent_rl.rollout.agent import EpisodeKey
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.types import SamplingParams
from agent_rl.web import listen, serving, while_connected

# isort: split
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_CLOSE_TIMEOUT_S = 10.0


class Gateway:
    """An OpenAI-compatible server over `engine`, open to programs while its `async with` block is.

    `sampling` is that of the run: a program's own temperature and top_p are overridden, since the learner takes
    log-probs at the run's. With `program_samples` the program's hold, for evaluation. `port` 0 takes a free one.
    Anyone who can reach `host` and knows the random id in an episode's URL can act in it; there is no other check.

    Raises `ConfigError` when the port cannot be had.
    """

    def __init__(
        self,
        engine: Engine,
        codec: ChatCodec,
        sampling: SamplingParams,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        program_samples: bool = False,
    ) -> None:
        self._engine = engine
        self._codec = codec
        self._sampling = sampling
        self._host = host
        self._port = port
        self._program_samples = program_samples
        self._recordings: dict[str, Recording] = {}
        self._serving: AbstractAsyncContextManager[None]
        self._url = ""

    @property
    def open_episodes(self) -> int:
        """Episodes that programs may act in now."""
        return len(self._recordings)

    async def __aenter__(self) -> Self:
        listener = listen(self._host, self._port)
        self._url = f"http://{self._host}:{listener.getsockname()[1]}"
        self._serving = serving(self._app(), listener)
        await self._serving.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        return await self._serving.__aexit__(exc_type, exc, tb)

    @asynccontextmanager
    async def episode(self, key: EpisodeKey, limits: RolloutLimits | None = None) -> AsyncGenerator[Recording, None]:
        """Open an episode. When the block ends, its requests end; the recording stays readable."""
        name = uuid.uuid4().hex
        recording = Recording(
            self._engine,
            self._codec,
            self._sampling,
            key,
            limits or RolloutLimits(),
            name=name,
            base_url=f"{self._url}/e/{name}/v1",
            program_samples=self._program_samples,
        )
        self._recordings[name] = recording
        try:
            yield recording
        finally:
            del self._recordings[name]
            async with shielded(_CLOSE_TIMEOUT_S):
                await recording.close()

    # --- HTTP -------------------------------------------------------------------------------------------------------

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/e/{episode}/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/e/{episode}/v1/models", self._models, methods=["GET"]),
            ],
            exception_handlers={Refused: _refused, HTTPException: _unknown},
        )

    async def _models(self, request: Request) -> Response:
        self._recording(request)
        model = {"id": "policy", "object": "model", "created": 0, "owned_by": "agent-rl"}
        return JSONResponse({"object": "list", "data": [model]})

    async def _chat(self, request: Request) -> Response:
        recording = self._recording(request)
        try:
            asked = parse_request(await request.body())
        except ClientDisconnect:
            return Response(status_code=499)

        async def answer() -> Response:
            reply = await recording.reply(asked)
            if not asked.stream:
                return JSONResponse(reply.to_wire())
            return Response("".join(reply.to_events(asked.stream_usage)), media_type="text/event-stream")

        return await while_connected(request, answer)

    def _recording(self, request: Request) -> Recording:
        recording = self._recordings.get(request.path_params["episode"])
        if recording is None:
            raise Refused("There is no such episode, or it is over.", status=404, code="episode_over")
        return recording


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse(error.to_wire(), status_code=error.status)


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path} is not offered: use POST .../v1/chat/completions or GET .../v1/models."
    return JSONResponse(Refused(what, code="not_found").to_wire(), status_code=error.status_code)
