"""An operator's switches: held episodes lose no time, cancelled ones harm nobody, and a stopped run can be resumed."""

from functools import partial

import anyio
import pytest
import trio.testing

from agent_rl.engine.scripted import ScriptedEngine
from agent_rl.errors import UserError
from agent_rl.rollout.agent import PolicyAgent
from agent_rl.rollout.control import CANCELLED, RolloutControl
from agent_rl.rollout.episode import run_episode
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.rollout.manager import RolloutManager
from agent_rl.rollout.staleness import StalenessGate
from agent_rl.testing.environments import GuessNumber
from agent_rl.types import SamplingParams, StopReason

LIMITS = RolloutLimits(max_turns=5, max_response_tokens=16, max_context_tokens=512)


def in_virtual_time(function):
    """Sleeps cost nothing, and what happens when is exact."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(function, backend="trio", backend_options={"clock": clock})


def rollouts(codec, ids_of, control, *, groups, latency_s=1.0, limits=LIMITS):
    """Episodes of five turns of `latency_s` each, which never guess right."""
    engine = ScriptedEngine(lambda request: [*ids_of("no"), codec.stop_token_ids[0]], latency_s=latency_s)
    play = partial(
        run_episode,
        lambda task: GuessNumber(),
        lambda _, key: PolicyAgent(engine, codec, SamplingParams(), key),
        limits=limits,
        turns=control.turns,
    )
    tasks = GuessNumber.tasks("train", groups)
    manager = RolloutManager(
        play, tasks.__getitem__, group_size=2, gate=StalenessGate(0, groups), seed=0, control=control, stop_index=groups
    )
    return manager, engine


async def collect_all(manager):
    return [group async for group in manager.groups()]


def test_a_pause_holds_turns_and_counts_towards_no_deadline(codec, ids_of):
    hurried = LIMITS.model_copy(
        update={"episode_timeout_s": 6.0, "generation_timeout_s": 2.0, "step_timeout_s": 2.0, "setup_timeout_s": 2.0}
    )

    async def main():
        control = RolloutControl(4)
        manager, engine = rollouts(codec, ids_of, control, groups=2, limits=hurried)
        async with manager:
            await anyio.sleep(2.5)
            control.pause()
            await anyio.sleep(1.0)  # what was being sampled comes to its end
            sampled = engine.sampled_tokens
            await anyio.sleep(1000)
            assert engine.sampled_tokens == sampled
            assert len(control.running) == 4
            control.resume()
            groups = await collect_all(manager)
        return groups, anyio.current_time()

    groups, ended = in_virtual_time(main)
    assert all(e.stop_reason is StopReason.MAX_TURNS for group in groups for e in group.trajectories)
    assert ended > 1000


def test_a_drain_lets_running_episodes_end_and_starts_none(codec, ids_of):
    async def main():
        control = RolloutControl(4)
        manager, engine = rollouts(codec, ids_of, control, groups=8)
        async with manager:
            await anyio.sleep(0.5)
            await control.drain()
            assert control.running == []
            assert engine.requests == 4 * 5
            await anyio.sleep(100)
            assert engine.requests == 4 * 5
            control.resume()
            return await collect_all(manager)

    assert [len(group.valid) for group in in_virtual_time(main)] == [2] * 8


def test_a_cancelled_episode_is_a_failure_that_nobody_retries_and_its_siblings_go_on(codec, ids_of):
    async def main():
        control = RolloutControl(16)
        manager, engine = rollouts(codec, ids_of, control, groups=3)
        async with manager:
            await anyio.sleep(1.5)
            assert [(e.group, e.member) for e in control.running] == [(g, m) for g in range(3) for m in range(2)]
            control.cancel(1, 0)
            with pytest.raises(UserError, match="Member 0 of group 9 does not run"):
                control.cancel(9, 0)
            groups = await collect_all(manager)
        assert engine.resident_sessions == engine.running_requests == 0
        return groups

    groups = in_virtual_time(main)
    assert groups[1].trajectories[0].failure == CANCELLED
    assert groups[1].trajectories[0].attempts == 1
    assert [len(group.valid) for group in groups] == [2, 1, 2]


def test_the_concurrency_changes_while_episodes_run(codec, ids_of):
    async def main():
        control = RolloutControl(2)
        manager, _ = rollouts(codec, ids_of, control, groups=24)
        seen = []
        async with manager:
            for episodes in (2, 8, 3):
                control.set_concurrency(episodes)
                await anyio.sleep(5.5)
                seen.append(len(control.running))
            with pytest.raises(UserError, match="at least 1"):
                control.set_concurrency(0)
            await collect_all(manager)
        return seen

    assert in_virtual_time(main) == [2, 8, 3]
