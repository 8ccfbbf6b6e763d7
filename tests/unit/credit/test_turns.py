"""Turn-level estimators on groups written by hand, against numbers worked out on paper."""

import numpy as np
import pytest

from agent_rl.credit import get_estimator
from agent_rl.errors import ConfigError, NotFoundError
from agent_rl.testing.episodes import Played, make_group, make_trajectory


def group_of(*episodes):
    return make_group(*(make_trajectory(turns, member=i) for i, turns in enumerate(episodes)))


def close(rows):
    """`pytest.approx` of lists of lists."""
    return [pytest.approx(row) for row in rows]


def per_turn(name, group, **options):
    [advantages] = get_estimator(name, options)([group])
    return [
        [float(rows[turn.segment][turn.start]) for turn in trajectory.turns]
        for trajectory, rows in zip(group.valid, advantages, strict=True)
    ]


def test_return_to_go_forgets_what_came_before():
    # returns: [3, 2], [1, 0], [2]; at turn 0 the others' means are 1.5, 2.5, 2; at turn 1 they are 0 and 2
    group = group_of([Played(1), Played(2)], [Played(1), Played(0)], [Played(2)])
    assert per_turn("return_to_go", group) == close([[1.5, 2.0], [-1.5, -2.0], [0.0]])


def test_return_to_go_discounts():
    group = group_of([Played(0), Played(1)], [Played(0), Played(0)])
    assert per_turn("return_to_go", group, gamma=0.5) == close([[0.5, 1.0], [-0.5, -1.0]])


def test_a_turn_that_nobody_else_reached_has_no_baseline():
    group = group_of([Played(0), Played(0), Played(5)], [Played(1)])
    assert per_turn("return_to_go", group)[0][1:] == [0.0, 0.0]


def test_mt_grpo_adds_the_turns_own_reward_before_the_last_turn():
    # outcomes 1 and 0: +-1/sqrt 2; turn 0 rewards 0 and 1: -+1/sqrt 2
    group = group_of([Played(0), Played(1)], [Played(1), Played(0)])
    unit = 1 / np.sqrt(2)
    assert per_turn("mt_grpo", group, turn_weight=0.5) == close([[0.5 * unit, unit], [-0.5 * unit, -unit]])


def test_gigpo_compares_turns_of_one_state_across_and_within_episodes():
    # gamma 1: returns [1, 1], [0, 0]; state a holds returns 1, 1, 0; state b holds 0 alone
    group = group_of([Played(0, state="a"), Played(1, state="a")], [Played(0, state="a"), Played(0, state="b")])
    episodes, steps = [0.5, -0.5], [[1 / 3, 1 / 3], [-2 / 3, 0.0]]
    expected = [[e + 2 * s for s in steps_K] for e, steps_K in zip(episodes, steps, strict=True)]
    assert per_turn("gigpo", group, gamma=1.0, scale=0, step_weight=2.0) == close(expected)


def test_gigpo_without_states_is_the_groups_baseline():
    group = group_of([Played(0), Played(1)], [Played(0), Played(0)])
    assert per_turn("gigpo", group) == close([[2**-0.5] * 2, [-(2**-0.5)] * 2])


def test_states_of_other_tasks_are_other_states():
    one = group_of([Played(1, state="a")], [Played(0, state="a")])
    other = make_group(make_trajectory([Played(100, state="a")], task="other"), index=1)
    [alone] = get_estimator("gigpo")([one])
    together, _ = get_estimator("gigpo")([one, other])
    np.testing.assert_array_equal(np.concatenate([r[0] for r in alone]), np.concatenate([r[0] for r in together]))


def test_rlvmr_compares_plans_with_plans():
    # process rewards of plan: 1, 0, 0.5; of act: 3 alone; outcomes 1 and 0
    group = group_of(
        [Played(1, tag="plan"), Played(3, tag="act"), Played(0.5, tag="plan"), Played(1, tag="answer")],
        [Played(0, tag="plan"), Played(0, tag="answer")],
    )
    unit = 2**-0.5
    plans = (np.array([1, 0.5, 0]) - 0.5) / 0.5
    first, second = per_turn("rlvmr", group, outcome_weight=0.25)
    assert first == pytest.approx(0.25 * unit + 0.75 * np.array([plans[0], 0, plans[1], 0]))
    assert second == pytest.approx(-0.25 * unit + 0.75 * np.array([plans[2], 0]))


def test_each_role_is_compared_with_itself():
    group = group_of(
        [Played(1, tag="proposer"), Played(0, tag="solver"), Played(1, tag="solver")],
        [Played(3, tag="proposer"), Played(5, tag="solver")],
    )
    # proposer: 1, 3; solver: 1, 5
    assert per_turn("roles", group, scale=0) == [[-1.0, -2.0, -2.0], [1.0, 2.0]]


def test_attempts_of_a_role_are_compared_within_their_episode():
    """Two proposals: of the one, one of two attempts succeeds after two turns; of the other, both do."""

    def episode(proposed, *solved):
        attempts = [
            turn for k, r in enumerate(solved) for turn in (Played(tag=f"solver/{k}"), Played(r, tag=f"solver/{k}"))
        ]
        return [Played(proposed, tag="proposer"), *attempts]

    group = group_of(episode(0.5, 1, 0), episode(0, 1, 1))
    assert per_turn("roles", group, scale=0) == [[0.25, 0.5, 0.5, -0.5, -0.5], [-0.25, 0, 0, 0, 0]]


def test_every_token_of_a_turn_gets_its_advantage():
    group = group_of([Played(1, sampled=3), Played(0, sampled=2, context=2)], [Played(0), Played(0)])
    [(rows, _)] = get_estimator("return_to_go")([group])
    np.testing.assert_array_equal(rows[0], np.float32([0, 1, 1, 1, 0, 0, 0, 0]))


def test_internal_turns_share_the_credit_of_their_step():
    """A summary before a turn is part of what led there; one after the last turn is not the outcome."""
    plain = group_of([Played(0), Played(1)], [Played(1), Played(0)])
    summary = Played(internal=True)
    told = group_of([Played(0), summary, Played(1), summary], [summary, Played(1), Played(0)])
    for name in ("return_to_go", "mt_grpo", "gigpo", "rlvmr", "roles"):
        (a, b), (c, d) = per_turn(name, plain)
        assert per_turn(name, told) == close([[a, b, b, b], [c, c, d]]), name


def test_an_episode_of_internal_turns_takes_no_step():
    group = group_of([Played(0), Played(1)], [Played(internal=True)])
    assert per_turn("return_to_go", group) == [[0.0, 0.0], [0.0]]
    assert per_turn("rloo", group) == [[1.0, 1.0], [-1.0]]


def test_an_unknown_option_is_refused():
    with pytest.raises(NotFoundError, match=r"option of the estimator gigpo 'gama'. Did you mean 'gamma'\?"):
        get_estimator("gigpo", {"gama": 1.0})


@pytest.mark.parametrize(
    ("name", "options"), [("gigpo", {"scale": 0.3}), ("gigpo", {"gamma": 1.5}), ("opmd", {"temperature": 0.0})]
)
def test_a_wrong_value_is_refused(name, options):
    with pytest.raises(ConfigError, match=f"Bad option of the estimator {name}"):
        get_estimator(name, options)
