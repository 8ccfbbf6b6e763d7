"""Utterances in rows, and Bellman targets against sums done by hand."""

import numpy as np
import pytest

from agent_rl.learner.bellman import (
    bellman_targets,
    find_utterances,
    lower_of,
    pessimism,
    returns_of,
    soft_min,
    td_errors,
)
from agent_rl.testing.episodes import Played, make_trajectory
from agent_rl.types import StopReason

INDEPENDENT = pessimism("independent", 1.0)


def values(utterances, seed=0):
    """Made-up values of the target network at every site."""
    rng = np.random.default_rng(seed)
    sites = sum(map(len, utterances.sites))
    return rng.normal(size=(sites, 2)).astype("f4"), rng.normal(size=(sites, 2)).astype("f4")


def targets_of(episodes, *, gamma=0.5, combine=INDEPENDENT, weights=None):
    u = find_utterances(episodes)
    q, v = values(u)
    weights = np.ones(len(u.next_U)) if weights is None else np.asarray(weights, np.float64)
    return u, q, v, bellman_targets(u, q, v, weights, gamma, combine)


def test_sites_are_the_ends_of_contexts_and_of_turns():
    u = find_utterances([make_trajectory([Played(context=3, sampled=2), Played(context=1, sampled=4)])])
    assert [sites.tolist() for sites in u.sites] == [[3, 5, 6, 10]]
    assert (u.before_U.tolist(), u.after_U.tolist()) == ([0, 2], [1, 3])
    assert (u.next_U.tolist(), u.cut_U.tolist()) == ([1, -1], [False, False])


def test_a_turn_may_go_on_in_another_row():
    """A rewritten history begins a new segment: what follows the first turn is read there."""
    forked = make_trajectory([Played(context=3, sampled=2), Played(context=4, sampled=1, fork=True)])
    other = make_trajectory([Played(context=2, sampled=2)], member=1)
    u, _, v, targets = targets_of([forked, other])
    assert [sites.tolist() for sites in u.sites] == [[3, 5], [4, 5], [2, 4]]
    assert u.next_U.tolist() == [1, -1, -1]
    np.testing.assert_allclose(targets.q_S2[u.after_U[0]], 0.5 * v[u.before_U[1]], rtol=1e-6)
    assert u.rows[1].tolist() == forked.segments[1].token_ids_T.tolist()


def test_turns_that_touch_share_a_site():
    """Nothing stands between the turns: the end of one is the context of the next, and V there is that of the next."""
    u, q, v, targets = targets_of([make_trajectory([Played(sampled=2), Played(context=0, sampled=3)])])
    assert u.sites[0].tolist() == [1, 3, 6]
    np.testing.assert_allclose(targets.v_S2[1], q[2])
    np.testing.assert_allclose(targets.q_S2[1], 0.5 * v[1])


def test_an_ended_task_has_no_value_behind_it_and_zero_rewards_are_turns():
    u, q, v, targets = targets_of([make_trajectory([Played(0.0), Played(0.0), Played(1.0)])])
    assert len(u.next_U) == 3
    np.testing.assert_allclose(targets.q_S2[u.after_U[0]], 0.5 * v[u.before_U[1]], rtol=1e-6)
    np.testing.assert_allclose(targets.q_S2[u.after_U[1]], 0.5 * v[u.before_U[2]], rtol=1e-6)
    np.testing.assert_array_equal(targets.q_S2[u.after_U[2]], [1.0, 1.0])
    np.testing.assert_allclose(targets.v_S2[u.before_U], q[u.after_U])
    np.testing.assert_allclose(targets.q_weights_S[u.after_U], 1 / 3)
    assert not targets.q_weights_S[u.before_U].any()


def test_a_cut_episode_goes_on_behind_its_last_turn():
    turns = [Played(0.25), Played(0.5)]
    u, _, v, targets = targets_of([make_trajectory(turns, stop_reason=StopReason.MAX_TURNS)])
    np.testing.assert_allclose(targets.q_S2[u.after_U[1]], 0.5 + 0.5 * v[u.after_U[1]], rtol=1e-6)
    # V learns what lies behind a turn where that is known, and only there.
    np.testing.assert_allclose(targets.v_S2[u.after_U[0]], v[u.before_U[1]])
    assert targets.v_weights_S[u.after_U].tolist() == [0.5, 0.0]


@pytest.mark.parametrize("reason", [StopReason.RESPONSE_LENGTH, StopReason.MAX_MISTAKES])
def test_nothing_comes_after_an_agent_that_broke_off_by_itself(reason):
    """A response without an end must not be worth what going on would have been."""
    u, _, v, targets = targets_of([make_trajectory([Played(0.25), Played(0.5)], stop_reason=reason)])
    np.testing.assert_array_equal(targets.q_S2[u.after_U[1]], [0.5, 0.5])
    assert td_errors(u, v[:, 0], 0.5)[1] == pytest.approx(0.5 - v[u.before_U[1], 0])


def test_both_critics_get_the_lower_target():
    episode = [make_trajectory([Played(0.0), Played(1.0)])]
    u, q, v, targets = targets_of(episode, combine=pessimism("min", 1.0))
    np.testing.assert_allclose(targets.q_S2[u.after_U[0]], 0.5 * v[u.before_U[1]].min(), rtol=1e-6)
    np.testing.assert_allclose(targets.v_S2[u.before_U[0]], q[u.after_U[0]].min(), rtol=1e-6)
    _, _, _, soft = targets_of(episode, combine=pessimism("soft_min", 1e-6))
    np.testing.assert_allclose(soft.q_S2, targets.q_S2, atol=1e-5)


def test_importance_weighs_v_alone():
    u, _, _, targets = targets_of([make_trajectory([Played(), Played()])], weights=[2.0, 0.25])
    np.testing.assert_allclose(targets.v_weights_S[u.before_U], [1.0, 0.125])
    np.testing.assert_allclose(targets.q_weights_S[u.after_U], 0.5)


def test_the_soft_minimum_lies_between_minimum_and_mean():
    pair = np.array([[1.0, 3.0], [-2.0, -2.0]])
    np.testing.assert_allclose(soft_min(pair, 1e-9), [1.0, -2.0], atol=1e-6)
    np.testing.assert_allclose(soft_min(pair, 1e9), [2.0, -2.0], atol=1e-6)
    np.testing.assert_allclose(soft_min(pair, 0.7), -0.7 * np.log(np.exp(-pair / 0.7).mean(1)))
    assert lower_of("independent", 1.0)(pair).tolist() == [1.0, -2.0], "critics that learn apart meet in the minimum"


def test_turns_without_tokens_are_no_utterances_but_their_reward_counts():
    u = find_utterances([make_trajectory([Played(0.5), Played(0.25, sampled=0), Played(1.0)])])
    assert u.rewards_U.tolist() == [0.75, 1.0]
    assert u.next_U.tolist() == [1, -1]


def test_a_turn_that_nothing_precedes_is_valued_after_its_first_token():
    u = find_utterances([make_trajectory([Played(context=0, sampled=3)])])
    assert u.sites[0].tolist() == [1, 3]


def test_returns_stop_at_the_end_of_an_episode():
    episodes = [make_trajectory([Played(1.0), Played(2.0)]), make_trajectory([Played(4.0)], member=1)]
    assert returns_of(find_utterances(episodes), 0.5).tolist() == [2.0, 2.0, 4.0]


def test_td_errors_compare_what_followed_with_what_was_expected():
    ended = make_trajectory([Played(0.25), Played(4.0, fork=True)])
    cut = make_trajectory([Played(0.5), Played(8.0)], member=1, stop_reason=StopReason.MAX_TURNS)
    u = find_utterances([ended, cut])
    v_S = values(u)[1][:, 0].astype(np.float64)
    (a, b, c, d), behind = v_S[u.before_U], v_S[u.after_U[3]]
    expected = [0.25 + 0.5 * b - a, 4.0 - b, 0.5 + 0.5 * d - c, 8.0 + 0.5 * behind - d]
    np.testing.assert_allclose(td_errors(u, v_S, 0.5), expected)


def test_undiscounted_td_errors_add_up_to_the_return_beyond_what_was_expected():
    u = find_utterances([make_trajectory([Played(float(k)) for k in range(5)])])
    v_S = values(u)[1][:, 0].astype(np.float64)
    assert td_errors(u, v_S, 1.0).sum() == pytest.approx(0 + 1 + 2 + 3 + 4 - v_S[u.before_U[0]])


@pytest.mark.parametrize("episodes", [[], [make_trajectory([])], [make_trajectory([Played(sampled=0)])]])
def test_nothing_said_is_nothing_to_value(episodes):
    u = find_utterances(episodes)
    q, v = values(u)
    assert len(u.next_U) == 0
    assert not bellman_targets(u, q, v, np.ones(0), 1.0, INDEPENDENT).q_weights_S.any()
    assert td_errors(u, v[:, 0], 1.0).shape == (0,)
