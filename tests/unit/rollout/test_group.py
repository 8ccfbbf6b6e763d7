import anyio
import anyio.lowlevel
import pytest

from agent_rl.errors import ConfigError
from agent_rl.rollout.group import run_group
from agent_rl.types import Failure, Owner, StopReason, Trajectory

pytestmark = pytest.mark.anyio


class Play:
    """Episodes that fail as often as the test says; the reward of attempt `n` would be `n`."""

    def __init__(self, failures: dict[int, int] | None = None, retryable: bool = True) -> None:
        self.failures = dict(failures or {})
        self.retryable = retryable
        self.calls: list[tuple[int, int]] = []

    async def __call__(self, task, *, group_index, member, seed) -> Trajectory:
        self.calls.append((member, seed))
        await anyio.lowlevel.checkpoint()
        if self.failures.get(member, 0):
            self.failures[member] -= 1
            failure = Failure(
                "crash", Owner.SANDBOX, "step", f"{self.failures[member]} to come", retryable=self.retryable
            )
            return Trajectory(task, group_index, member, seed, (), (), (), StopReason.FAILURE, failure)
        return Trajectory(task, group_index, member, seed, (), (), (), StopReason.TERMINATED)


async def group_of(play, task, **options):
    return await run_group(play, task, index=5, group_size=3, seed=11, retry_delay_s=0.0, **options)


async def test_members_are_in_order_and_share_the_seed(task):
    play = Play()
    group = await group_of(play, task)
    assert (group.index, group.task) == (5, task)
    assert [(t.group_index, t.member, t.seed, t.attempts) for t in group.trajectories] == [
        (5, m, 11, 1) for m in range(3)
    ]


async def test_a_failed_member_is_tried_again_with_the_same_seed(task):
    play = Play({1: 2})
    group = await group_of(play, task, max_attempts=3)
    assert [t.attempts for t in group.trajectories] == [1, 3, 1]
    assert [failure.message for failure in group.trajectories[1].failures] == ["1 to come", "0 to come"]
    assert sorted(play.calls) == [(0, 11), (1, 11), (1, 11), (1, 11), (2, 11)]
    assert len(group.valid) == 3


async def test_what_still_fails_is_kept_but_does_not_count(task):
    play = Play({1: 5})
    group = await group_of(play, task, max_attempts=2)
    assert [t.failure is None for t in group.trajectories] == [True, False, True]
    assert group.trajectories[1].attempts == 2
    assert [failure.message for failure in group.trajectories[1].failures] == ["4 to come", "3 to come"]
    assert [t.member for t in group.valid] == [0, 2]


async def test_what_cannot_help_is_not_tried_again(task):
    play = Play({0: 1, 1: 1, 2: 1}, retryable=False)
    group = await group_of(play, task, max_attempts=3)
    assert len(play.calls) == 3
    assert group.valid == ()


async def test_attempts_wait_ever_longer(task):
    play = Play({0: 2})
    began = anyio.current_time()
    await run_group(play, task, index=0, group_size=1, seed=0, max_attempts=3, retry_delay_s=0.03)
    assert anyio.current_time() - began >= 0.09


async def test_user_errors_end_the_group(task):
    async def play(task, *, group_index, member, seed):
        if member == 1:
            raise ConfigError("wrong path")
        await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as group:
        await group_of(play, task)
    assert group.group_contains(ConfigError, match="wrong path")
