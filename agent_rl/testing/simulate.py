"""How busy rollouts and learner would be on so many GPUs: the real scheduling in virtual time, with given latencies.

The rollout manager, the staleness gate, the order of consumption and the batches are those of training. Only what takes
time is a model: a decode step of a replica takes `step_s + sequence_s * n` with n sequences in it (Orca, OSDI 2022:
one token of each per step), and stands still while tokens are read; a turn keeps the event loop of its rollout worker
for `host_s`; a tool call and a reset take what was measured; a training step takes its tokens over the learner's rate.
Episodes are drawn from measured ones, such as those of a small run.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from agent_rl.batches import assemble
from agent_rl.rollout.control import RolloutControl
from agent_rl.rollout.manager import RolloutManager
from agent_rl.rollout.order import ConsumptionOrder
from agent_rl.rollout.staleness import StalenessGate
from agent_rl.seeding import stream
from agent_rl.testing.virtual_time import run_in_virtual_time
from agent_rl.types import Group, StopReason, Task, Trajectory

_ROUNDING = 1e-6  # of a decode step


class TurnCost(NamedTuple):
    """What a turn costs: tokens to sample, seconds of tools, and tokens that the engine reads before it samples."""

    sampled: int
    tool_s: float
    read: int = 0


@dataclass(frozen=True, slots=True)
class Episode:
    """What one episode costs: seconds before its first turn, then its turns.

    `trained_tokens` is the length of its rows: what the learner has to read.
    """

    setup_s: float
    turns: tuple[TurnCost, ...]
    trained_tokens: int


@dataclass(frozen=True, slots=True)
class Machine:
    """What a cluster can do. `slots` are sequences that one replica decodes at once; further ones wait.

    `read_s` is for each token that is read, `host_s` for each turn, at one of `workers`.
    """

    replicas: int
    slots: int
    step_s: float
    sequence_s: float
    learner_tokens_per_s: float
    update_s: float = 0.0
    read_s: float = 0.0
    host_s: float = 0.0
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Schedule:
    """The options of training that matter here, by their names."""

    steps: int
    groups_per_batch: int
    group_size: int
    max_staleness: int
    max_concurrent_episodes: int
    overtake: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Prediction:
    """Means over the second half of the steps, when queues have filled; `staleness` is in steps, of whole episodes."""

    step_s: float
    engine_busy: float
    engine_load: float
    host_busy: float
    learner_busy: float
    staleness_mean: float
    staleness_max: int
    tokens_per_s: float

    @property
    def bottleneck(self) -> str:
        """What more of would help: engine, host or learner."""
        busy = {"engine": self.engine_busy, "host": self.host_busy, "learner": self.learner_busy}
        return max(busy, key=busy.__getitem__)


def measured(groups: Iterable[Group]) -> list[Episode]:
    """The episodes of a journal that count, as a simulation draws them."""
    return [
        Episode(
            episode.setup_s,
            tuple(_costs(episode)),
            sum(len(segment.token_ids_T) for segment in episode.segments),
        )
        for group in groups
        for episode in group.valid
    ]


def _costs(episode: Trajectory) -> Iterator[TurnCost]:
    segment, cached = -1, 0
    for turn in episode.turns:
        if turn.segment != segment:
            segment, cached = turn.segment, 0  # a rewritten history is read from its beginning
        yield TurnCost(turn.end - turn.start, turn.step_s, turn.start - cached)
        cached = turn.end


def simulate(episodes: Sequence[Episode], machine: Machine, schedule: Schedule) -> Prediction:
    """Train for `schedule.steps` steps, in virtual time: about 50 us of this machine's for each turn."""
    collects = gc.isenabled()
    gc.disable()  # a third of the time goes into looking through hundreds of thousands of tasks, none in a cycle
    try:
        return run_in_virtual_time(_Simulation(episodes, machine, schedule).run)
    finally:
        if collects:
            gc.enable()


class _Replica:
    """One engine: all of its sequences advance at the same rate, which falls with their number.

    `_progress` counts decode steps; a sequence that enters at `p` and wants n tokens leaves at `p + n`. One timer is
    set, to when the next one leaves, or before. Reading puts `_since`, from when on steps count, into the future.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._progress, self._since = 0.0, 0.0
        self._running: list[tuple[float, int, asyncio.Future[None]]] = []
        self._waiting: deque[tuple[TurnCost, asyncio.Future[None]]] = deque()
        self._entered = 0
        self.busy_s = 0.0
        self.sequence_s = 0.0

    async def generate(self, turn: TurnCost) -> None:
        done = self._loop.create_future()
        self._waiting.append((turn, done))
        self._go_on()
        await done

    def advance(self) -> None:
        """Decode until now."""
        now = self._loop.time()
        count, elapsed_s = len(self._running), now - self._since
        if elapsed_s <= 0:
            return
        self._since = now
        if count:
            self._progress += elapsed_s / self._step_s(count)
            self.busy_s += elapsed_s
            self.sequence_s += elapsed_s * count

    def _go_on(self) -> None:
        """Let sequences leave that are done, and others enter."""
        self.advance()
        while self._running and self._running[0][0] <= self._progress + _ROUNDING:
            heapq.heappop(self._running)[2].set_result(None)
        while self._waiting and len(self._running) < self._machine.slots:
            turn, done = self._waiting.popleft()
            self._entered += 1
            heapq.heappush(self._running, (self._progress + turn.sampled, self._entered, done))
            reading_s = turn.read * self._machine.read_s
            self._since += reading_s
            self.busy_s += reading_s
        if self._running:
            left_s = (self._running[0][0] - self._progress) * self._step_s(len(self._running))
            self._wake(self._since + left_s)

    def _wake(self, at: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= at:
                return  # it goes off too early, and then is set anew: cheaper than one for each that enters
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._go_on()

    def _step_s(self, sequences: int) -> float:
        return self._machine.step_s + self._machine.sequence_s * sequences


class _Host:
    """The event loop of a rollout worker: does one thing after the other."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._free_at = 0.0
        self.busy_s = 0.0

    def work(self, seconds: float) -> float:
        """Seconds until `seconds` of work are done that come in now."""
        now = self._loop.time()
        self._free_at = max(now, self._free_at) + seconds
        self.busy_s += seconds
        return self._free_at - now


@dataclass(slots=True)
class _Record:
    """Where a step ended."""

    at: float
    busy_s: float
    sequence_s: float
    host_s: float
    learn_s: float
    tokens: int
    staleness: list[int]


class _Simulation:
    def __init__(self, episodes: Sequence[Episode], machine: Machine, schedule: Schedule) -> None:
        self._episodes, self._machine, self._schedule = episodes, machine, schedule
        self._replicas: list[_Replica] = []
        self._hosts: list[_Host] = []
        self._idlest: list[tuple[int, int]] = []  # episodes at a replica, and its index: a heap, with the past in it
        self._assigned = [0] * machine.replicas
        self._began: dict[tuple[int, int], int] = {}  # the version that each episode in flight began with
        self._version = 0
        count = schedule.steps * schedule.groups_per_batch * schedule.group_size
        self._draws = stream(schedule.seed, "simulated episodes").integers(len(episodes), size=count).tolist()

    async def run(self) -> Prediction:
        schedule = self._schedule
        self._replicas = [_Replica(self._machine) for _ in self._assigned]
        self._hosts = [_Host() for _ in range(self._machine.workers)]
        self._idlest = [(0, index) for index in range(len(self._replicas))]
        gate = StalenessGate(schedule.max_staleness, schedule.groups_per_batch)
        order = ConsumptionOrder(schedule.groups_per_batch, schedule.max_staleness, schedule.overtake)
        manager = RolloutManager(
            self._play,
            lambda index: Task(str(index), ()),
            group_size=schedule.group_size,
            gate=gate,
            order=order,
            seed=schedule.seed,
            control=RolloutControl(schedule.max_concurrent_episodes),
            stop_index=schedule.steps * schedule.groups_per_batch,
        )
        records = [self._record(0.0, ())]
        async with manager:
            async for batch in assemble(
                manager.groups(), schedule.groups_per_batch, 0, lambda: None, 1, lambda group: True
            ):
                tokens = sum(self._drawn(t.group_index, t.member).trained_tokens for t in _members(batch.groups))
                learn_s = tokens / self._machine.learner_tokens_per_s
                await asyncio.sleep(learn_s + self._machine.update_s)
                records.append(self._record(learn_s, batch.groups))
                self._version += 1
                order.finish_batch()
                gate.release(batch.held)
        return _prediction(records, self._machine)

    def _drawn(self, group: int, member: int) -> Episode:
        """The same for any machine."""
        return self._episodes[self._draws[group * self._schedule.group_size + member]]

    async def _play(self, task: Task, *, group_index: int, member: int, seed: int) -> Trajectory:
        self._began[group_index, member] = self._version
        episode = self._drawn(group_index, member)
        index = self._assign()
        host = self._hosts[group_index % len(self._hosts)]
        await asyncio.sleep(episode.setup_s)
        for turn in episode.turns:
            await self._replicas[index].generate(turn)
            await asyncio.sleep(host.work(self._machine.host_s) + turn.tool_s)
        self._assigned[index] -= 1
        heapq.heappush(self._idlest, (self._assigned[index], index))
        return Trajectory(task, group_index, member, seed, (), (), (), StopReason.TERMINATED)

    def _assign(self) -> int:
        """The replica with the fewest episodes, for one more."""
        while True:
            count, index = heapq.heappop(self._idlest)
            if count == self._assigned[index]:  # else it has others by now
                self._assigned[index] += 1
                heapq.heappush(self._idlest, (count + 1, index))
                return index

    def _record(self, learn_s: float, groups: Sequence[Group]) -> _Record:
        for replica in self._replicas:
            replica.advance()
        members = _members(groups)
        return _Record(
            asyncio.get_running_loop().time(),
            sum(replica.busy_s for replica in self._replicas),
            sum(replica.sequence_s for replica in self._replicas),
            sum(host.busy_s for host in self._hosts),
            learn_s,
            sum(turn.sampled for t in members for turn in self._drawn(t.group_index, t.member).turns),
            [self._version - self._began.pop((t.group_index, t.member)) for t in members],
        )


def _members(groups: Sequence[Group]) -> list[Trajectory]:
    return [member for group in groups for member in group.trajectories]


def _prediction(records: Sequence[_Record], machine: Machine) -> Prediction:
    first = (len(records) - 1) // 2
    counted = records[first + 1 :]
    elapsed_s = records[-1].at - records[first].at
    staleness = [versions for record in counted for versions in record.staleness]
    return Prediction(
        step_s=elapsed_s / len(counted),
        engine_busy=(records[-1].busy_s - records[first].busy_s) / (elapsed_s * machine.replicas),
        engine_load=(records[-1].sequence_s - records[first].sequence_s)
        / (elapsed_s * machine.replicas * machine.slots),
        host_busy=(records[-1].host_s - records[first].host_s) / (elapsed_s * machine.workers),
        learner_busy=sum(record.learn_s for record in counted) / elapsed_s,
        staleness_mean=float(np.mean(staleness)),
        staleness_max=max(staleness),
        tokens_per_s=sum(record.tokens for record in counted) / elapsed_s,
    )
