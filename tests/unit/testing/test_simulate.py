"""The simulator against what can be said in closed form, and virtual time itself."""

from __future__ import annotations

import time

import anyio
import pytest

from agent_rl.testing.simulate import Episode, Machine, Schedule, simulate
from agent_rl.testing.virtual_time import run_in_virtual_time

TURNS = ((100, 2.0), (50, 1.0))
EPISODE = Episode(setup_s=0.5, turns=TURNS, trained_tokens=1000)
GENERATION_S = 150 * 0.01
ROLLOUT_S = 0.5 + GENERATION_S + 3.0
MACHINE = Machine(replicas=4, slots=64, step_s=0.01, sequence_s=0.0, learner_tokens_per_s=4000)  # 8 s for a batch
SCHEDULE = Schedule(steps=8, groups_per_batch=8, group_size=4, max_staleness=0, max_concurrent_episodes=1000)


def schedule(**changes) -> Schedule:
    return Schedule(**{**{name: getattr(SCHEDULE, name) for name in Schedule.__slots__}, **changes})


def machine(**changes) -> Machine:
    return Machine(**{**{name: getattr(MACHINE, name) for name in Machine.__slots__}, **changes})


def test_a_synchronous_step_is_its_rollout_and_then_its_learning() -> None:
    found = simulate([EPISODE], MACHINE, SCHEDULE)
    assert found.step_s == pytest.approx(ROLLOUT_S + 8.0)
    assert found.engine_busy == pytest.approx(GENERATION_S / (ROLLOUT_S + 8.0))
    assert found.engine_load == pytest.approx(found.engine_busy * 8 / 64), "8 episodes at each of 4 replicas"
    assert found.learner_busy == pytest.approx(8.0 / (ROLLOUT_S + 8.0))
    assert (found.staleness_mean, found.staleness_max) == (0, 0)
    assert found.tokens_per_s == pytest.approx(32 * 150 / (ROLLOUT_S + 8.0))


def test_with_staleness_the_slower_part_sets_the_pace() -> None:
    found = simulate([EPISODE], MACHINE, schedule(max_staleness=1))
    assert found.step_s == pytest.approx(8.0)
    assert found.learner_busy == pytest.approx(1.0)
    assert found.bottleneck == "learner"
    assert found.staleness_max == 1
    faster = simulate([EPISODE], machine(learner_tokens_per_s=32_000), schedule(max_staleness=1))
    assert faster.step_s < 8.0
    assert faster.staleness_max <= 1


def test_sequences_in_a_replica_share_it() -> None:
    """Eight that decode together take as long as the decode steps of eight."""
    shared = machine(sequence_s=0.005)
    found = simulate([EPISODE], shared, SCHEDULE)
    assert found.step_s == pytest.approx(0.5 + 150 * (0.01 + 0.005 * 8) + 3.0 + 8.0)


def test_what_exceeds_the_slots_waits() -> None:
    """Two at a time of eight: four rounds of generation, if tools took no time."""
    busy = Episode(0.0, ((100, 0.0),), 1000)
    found = simulate([busy], machine(slots=2), SCHEDULE)
    assert found.step_s == pytest.approx(4 * 100 * 0.01 + 8.0)
    assert found.engine_load == pytest.approx(4.0 / 12.0)


def test_concurrency_is_limited_as_in_training() -> None:
    found = simulate([EPISODE], MACHINE, schedule(max_concurrent_episodes=16))
    assert found.step_s == pytest.approx(2 * ROLLOUT_S + 8.0)


def test_a_long_tail_costs_less_with_staleness() -> None:
    """One in 64 episodes takes long: without staleness, about every second batch waits for one."""
    episodes = [Episode(0.0, ((100, 0.1),), 100)] * 63 + [Episode(0.0, ((100, 60.0),), 100)]
    quick = machine(learner_tokens_per_s=1e5)
    steps = [simulate(episodes, quick, schedule(steps=80, max_staleness=lag)).step_s for lag in (0, 1, 2)]
    assert steps[0] > 1.2 * steps[1] > 1.2 * steps[2]


def test_the_same_seed_predicts_the_same() -> None:
    episodes = [Episode(0.1 * i, ((10 * i + 1, 0.3 * i),), 100) for i in range(9)]
    one, other = (simulate(episodes, MACHINE, schedule(max_staleness=1)) for _ in range(2))
    assert one == other


def test_hours_pass_in_moments_and_a_deadlock_is_found() -> None:
    began = time.perf_counter()

    async def wait() -> float:
        await anyio.sleep(36_000)
        return anyio.current_time()

    assert run_in_virtual_time(wait) == pytest.approx(36_000)
    assert time.perf_counter() - began < 5
    with pytest.raises(RuntimeError, match="nothing will ever happen"):
        run_in_virtual_time(lambda: anyio.Event().wait())
