"""Frames on one duplex stream: a JSON header and a blob of bytes, both preceded by their lengths.

The same on a socket (host and supervisor share one) and on a pair of pipes (standard input and output of a program in
a container). Knows nothing of what frames mean. Also imported by the host.
"""

from __future__ import annotations

import json
import os
import struct

TYPE_CHECKING = False  # typing is slow to import, and a sandbox starts no sooner than its imports end
if TYPE_CHECKING:
    from typing import Any

LENGTHS = struct.Struct("!IQ")
MAX_HEADER_BYTES = 16 * 2**20
CHUNK_BYTES, SMALL_BYTES = 2**20, 2**16


class Ended(Exception):
    """The other side closed the stream."""


def pack(header: dict[str, Any], blob: bytes = b"") -> bytes:
    """One frame."""
    text = json.dumps(header).encode()
    return b"".join((LENGTHS.pack(len(text), len(blob)), text, blob))


class Stream:
    """Blocking frames over file descriptors; `fd_in` and `fd_out` are one socket, or two pipes."""

    def __init__(self, fd_in: int, fd_out: int | None = None) -> None:
        self.fd_in = fd_in
        self.fd_out = fd_in if fd_out is None else fd_out
        self._buffer = bytearray()  # a whole small frame is one system call

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """The next frame. Raises `Ended`."""
        header, length = self.receive_header()
        return header, self.read(length)

    def receive_header(self) -> tuple[dict[str, Any], int]:
        """The next header and the length of the blob, which the caller must `read`. Raises `Ended`."""
        header_bytes, blob_bytes = LENGTHS.unpack(self.read(LENGTHS.size))
        return json.loads(self.read(header_bytes)), blob_bytes

    def read(self, length: int) -> bytes:
        """Exactly `length` bytes. Raises `Ended`."""
        buffer = self._buffer
        while len(buffer) < length:
            try:
                data = os.read(self.fd_in, CHUNK_BYTES if length > SMALL_BYTES else SMALL_BYTES)
            except ConnectionResetError:
                raise Ended from None
            if not data:
                raise Ended
            buffer += data
        taken = bytes(buffer[:length])
        del buffer[:length]
        return taken

    def send(self, header: dict[str, Any], blob: bytes = b"") -> None:
        """Write one frame. Raises `Ended`."""
        self.write(pack(header, blob))

    def write(self, data: bytes) -> None:
        """Write all of `data`. Raises `Ended`."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.fd_out, view) :]
        except OSError:
            raise Ended from None
