"""The host's side of the launcher (`launcher.py`): one for each event loop, from the first sandbox to the last.

Its owner is the set of sandboxes that it started: it ends with the last of them, and with this process in any case.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

from agent_rl.concurrency import shielded
from agent_rl.errors import SandboxFailure
from agent_rl_sandboxes.streams import HostStream

_END_TIMEOUT_S = 15.0


class Launcher:
    """The running launcher."""

    def __init__(self, root: Path, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.root = root
        self._process = process
        self._control = control
        self._numbers = count()

    @classmethod
    async def start(cls, python: str, timeout_s: float) -> Launcher:
        """Start one with the given interpreter. Raises `SandboxFailure`."""
        root = Path(tempfile.mkdtemp(prefix="agent-rl-sandbox-"))
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = str(Path(__file__).with_name("launcher.py"))
        command = [python, "-I", "-S", program, str(root), str(theirs.fileno())]
        try:
            with theirs:
                process = subprocess.Popen(  # noqa: ASYNC220  # vfork and exec: a millisecond, whatever our size
                    command, env={}, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd="/"
                )
        except OSError as error:
            control.close()
            os.rmdir(root)  # noqa: PTH106
            raise SandboxFailure(f"Sandboxes cannot be started with {python}: {error}.", kind="launcher") from error
        control.setblocking(False)
        launcher = cls(root, process, control)
        try:
            if not await receive_packet(control, timeout_s):
                raise SandboxFailure(
                    f"The launcher of sandboxes ended at once; its Python is {python}.", kind="launcher"
                )
        except BaseException:
            await launcher.end()
            raise
        return launcher

    def new_name(self) -> str:
        """A name that no other sandbox here has."""
        return str(next(self._numbers))

    async def janitor(self, control: socket.socket) -> HostStream:
        """A new janitor's stream; the sandbox it starts gets `control`. Raises `SandboxFailure`."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                await send_packet(self._control, {"id": 0, "program": "janitor"}, [theirs, control])
            except OSError as error:
                ours.close()
                raise SandboxFailure("The launcher of sandboxes has died.", kind="launcher") from error
        return HostStream(ours)

    async def end(self) -> None:
        """End it, and with it everything that it started."""
        async with shielded(_END_TIMEOUT_S):
            try:
                self._control.shutdown(socket.SHUT_WR)
                await receive_packet(self._control, _END_TIMEOUT_S)
            except (OSError, SandboxFailure):
                pass  # it is killed below
        self._control.close()
        if self._process.poll() is None:
            try:
                self._process.wait(0.2)  # its socket is closed: it is about to exit
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        with suppress(OSError):  # it removes its folder itself, unless it never came to have it
            os.rmdir(self.root)  # noqa: PTH106


@dataclass(slots=True)
class _Shared:
    launcher: Launcher | None = None
    users: int = 0
    lock: anyio.Lock = field(default_factory=anyio.Lock)


_SHARED: anyio.lowlevel.RunVar[_Shared] = anyio.lowlevel.RunVar("launcher of sandboxes")


async def acquire_launcher(python: str, timeout_s: float) -> Launcher:
    """The event loop's launcher, started if there is none. Each call is paired with `release_launcher`."""
    shared = _SHARED.get(None)
    if shared is None:
        shared = _Shared()
        _SHARED.set(shared)
    async with shared.lock:
        if shared.launcher is None:
            shared.launcher = await Launcher.start(python, timeout_s)
        shared.users += 1
        return shared.launcher


async def release_launcher() -> None:
    """Give it back; the last one ends it."""
    shared = _SHARED.get()
    shared.users -= 1
    if shared.users == 0:
        async with shielded(_END_TIMEOUT_S), shared.lock:
            launcher = shared.launcher
            if launcher is not None and shared.users == 0:
                shared.launcher = None
                await launcher.end()


async def send_packet(control: socket.socket, packet: dict[str, Any], attached: list[socket.socket]) -> None:
    """One packet to a server of `inside/inetd.py`. Raises `OSError` when it is gone."""
    data = json.dumps(packet).encode()
    while True:
        try:
            socket.send_fds(control, [data], [sock.fileno() for sock in attached])
            return
        except BlockingIOError:
            await anyio.wait_writable(control)


async def receive_packet(control: socket.socket, timeout_s: float) -> bytes:
    """The next packet, empty at the end. Raises `SandboxFailure` at the deadline."""
    with anyio.move_on_after(timeout_s):
        while True:
            try:
                return control.recv(4096)
            except BlockingIOError:
                await anyio.wait_readable(control)
            except ConnectionResetError:
                return b""
    raise SandboxFailure(f"A sandbox was not ready after {timeout_s:g} s.", kind="timeout")
