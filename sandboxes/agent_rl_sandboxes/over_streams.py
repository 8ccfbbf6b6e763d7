"""A sandbox whose every operation is a conversation with a program inside, over a stream of its own.

Knows requests and answers (see `inside/keeper.py`); a backend supplies `connect`. Answers are checked: what comes out
of a sandbox is as untrusted as what runs in it.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, cast

import anyio

from agent_rl.errors import SandboxFailure
from agent_rl.sandbox import MAX_OUTPUT_BYTES, ExecResult, FileEntry, FileKind, SandboxBackend, Session, SessionResult
from agent_rl_sandboxes.streams import HostStream, StreamBroken

Program: TypeAlias = Literal["exec", "python", "shell", "files"]
T = TypeVar("T")
GRACE_S = 8.0  # beyond a call's own deadline: a keeper interrupts, kills and collects, and may wait for a processor
FILE_TIMEOUT_S = 60.0
_MARGIN_BYTES = 256  # of the line that says how much was cut


class Connection(abc.ABC):
    """A stream to a program inside, and the means to end that program."""

    stream: HostStream

    @abc.abstractmethod
    def end(self) -> None:
        """Hang up and kill the program and all it started, now. Idempotent, does not wait."""


class StreamSandbox(SandboxBackend):
    """All of `Sandbox` that is made of streams."""

    def __init__(self) -> None:
        self._files: Connection | None = None
        self.sessions: set[StreamSession] = set()  # not closed yet
        self._files_lock = anyio.Lock(fast_acquire=True)

    @abc.abstractmethod
    async def connect(self, program: Program) -> Connection:
        """Start `program` inside. Raises `SandboxFailure` when the sandbox is closed or dead."""

    async def confirm_alive(self) -> None:
        """As `check_alive`, when a stream has broken: where the cause shows later than that, it is waited for."""
        self.check_alive()

    async def exec(
        self,
        command: str | Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 30.0,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
        env: Mapping[str, str] | None = None,
        cwd: str = ".",
    ) -> ExecResult:
        """See `Sandbox.exec`."""
        request = {
            "command": command if isinstance(command, str) else list(command),
            "timeout_s": timeout_s,
            "max_output_bytes": max_output_bytes,
            "env": dict(env or {}),
            "cwd": cwd,
        }
        connection = await self.connect("exec")
        try:
            answer, blob = await connection.stream.request(
                request,
                stdin,
                max_blob_bytes=2 * (max_output_bytes + _MARGIN_BYTES),
                timeout_s=timeout_s + GRACE_S,
            )
            stdout, stderr = _split(answer, blob)
            return ExecResult(
                _optional(answer, "exit_code", int),
                stdout,
                stderr,
                _field(answer, "timed_out", bool),
                _field(answer, "truncated", bool),
                float(_field(answer, "duration_s", (int, float))),
            )
        except (StreamBroken, TimeoutError) as error:
            await self.confirm_alive()
            late = isinstance(error, TimeoutError)
            return ExecResult(None, b"", b"", timed_out=late, truncated=False, duration_s=timeout_s if late else 0.0)
        finally:
            connection.end()

    def python(self) -> Session:
        """See `Sandbox.python`."""
        return self._session("python")

    def shell(self) -> Session:
        """See `Sandbox.shell`."""
        return self._session("shell")

    def _session(self, program: Literal["python", "shell"]) -> Session:
        session = StreamSession(self, program)
        self.sessions.add(session)
        return session

    def hang_up(self) -> None:
        """End what is connected: a backend's `close` begins with it."""
        for session in self.sessions:
            session.end()
        if self._files is not None:
            self._files.end()
            self._files = None

    async def read(self, path: str, *, max_bytes: int = 2**26) -> bytes:
        """See `Sandbox.read`."""
        request = {"operation": "read", "path": path, "max_bytes": max_bytes}
        _, data = await self._file_request(request, max_blob_bytes=max(max_bytes, 2**20))
        return data

    async def write(self, path: str, data: bytes) -> None:
        """See `Sandbox.write`."""
        await self._file_request({"operation": "write", "path": path}, data)

    async def list(self, path: str = ".", *, max_entries: int = 10_000) -> list[FileEntry]:
        """See `Sandbox.list`."""
        answer, _ = await self._file_request({"operation": "list", "path": path, "max_entries": max_entries})
        try:
            found = [FileEntry(str(name), _kind(kind), int(size)) for name, kind, size in answer["entries"]]
        except (KeyError, TypeError, ValueError) as error:
            raise _strange() from error
        return sorted(found, key=lambda entry: entry.name)

    async def _file_request(
        self, request: dict[str, Any], data: bytes = b"", *, max_blob_bytes: int = 0
    ) -> tuple[dict[str, Any], bytes]:
        """One file operation, over a stream that stays open for the next."""
        async with self._files_lock:
            if self._files is None:
                self._files = await self.connect("files")
            try:
                answer, blob = await self._files.stream.request(
                    request, data, max_blob_bytes=max_blob_bytes, timeout_s=FILE_TIMEOUT_S
                )
            except BaseException as error:
                self._files.end()
                self._files = None
                if isinstance(error, StreamBroken | TimeoutError):
                    await self.confirm_alive()
                    raise SandboxFailure(f"A file operation failed: {error or 'timeout'}.", kind="files") from error
                raise
        if number := answer.get("errno"):
            raise OSError(number, os.strerror(number) if isinstance(number, int) else "?", request["path"])
        return answer, blob


class StreamSession(Session):
    """A session over a stream, opened by its first run and again after its state is lost."""

    def __init__(self, sandbox: StreamSandbox, program: Literal["python", "shell"]) -> None:
        self._sandbox = sandbox
        self._program: Literal["python", "shell"] = program
        self._connection: Connection | None = None
        self._lock = anyio.Lock(fast_acquire=True)
        self._closed = False

    async def run(
        self, code: str, *, timeout_s: float = 30.0, max_output_bytes: int = MAX_OUTPUT_BYTES
    ) -> SessionResult:
        """See `Session.run`."""
        async with self._lock:
            if self._closed:
                raise SandboxFailure("This session is closed: ask the sandbox for another.", kind="closed")
            if self._connection is None:
                self._connection = await self._sandbox.connect(self._program)
            request = {"timeout_s": timeout_s, "max_output_bytes": max_output_bytes}
            try:
                answer, blob = await self._connection.stream.request(
                    request,
                    code.encode("utf-8", "replace"),
                    max_blob_bytes=2 * (max_output_bytes + _MARGIN_BYTES),
                    timeout_s=timeout_s + GRACE_S,
                )
                result = _session_result(answer, blob, max_output_bytes)
            except (StreamBroken, TimeoutError) as error:
                self.end()
                await self._sandbox.confirm_alive()
                return SessionResult("", "", timed_out=isinstance(error, TimeoutError), state_lost=True)
            except BaseException:
                self.end()
                raise
            if result.state_lost:
                self.end()
            return result

    def end(self) -> None:
        """Hang up; the next run starts anew."""
        if self._connection is not None:
            self._connection.end()
            self._connection = None

    async def close(self) -> None:
        """See `Session.close`."""
        self._closed = True
        self._sandbox.sessions.discard(self)
        self.end()


# --- answers, checked -----------------------------------------------------------------------------------------------


def _session_result(answer: dict[str, Any], blob: bytes, max_bytes: int) -> SessionResult:
    stdout, stderr = _split(answer, blob)
    files = cast("list[object]", _field(answer, "files", list)) if "files" in answer else []
    texts: list[str | None] = []
    was_cut = _field(answer, "truncated", bool)
    for name in ("value", "error"):
        text = _optional(answer, name, str)
        if text is not None and len(text) > max_bytes:
            text, was_cut = text[:max_bytes], True
        texts.append(text)
    return SessionResult(
        stdout.decode("utf-8", "replace"),
        stderr.decode("utf-8", "replace"),
        value=texts[0],
        error=texts[1],
        exit_code=_optional(answer, "exit_code", int),
        files=tuple(str(name) for name in files),
        timed_out=_field(answer, "timed_out", bool),
        truncated=was_cut,
        state_lost=_field(answer, "ended", bool),
        duration_s=float(_field(answer, "duration_s", (int, float))),
    )


def _split(answer: dict[str, Any], blob: bytes) -> tuple[bytes, bytes]:
    length = _field(answer, "stdout_bytes", int)
    return blob[:length], blob[length:]


def _field(answer: dict[str, Any], name: str, kind: type[T] | tuple[type[T], ...]) -> T:
    value = answer.get(name)
    if not isinstance(value, kind):
        raise StreamBroken(f"an answer has no {name}")
    return value


def _optional(answer: dict[str, Any], name: str, kind: type[T]) -> T | None:
    return None if answer.get(name) is None else _field(answer, name, kind)


def _kind(text: object) -> FileKind:
    if text not in ("file", "folder", "link", "other"):
        raise ValueError(text)
    return text


def _strange() -> SandboxFailure:
    return SandboxFailure("The sandbox gave an answer that makes no sense.", kind="protocol")
