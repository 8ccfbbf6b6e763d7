"""What holds for every estimator: order, forks, failures, ties."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_rl.credit import (
    BATCH_ESTIMATORS,
    CRITIC_ESTIMATORS,
    GROUP_ESTIMATORS,
    UTTERANCE_ESTIMATORS,
    TurnValues,
    Values,
    get_estimator,
    row_groups,
    to_rows,
)
from agent_rl.testing.episodes import Played, make_group, make_trajectory
from agent_rl.types import StopReason

turns = st.lists(
    st.builds(
        Played,
        reward=st.sampled_from([0.0, 0.5, 1.0, -2.0]),
        sampled=st.integers(0, 4),
        context=st.integers(1, 3),
        state=st.sampled_from([None, "a", "b"]),
        tag=st.sampled_from(["", "plan", "act"]),
    ),
    min_size=1,
    max_size=4,
)
stops = st.sampled_from([StopReason.TERMINATED, StopReason.MAX_TURNS])
groups = st.lists(st.tuples(turns, stops, st.integers(0, 9).map(lambda n: not n)), min_size=1, max_size=5)


def build(members, index=0, order=None):
    episodes = [
        make_trajectory(t, member=i, stop_reason=stop, failed=failed) for i, (t, stop, failed) in enumerate(members)
    ]
    return make_group(*(episodes[i] for i in (order or range(len(episodes)))), index=index)


def made_up_values(group):
    """Values that depend on the turn and the token's place in it alone, wherever the token stands."""

    def of(trajectory):
        rows = [np.zeros(len(s.token_ids_T), np.float32) for s in trajectory.segments]
        for turn in trajectory.turns:
            rows[turn.segment][turn.start : turn.end] = [
                np.sin(7 * turn.index + i + trajectory.member) for i in range(turn.end - turn.start)
            ]
        return tuple(rows)

    return Values(
        tuple(map(of, group.valid)), np.array([0.3 * trajectory.member for trajectory in group.valid], np.float32)
    )


def made_up_advantages(group):
    """The same, for whole turns."""
    return TurnValues(
        tuple(np.array([np.sin(7 * t.index + e.member) for t in e.turns], np.float32) for e in group.valid),
        made_up_values(group).tokens,
    )


def credit(name, batch):
    make_up = made_up_advantages if name in UTTERANCE_ESTIMATORS else made_up_values
    return get_estimator(name)(batch, [make_up(group) for group in batch])


def by_token(name, batch):
    """The advantage of each sampled token, by group, member, turn and place in the turn."""
    return {
        (group.index, trajectory.member, turn.index, place): float(rows[turn.segment][turn.start + place])
        for group, advantages in zip(batch, credit(name, batch), strict=True)
        for trajectory, rows in zip(group.valid, advantages, strict=True)
        for turn in trajectory.turns
        for place in range(turn.end - turn.start)
    }


ALL = sorted({*GROUP_ESTIMATORS, *BATCH_ESTIMATORS, *CRITIC_ESTIMATORS, *UTTERANCE_ESTIMATORS})
WITHOUT_BASELINE = {"asymre", "w_reinforce", *CRITIC_ESTIMATORS, *UTTERANCE_ESTIMATORS}
estimators = st.sampled_from(ALL)
aggregations = st.sampled_from(["token_mean", "sequence_mean"])


@given(st.lists(groups, max_size=3), estimators, aggregations)
def test_weights_of_a_batch_sum_to_one(played, estimator, aggregation):
    batch = [build(members, index) for index, members in enumerate(played)]
    rows = to_rows(batch, credit(estimator, batch), aggregation)
    trained = sum(row.response_mask_T.sum() for row in rows)
    assert sum(row.weights_T.sum(dtype=np.float64) for row in rows) == pytest.approx(1.0 if trained else 0.0, rel=1e-5)
    assert len(row_groups(batch)) == len(rows)


@given(st.lists(groups, min_size=1, max_size=3), estimators)
def test_advantages_are_finite_and_only_on_sampled_tokens(played, estimator):
    batch = [build(members, index) for index, members in enumerate(played)]
    for group, advantages in zip(batch, credit(estimator, batch), strict=True):
        assert len(advantages) == len(group.valid)
        for trajectory, rows in zip(group.valid, advantages, strict=True):
            for segment, row in zip(trajectory.segments, rows, strict=True):
                assert row.dtype == np.float32
                assert row.shape == segment.token_ids_T.shape
                assert np.isfinite(row).all()
                assert not row[~segment.response_mask_T].any()


@given(groups, estimators, st.randoms())
def test_order_of_siblings_does_not_matter(members, estimator, random):
    order = list(range(len(members)))
    random.shuffle(order)
    assert by_token(estimator, [build(members, order=order)]) == pytest.approx(
        by_token(estimator, [build(members)]), abs=1e-5
    )


@given(groups, estimators, st.data())
def test_forks_change_no_token(members, estimator, data):
    forked = [
        ([replace(turn, fork=data.draw(st.booleans()), context=3) for turn in t], stop, failed)
        for t, stop, failed in members
    ]
    assert by_token(estimator, [build(forked)]) == pytest.approx(by_token(estimator, [build(members)]), abs=1e-5)


@given(groups, estimators)
def test_failed_members_do_not_count(members, estimator):
    alone = [member for member in members if not member[2]]
    failures = [member for member in members if member[2]]
    with_failures = by_token(estimator, [build([*alone, *failures])])
    assert with_failures == pytest.approx(by_token(estimator, [build(alone)]), abs=1e-5)


@given(groups, st.sampled_from(sorted(GROUP_ESTIMATORS)), groups)
def test_a_group_is_credited_alone(members, estimator, others):
    """A group baseline never becomes a batch baseline, however few members are left."""
    alone = by_token(estimator, [build(members)])
    together = by_token(estimator, [build(members), build(others, index=1)])
    assert {key: value for key, value in together.items() if key[0] == 0} == pytest.approx(alone, abs=1e-6)


@given(turns, st.integers(1, 5), st.sampled_from([name for name in ALL if name not in WITHOUT_BASELINE]))
def test_equal_episodes_earn_exactly_nothing(played, count, estimator):
    """Members that did and got the same. (Turns of one episode may still differ: those of one state, say.)"""
    same = [replace(turn, state=index, tag=str(index)) for index, turn in enumerate(played)]
    group = build([(same, StopReason.TERMINATED, False)] * count)
    assert set(by_token(estimator, [group]).values()) <= {0.0}


@given(groups)
def test_rloo_is_the_leave_one_out_loop(members):
    group = build(members)
    rewards = {trajectory.member: trajectory.reward for trajectory in group.valid}
    for (_, member, _, _), advantage in by_token("rloo", [group]).items():
        others = [reward for other, reward in rewards.items() if other != member]
        baseline = sum(others) / len(others) if others else rewards[member]
        assert advantage == pytest.approx(rewards[member] - baseline, abs=1e-6)
