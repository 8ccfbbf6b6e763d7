from functools import partial

import anyio
import pytest

from agent_rl.rollout.control import RolloutControl
from agent_rl.rollout.manager import RolloutManager, run_tasks
from agent_rl.rollout.staleness import StalenessGate
from agent_rl.seeding import derive_seed
from agent_rl.testing.virtual_time import VIRTUAL_TIME
from agent_rl.types import Group, Message, StopReason, Task, Trajectory

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return VIRTUAL_TIME


def task_at(index: int) -> Task:
    return Task(f"task-{index}", (Message("user", "go"),))


class Play:
    """Episodes that take as long as the test says."""

    def __init__(self, seconds=lambda group_index, member: 0.0) -> None:
        self.seconds = seconds
        self.running = 0
        self.most_running = 0
        self.started: list[tuple[int, int]] = []
        self.ended: list[tuple[int, int]] = []

    async def __call__(self, task, *, group_index, member, seed) -> Trajectory:
        assert task.id == f"task-{group_index}"
        self.started.append((group_index, member))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await anyio.sleep(self.seconds(group_index, member))
        finally:
            self.running -= 1
        self.ended.append((group_index, member))
        return Trajectory(task, group_index, member, seed, (), (), (), StopReason.TERMINATED)


def manage(play, *, capacity=8, **options) -> RolloutManager:
    defaults = {"group_size": 2, "gate": StalenessGate(0, capacity), "seed": 3, "control": RolloutControl(64)}
    return RolloutManager(play, task_at, **defaults | options)


async def take(manager: RolloutManager, count: int) -> list[Group]:
    groups = []
    async for group in manager.groups():
        groups.append(group)
        if len(groups) == count:
            break
    return groups


async def test_groups_come_in_logical_order_whatever_finishes_first():
    finished = []

    async def note(group):
        finished.append(group.index)

    play = Play(lambda group_index, member: 0.03 * (3 - group_index))
    async with manage(play, stop_index=4, on_group=note) as manager:
        groups = [group.index async for group in manager.groups()]
    assert groups == [0, 1, 2, 3]
    assert finished == [3, 2, 1, 0]


async def test_a_group_is_durable_before_it_is_handed_out():
    durable = set()

    async def write(group):
        await anyio.sleep(0.01)
        durable.add(group.index)

    async with manage(Play(), stop_index=3, on_group=write) as manager:
        async for group in manager.groups():
            assert group.index in durable


async def test_groups_have_random_streams_of_their_own():
    async with manage(Play(), stop_index=3) as manager:
        groups = [group async for group in manager.groups()]
    assert [group.trajectories[0].seed for group in groups] == [derive_seed(3, index) for index in range(3)]


@pytest.mark.parametrize("limit", [1, 3, 16])
async def test_concurrency_is_bounded_and_used(limit):
    play = Play(lambda group_index, member: 0.01)
    async with manage(play, stop_index=8, control=RolloutControl(limit)) as manager:
        await take(manager, 8)
    assert play.most_running == limit
    assert play.started == sorted(play.started), "the earliest groups go first"


async def test_the_gate_holds_back_what_was_not_released():
    play = Play()
    gate = StalenessGate(max_staleness=1, groups_per_batch=2)
    async with manage(play, gate=gate, stop_index=8) as manager:
        await take(manager, 4)
        await anyio.sleep(0.01)
        assert {index for index, _ in play.started} == {0, 1, 2, 3}
        gate.release(2)
        await take(manager, 2)
        assert {index for index, _ in play.started} == set(range(6))


async def test_resume_hands_out_finished_groups_and_runs_the_rest():
    journaled = {index: Group(index, task_at(index), ()) for index in (5, 7)}
    noted = []

    async def note(group):
        noted.append(group.index)

    play = Play()
    async with manage(play, start_index=5, stop_index=9, finished=journaled, on_group=note) as manager:
        groups = [group async for group in manager.groups()]
    assert [group.index for group in groups] == [5, 6, 7, 8]
    assert groups[0] is journaled[5]
    assert groups[2] is journaled[7]
    assert {index for index, _ in play.started} == {6, 8}
    assert sorted(noted) == [6, 8]
    assert set(journaled) == {5, 7}, "the caller's mapping is left alone"


async def test_finished_groups_take_slots_like_others():
    journaled = {index: Group(index, task_at(index), ()) for index in range(3)}
    gate = StalenessGate(0, groups_per_batch=2)
    async with manage(Play(), gate=gate, finished=journaled, stop_index=3) as manager:
        await take(manager, 2)
        assert gate.in_flight == 2


async def test_leaving_the_block_finishes_what_runs_and_starts_nothing():
    play = Play(lambda group_index, member: 0.02 * (group_index + 1))
    noted = []

    async def note(group):
        noted.append(group.index)

    gate = StalenessGate(0, groups_per_batch=3)
    async with manage(play, gate=gate, on_group=note) as manager:
        await take(manager, 1)
    gate.release(1)
    assert noted == [0, 1, 2]
    assert sorted(play.started) == sorted(play.ended)
    assert manager.running_episodes == 0


async def test_an_error_in_the_block_cancels_everything_at_once():
    play = Play(lambda group_index, member: 60.0 if group_index else 0.0)
    manager = manage(play)

    async def consume() -> None:
        async with manager:
            await take(manager, 1)
            assert manager.running_episodes > 0
            raise ValueError("the learner broke")

    with anyio.fail_after(5), pytest.raises(ExceptionGroup) as error:
        await consume()
    assert error.group_contains(ValueError, match="the learner broke")
    assert manager.running_episodes == play.running == 0


async def test_a_bug_in_an_episode_reaches_the_consumer():
    async def play(task, *, group_index, member, seed):
        if group_index == 1:
            raise AttributeError("our own bug")
        await anyio.sleep_forever()

    with anyio.fail_after(5), pytest.raises(ExceptionGroup) as error:
        async with manage(play) as manager:
            await take(manager, 1)
    assert error.group_contains(AttributeError, match="our own bug")


async def test_tasks_are_all_run_and_returned_in_order():
    tasks = [task_at(index) for index in range(20)]
    play = Play(lambda group_index, member: 0.01 * (group_index % 3))
    seen = []

    async def progress(group):
        seen.append(group.index)

    run = partial(run_tasks, play, tasks, group_size=2, seed=1, on_group=progress)
    groups = await run(max_concurrent_episodes=4)
    assert [group.task.id for group in groups] == [task.id for task in tasks]
    assert sorted(seen) == list(range(20))
    assert seen != sorted(seen), "progress is reported as groups finish"
    assert play.most_running == 4
    assert await run_tasks(play, [], group_size=2, seed=1, max_concurrent_episodes=4) == []


async def test_a_slow_task_does_not_hold_back_the_others():
    play = Play(lambda group_index, member: 0.2 if group_index == 0 else 0.0)
    tasks = [task_at(index) for index in range(50)]
    await run_tasks(play, tasks, group_size=1, seed=1, max_concurrent_episodes=2)
    assert play.ended[-1] == (0, 0)
