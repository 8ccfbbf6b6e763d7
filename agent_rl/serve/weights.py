"""The weights receiver: runs beside an inference server, and keeps the weights that it loads up to date.

    PUT    /weights?name=NAME&nbytes=SIZE     all weights, as a safetensors file
    PATCH  /weights?name=NAME                 what changed since the last ones; 409 when these are not here

Both answer with the `folder` to load the weights from. Requests are served one after another.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
from pydantic import Field

from agent_rl.config import Config
from agent_rl.engine.delta.chain import Delta
from agent_rl.engine.delta.folder import FILE, OtherWeights, WeightsFolder
from agent_rl.engine.delta.push import OTHER_WEIGHTS
from agent_rl.engine.vllm.weights import transit_folder
from agent_rl.errors import ConfigError
from agent_rl.serve.command import TOKEN_VARIABLE, cancel_on_signal, read_token
from agent_rl.serve.server import with_token
from agent_rl.web import listen, serving

try:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
except ImportError as error:
    raise ConfigError(f"The receiver needs another package ({error}): pip install 'agent-rl[serve]'.") from error


class WeightsConfig(Config):
    """Receive weights for an inference server on this machine."""

    folder: Path | None = Field(
        default=None, description="Where the weights are kept for the server; in shared memory, if not given."
    )
    host: str = Field(default="127.0.0.1", description="Where to listen; beyond this machine only with a token.")
    port: int = Field(default=8310, ge=0, le=65535, description="Where to listen; 0: any free port.")
    token_file: Path | None = Field(
        default=None, description=f"File with the token that clients must send; else {TOKEN_VARIABLE} is read."
    )


def run(config: WeightsConfig, say: Callable[[str], None]) -> None:
    """Receive until SIGINT or SIGTERM, then remove the folder. `say` tells where."""
    anyio.run(_run, config, say)


async def _run(config: WeightsConfig, say: Callable[[str], None]) -> None:
    token = read_token(config.host, config.token_file)
    weights = WeightsFolder(_new_folder(config.folder))
    try:
        listener = listen(config.host, config.port)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_on_signal, tasks.cancel_scope)
            async with serving(with_token(weights_app(weights), token), listener):
                say(f"Receiving weights on http://{config.host}:{listener.getsockname()[1]} into {weights.folder}")
                await anyio.sleep_forever()
    finally:
        weights.remove()


def _new_folder(parent: Path | None) -> Path:
    parent = parent or transit_folder()
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="agent-rl-received-", dir=parent))


def weights_app(weights: WeightsFolder) -> Starlette:
    """The receiver as an ASGI app."""
    lock = anyio.Lock()

    async def put(request: Request) -> Response:
        names = request.query_params
        async with lock:
            part = weights.folder / f"{FILE}.part"
            async with await anyio.open_file(part, "wb") as file:
                async for chunk in request.stream():
                    await file.write(chunk)
            if part.stat().st_size != int(names["nbytes"]):
                return JSONResponse({"detail": "the weights were cut short"}, status_code=400)
            weights.replace(part, names["name"])
        return JSONResponse({"folder": str(weights.folder)})

    async def patch(request: Request) -> Response:
        delta = Delta(request.query_params["name"], await request.body())
        async with lock:
            try:
                await anyio.to_thread.run_sync(weights.patch, delta)
            except OtherWeights as error:
                return JSONResponse({"detail": str(error)}, status_code=OTHER_WEIGHTS)
        return JSONResponse({"folder": str(weights.folder)})

    return Starlette(routes=[Route("/weights", put, methods=["PUT"]), Route("/weights", patch, methods=["PATCH"])])
