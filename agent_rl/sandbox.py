"""Sandboxes: where untrusted programs run. The contract, the records, and how one is opened by name.

Knows what every sandbox promises and how a caller learns which guarantees hold. Knows no backend: those are classes
that packages declare in the entry point group `agent_rl.sandboxes`, imported when they are first asked for.

What an untrusted program does (it crashes, hangs, prints without end, exhausts its memory) is data in a result. Only
a failure of the sandbox itself raises: `SandboxFailure`.
"""

from __future__ import annotations

import abc
import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias

from pydantic import Field, field_validator

from agent_rl.config import Config
from agent_rl.errors import SandboxFailure, UserError
from agent_rl.registry import Registry

FileKind: TypeAlias = Literal["file", "folder", "link", "other"]
MAX_OUTPUT_BYTES = 64 * 1024
_LOG = logging.getLogger(__name__)


class SandboxConfig(Config):
    """How a sandbox is made and what it may use. Which limits really hold is in `Sandbox.guarantees`."""

    kind: str = Field(
        default="auto", description="Backend: bubblewrap, process, any installed one; auto: the strongest that works."
    )
    base: Path | None = Field(
        default=None, description="Folder whose content the workspace starts with; it is never changed itself."
    )
    workspace: str = Field(
        default="/workspace", pattern=r"^/[^:,]+$", description="Path of the workspace inside, where the backend can."
    )
    writable: bool = Field(
        default=False,
        description="Whether programs are root in a system of their own that they may write to: `base` is then what "
        "its root folder starts with. What comes from the host stays read-only.",
    )
    read_only: tuple[str, ...] = Field(
        default=(), description="More host paths to show inside, read-only: 'PATH' or 'PATH:PATH INSIDE'."
    )
    environment: dict[str, str] = Field(
        default_factory=dict, description="Environment variables of programs; none of the host's are inherited."
    )
    network: bool = Field(default=False, description="Whether programs may use the host's network.")
    memory_mb: int = Field(default=1024, ge=32, description="Memory of all programs and files together.")
    cpus: float = Field(default=1.0, gt=0, description="Processor time per second, in processors.")
    max_processes: int = Field(default=128, ge=8, description="Processes and threads at any time.")
    max_file_mb: int = Field(default=256, ge=1, description="Size of one file.")
    disk_mb: int = Field(default=512, ge=1, description="Size of all files together.")
    python: str = Field(default="", description="Python 3.9 or newer that runs inside; if not given, the system's.")
    image: str = Field(
        default="", description="For docker: the name of an image that is here, or a folder with a Dockerfile."
    )
    runtime: str = Field(default="", description="For docker: its runtime, such as runsc (gVisor).")
    start_timeout_s: float = Field(default=20.0, gt=0, description="Deadline for starting, forking and closing.")

    @field_validator("read_only")
    @classmethod
    def _paths_are_absolute(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not all(path.startswith("/") for path in value.split(":")) or value.count(":") > 1:
                raise ValueError(f"{value!r} must be an absolute path, or two with a colon between them")
        return values


# --- records --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Guarantee:
    """One thing a sandbox does or does not enforce, and how."""

    enforced: bool
    how: str


@dataclass(frozen=True, slots=True)
class Guarantees:
    """What holds for untrusted programs, whatever they try.

    `filesystem`: they read and write nothing of the host's but what was given to them. `network`: they reach none
    unless allowed. `processes`: they see and signal none outside, outlive nothing, and their number is limited.
    `memory`, `disk`, `cpu`: limited together. `time`: a call ends at its deadline. `users`: they are a user of
    the host's that owns nothing, and cannot become another. `system_calls`: the dangerous ones are refused.
    """

    filesystem: Guarantee
    network: Guarantee
    processes: Guarantee
    memory: Guarantee
    disk: Guarantee
    cpu: Guarantee
    time: Guarantee
    users: Guarantee
    system_calls: Guarantee

    def items(self) -> list[tuple[str, Guarantee]]:
        """Name and guarantee, in order."""
        return [(field.name, getattr(self, field.name)) for field in fields(self)]

    def missing(self) -> list[str]:
        """The names of what is not enforced."""
        return [name for name, guarantee in self.items() if not guarantee.enforced]


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What came of a command. `exit_code` is 128 + the signal's number for what a signal ended.

    It is `None` after a timeout, and when the command took down what watched over it. `truncated` output has its first
    and last bytes, with a line between them that says how many are missing.
    """

    exit_code: int | None
    stdout: bytes
    stderr: bytes
    timed_out: bool
    truncated: bool
    duration_s: float

    @property
    def output(self) -> str:
        """Standard output, then standard error, as text."""
        return (self.stdout + self.stderr).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class SessionResult:
    """What came of one run in a session.

    `value` is the last expression's (Python), `exit_code` the last command's (shell), `error` a traceback (Python).
    `files` are figures that were saved into the workspace. With `state_lost` the interpreter ended, by itself or
    because it could not be interrupted: the next run starts a fresh one.
    """

    stdout: str
    stderr: str
    value: str | None = None
    error: str | None = None
    exit_code: int | None = None
    files: tuple[str, ...] = ()
    timed_out: bool = False
    truncated: bool = False
    state_lost: bool = False
    duration_s: float = 0.0

    @property
    def output(self) -> str:
        """Standard output, then standard error."""
        return self.stdout + self.stderr


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What `Sandbox.list` says of one entry of a folder. `size_bytes` is 0 unless it is a file."""

    name: str
    kind: FileKind
    size_bytes: int


# --- the contract ---------------------------------------------------------------------------------------------------


class Session(abc.ABC):
    """A live interpreter whose state lasts from run to run. Its sandbox ends it at the latest."""

    @abc.abstractmethod
    async def run(
        self, code: str, *, timeout_s: float = 30.0, max_output_bytes: int = MAX_OUTPUT_BYTES
    ) -> SessionResult:
        """Run `code` and wait for it, not for what it left in the background. Runs of one session queue.

        What overruns is interrupted, as by Ctrl-C; if that does not help, the interpreter is killed. Cancelled, it is
        killed as well.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """End the interpreter and all it started. Idempotent."""


class Sandbox(abc.ABC):
    """A place for untrusted programs, with one owner: `async with await open_sandbox(config) as sandbox:`.

    Relative paths are below `workspace`. File operations raise the `OSError` that the sandbox's file system gives
    (`FileNotFoundError`, no space left); they never follow a link to where a program inside could not go itself.
    """

    @property
    @abc.abstractmethod
    def guarantees(self) -> Guarantees:
        """What holds on this machine, with this config."""

    @property
    @abc.abstractmethod
    def workspace(self) -> str:
        """The absolute path of the workspace, as programs inside see it."""

    @abc.abstractmethod
    def check_alive(self) -> None:
        """Raises `SandboxFailure` when it is closed or has died. Does not wait."""

    @abc.abstractmethod
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
        """Run a command: text by the shell, a list as it is. What it leaves running is killed when it ends.

        `max_output_bytes` is for standard output and error each.
        """

    @abc.abstractmethod
    async def read(self, path: str, *, max_bytes: int = 2**26) -> bytes:
        """The content of a file; `OSError` (file too large) above `max_bytes`."""

    @abc.abstractmethod
    async def write(self, path: str, data: bytes) -> None:
        """Create or replace a file, and its folders."""

    @abc.abstractmethod
    async def list(self, path: str = ".", *, max_entries: int = 10_000) -> list[FileEntry]:
        """The entries of a folder, sorted by name."""

    @abc.abstractmethod
    def python(self) -> Session:
        """A Python interpreter, started by its first run."""

    @abc.abstractmethod
    def shell(self) -> Session:
        """A bash, started by its first run. Background jobs go on between runs."""

    @abc.abstractmethod
    async def fork(self) -> Sandbox:
        """A sandbox with the same files, from which both continue independently; the caller owns it.

        Sessions and running programs are not forked: it has files only. The parent must be open, and may close first.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """Kill everything inside and remove it. Idempotent, works under cancellation."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()


class SandboxBackend(Sandbox):
    """A kind of sandbox that can be opened by its name."""

    @classmethod
    @abc.abstractmethod
    def strength(cls) -> int:
        """The strongest that works is what `auto` takes. Below 1: no security boundary."""

    @classmethod
    @abc.abstractmethod
    def unavailable(cls, config: SandboxConfig) -> str | None:
        """Why this machine cannot have one, in a sentence that says what to do; `None` if nothing speaks against it."""

    @classmethod
    @abc.abstractmethod
    async def open(cls, config: SandboxConfig) -> Self:
        """Start one. Raises `SandboxFailure`."""


# --- by name --------------------------------------------------------------------------------------------------------


def _is_backend(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, SandboxBackend) and not inspect.isabstract(value)


_BACKENDS: Registry[type[SandboxBackend]] = Registry(
    "sandbox", "a complete subclass of agent_rl.sandbox.SandboxBackend", "agent_rl.sandboxes", _is_backend
)


def register_sandbox(id: str, entry: type[SandboxBackend] | str) -> None:
    """Make a backend known as `id`: a class, or `"package.module:Name"`, imported when it is first used."""
    _BACKENDS.register(id, entry)


def get_sandbox(id: str) -> type[SandboxBackend]:
    """The backend called `id`. Raises `UserError` that says what exists."""
    return _BACKENDS.get(id)


def sandboxes() -> dict[str, str]:
    """All known backends with where they come from, sorted, without importing any."""
    return _BACKENDS.targets()


async def open_sandbox(config: SandboxConfig | None = None) -> Sandbox:
    """Start a sandbox; the caller owns it. `auto` takes the strongest backend that works and logs what holds.

    Raises `UserError` for a backend that is unknown or that this machine cannot have, and `SandboxFailure`.
    """
    config = config or SandboxConfig()
    if config.base is not None and not config.base.is_dir():
        raise UserError(f"The base folder {config.base} of the sandbox is not there: create it, or give another.")
    if config.kind == "auto":
        return await _open_strongest(config)
    backend = get_sandbox(config.kind)
    if problem := backend.unavailable(config):
        raise UserError(f"The sandbox {config.kind!r} cannot be used: {problem}")
    return await backend.open(config)


async def _open_strongest(config: SandboxConfig) -> Sandbox:
    problems: list[str] = []
    backends = sorted(((get_sandbox(id), id) for id in sandboxes()), key=lambda entry: -entry[0].strength())
    for backend, id in backends:
        problem = backend.unavailable(config)
        if problem is None:
            try:
                sandbox = await backend.open(config)
            except SandboxFailure as failure:
                problem = str(failure)
            else:
                _log_choice(id, sandbox, problems)
                return sandbox
        problems.append(f"{id}: {problem}")
    found = "; ".join(problems) or "no backend is installed"
    raise UserError(f"No sandbox works on this machine ({found}): mend one, `agent-rl doctor sandbox` says more.")


def _log_choice(id: str, sandbox: SandboxBackend, problems: Sequence[str]) -> None:
    missing = ", ".join(sandbox.guarantees.missing()) or "nothing"
    level = logging.INFO if sandbox.strength() > 0 else logging.WARNING
    instead = f" Not taken: {'; '.join(problems)}." if problems else ""
    _LOG.log(level, "Sandbox %r; not enforced: %s.%s", id, missing, instead)
