"""The driver's side of rollouts: keeps the wanted actors alive, sends episodes to workers and weights to engines.

Each actor has a task of its own here, which makes another one when it is lost. An episode of a lost worker is played
again, elsewhere and with the same seed: nothing of it was handed out. Ray is asked for one actor after the other, not
for all at once: whatever room the cluster has is used, and its autoscaler sees what is wanted.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import ray
from anyio.abc import TaskGroup

from agent_rl.cluster.calls import Actor, ArgumentLost, Lost, Ref, answer, end, tell
from agent_rl.cluster.dispatch import Dispatch
from agent_rl.cluster.inference import InferenceReplica
from agent_rl.cluster.learner import LEARNER_ENDED, RemoteLearner
from agent_rl.cluster.rollout import RolloutWorker
from agent_rl.cluster_config import ClusterConfig
from agent_rl.concurrency import collect, shielded
from agent_rl.engine.replicas import Replicas
from agent_rl.errors import ProviderFailure, UserError
from agent_rl.learner.base import LearnerLost, PolicyLearner
from agent_rl.rollout.control import Gate
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.site import ENGINE_MODEL
from agent_rl.types import Task, Trajectory


@dataclass(slots=True, eq=False)
class _Part:
    """An actor that is wanted, or was until its episodes have ended, and the present one."""

    name: str
    make: Callable[[], Actor]
    has_engine: bool
    actor: Actor | None = None
    dispatch: Dispatch | None = None  # of a worker
    wanted: bool = True
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


@dataclass(slots=True)
class _Newest:
    """The weights that engines are to have."""

    learner: RemoteLearner
    version: int
    complete: Ref | None = None  # made when somebody needs it


@dataclass(slots=True)
class _Tally:
    lost: int = 0
    metrics: dict[str, list[float]] = field(default_factory=dict[str, list[float]])


class ClusterPlayers:
    """`Players` that are actors."""

    def __init__(self, cluster: ClusterConfig, cast: Ref, folder: Path, episodes: int, turns: Gate) -> None:
        self._cluster = cluster
        self._turns = turns
        self._newest: _Newest | None = None
        self._updating = anyio.Lock()
        self._tally = _Tally()
        self._arrival = anyio.Event()
        gpus = cluster.gpus_per_engine
        replicas = tuple(f"replica-{number}" for number in range(cluster.inference_replicas))
        share = -(-episodes // (len(replicas) or cluster.workers))
        worker = {"num_cpus": cluster.cpus_per_worker, "num_gpus": 0 if replicas else gpus}
        replica = {"num_cpus": cluster.cpus_per_replica, "num_gpus": gpus}

        def part(name: str, has_engine: bool, kind: type[Any], resources: dict[str, float], *more: Any) -> _Part:
            own = folder / ENGINE_MODEL / name
            return _Part(name, partial(_start, kind, resources, cast, own, gpus > 0, share, *more), has_engine)

        self._replica_parts = [part(name, True, InferenceReplica, replica) for name in replicas]
        self._worker_parts: dict[str, _Part] = {}
        more = cluster.episodes_per_worker, replicas
        self._new_workers = (
            part(f"worker-{number}", not replicas, RolloutWorker, worker, *more) for number in itertools.count()
        )
        self._homes = Replicas(())
        self._tasks: TaskGroup
        self._playing: dict[str, int] = {}  # episodes, by group

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """All actors, which come as there is room for them. Episodes wait for a worker."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            for part in self._replica_parts:
                tasks.start_soon(self._keep, part)
            self.resize(self._cluster.workers)
            tasks.start_soon(self._hold_with, self._turns)
            try:
                yield
            finally:
                await self._stop(tasks)

    async def play(
        self, task: Task, *, group_index: int, member: int, seed: int, limits: RolloutLimits | None = None
    ) -> Trajectory:
        """See `PlayEpisode`. The episodes of a group stay together, as long as their worker is there.

        `limits` are those of the run, if not given.
        """
        group = str(group_index)
        self._playing[group] = self._playing.get(group, 0) + 1
        try:
            while True:
                part = await self._home(group)
                dispatch = part.dispatch
                assert dispatch is not None
                try:
                    return await dispatch.play(task, group_index, member, seed, limits)
                except Lost:
                    self._lose(part, dispatch.actor)
        finally:
            self._playing[group] -= 1
            if not self._playing[group]:
                del self._playing[group]
                self._homes.forget(group)

    async def update_weights(self, learner: PolicyLearner, version: int) -> None:
        """See `Players.update_weights`: returns when every engine that is there has them."""
        assert isinstance(learner, RemoteLearner)
        async with self._updating:
            share, update = await anyio.to_thread.run_sync(learner.advance)
            self._newest = _Newest(learner, version)
            self._tally.metrics.setdefault("cluster/weights_sent_share", []).append(share)
            engines = [part for part in self._parts if part.has_engine and part.actor is not None]
            await collect([partial(self._send, part, update) for part in engines])

    def metrics(self) -> dict[str, float]:
        """Means over the workers, how many are there, how many processes were lost."""
        tally, self._tally = self._tally, _Tally()
        means = {name: sum(values) / len(values) for name, values in tally.metrics.items()}
        return {**means, "cluster/workers": self.there, "cluster/lost": tally.lost}

    # --- how many workers: see `agent_rl.rollout.control.Workers` -----------------------------------------------------

    @property
    def wanted(self) -> int:
        """Workers that there should be."""
        return sum(part.wanted for part in self._worker_parts.values())

    @property
    def there(self) -> int:
        """Workers that play."""
        return sum(not home.lost for home in self._homes.all)

    def resize(self, count: int) -> None:
        """Have so many workers. Siblings of episodes whose worker goes may be played elsewhere."""
        for part in itertools.islice(self._new_workers, max(0, count - self.wanted)):
            self._worker_parts[part.name] = part
            self._homes.add(part.name)
            self._tasks.start_soon(self._keep, part)
        wanted = [part for part in self._worker_parts.values() if part.wanted]
        for part in sorted(wanted, key=lambda part: part.actor is not None)[: len(wanted) - count]:
            part.wanted = False
            self._homes.lose(self._homes.named(part.name))
            self._tasks.start_soon(self._retire, part)

    async def _retire(self, part: _Part) -> None:
        """Let a worker's episodes end, then the worker."""
        if part.dispatch is not None:
            await part.dispatch.drained()
        async with self._updating:  # nobody is sending it weights
            actor, part.actor = part.actor, None
        if actor is None:
            part.scope.cancel()
        else:
            await _stop(actor)

    @property
    def _parts(self) -> list[_Part]:
        return [*self._replica_parts, *self._worker_parts.values()]

    # --- actors that are wanted ---------------------------------------------------------------------------------------

    async def _keep(self, part: _Part) -> None:
        """Have an actor for `part`, for as long as it is wanted."""
        with part.scope:
            while part.wanted:
                actor = part.make()
                part.dispatch = Dispatch(actor) if part.name in self._worker_parts else None
                try:
                    serving = actor.serve.remote()
                    await answer(actor.ready.remote())
                    if part.dispatch is not None:
                        self._tasks.start_soon(part.dispatch.exchange)
                    await self._join(part, actor)
                    await answer(serving)
                    break  # it was told to stop
                except Lost:
                    self._tally.lost += 1
                    self._lose(part, actor)
                finally:
                    if part.dispatch is not None:
                        part.dispatch.close()
                    end([actor])
        if self._worker_parts.pop(part.name, None):
            self._homes.remove(part.name)

    async def _join(self, part: _Part, actor: Actor) -> None:
        """Bring a new actor up to date, then let others know of it."""
        async with self._updating:
            part.actor = actor
            if part.has_engine and self._newest is not None:
                await self._send(part, None)
            if part.actor is not actor:
                raise Lost("it has ended before it could be told of")
        if part in self._replica_parts:
            for worker in self._worker_parts.values():
                await self._introduce(part, worker)
            return
        for replica in self._replica_parts:
            await self._introduce(replica, part)
        if not self._turns.is_open:
            await answer(actor.hold.remote(True))
        if part.wanted:
            self._homes.find(self._homes.named(part.name))
        self._arrival.set()
        self._arrival = anyio.Event()

    async def _introduce(self, replica: _Part, worker: _Part) -> None:
        if replica.actor is not None and worker.actor is not None:
            await tell(worker.actor.find_replica.remote(replica.name, replica.actor))

    def _lose(self, part: _Part, actor: Actor) -> None:
        """Send nothing more to `actor`, unless it has been replaced."""
        if part.actor is actor:
            part.actor = None
            if part.name in self._worker_parts:
                self._homes.lose(self._homes.named(part.name))

    async def _home(self, group: str) -> _Part:
        """The group's worker. Raises `UserError` when none has come for too long."""
        while True:
            try:
                return self._worker_parts[self._homes.of(group).name]
            except ProviderFailure:
                arrival = self._arrival
            with anyio.move_on_after(self._cluster.start_timeout_s) as scope:
                await arrival.wait()
            if scope.cancelled_caught:
                raise UserError(
                    f"No rollout worker has been there for {self._cluster.start_timeout_s:.0f} s. Ray has "
                    f"{ray.available_resources()} free; a worker takes {self._cluster.cpus_per_worker:g} CPUs."
                )

    # --- weights and switches -----------------------------------------------------------------------------------------

    async def _send(self, part: _Part, update: Ref | None) -> None:
        """Bring an engine to the newest weights, by `update` or, where that does not do, by all of them.

        Raises `LearnerLost` when they have gone with the learner.
        """
        newest, actor = self._newest, part.actor
        assert newest is not None
        assert actor is not None
        try:
            if not await answer(actor.update_weights.remote(update, newest.version)):
                newest.complete = newest.complete or newest.learner.complete()
                await answer(actor.update_weights.remote(newest.complete, newest.version))
            if part.name in self._worker_parts:
                for name, value in (await answer(actor.metrics.remote())).items():
                    self._tally.metrics.setdefault(name, []).append(value)
        except ArgumentLost as error:
            raise LearnerLost(LEARNER_ENDED) from error
        except Lost:
            self._lose(part, actor)  # its own task makes another

    async def _hold_with(self, turns: Gate) -> None:
        """Tell the workers when the operator pauses the run, and when it goes on."""
        while True:
            for change in (turns.wait_closed, turns.wait):
                await change()
                held = not turns.is_open
                actors = [part.actor for part in self._worker_parts.values() if part.actor is not None]
                for actor in actors:
                    await tell(actor.hold.remote(held))

    async def _stop(self, tasks: TaskGroup) -> None:
        """Let every actor close what it holds, and end those that cannot."""
        async with shielded(self._cluster.close_timeout_s):
            await collect([partial(_stop, part.actor) for part in self._parts if part.actor is not None])
        tasks.cancel_scope.cancel()


async def _stop(actor: Actor) -> None:
    await tell(actor.stop.remote())


def _start(kind: type[Any], resources: dict[str, float], *arguments: Any) -> Actor:
    """An actor, on the node with the fewest. Ray does not restart it, since a new one needs weights first."""
    actor = ray.remote(kind)
    return actor.options(**resources, scheduling_strategy="SPREAD", max_concurrency=100_000).remote(*arguments)
