"""What holds for every estimator: the laws of the conformance kit, scales and shifts of rewards, weights of rows."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_rl.credit import (
    CRITIC_ESTIMATORS,
    EPISODE_ESTIMATORS,
    STEP_ESTIMATORS,
    UTTERANCE_ESTIMATORS,
    get_estimator,
    row_groups,
    to_rows,
)
from agent_rl.credit.rows import Aggregation
from agent_rl.testing.credit_check import LAWS, Member, build, check_estimator, credit_of
from agent_rl.testing.episodes import Played
from agent_rl.types import StopReason

WITH_A_CRITIC = {*CRITIC_ESTIMATORS, *UTTERANCE_ESTIMATORS}
NAMES = sorted({*EPISODE_ESTIMATORS, *STEP_ESTIMATORS, *WITH_A_CRITIC})
WAIVED = {
    "asymre": {"equals"},  # by its shift
    "w_reinforce": {"equals"},  # no baseline
    **{
        name: {"alone"} for name in ("reinforce_pp", "reinforce_pp_baseline", "lite_ppo", "oreal")
    },  # one scale for the batch
    **{name: {"alone", "equals"} for name in CRITIC_ESTIMATORS},  # whitened; the critic may tell equal members apart
    **{name: {"equals"} for name in UTTERANCE_ESTIMATORS},
}
RAW = {name: {"whiten": False} for name in CRITIC_ESTIMATORS}

rewards = st.sampled_from([0.0, 0.5, 1.0, -2.0])
turns = st.lists(
    st.builds(
        Played,
        reward=rewards,
        sampled=st.integers(0, 3),
        context=st.integers(1, 3),
        state=st.sampled_from([None, "a", "b"]),
        tag=st.sampled_from(["", "plan", "act"]),
        fork=st.booleans(),
    ),
    max_size=4,
).map(tuple)
stops = st.sampled_from([StopReason.TERMINATED, StopReason.MAX_TURNS])
members = st.builds(Member, turns, stops, st.integers(0, 9).map(lambda n: not n))
plans = st.lists(st.lists(members, min_size=1, max_size=4), min_size=1, max_size=3)


@pytest.mark.parametrize("name", NAMES)
def test_it_conforms(name):
    check_estimator(get_estimator(name), waive=WAIVED.get(name, ()), plans=4)


@settings(max_examples=60)
@given(plans, st.sampled_from(NAMES), st.sampled_from(sorted(LAWS)))
def test_laws(plan, name, law):
    if law not in WAIVED.get(name, ()):
        LAWS[law](get_estimator(name), plan)


@settings(max_examples=25)
@given(plans, st.sampled_from(sorted(CRITIC_ESTIMATORS)))
def test_groups_are_credited_alone_before_whitening(plan, name):
    LAWS["alone"](get_estimator(name, RAW[name]), plan)


def with_rewards(plan, change):
    return [[m._replace(turns=tuple(change(t, t is m.turns[-1]) for t in m.turns)) for m in group] for group in plan]


SAME_WHEN_SCALED = {
    "grpo",
    "pairwise",
    "reinforce_pp",
    "reinforce_pp_baseline",
    "lite_ppo",
    "mt_grpo",
    "gigpo",
    "roles",
}
GROWING_WHEN_SCALED = {"dr_grpo", "rloo", "return_to_go"}
SAME_WHEN_SHIFTED = {"grpo", "dr_grpo", "rloo", "pairwise", "opmd", "asymre", "reinforce_pp_baseline", "lite_ppo"}


@settings(max_examples=25)
@given(plans, st.sampled_from(sorted(SAME_WHEN_SCALED | GROWING_WHEN_SCALED)), st.sampled_from([0.001, 8.0, 1e6]))
def test_scaled_rewards(plan, name, scale):
    """What divides by a deviation does not see the unit of rewards; what does not is linear in it."""
    scaled = with_rewards(plan, lambda turn, last: replace(turn, reward=turn.reward * scale))
    before, after = (credit_of(get_estimator(name), build(p)) for p in (plan, scaled))
    factor = scale if name in GROWING_WHEN_SCALED else 1.0
    assert after == pytest.approx({key: factor * value for key, value in before.items()}, rel=1e-4, abs=1e-5 * factor)


@settings(max_examples=25)
@given(plans, st.sampled_from(sorted(SAME_WHEN_SHIFTED)), st.sampled_from([-3.0, 1e6]))
def test_shifted_outcomes(plan, name, shift):
    """A constant that every episode earns is no credit, however large: small differences survive beside 10^6."""
    plan = [[m for m in group if m.turns] for group in plan]
    shifted = with_rewards(plan, lambda turn, last: replace(turn, reward=turn.reward + shift * last))
    before, after = (credit_of(get_estimator(name), build(p)) for p in (plan, shifted))
    assert after == pytest.approx(before, abs=1e-4)


@settings(max_examples=25)
@given(plans, st.sampled_from(["token_mean", "sequence_mean", "prompt_mean"]))
def test_weights_of_a_batch_sum_to_one(plan, aggregation: Aggregation):
    groups = build(plan)
    credit = get_estimator("dr_grpo")(groups)
    rows = to_rows(groups, credit, aggregation)
    trained = sum(row.response_mask_T.sum() for row in rows)
    assert sum(row.weights_T.sum(dtype=np.float64) for row in rows) == pytest.approx(1.0 if trained else 0.0, rel=1e-5)
    assert len(row_groups(groups)) == len(rows)


@settings(max_examples=25)
@given(plans, st.sampled_from(sorted({*NAMES} - {"reinforce_pp", *WITH_A_CRITIC})))
def test_a_group_without_signal_has_no_credit(plan, name):
    """What the filter drops would have moved nothing: the group's own advantages are 0 in any batch."""
    estimator = get_estimator(name)
    groups = build(plan)
    idle = {group.index for group in groups if not estimator.has_signal(group)}
    assert {value for (index, *_), value in credit_of(estimator, groups).items() if index in idle} <= {0.0}
