"""Many groups at once, handed out in order. Owns the tasks, knows what runs; refuses to know what it is for.

The same code serves training (endless, admitted by the staleness gate) and evaluation (`run_tasks`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeAlias

import anyio

from agent_rl.rollout.control import CANCELLED, RolloutControl
from agent_rl.rollout.group import PlayEpisode, PlayGroup, run_group
from agent_rl.rollout.order import ConsumptionOrder
from agent_rl.rollout.staleness import StalenessGate
from agent_rl.seeding import derive_seed
from agent_rl.types import Group, StopReason, Task, Trajectory

OnGroup: TypeAlias = Callable[[Group], Awaitable[None]]


class RolloutManager:
    """Runs the groups of `task_at(0)`, `task_at(1)`, ... while its `async with` block is open.

    Groups are started in order as `gate` admits them, run concurrently (as many episodes at a time as `control` says,
    the earliest first) and are handed out by `groups()` as `order` says: by default in logical order, whatever
    finishes first, so that batches are the same for any concurrency. The consumer calls `gate.release` for every group
    that it has trained on or dropped. `group_size` may differ from group to group.

    `on_group` is awaited when a group finishes, before it is handed out, so that it can be made durable; `finished`
    are groups that already are, which are handed out as they are instead of run again. `start_index` and `stop_index`
    bound the indices (`None`: endless); those in `consumed` are left out. `play_group` plays the members of one.
    Through `control` an operator may intervene.

    Leaving the block starts nothing new and waits for the groups that run, so that no work is lost; cancellation and
    exceptions end them at once. Either way every environment and session is released.
    """

    def __init__(
        self,
        play: PlayEpisode,
        task_at: Callable[[int], Task],
        *,
        group_size: int | Callable[[int], int],
        gate: StalenessGate,
        seed: int,
        control: RolloutControl,
        order: ConsumptionOrder | None = None,
        max_attempts: int = 3,
        retry_delay_s: float = 1.0,
        start_index: int = 0,
        stop_index: int | None = None,
        consumed: Collection[int] = (),
        finished: Mapping[int, Group] | None = None,
        on_group: OnGroup | None = None,
        play_group: PlayGroup = run_group,
    ) -> None:
        self._play = play
        self._play_group = play_group
        self._task_at = task_at
        self._group_size: Callable[[int], int] = group_size if callable(group_size) else lambda _: group_size
        self._gate = gate
        self._seed = seed
        self._control = control
        self._max_attempts = max_attempts
        self._retry_delay_s = retry_delay_s
        self._order = order or ConsumptionOrder()
        self._stop_index = stop_index
        self._next_index = start_index
        self._consumed = frozenset(consumed)
        self._durable = dict(finished or {})
        self._finished: dict[int, Group] = {}
        self._on_group = on_group
        self._tasks = anyio.create_task_group()
        self._starting = anyio.CancelScope()
        self._arrival = anyio.Event()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._start_groups)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        self._starting.cancel()
        return await self._tasks.__aexit__(exc_type, exc, tb)

    def groups(self) -> AsyncIterator[Group]:
        """The groups, each as soon as it is finished and `order` lets it pass. One stream per manager."""
        return self

    def __aiter__(self) -> Self:
        return self

    @property
    def running_episodes(self) -> int:
        """How many episodes run now."""
        return len(self._control.running)

    @property
    def first_unconsumed(self) -> int:
        """The lowest index of a group that was not handed out."""
        return self._order.first_unconsumed(self._next_index)

    async def __anext__(self) -> Group:
        while (index := self._order.take()) is None:
            if self.first_unconsumed == self._stop_index:
                raise StopAsyncIteration
            self._arrival = anyio.Event()
            await self._arrival.wait()
        return self._finished.pop(index)

    async def _start_groups(self) -> None:
        with self._starting:
            while self._next_index != self._stop_index:
                index = self._next_index
                if index not in self._consumed:
                    await self._gate.acquire()
                    self._order.start(index)
                    self._start_group(index)
                self._next_index += 1
            self._arrival.set()

    def _start_group(self, index: int) -> None:
        if index in self._durable:
            self._hand_out(self._durable.pop(index))
        else:
            self._tasks.start_soon(self._run_group, index)

    async def _run_group(self, index: int) -> None:
        group = await self._play_group(
            self._play_in_slot,
            self._task_at(index),
            index=index,
            group_size=self._group_size(index),
            seed=derive_seed(self._seed, index),
            max_attempts=self._max_attempts,
            retry_delay_s=self._retry_delay_s,
        )
        if self._on_group is not None:
            await self._on_group(group)
        self._hand_out(group)

    def _hand_out(self, group: Group) -> None:
        self._finished[group.index] = group
        self._order.finish(group.index)
        self._arrival.set()

    async def _play_in_slot(self, task: Task, *, group_index: int, member: int, seed: int) -> Trajectory:
        await self._control.admit()
        try:
            with self._control.episode(group_index, member, task.id):
                return await self._play(task, group_index=group_index, member=member, seed=seed)
            return Trajectory(
                task=task,
                group_index=group_index,
                member=member,
                seed=seed,
                prompt=task.prompt,
                segments=(),
                turns=(),
                stop_reason=StopReason.FAILURE,
                failure=CANCELLED,
            )
        finally:
            self._control.leave()


async def run_tasks(
    play: PlayEpisode,
    tasks: Sequence[Task],
    *,
    group_size: int,
    seed: int,
    max_concurrent_episodes: int,
    max_attempts: int = 3,
    retry_delay_s: float = 1.0,
    finished: Mapping[int, Group] | None = None,
    on_group: OnGroup | None = None,
) -> list[Group]:
    """One group for each task, in order. `on_group` is awaited as each finishes, in any order (progress, journal).

    `finished` are groups that are there already, by index: they are neither played again nor shown to `on_group`.
    """
    known = dict(finished or {})
    # Those that are there already pass the gate too, and never leave.
    gate = StalenessGate(0, groups_per_batch=max_concurrent_episodes + len(known))

    async def admit_next(group: Group) -> None:
        if on_group is not None:
            await on_group(group)
        gate.release()

    manager = RolloutManager(
        play,
        tasks.__getitem__,
        group_size=group_size,
        gate=gate,
        seed=seed,
        control=RolloutControl(max_concurrent_episodes),
        max_attempts=max_attempts,
        retry_delay_s=retry_delay_s,
        stop_index=len(tasks),
        finished=known,
        on_group=admit_next,
    )
    async with manager:
        return [group async for group in manager.groups()]
