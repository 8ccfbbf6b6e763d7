"""Sandboxes on this machine: started by the launcher, served by a supervisor inside, one stream for each program.

What is common to `process` and `bubblewrap`: they differ in the command that starts the supervisor, and in what holds.
"""

from __future__ import annotations

import abc
import json
import os
import socket
import sys
from contextlib import suppress
from itertools import count
from typing import Any, ClassVar, Self

import anyio

from agent_rl.concurrency import shielded
from agent_rl.errors import SandboxFailure
from agent_rl.sandbox import SandboxConfig
from agent_rl_sandboxes.launching import Launcher, acquire_launcher, receive_packet, release_launcher, send_packet
from agent_rl_sandboxes.over_streams import Connection, Program, StreamSandbox
from agent_rl_sandboxes.streams import HostStream, StreamBroken

# It says at once that it has started. What it imports then takes as long again, while the host goes on.
_START = "import os, sys; os.write(3, b'{{}}'); sys.path.insert(0, {folder!r}); import supervisor; supervisor.main()"
_PATH = "/usr/local/bin:/usr/bin:/bin"
_FIRST_UID = 1_700_000_000  # users that no system gives out; each sandbox is another, so that none can signal another


class _Supervised(Connection):
    """A stream that was handed to the supervisor."""

    def __init__(self, stream: HostStream, control: socket.socket, id: int, siblings: set[_Supervised]) -> None:
        self.stream = stream
        self._control, self._id = control, id
        self._siblings = siblings
        siblings.add(self)

    def end(self) -> None:
        """See `Connection.end`: the keeper sees the end of its stream; the supervisor kills it if it is held up."""
        self.stream.close()
        self._siblings.discard(self)
        with suppress(OSError):  # closed, dead, or so busy that the closed stream must do
            self._control.send(json.dumps({"kill": self._id}).encode())


class SupervisedSandbox(StreamSandbox):
    """A sandbox on this machine."""

    beneath: ClassVar[bool] = False  # whether file operations must be held below the workspace

    def __init__(self, config: SandboxConfig, launcher: Launcher) -> None:
        super().__init__()
        self._config = config
        self._launcher = launcher
        self._name = launcher.new_name()
        self._folder = launcher.root / self._name
        self._janitor: HostStream | None = None
        self._control: socket.socket | None = None
        self._ids = count(1)
        self._connections: set[_Supervised] = set()
        self._closed = False
        self._storage = ""
        self._enforced: tuple[str, ...] = ()

    # --- what a backend says ---

    @abc.abstractmethod
    def command(self, supervisor: list[str]) -> list[str]:
        """The command that starts `supervisor` (a command line) in isolation, socket 3 open and filter 4."""

    @abc.abstractmethod
    def seccomp(self) -> bytes:
        """The system call filter that the command finds at descriptor 4."""

    @abc.abstractmethod
    def paths(self) -> dict[str, str]:
        """Where a program inside finds `programs`, `workspace`, `home` and `tmp`."""

    def folders(self) -> tuple[str, ...]:
        """Folders that the workspace must have on the host before the first process starts."""
        return ()

    def environment(self) -> dict[str, str]:
        """Variables of programs that are other than everywhere."""
        return {}

    @classmethod
    def user(cls, number: int) -> int | None:
        """The host's user that programs run as, if not ours."""
        return None

    # --- life ---

    @classmethod
    async def open(cls, config: SandboxConfig) -> Self:
        """See `Sandbox.open`."""
        return await cls._open(config, None)

    @classmethod
    async def _open(cls, config: SandboxConfig, parent: SupervisedSandbox | None) -> Self:
        launcher = await acquire_launcher(find_python(config) or sys.executable, config.start_timeout_s)
        try:
            sandbox = cls(config, launcher)
        except BaseException:
            await release_launcher()
            raise
        try:
            with anyio.fail_after(config.start_timeout_s):
                await sandbox._start(parent)
        except BaseException as error:
            await sandbox.close()
            if isinstance(error, TimeoutError):
                message = f"A sandbox did not start in {config.start_timeout_s:g} s."
                raise SandboxFailure(message, kind="timeout") from error
            raise
        return sandbox

    async def _start(self, parent: SupervisedSandbox | None) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        with theirs:
            self._janitor = await self._launcher.janitor(theirs)
        try:
            answer, _ = await self._janitor.request(self._order(parent), self.seccomp())
        except StreamBroken as error:
            raise SandboxFailure(f"A sandbox could not be prepared: {error}.", kind="start") from error
        if "failed" in answer:
            raise SandboxFailure(f"A sandbox could not be prepared: {answer['failed']}.", kind="start")
        self._storage, self._enforced = str(answer["storage"]), tuple(answer["enforced"])
        if parent:
            return  # its first process starts meanwhile: what is asked of it waits in the socket
        if not await receive_packet(self._control, self._config.start_timeout_s):
            raise SandboxFailure(f"A sandbox could not be started: {await self._last_words()}", kind="start")

    def _order(self, parent: SupervisedSandbox | None) -> dict[str, Any]:
        """What the janitor is to make."""
        paths, config = self.paths(), self._config
        environment = {"PATH": _PATH, "LANG": "C.UTF-8", "HOME": paths["home"], "TMPDIR": paths["tmp"], "USER": "agent"}
        settings = {
            "environment": environment | self.environment() | config.environment,
            "workspace": paths["workspace"],
            "folders": [paths[name] for name in ("workspace", "home", "tmp")] if config.writable else [],
            "beneath": self.beneath,
            "limits": self.rlimits(),
        }
        python = find_python(config) or sys.executable
        start = _START.format(folder=paths["programs"])
        return {
            "name": self._name,
            "parent": parent._name if parent else None,
            "base": str(config.base.resolve()) if config.base else None,
            "folders": self.folders(),
            "limits": config.model_dump(include={"memory_mb", "max_processes", "cpus", "disk_mb"}),
            "uid": self.user(int(self._name)),
            "argv": self.command([python, "-I", "-S", "-c", start, json.dumps(settings)]),
            "environment": {"PATH": _PATH, "LANG": "C.UTF-8"},
        }

    def rlimits(self) -> dict[str, int]:
        """Limits that each program has for itself, beside those of control groups or instead of them."""
        return {
            "RLIMIT_FSIZE": self._config.max_file_mb * 2**20,
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": 4096,
            "RLIMIT_NPROC": self._config.max_processes,
            "RLIMIT_DATA": max(self._config.memory_mb, 64) * 2**20,
        }

    async def _last_words(self) -> str:
        assert self._janitor is not None
        try:
            answer, _ = await self._janitor.request({})
        except StreamBroken:
            return "its janitor has died"
        return str(answer.get("log") or "it ended without a word")

    async def fork(self) -> Self:
        """See `Sandbox.fork`. Takes as long as copying what was written since the sandbox was made from its base."""
        self.check_alive()
        return await type(self)._open(self._config, self)

    async def close(self) -> None:
        """See `Sandbox.close`."""
        if self._closed:
            return
        self._closed = True
        self.hang_up()
        problem = ""
        for connection in list(self._connections):
            connection.end()
        try:
            async with shielded(self._config.start_timeout_s):
                if self._janitor is not None:
                    answer, _ = await self._janitor.request({"close": True})
                    problem = str(answer.get("problem", ""))
        except StreamBroken:
            problem = "its janitor has died"
        finally:
            for end in (self._janitor, self._control):
                if end is not None:
                    end.close()
            await release_launcher()
        if problem:
            raise SandboxFailure(f"A sandbox was not removed completely: {problem}.", kind="leak")

    # --- streams ---

    @property
    def workspace(self) -> str:
        """See `Sandbox.workspace`."""
        return self.paths()["workspace"]

    async def connect(self, program: Program) -> Connection:
        """See `StreamSandbox.connect`."""
        if self._closed or self._control is None:
            raise SandboxFailure("This sandbox is closed.", kind="closed", retryable=False)
        ours, theirs = socket.socketpair()
        id = next(self._ids)
        with theirs:
            try:
                await send_packet(self._control, {"id": id, "program": program}, [theirs])
            except BaseException as error:
                ours.close()
                if isinstance(error, OSError):
                    raise _died() from error
                raise
        return _Supervised(HostStream(ours), self._control, id, self._connections)

    def check_alive(self) -> None:
        """See `Sandbox.check_alive`."""
        if self._closed or self._control is None:
            raise SandboxFailure("This sandbox is closed.", kind="closed", retryable=False)
        try:
            while self._control.recv(4096):
                pass  # it says that it is ready, and nothing else
            raise _died()
        except BlockingIOError:
            pass
        except ConnectionResetError as error:
            raise _died() from error


def _died() -> SandboxFailure:
    return SandboxFailure("The sandbox has died: its first process was killed or ended.", kind="died")


def find_python(config: SandboxConfig) -> str | None:
    """The interpreter for programs inside: one that every user can run."""
    candidates = [config.python] if config.python else ["/usr/bin/python3", "/usr/local/bin/python3"]
    return next((path for path in candidates if os.access(path, os.X_OK)), None)


def user_of(number: int) -> int | None:
    """A user of its own for each sandbox, when we are root; else ourselves."""
    return _FIRST_UID + os.getpid() % 100_000 * 1_000 + number % 1_000 if os.getuid() == 0 else None


def wants_container(config: SandboxConfig) -> str | None:
    """Why a sandbox on this machine's own system cannot be what `config` asks for."""
    if config.image or config.runtime:
        return "it has no images and runtimes: take the sandbox 'docker' for those."
    return None
