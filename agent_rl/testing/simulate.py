"""How busy rollouts and learner would be on so many GPUs: the real scheduling in virtual time, with given latencies.

The rollout manager, the staleness gate, the order of consumption and the batches are those of training. Only what takes
time is a model: a decode step of a replica takes `step_s + sequence_s * n` with n sequences in it (Orca, OSDI 2022:
one token of each per step), a tool call and a reset take what was measured, a training step takes its tokens over the
learner's rate. Episodes are drawn from measured ones, such as those of a small run.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import anyio
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


@dataclass(frozen=True, slots=True)
class Episode:
    """What one episode costs: seconds before its first turn, then tokens to sample and seconds of tools in each turn.

    `trained_tokens` is the length of its rows: what the learner has to read.
    """

    setup_s: float
    turns: tuple[tuple[int, float], ...]
    trained_tokens: int


@dataclass(frozen=True, slots=True)
class Machine:
    """What a cluster can do. `slots` are sequences that one replica decodes at once; further ones wait."""

    replicas: int
    slots: int
    step_s: float
    sequence_s: float
    learner_tokens_per_s: float
    update_s: float = 0.0


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
    learner_busy: float
    staleness_mean: float
    staleness_max: int
    tokens_per_s: float

    @property
    def bottleneck(self) -> str:
        """What more of would help."""
        return "learner" if self.learner_busy > self.engine_busy else "rollout"


def measured(groups: Iterable[Group]) -> list[Episode]:
    """The episodes of a journal that count, as a simulation draws them."""
    return [
        Episode(
            episode.setup_s,
            tuple((turn.end - turn.start, turn.step_s) for turn in episode.turns),
            sum(len(segment.token_ids_T) for segment in episode.segments),
        )
        for group in groups
        for episode in group.valid
    ]


def simulate(episodes: Sequence[Episode], machine: Machine, schedule: Schedule) -> Prediction:
    """Train for `schedule.steps` steps, in virtual time."""
    return run_in_virtual_time(_Simulation(episodes, machine, schedule).run)


class _Replica:
    """One engine: all of its sequences advance at the same rate, which falls with their number.

    `_progress` counts decode steps; a sequence that enters at `p` and wants n tokens leaves at `p + n`.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._places = anyio.CapacityLimiter(machine.slots)
        self._progress, self._since = 0.0, 0.0
        self._leaving: list[tuple[float, int, anyio.Event]] = []
        self._entered = 0
        self._changed = anyio.Event()
        self.assigned = 0
        self.busy_s = 0.0
        self.sequence_s = 0.0

    async def generate(self, tokens: int) -> None:
        async with self._places:
            self.advance(anyio.current_time())
            left = anyio.Event()
            self._entered += 1
            heapq.heappush(self._leaving, (self._progress + tokens, self._entered, left))
            self._changed.set()
            await left.wait()

    def advance(self, now: float) -> None:
        """Decode until `now`."""
        count, elapsed_s = len(self._leaving), now - self._since
        self._since = now
        if count:
            self._progress += elapsed_s / self._step_s(count)
            self.busy_s += elapsed_s
            self.sequence_s += elapsed_s * count

    async def serve(self) -> None:
        """Let sequences leave when they are done, for ever."""
        while True:
            self._changed = anyio.Event()
            left_s = math.inf
            if self._leaving:
                left_s = max(0.0, self._leaving[0][0] - self._progress) * self._step_s(len(self._leaving))
            with anyio.move_on_after(left_s):
                await self._changed.wait()
            self.advance(anyio.current_time())
            while self._leaving and self._leaving[0][0] <= self._progress + _ROUNDING:
                heapq.heappop(self._leaving)[2].set()

    def _step_s(self, sequences: int) -> float:
        return self._machine.step_s + self._machine.sequence_s * sequences


@dataclass(slots=True)
class _Record:
    """Where a step ended."""

    at: float
    busy_s: float
    sequence_s: float
    learn_s: float
    tokens: int
    staleness: list[int]


class _Simulation:
    def __init__(self, episodes: Sequence[Episode], machine: Machine, schedule: Schedule) -> None:
        self._episodes, self._machine, self._schedule = episodes, machine, schedule
        self._replicas = [_Replica(machine) for _ in range(machine.replicas)]
        self._began: dict[tuple[int, int], int] = {}  # the version that each episode in flight began with
        self._version = 0

    async def run(self) -> Prediction:
        schedule = self._schedule
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
        async with anyio.create_task_group() as replicas:
            for replica in self._replicas:
                replicas.start_soon(replica.serve)
            async with manager:
                async for batch in assemble(
                    manager.groups(), schedule.groups_per_batch, 0, lambda: None, 1, lambda group: True
                ):
                    tokens = sum(self._drawn(t.group_index, t.member).trained_tokens for t in _members(batch.groups))
                    learn_s = tokens / self._machine.learner_tokens_per_s
                    await anyio.sleep(learn_s + self._machine.update_s)
                    records.append(self._record(learn_s, batch.groups))
                    self._version += 1
                    order.finish_batch()
                    gate.release(batch.held)
            replicas.cancel_scope.cancel()
        return _prediction(records, self._machine)

    def _drawn(self, group: int, member: int) -> Episode:
        """The same for any schedule."""
        index = int(stream(self._schedule.seed, "simulated episode", group, member).integers(len(self._episodes)))
        return self._episodes[index]

    async def _play(self, task: Task, *, group_index: int, member: int, seed: int) -> Trajectory:
        self._began[group_index, member] = self._version
        episode = self._drawn(group_index, member)
        replica = min(self._replicas, key=lambda r: r.assigned)
        replica.assigned += 1
        await anyio.sleep(episode.setup_s)
        for tokens, tool_s in episode.turns:
            await replica.generate(tokens)
            await anyio.sleep(tool_s)
        replica.assigned -= 1
        return Trajectory(task, group_index, member, seed, (), (), (), StopReason.TERMINATED)

    def _record(self, learn_s: float, groups: Sequence[Group]) -> _Record:
        now = anyio.current_time()
        for replica in self._replicas:
            replica.advance(now)
        members = _members(groups)
        return _Record(
            now,
            sum(replica.busy_s for replica in self._replicas),
            sum(replica.sequence_s for replica in self._replicas),
            learn_s,
            sum(tokens for t in members for tokens, _ in self._drawn(t.group_index, t.member).turns),
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
        learner_busy=sum(record.learn_s for record in counted) / elapsed_s,
        staleness_mean=float(np.mean(staleness)),
        staleness_max=max(staleness),
        tokens_per_s=sum(record.tokens for record in counted) / elapsed_s,
    )
