"""Weights to receivers over HTTP (`agent-rl serve weights`): what changed where that is enough, else all of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import httpx

from agent_rl.errors import ProviderFailure

if TYPE_CHECKING:
    import torch

    from agent_rl.engine.delta.chain import Delta
    from agent_rl.engine.vllm.weights import WeightFiles

OTHER_WEIGHTS = 409
_CHUNK = 1 << 22


class Pusher:
    """Takes new weights with `advance`, then brings each receiver to them with `push`.

    A receiver that missed an update, was restarted, or holds what somebody else sent is found out and gets the full
    weights. `files` is where these are kept for sending; `dtype` names the torch dtype in which the servers compute.
    """

    def __init__(self, http: httpx.AsyncClient, files: WeightFiles, dtype: str, token: str = "") -> None:
        from agent_rl.engine.delta.encoder import Encoder

        self._http = http
        self._files = files
        self._encoder = Encoder(dtype)
        self._delta: Delta | None = None
        self._full: Path | None = None
        self._writing = anyio.Lock()
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def advance(self, weights: Mapping[str, torch.Tensor]) -> None:
        """These are the weights from here on. Copies them."""
        self._full = None
        self._delta = await anyio.to_thread.run_sync(self._encoder.advance, weights)

    async def push(self, receiver: str) -> Path:
        """The folder in which the server at `receiver` finds the weights now. Raises `ProviderFailure`."""
        delta = self._delta
        if delta is not None:
            answer = await self._send(receiver, "PATCH", {"name": delta.name}, delta.data)
            if answer.status_code != OTHER_WEIGHTS:
                return _folder(receiver, answer)
        file = await self._full_file()
        names = {"name": self._encoder.name, "nbytes": str(file.stat().st_size)}
        return _folder(receiver, await self._send(receiver, "PUT", names, _chunks(file)))

    async def _full_file(self) -> Path:
        async with self._writing:
            if self._full is None:
                self._full = await anyio.to_thread.run_sync(self._files.write, self._encoder.weights)
            return self._full / "model.safetensors"

    async def _send(
        self, receiver: str, method: str, names: Mapping[str, str], content: bytes | AsyncGenerator[bytes]
    ) -> httpx.Response:
        url = f"{receiver.rstrip('/')}/weights"
        try:
            return await self._http.request(method, url, params=names, content=content, headers=self._headers)
        except httpx.TransportError as error:
            kind = "timeout" if isinstance(error, httpx.TimeoutException) else "connection"
            raise ProviderFailure(f"{url}: {error!r}.", kind=kind, stage="update") from error


def _folder(receiver: str, answer: httpx.Response) -> Path:
    if answer.is_error:
        message = f"{receiver} answered {answer.status_code}: {answer.text[:300]}."
        raise ProviderFailure(message, kind="refused", stage="update")
    return Path(answer.json()["folder"])


async def _chunks(file: Path) -> AsyncGenerator[bytes]:
    async with await anyio.open_file(file, "rb") as opened:
        while chunk := await opened.read(_CHUNK):
            yield chunk
