"""The host's end of a stream of frames: a non-blocking socket, no thread, no buffer that the other side could fill.

Deadlines are the caller's: every call may be cancelled, after which the stream can only be closed.
"""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from typing import Any, cast

import anyio

from agent_rl_sandboxes.inside.frames import CHUNK_BYTES, LENGTHS, MAX_HEADER_BYTES, pack


class StreamBroken(Exception):
    """The other side ended, or sent what is no frame."""


class HostStream:
    """One request after another, each with its answer."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._received = bytearray()
        self._busy = False

    async def request(
        self, header: dict[str, Any], blob: bytes = b"", *, max_blob_bytes: int = 0
    ) -> tuple[dict[str, Any], bytes]:
        """Send a frame and receive one whose blob is at most `max_blob_bytes`. Raises `StreamBroken`."""
        self._busy = True
        try:
            await self.send(pack(header, blob))
            return await self._receive(max_blob_bytes)
        finally:
            self._busy = False

    async def _receive(self, max_blob_bytes: int) -> tuple[dict[str, Any], bytes]:
        header_bytes, blob_bytes = LENGTHS.unpack(await self.read(LENGTHS.size))
        if header_bytes > MAX_HEADER_BYTES or blob_bytes > max_blob_bytes:
            raise StreamBroken("a frame is too large")
        try:
            answer: object = json.loads(await self.read(header_bytes))
        except ValueError as error:
            raise StreamBroken("a header is not JSON") from error
        if not isinstance(answer, dict):
            raise StreamBroken("a header is not an object")
        return cast("dict[str, Any]", answer), await self.read(blob_bytes)

    async def send(self, data: bytes) -> None:
        """Send all of `data`. Raises `StreamBroken`."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)
            except OSError as error:
                raise StreamBroken(str(error)) from error

    async def read(self, length: int) -> bytes:
        """Receive exactly `length` bytes. Raises `StreamBroken`."""
        while len(self._received) < length:
            try:
                data = self._socket.recv(CHUNK_BYTES if length > 65536 else 65536)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
                continue
            except OSError as error:
                raise StreamBroken(str(error)) from error
            if not data:
                raise StreamBroken("the other side has ended")
            self._accept(data)
        taken = bytes(self._received[:length])
        del self._received[:length]
        return taken

    def _accept(self, data: bytes) -> None:
        """Keep what has just arrived."""
        self._received += data

    def close(self) -> None:
        """Hang up. Idempotent. A request that is under way is broken, and its caller closes again."""
        if not self._busy:
            self._socket.close()
            return
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
