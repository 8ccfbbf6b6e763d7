"""A pool of warm sandboxes of any backend: leases in microseconds, closed when they come back, never used twice.

Knows how many are open, which are ready and who holds one. A sandbox that served an episode is discarded: a reset that
forgets nothing is a new sandbox. Refilling is bounded, waits longer after every failure, and never holds up a lease.

    async with SandboxPool(config, warm=8) as pool:
        async with await pool.acquire() as sandbox: ...
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel

from agent_rl.concurrency import collect, shielded
from agent_rl.errors import SandboxFailure, UserError
from agent_rl.sandbox import (
    MAX_OUTPUT_BYTES,
    ExecResult,
    FileEntry,
    Guarantees,
    Sandbox,
    SandboxConfig,
    Session,
    open_sandbox,
)

_FIRST_RETRY_S, _LAST_RETRY_S = 0.1, 30.0
_LOG = logging.getLogger(__name__)


class SandboxPool:
    """Sandboxes made as `config` says: `warm` of them ready, at most `max_open` in all, `max_starting` at a time.

    `acquire` waits at most `acquire_timeout_s` for one of the `max_open` places. Leaving the block closes all of them,
    leases included.
    """

    def __init__(
        self,
        config: SandboxConfig | None = None,
        *,
        warm: int = 4,
        max_open: int = 64,
        max_starting: int = 2,
        acquire_timeout_s: float = 60.0,
    ) -> None:
        if not 0 <= warm <= max_open or max_open < 1 or max_starting < 1:
            raise UserError(
                f"A pool of {max_open} sandboxes cannot keep {warm} warm: 0 <= warm <= max_open, from 1 on."
            )
        self._config = config or SandboxConfig()
        self._warm, self._max_open, self._max_starting = warm, max_open, max_starting
        self._timeout_s = acquire_timeout_s
        self._ready: deque[Sandbox] = deque()
        self._leased: set[Sandbox] = set()
        self._open = 0  # ready, leased, being started or closed
        self._starting = 0
        self._queue = anyio.Lock(fast_acquire=True)  # who asks first is served first
        self._changed = anyio.Event()
        self._tasks = anyio.create_task_group()
        self._refilling = anyio.CancelScope()

    @property
    def ready(self) -> int:
        """How many can be leased at once."""
        return len(self._ready)

    @property
    def leased(self) -> int:
        """How many are out."""
        return len(self._leased)

    @property
    def open(self) -> int:
        """How many there are, whatever their state."""
        return self._open

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._refill_until_left)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        self._refilling.cancel()
        if self._leased:
            _LOG.warning("%d sandboxes were not given back to their pool", len(self._leased))
        for sandbox in (*self._ready, *self._leased):
            self._tasks.start_soon(self._discard, sandbox)
        self._ready.clear()
        self._leased.clear()
        return await self._tasks.__aexit__(kind, error, tb)

    async def acquire(self) -> Lease:
        """A sandbox that nobody used before; its `close` gives the place back. Raises `SandboxFailure`."""
        try:
            with anyio.fail_after(self._timeout_s):
                async with self._queue:
                    while (sandbox := self._take_ready()) is None and self._open >= self._max_open:
                        await self._changed.wait()
                    if sandbox is None:
                        self._open += 1
        except TimeoutError as error:
            message = f"No sandbox was free for {self._timeout_s:g} s: raise max_open, or run fewer episodes at once."
            raise SandboxFailure(message, kind="exhausted") from error
        sandbox = sandbox or await self._start()
        self._leased.add(sandbox)
        return Lease(self, sandbox)

    def give_back(self, sandbox: Sandbox) -> None:
        """Close a leased one in the background. Idempotent."""
        if sandbox in self._leased:
            self._leased.discard(sandbox)
            self._tasks.start_soon(self._discard, sandbox)

    def adopt(self, sandbox: Sandbox) -> Lease:
        """Take over a fork of a leased one. It is above `max_open` if need be: its parent's owner cannot wait."""
        self._open += 1
        self._leased.add(sandbox)
        return Lease(self, sandbox)

    def _take_ready(self) -> Sandbox | None:
        while self._ready:
            sandbox = self._ready.popleft()
            self._announce()
            try:
                sandbox.check_alive()
            except SandboxFailure:
                self._tasks.start_soon(self._discard, sandbox)
                continue
            return sandbox
        return None

    async def _start(self) -> Sandbox:
        """One more, for which `_open` was raised already."""
        try:
            sandbox = await open_sandbox(self._config)
        except BaseException:
            self._open -= 1
            self._announce()
            raise
        if self._refilling.cancel_called:  # meanwhile the pool was left, which could not close this one
            await self._discard(sandbox)
            await anyio.lowlevel.checkpoint()  # here refilling ends
            raise SandboxFailure("The pool was left.", kind="closed", retryable=False)
        return sandbox

    async def _discard(self, sandbox: Sandbox) -> None:
        try:
            async with shielded(self._config.start_timeout_s):
                await sandbox.close()
        except SandboxFailure:
            _LOG.exception("a sandbox could not be closed")
        finally:
            self._open -= 1
            self._announce()

    async def _refill_until_left(self) -> None:
        with self._refilling:
            await collect([self._refill] * self._max_starting)

    async def _refill(self) -> None:
        """Keep `warm` of them ready, as far as there is room."""
        delay_s = _FIRST_RETRY_S
        while True:
            if len(self._ready) + self._starting >= self._warm or self._open >= self._max_open:
                await self._changed.wait()
                continue
            try:
                await self._start_ready()
                delay_s = _FIRST_RETRY_S
            except (SandboxFailure, UserError) as error:
                _LOG.warning("a sandbox could not be made ready; the next attempt is in %g s: %s", delay_s, error)
                await anyio.sleep(delay_s)
                delay_s = min(2 * delay_s, _LAST_RETRY_S)

    async def _start_ready(self) -> None:
        self._starting += 1
        self._open += 1
        try:
            self._ready.append(await self._start())
        finally:
            self._starting -= 1
        self._announce()

    def _announce(self) -> None:
        """Wake whoever waits for room or for a ready one."""
        self._changed.set()
        self._changed = anyio.Event()


class Lease(Sandbox):
    """A sandbox of a pool's, until it is closed."""

    def __init__(self, pool: SandboxPool, sandbox: Sandbox) -> None:
        self._pool, self._leased = pool, sandbox
        self._closed = False

    @property
    def _sandbox(self) -> Sandbox:
        if self._closed:
            raise SandboxFailure("This sandbox was given back to its pool.", kind="closed", retryable=False)
        return self._leased

    @property
    def guarantees(self) -> Guarantees:
        """See `Sandbox.guarantees`."""
        return self._leased.guarantees

    @property
    def workspace(self) -> str:
        """See `Sandbox.workspace`."""
        return self._leased.workspace

    def check_alive(self) -> None:
        """See `Sandbox.check_alive`."""
        self._sandbox.check_alive()

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
        return await self._sandbox.exec(
            command, stdin=stdin, timeout_s=timeout_s, max_output_bytes=max_output_bytes, env=env, cwd=cwd
        )

    async def read(self, path: str, *, max_bytes: int = 2**26) -> bytes:
        """See `Sandbox.read`."""
        return await self._sandbox.read(path, max_bytes=max_bytes)

    async def write(self, path: str, data: bytes) -> None:
        """See `Sandbox.write`."""
        await self._sandbox.write(path, data)

    async def list(self, path: str = ".", *, max_entries: int = 10_000) -> list[FileEntry]:
        """See `Sandbox.list`."""
        return await self._sandbox.list(path, max_entries=max_entries)

    def python(self) -> Session:
        """See `Sandbox.python`. Of a closed one: its runs fail, not this."""
        return self._leased.python()

    def shell(self) -> Session:
        """See `Sandbox.shell`. Of a closed one: its runs fail, not this."""
        return self._leased.shell()

    async def fork(self) -> Lease:
        """See `Sandbox.fork`. The pool owns the fork as well."""
        return self._pool.adopt(await self._sandbox.fork())

    async def close(self) -> None:
        """Give it back. Does not wait for it to be removed; the pool does."""
        if not self._closed:
            self._closed = True
            self._pool.give_back(self._leased)
