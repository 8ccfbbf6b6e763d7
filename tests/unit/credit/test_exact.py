"""Estimators against the exact policy gradient of a decision process small enough to enumerate.

Two turns with a binary action each: the first has reward r0(a0), the second r1(a0, a1). The policy has one logit for
the first turn and one for each state of the second. Every group of two episodes is enumerated with its probability,
so that the expectation of an estimator's gradient has no sampling noise at all.
"""

import itertools

import numpy as np
import pytest

from agent_rl.credit import Values, get_estimator
from agent_rl.testing.episodes import Played, make_group, make_trajectory
from agent_rl.types import StopReason

LOGITS = np.array([0.3, -0.7, 1.1])  # of action 1: first turn; second turn after 0; second turn after 1
R0 = np.array([0.2, -0.4])
R1 = np.array([[0.0, 1.0], [2.0, 0.5]])
EPISODES = list(itertools.product((0, 1), (0, 1)))


def chance(logit, action):
    p = 1 / (1 + np.exp(-logit))
    return p if action else 1 - p


def probability(a0, a1):
    return chance(LOGITS[0], a0) * chance(LOGITS[1 + a0], a1)


def score(index, action):
    """d log pi(action) / d logits, of the turn whose logit is `index`."""
    gradient = np.zeros(3)
    gradient[index] = action - chance(LOGITS[index], 1)
    return gradient


def value(a0=None):
    """V of the first state, or of the second one after `a0`."""
    if a0 is None:
        return sum(probability(*e) * (R0[e[0]] + R1[e]) for e in EPISODES)
    return sum(chance(LOGITS[1 + a0], a1) * R1[a0, a1] for a1 in (0, 1))


def exact_gradient():
    return sum(probability(a0, a1) * (R0[a0] + R1[a0, a1]) * (score(0, a0) + score(1 + a0, a1)) for a0, a1 in EPISODES)


def episode(a0, a1, member, tokens=1):
    played = [Played(R0[a0], sampled=tokens, state="start"), Played(R1[a0, a1], sampled=tokens, state=f"after {a0}")]
    return make_trajectory(played, member=member)


def exact_values(actions):
    rows = tuple((np.array([0, value(), 0, value(a0)], np.float32),) for a0, _ in actions)
    return Values(rows, np.zeros(len(actions), np.float32))


def expected_gradient(name, options=None, size=2):
    estimator = get_estimator(name, options)
    total = np.zeros(3)
    for actions in itertools.product(EPISODES, repeat=size):
        group = make_group(*(episode(*action, member) for member, action in enumerate(actions)))
        [advantages] = estimator([group], [exact_values(actions)])
        weight = np.prod([probability(*action) for action in actions])
        for (a0, a1), (row,) in zip(actions, advantages, strict=True):
            total += weight / size * (row[1] * score(0, a0) + row[3] * score(1 + a0, a1))
    return total


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rloo", {}),
        ("return_to_go", {}),
        ("asymre", {"shift": 0.0}),  # its baseline is the mean, members included: see below
        ("token_gae", {"lam": 0.0, "whiten": False}),
        ("token_gae", {"lam": 0.7, "whiten": False}),
        ("token_gae", {"lam": 1.0, "whiten": False}),
        ("turn_gae", {"lam": 0.5, "whiten": False}),
        ("bi_level_gae", {"turn_gamma": 1.0, "turn_lam": 0.5, "whiten": False}),
    ],
)
def test_unbiased(name, options):
    shrunk = 0.5 if name == "asymre" else 1.0  # a mean over G members, oneself included, keeps (G - 1) / G
    np.testing.assert_allclose(expected_gradient(name, options), shrunk * exact_gradient(), atol=1e-6)


@pytest.mark.parametrize("size", [2, 3])
def test_the_groups_mean_shrinks_the_gradient(size):
    expected = exact_gradient() * (size - 1) / size
    np.testing.assert_allclose(expected_gradient("dr_grpo", size=size), expected, atol=1e-6)


def test_step_groups_compare_actions_in_one_state():
    """GiGPO's step term alone: both episodes begin in one state, so turn 0 gets the gradient of the return."""
    whole = expected_gradient("gigpo", {"gamma": 1.0, "scale": 0.0})
    episodes = expected_gradient("dr_grpo")
    np.testing.assert_allclose((whole - episodes)[0], exact_gradient()[0] / 2, atol=1e-6)


def test_exact_values_leave_no_variance_from_later_turns():
    """With exact values and lambda 0 the advantage is the exact one: Q(s, a) - V(s), whatever happens later."""
    for a0, a1 in EPISODES:
        group = make_group(episode(a0, a1, 0))
        [((row,),)] = get_estimator("token_gae", {"lam": 0.0, "whiten": False})([group], [exact_values([(a0, a1)])])
        assert row[1] == pytest.approx(R0[a0] + value(a0) - value(), abs=1e-6)
        assert row[3] == pytest.approx(R1[a0, a1] - value(a0), abs=1e-6)


def test_a_cut_episode_goes_on_in_the_critics_eyes():
    played = [Played(1.0)]
    values = Values(((np.array([0, 0.25], np.float32),),), np.array([4.0], np.float32))
    estimate = get_estimator("token_gae", {"gamma": 0.5, "whiten": False})
    ended = make_group(make_trajectory(played))
    cut = make_group(make_trajectory(played, stop_reason=StopReason.MAX_TURNS))
    assert estimate([ended], [values])[0][0][0][1] == pytest.approx(1.0 - 0.25)
    assert estimate([cut], [values])[0][0][0][1] == pytest.approx(1.0 + 0.5 * 4.0 - 0.25)
