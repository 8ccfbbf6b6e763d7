"""Whether an episode can be cut short at any time: promptly, leaving nothing behind, never stopping the loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import anyio

from agent_rl.concurrency import asyncio_loop
from agent_rl.environment import Environment
from agent_rl.testing.environment_check.play import Subject
from agent_rl.testing.environment_check.report import Finding, worst
from agent_rl.types import Task, Trajectory

T = TypeVar("T")

PATIENCE_S = 5.0
STALL_S = 0.05
_CYCLES = 4  # what is made in one of them only, such as a pool or its next spare, is no leak
_BEAT_S = 0.002
_SETTLE_S = 2.0
_PROMPT = "it can be cut short"
_LEAKS = "nothing is left behind"
_CLOSES = "it closes, also twice or before reset"
_LOOP = "it never stops the event loop"


# --- closing --------------------------------------------------------------------------------------------------------


async def check_close(subject: Subject, task: Task) -> Finding:
    """Without a reset, after one, and again."""
    for name, reset in (("before reset", False), ("after reset", True)):
        environment = subject.make(task)
        if reset:
            await environment.reset(task, subject.reset_seed(task))
        for again in ("", " the second time"):
            try:
                with anyio.fail_after(PATIENCE_S):
                    await environment.close()
            except Exception as error:  # noqa: BLE001  # the user's code
                late = isinstance(error, TimeoutError)
                found = f"takes more than {PATIENCE_S:g} s" if late else f"raises {type(error).__name__}: {error}"
                mend = "Release what there is, once, under a deadline, and nothing where there is nothing."
                return Finding(_CLOSES, "failed", f"close() {name} {found}{again}.", mend)
    return Finding(_CLOSES, "ok", "promptly")


# --- cutting short --------------------------------------------------------------------------------------------------


async def check_cuts(subject: Subject, episode: Trajectory) -> list[Finding]:
    """Cancel `reset` and the first step of a recorded episode at several moments; count what is left behind."""
    counts: list[Counts] = []
    for _ in range(_CYCLES):
        if problems := await _cut_all(subject, episode):
            return [worst(_PROMPT, problems, "")]
        counts.append(await _settled(counts[-1] if counts else None))
    prompt = Finding(_PROMPT, "ok", f"reset and step, at {_CYCLES * len(_MOMENTS)} moments each")
    grown = repeated_growth(counts)
    if not grown:
        return [prompt, Finding(_LEAKS, "ok", "no more threads, processes, files or tasks than before")]
    left = ", ".join(f"{more} {name}" for name, more in grown.items())
    found = f"Resets and steps that were cut short {2 * len(_MOMENTS) * (_CYCLES - 1)} times left {left}."
    mend = "Release it in close(), also when reset() or step() was cancelled before it was complete."
    return [prompt, Finding(_LEAKS, "failed", found, mend)]


_MOMENTS = (0.0, 0.3, 0.8)  # of the time that the call takes when it is left alone


async def _cut_all(subject: Subject, episode: Trajectory) -> list[Finding]:
    task, action = episode.task, episode.turns[0].action
    problems: list[Finding] = []
    for moment in _MOMENTS:
        environment = subject.make(task)
        problems += await _cut("reset", lambda e=environment: _reset(subject, e, task), moment * episode.setup_s)
        problems += await _closed("reset", environment)
        environment = subject.make(task)
        await _reset(subject, environment, task)
        problems += await _cut("step", lambda e=environment: e.step(action), moment * episode.turns[0].step_s)
        problems += await _closed("step", environment)
    return problems


async def _reset(subject: Subject, environment: Environment, task: Task) -> object:
    return await environment.reset(task, subject.reset_seed(task))


async def _cut(what: str, call: Callable[[], Awaitable[object]], after_s: float) -> list[Finding]:
    began = time.monotonic()
    try:
        with anyio.move_on_after(after_s):
            await call()
    except Exception as error:  # noqa: BLE001  # the user's code
        mend = "Let cancellation pass: catch no BaseException, and what is caught raise again."
        return [Finding(_PROMPT, "failed", f"Cut short, {what}() raises {type(error).__name__}: {error}.", mend)]
    late_s = time.monotonic() - began - after_s
    if late_s > PATIENCE_S:
        mend = "Wait with anyio, without shields; give blocking calls to agent_rl.concurrency.in_thread."
        return [Finding(_PROMPT, "failed", f"Cut short, {what}() went on for {late_s:.1f} s.", mend)]
    return []


async def _closed(after: str, environment: Environment) -> list[Finding]:
    mend = "close() must cope with whatever there is, and wait for nothing without a deadline."
    try:
        with anyio.fail_after(PATIENCE_S):
            await environment.close()
    except TimeoutError:
        found = f"close() takes more than {PATIENCE_S:g} s when {after}() was cut short."
        return [Finding(_PROMPT, "failed", found, mend)]
    except Exception as error:  # noqa: BLE001  # the user's code
        found = f"close() raises {type(error).__name__} when {after}() was cut short: {error}."
        return [Finding(_PROMPT, "failed", found, mend)]
    return []


@dataclass(frozen=True, slots=True)
class Counts:
    """What this process holds. Processes and files are known on Linux only, tasks under asyncio."""

    threads: int = 0
    processes: int = 0
    files: int = 0
    tasks: int = 0

    @classmethod
    def now(cls) -> Counts:
        """Count."""
        me = Path("/proc/self")
        children = [path.read_text().split() for path in me.glob("task/*/children")]
        files = len(list((me / "fd").iterdir())) if (me / "fd").is_dir() else 0
        tasks = len(asyncio.all_tasks()) if asyncio_loop() else 0
        return cls(threading.active_count(), sum(map(len, children)), files, tasks)

    def beyond(self, other: Counts) -> dict[str, int]:
        """How much more there is than in `other`."""
        names = ("threads", "processes", "files", "tasks")
        return {name: getattr(self, name) - getattr(other, name) for name in names}

    def exceeds(self, other: Counts) -> bool:
        """Whether there is more of anything than in `other`."""
        return any(more > 0 for more in self.beyond(other).values())


def repeated_growth(counts: Sequence[Counts]) -> dict[str, int]:
    """How much more there is at the end of what grew again and again, and not in one of the cycles alone."""
    cycles = [after.beyond(before) for before, after in pairwise(counts)]
    growth = {name: [cycle[name] for cycle in cycles] for name in cycles[0]}
    return {name: sum(more) for name, more in growth.items() if sum(more) - max(more) >= len(more) - 1}


async def _settled(base: Counts | None) -> Counts:
    """The counts, as soon as nothing is more than in `base`, or after a while.

    What only waits for the garbage collector does not count.
    """
    counts = Counts.now()
    if base is None or not counts.exceeds(base):
        return counts
    gc.collect()
    until = time.monotonic() + _SETTLE_S
    while (counts := Counts.now()).exceeds(base) and time.monotonic() < until:  # noqa: ASYNC110
        await anyio.sleep(0.05)  # nobody tells when a thread or a process has ended
    return counts


# --- the event loop -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Heartbeat:
    """The longest time in which no other task could run."""

    worst_s: float = 0.0
    last: float = 0.0

    def beat(self) -> None:
        """Called when a task gets its turn."""
        now = time.perf_counter()
        self.worst_s = max(self.worst_s, now - self.last)
        self.last = now


async def measured(call: Callable[[], Awaitable[T]]) -> tuple[T, float]:
    """What the call returns, and the longest time in seconds in which it let no other task run."""
    heart = Heartbeat(last=time.perf_counter())
    escaped: Exception | None = None
    result: list[T] = []

    async def beat() -> None:
        while True:
            heart.beat()
            await anyio.sleep(_BEAT_S)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        try:
            result.append(await call())
        except Exception as error:  # noqa: BLE001  # out of the task group as itself, not as a group
            escaped = error
        heart.beat()
        tasks.cancel_scope.cancel()
    if escaped is not None:
        raise escaped
    return result[0], heart.worst_s


def check_stalls(first_s: Sequence[float], again_s: Sequence[float]) -> Finding:
    """The longest stall of episodes that were played twice: what a busy machine did in one of them does not count."""
    if not first_s:
        return Finding(_LOOP, "skipped", "no episode could be recorded")
    stall_s = max(map(min, zip(first_s, again_s, strict=True)))
    found = f"for {1000 * stall_s:.0f} ms at the longest"
    if stall_s <= STALL_S:
        return Finding(_LOOP, "ok", found)
    mend = "All other episodes wait meanwhile: use agent_rl.concurrency.in_thread, or a process for what computes."
    return Finding(_LOOP, "note", f"It stands still {found}.", mend)
