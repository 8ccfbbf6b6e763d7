"""The host's end of a stream of frames: a non-blocking socket, no thread, no buffer that the other side could fill.

Every call may be cancelled, after which the stream can only be closed.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
from contextlib import suppress
from typing import Any, cast

import anyio

from agent_rl.concurrency import Deadline, asyncio_loop
from agent_rl_sandboxes.inside.frames import CHUNK_BYTES, LENGTHS, MAX_HEADER_BYTES, pack


class StreamBroken(Exception):
    """The other side ended, or sent what is no frame."""


class _Reader:
    """Receives for who waits, registered with asyncio's event loop once instead of for each wait."""

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._socket, self._loop = sock, loop
        self._waiting: asyncio.Future[bytes] | None = None
        self._registered = False

    async def receive(self, most: int) -> bytes:
        """What arrives next. Raises `OSError`."""
        self._most = most
        self._waiting = self._loop.create_future()
        if not self._registered:
            self._registered = True
            self._loop.add_reader(self._socket, self._on_readable)
        try:
            return await self._waiting
        finally:
            self._waiting = None

    def _on_readable(self) -> None:
        waiting = self._waiting
        if waiting is None or waiting.done():
            self.stop()  # nobody asked: it stays where it is, and the event loop must not spin
            return
        try:
            waiting.set_result(self._socket.recv(self._most))
        except BlockingIOError:
            pass
        except OSError as error:
            waiting.set_exception(error)

    def stop(self) -> None:
        """Before the socket is closed. Idempotent."""
        if self._registered and not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
        self._registered = False


class HostStream:
    """One request after another, each with its answer."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        loop = asyncio_loop()
        self._reader = None if loop is None else _Reader(sock, loop)
        self._received = bytearray()
        self._busy = False

    async def request(
        self, header: dict[str, Any], blob: bytes = b"", *, max_blob_bytes: int = 0, timeout_s: float = math.inf
    ) -> tuple[dict[str, Any], bytes]:
        """Send a frame and receive one whose blob is at most `max_blob_bytes`.

        Raises `StreamBroken`, and `TimeoutError` after `timeout_s`, which may be left to who calls.
        """
        self._busy = True
        try:
            with Deadline() as deadline:
                deadline.move(deadline.now() + timeout_s)
                await self.send(pack(header, blob))
                return await self._receive(max_blob_bytes)
            raise TimeoutError
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
                data = await self._next(CHUNK_BYTES if length > 65536 else 65536)
            except OSError as error:
                raise StreamBroken(str(error)) from error
            if not data:
                raise StreamBroken("the other side has ended")
            self._accept(data)
        taken = bytes(self._received[:length])
        del self._received[:length]
        return taken

    async def _next(self, most: int) -> bytes:
        if self._reader is not None:
            return await self._reader.receive(most)
        while True:
            try:
                return self._socket.recv(most)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)

    def _accept(self, data: bytes) -> None:
        """Keep what has just arrived."""
        self._received += data

    def close(self) -> None:
        """Hang up. Idempotent. A request that is under way is broken, and its caller closes again."""
        if not self._busy:
            if self._reader is not None:
                self._reader.stop()
            self._socket.close()
            return
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
