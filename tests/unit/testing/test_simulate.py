"""The simulator against what can be said in closed form, and virtual time itself."""

from __future__ import annotations

import time

import anyio
import pytest

from agent_rl.testing.episodes import Played, make_group, make_trajectory
from agent_rl.testing.simulate import Episode, Machine, Schedule, TurnCost, measured, simulate
from agent_rl.testing.virtual_time import run_in_virtual_time

TURNS = (TurnCost(100, 2.0), TurnCost(50, 1.0))
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
    busy = Episode(0.0, (TurnCost(100, 0.0),), 1000)
    found = simulate([busy], machine(slots=2), SCHEDULE)
    assert found.step_s == pytest.approx(4 * 100 * 0.01 + 8.0)
    assert found.engine_load == pytest.approx(4.0 / 12.0)


def test_a_short_response_that_enters_later_leaves_before_a_long_one() -> None:
    """Nine responses of 0.1 s from 0.05 s on, beside one of 1 s: nobody waits for anybody."""
    long = Episode(0.0, (TurnCost(100, 0.0),), 1000)
    short = Episode(0.05, (TurnCost(10, 0.0),) * 9, 1000)
    found = simulate([long, short], MACHINE, SCHEDULE)
    assert found.step_s == pytest.approx(100 * 0.01 + 8.0)


def test_a_replica_stands_still_while_it_reads() -> None:
    """Eight come at once, and read one after the other before any goes on."""
    reading = Episode(0.0, (TurnCost(100, 0.0, read=200),), 1000)
    found = simulate([reading], machine(read_s=0.001), SCHEDULE)
    assert found.step_s == pytest.approx(8 * 200 * 0.001 + 100 * 0.01 + 8.0)
    assert found.engine_busy == pytest.approx((1.6 + 1.0) / (1.6 + 1.0 + 8.0))


def test_an_event_loop_does_one_thing_after_the_other() -> None:
    """32 turns of a batch that end at once, at one worker and at two."""
    busy = Episode(0.0, (TurnCost(100, 0.0),), 10)
    for workers in (1, 2):
        found = simulate([busy], machine(host_s=0.5, workers=workers), SCHEDULE)
        assert found.step_s == pytest.approx(1.0 + 32 * 0.5 / workers + 0.08)
        assert found.host_busy == pytest.approx(16 / workers / found.step_s)
        assert found.bottleneck == "host"


def test_a_journal_says_what_episodes_cost() -> None:
    """A turn reads what came since the one before; where the history was rewritten, all of it."""
    turns = [Played(sampled=5, context=20), Played(sampled=3, context=4), Played(sampled=2, context=9, fork=True)]
    [episode] = measured([make_group(make_trajectory(turns), make_trajectory(turns, member=1, failed=True))])
    assert [(turn.read, turn.sampled) for turn in episode.turns] == [(20, 5), (4, 3), (9, 2)]
    assert episode.trained_tokens == 20 + 5 + 4 + 3 + 9 + 2


def test_concurrency_is_limited_as_in_training() -> None:
    found = simulate([EPISODE], MACHINE, schedule(max_concurrent_episodes=16))
    assert found.step_s == pytest.approx(2 * ROLLOUT_S + 8.0)


def test_a_long_tail_costs_less_with_staleness() -> None:
    """One in 64 episodes takes long: without staleness, about every second batch waits for one."""
    episodes = [Episode(0.0, (TurnCost(100, 0.1),), 100)] * 63 + [Episode(0.0, (TurnCost(100, 60.0),), 100)]
    quick = machine(learner_tokens_per_s=1e5)
    steps = [simulate(episodes, quick, schedule(steps=80, max_staleness=lag)).step_s for lag in (0, 1, 2)]
    assert steps[0] > 1.2 * steps[1] > 1.2 * steps[2]


def test_the_same_seed_predicts_the_same() -> None:
    episodes = [Episode(0.1 * i, (TurnCost(10 * i + 1, 0.3 * i),), 100) for i in range(9)]
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
