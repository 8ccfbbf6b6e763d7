"""Bundles of episodes between a driver and a worker, here one that only writes down what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import anyio
import pytest
import ray
from ray.cluster_utils import Cluster

from agent_rl.cluster.calls import Lost
from agent_rl.cluster.dispatch import Assignment, Dispatch
from agent_rl.concurrency import collect
from agent_rl.errors import UserError
from agent_rl.testing.episodes import Played, make_trajectory
from agent_rl.types import Message, Task, Trajectory

pytestmark = [pytest.mark.slow, pytest.mark.anyio, pytest.mark.usefixtures("two_nodes")]
TASK = Task("task", (Message("user", "?"),))


class Worker:
    """Ends an episode as soon as it is begun, unless its seed says otherwise: 1 never ends, 2 raises."""

    def __init__(self) -> None:
        self.bundles: list[int] = []
        self.dropped: list[int] = []
        self._ended: list[tuple[int, Trajectory]] = []
        self._broken = False

    async def play(self, assigned: Sequence[Assignment], dropped: Sequence[int]) -> None:
        self.bundles.append(len(assigned))
        self.dropped += dropped
        for assignment in assigned:
            if assignment.seed == 0:
                played = make_trajectory([Played(reward=assignment.group_index)], member=assignment.member)
                self._ended.append((assignment.number, played))
            elif assignment.seed == 2:
                self._broken = True

    async def finished(self) -> list[tuple[int, Trajectory]]:
        while not self._ended and not self._broken:  # noqa: ASYNC110  # as little as a worker needs
            await anyio.sleep(0.01)
        if self._broken:
            raise UserError("no such option")
        ended, self._ended = self._ended, []
        return ended

    async def told(self) -> tuple[list[int], list[int]]:
        return self.bundles, self.dropped


@pytest.fixture
def actor(two_nodes: Cluster):
    actor = ray.remote(Worker).remote()
    yield actor
    ray.kill(actor)


async def test_each_gets_its_own_and_many_travel_together(actor):
    dispatch = Dispatch(actor)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(dispatch.exchange)
        with anyio.fail_after(60):
            found = await collect([partial(dispatch.play, TASK, i, i % 8, 0, None) for i in range(200)])
        dispatch.close()
    assert [(episode.reward, episode.member) for episode in found] == [(i, i % 8) for i in range(200)]
    bundles, _ = await actor.told.remote()
    assert sum(bundles) == 200
    assert len(bundles) < 20


async def test_the_worker_is_told_of_what_nobody_waits_for(actor):
    dispatch = Dispatch(actor)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(dispatch.exchange)
        with anyio.move_on_after(1):
            await dispatch.play(TASK, 0, 0, 1, None)
        with anyio.fail_after(60):
            assert (await dispatch.play(TASK, 3, 0, 0, None)).reward == 3
            while not (await actor.told.remote())[1]:  # noqa: ASYNC110  # the worker has no event for it
                await anyio.sleep(0.01)
        dispatch.close()
    assert (await actor.told.remote())[1] == [0]


async def test_a_lost_worker_is_told_to_all_who_wait_and_to_who_comes_later(actor):
    dispatch = Dispatch(actor)
    lost: list[int] = []

    async def play(member: int) -> None:
        with pytest.raises(Lost):
            await dispatch.play(TASK, 0, member, 1, None)
        lost.append(member)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(dispatch.exchange)
        for member in range(3):
            tasks.start_soon(play, member)
        with anyio.fail_after(60):
            while not (await actor.told.remote())[0]:  # noqa: ASYNC110  # as above
                await anyio.sleep(0.01)
        ray.kill(actor)
    await play(3)
    assert lost == [0, 1, 2, 3]


async def test_what_no_episode_may_raise_is_raised(actor):
    dispatch = Dispatch(actor)
    with pytest.raises(ExceptionGroup) as caught:
        await collect([dispatch.exchange, partial(dispatch.play, TASK, 0, 0, 2, None)])
    refused, _ = caught.value.split(UserError)
    assert "no such option" in repr(refused)
