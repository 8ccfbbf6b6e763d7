"""What an operator may do to rollouts while they run: hold them, admit none, cancel one, change how many run.

Knows episodes by group and member. Refuses to know who asks: see `agent_rl.control` for the socket.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import anyio

from agent_rl.errors import UserError
from agent_rl.types import Failure, Owner

CANCELLED = Failure("cancelled", Owner.FRAMEWORK, "episode", "an operator cancelled it", retryable=False)


class Gate:
    """Open or closed; whoever comes to a closed one waits until it opens."""

    def __init__(self) -> None:
        self.is_open = True
        self._opened = anyio.Event()
        self._closed = anyio.Event()

    def close(self) -> None:
        """Hold whoever comes."""
        if self.is_open:
            self.is_open = False
            self._opened = anyio.Event()
            self._closed.set()

    def open(self) -> None:
        """Let everybody pass."""
        if not self.is_open:
            self.is_open = True
            self._closed = anyio.Event()
            self._opened.set()

    async def wait(self) -> None:
        """Until the gate is open."""
        while not self.is_open:
            await self._opened.wait()

    async def wait_closed(self) -> None:
        """Until the gate is closed."""
        while self.is_open:
            await self._closed.wait()


@dataclass(eq=False, slots=True)
class RunningEpisode:
    """An episode that runs. `began` is on the event loop's clock."""

    group: int
    member: int
    task_id: str
    began: float
    scope: anyio.CancelScope

    @property
    def cancelled(self) -> bool:
        """Whether an operator ended it."""
        return self.scope.cancelled_caught


class Workers(Protocol):
    """The processes that play a run's episodes, where there are several."""

    @property
    def wanted(self) -> int:
        """How many there should be."""
        ...

    @property
    def there(self) -> int:
        """How many there are."""
        ...

    def resize(self, count: int) -> None:
        """Have so many from here on; those that are too many go when their episodes have ended."""
        ...


class RolloutControl:
    """The switches of one `RolloutManager`, which asks it before it starts an episode.

    `turns` is the gate that episodes pass before each turn: hand it to `run_episode`. The time that an episode is held
    counts towards none of its deadlines. `workers` are there while a run on a cluster plays.
    """

    def __init__(self, max_concurrent_episodes: int) -> None:
        self.turns = Gate()
        self.admission = Gate()
        self.stopping = False
        self.workers: Workers | None = None
        self._slots = anyio.CapacityLimiter(max_concurrent_episodes)
        self._running: dict[tuple[int, int], RunningEpisode] = {}
        self._idle = anyio.Event()

    @property
    def running(self) -> list[RunningEpisode]:
        """The episodes that run, the longest first."""
        return sorted(self._running.values(), key=lambda e: (e.began, e.group, e.member))

    @property
    def concurrency(self) -> int:
        """How many episodes may run at once."""
        return int(self._slots.total_tokens)

    async def admit(self) -> None:
        """Wait for a place for one more episode; `leave` gives it back."""
        await self._slots.acquire()
        try:
            await self.admission.wait()
        except BaseException:
            self._slots.release()
            raise

    def leave(self) -> None:
        """Give the place back, from the task that was admitted."""
        self._slots.release()

    @contextmanager
    def episode(self, group: int, member: int, task_id: str) -> Generator[RunningEpisode, None, None]:
        """An episode runs while the block is open, unless it is cancelled."""
        running = RunningEpisode(group, member, task_id, anyio.current_time(), anyio.CancelScope())
        self._running[group, member] = running
        try:
            with running.scope:
                yield running
        finally:
            del self._running[group, member]
            if not self._running:
                self._idle.set()

    # --- the operator's -----------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Start no episode and no turn; what is being sampled or stepped comes to its end."""
        self.admission.close()
        self.turns.close()

    def resume(self) -> None:
        """Undo `pause` and `drain`."""
        self.admission.open()
        self.turns.open()

    async def drain(self) -> None:
        """Start no new episode, and wait until those that run have ended."""
        self.admission.close()
        while self._running:
            self._idle = anyio.Event()
            await self._idle.wait()

    def stop(self) -> None:
        """End the run after the present training step, with a checkpoint to resume from."""
        self.stopping = True

    def set_concurrency(self, episodes: int) -> None:
        """Episodes that may run at once from here on; those that run go on. Raises `UserError` below 1."""
        if episodes < 1:
            raise UserError("The concurrency must be at least 1: use pause or drain to run nothing.")
        self._slots.total_tokens = episodes

    def set_workers(self, count: int) -> None:
        """Rollout workers to have. Raises `UserError` below 1, and for a run in one process."""
        if self.workers is None:
            raise UserError("This run has no rollout workers: it is one process. Give it a section cluster.")
        if count < 1:
            raise UserError("There must be at least 1 worker: use pause or drain to run nothing.")
        self.workers.resize(count)

    def cancel(self, group: int, member: int) -> None:
        """End one episode, as a failure that nobody retries. Raises `UserError` when it does not run."""
        if (group, member) not in self._running:
            raise UserError(f"Member {member} of group {group} does not run; `status` lists those that do.")
        self._running[group, member].scope.cancel()
