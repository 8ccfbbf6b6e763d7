"""Estimators against the exact policy gradient of a decision process small enough to enumerate.

Two turns with a binary action each: the first has reward r0(a0), the second r1(a0, a1). The policy has one logit for
the first turn and one for each state of the second. Every group of two or three episodes is enumerated with its
probability, so that the mean and the variance of an estimator's gradient have no sampling noise at all. What is not
unbiased is held to its own expectation, in closed form.
"""

import functools
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
REWARD = {(a0, a1): R0[a0] + R1[a0, a1] for a0, a1 in EPISODES}
RAW = {"whiten": False}


def chance(logit, action):
    p = 1 / (1 + np.exp(-logit))
    return p if action else 1 - p


def probability(a0, a1):
    return chance(LOGITS[0], a0) * chance(LOGITS[1 + a0], a1)


def turn_score(index, action):
    """d log pi(action) / d logits, of the turn whose logit is `index`."""
    gradient = np.zeros(3)
    gradient[index] = action - chance(LOGITS[index], 1)
    return gradient


def score(a0, a1):
    return turn_score(0, a0) + turn_score(1 + a0, a1)


def value(a0=None):
    """V of the first state, or of the second one after `a0`."""
    if a0 is None:
        return sum(probability(*e) * REWARD[e] for e in EPISODES)
    return sum(chance(LOGITS[1 + a0], a1) * R1[a0, a1] for a1 in (0, 1))


def gradient_of(credit):
    """The expected gradient when an episode's advantage is `credit` of it, on average over its siblings."""
    return sum(probability(*e) * credit(e) * score(*e) for e in EPISODES)


EXACT = gradient_of(lambda e: REWARD[e])


def episode(a0, a1, member, tokens=1):
    played = [
        Played(R0[a0], sampled=tokens, state="start", tag="first"),
        Played(R1[a0, a1], sampled=tokens, state=f"after {a0}", tag="second"),
    ]
    return make_trajectory(played, member=member)


def values_of(actions, error=(0.0, 0.0, 0.0)):
    """Exact values, with an error of each state's."""
    rows = tuple((np.array([0, value() + error[0], 0, value(a0) + error[1 + a0]], np.float32),) for a0, _ in actions)
    return Values(rows, np.zeros(len(actions), np.float32))


@functools.cache
def outcomes(name, options=(), size=2, error=(0.0, 0.0, 0.0)):
    """Every group's probability and the gradient that the estimator makes of it."""
    estimator = get_estimator(name, dict(options))
    chances, gradients = [], []
    for actions in itertools.product(EPISODES, repeat=size):
        group = make_group(*(episode(*action, member) for member, action in enumerate(actions)))
        [advantages] = estimator([group], [values_of(actions, error)])
        rows = [
            row[1] * turn_score(0, a0) + row[3] * turn_score(1 + a0, a1)
            for (a0, a1), (row,) in zip(actions, advantages, strict=True)
        ]
        chances.append(np.prod([probability(*action) for action in actions]))
        gradients.append(np.mean(rows, axis=0))
    return np.array(chances), np.array(gradients)


def mean_of(name, options=None, **kwargs):
    chances, gradients = outcomes(name, tuple((options or {}).items()), **kwargs)
    return chances @ gradients


def variance_of(name, options=None, **kwargs):
    """Trace of the covariance of the gradient."""
    chances, gradients = outcomes(name, tuple((options or {}).items()), **kwargs)
    return float(chances @ ((gradients - chances @ gradients) ** 2).sum(axis=1))


# --- means ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rloo", {}),
        ("return_to_go", {}),
        ("token_gae", {"lam": 0.0, **RAW}),
        ("token_gae", {"lam": 0.7, **RAW}),
        ("token_gae", {"lam": 1.0, **RAW}),
        ("turn_gae", {"lam": 0.5, **RAW}),
        ("bi_level_gae", {"turn_gamma": 1.0, "turn_lam": 0.5, **RAW}),
    ],
)
def test_unbiased(name, options, size):
    np.testing.assert_allclose(mean_of(name, options, size=size), EXACT, atol=1e-6)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize(
    ("name", "options"), [("dr_grpo", {}), ("asymre", {"shift": 0.0}), ("asymre", {"shift": -0.3})]
)
def test_the_groups_mean_shrinks_the_gradient(name, options, size):
    """A mean over G members, oneself included, leaves (G - 1) / G; a constant leaves nothing."""
    np.testing.assert_allclose(mean_of(name, options, size=size), EXACT * (size - 1) / size, atol=1e-6)


def chance_to_beat(e):
    return sum(probability(*o) * np.sign(REWARD[e] - REWARD[o]) for o in EPISODES)


@pytest.mark.parametrize("size", [2, 3])
def test_pairwise_climbs_the_chance_to_beat_a_sibling(size):
    np.testing.assert_allclose(mean_of("pairwise", size=size), gradient_of(chance_to_beat), atol=1e-6)


@pytest.mark.parametrize("name", ["grpo", "reinforce_pp", "reinforce_pp_baseline", "lite_ppo"])
def test_two_standardised_siblings_see_only_who_is_better(name):
    """They get +-1/sqrt(2), however far apart their rewards: the bias of dividing by the deviation."""
    np.testing.assert_allclose(mean_of(name), gradient_of(chance_to_beat) / np.sqrt(2), atol=1e-6)


def test_weighted_reinforce_climbs_its_weights():
    options = {"positive_weight": 0.25, "negative_weight": 0.5, "at": 0.9}
    np.testing.assert_allclose(
        mean_of("w_reinforce", options), gradient_of(lambda e: 0.25 if REWARD[e] > 0.9 else -0.5), atol=1e-6
    )


def test_opmd_tends_to_the_mean_and_to_the_best():
    """At a high temperature its baseline is the mean; at a low one the best of the group, so that the rest pay."""
    np.testing.assert_allclose(mean_of("opmd", {"temperature": 1e5}), EXACT / 2, atol=1e-4)
    shortfall = gradient_of(lambda e: sum(probability(*o) * min(0.0, REWARD[e] - REWARD[o]) for o in EPISODES))
    np.testing.assert_allclose(mean_of("opmd", {"temperature": 1e-4}), shortfall, atol=1e-3)


def test_step_groups_compare_actions_in_one_state():
    """GiGPO's step term alone: both episodes begin in one state, so turn 0 gets the gradient of the return."""
    whole = mean_of("gigpo", {"gamma": 1.0, "scale": 0.0})
    np.testing.assert_allclose((whole - mean_of("dr_grpo"))[0], EXACT[0] / 2, atol=1e-6)
    together = {a0: chance(LOGITS[0], a0) for a0 in (0, 1)}  # that the sibling is in the same second state
    second = [EXACT[1 + a0] * together[a0] / 2 for a0 in (0, 1)]
    np.testing.assert_allclose((whole - mean_of("dr_grpo"))[1:], second, atol=1e-6)


def test_roles_climb_their_own_rewards():
    """The first role knows r0 alone, the second r1: what the first one leads to is no credit of its own."""
    own = sum(probability(*e) * (R0[e[0]] * turn_score(0, e[0]) + R1[e] * turn_score(1 + e[0], e[1])) for e in EPISODES)
    np.testing.assert_allclose(mean_of("roles", {"scale": 0.0}), own / 2, atol=1e-6)


def signs(of):
    """Of two siblings, the expected sign of the difference in what `of` says."""
    return lambda e: sum(probability(*o) * np.sign(of(e) - of(o)) for o in EPISODES) / np.sqrt(2)


@pytest.mark.parametrize(
    ("name", "options", "outcome", "early"),
    [
        ("mt_grpo", {"turn_weight": 0.5}, 1.0, 0.5),
        ("rlvmr", {"outcome_weight": 0.25}, 0.25, 0.75),
    ],
)
def test_outcome_and_process_are_credited_apart(name, options, outcome, early):
    """Of two siblings: the sign of the outcome for all, that of the first turn's reward for the first turn."""
    last, first = signs(lambda e: R1[e]), signs(lambda e: R0[e[0]])
    expected = gradient_of(lambda e: outcome * last(e))
    expected += sum(probability(*e) * early * first(e) * turn_score(0, e[0]) for e in EPISODES)
    np.testing.assert_allclose(mean_of(name, options), expected, atol=1e-6)


# --- variance -------------------------------------------------------------------------------------------------------


def without_baseline(size):
    second = sum(probability(*e) * ((REWARD[e] * score(*e)) ** 2).sum() for e in EPISODES)
    return (second - (EXACT**2).sum()) / size


def test_siblings_are_a_better_baseline_than_none():
    for size in (2, 3):
        assert variance_of("rloo", size=size) < without_baseline(size)


def test_the_group_mean_is_rloo_in_another_scale():
    for size in (2, 3):
        factor = ((size - 1) / size) ** 2
        assert variance_of("dr_grpo", size=size) == pytest.approx(factor * variance_of("rloo", size=size), rel=1e-5)


def test_exact_values_are_the_best_baseline():
    with_values = variance_of("token_gae", {"lam": 1.0, **RAW})
    assert with_values < min(variance_of("rloo"), variance_of("return_to_go"))


LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0)


def test_lambda_trades_bias_for_variance_when_values_are_wrong():
    """With V of the second states off by +-0.6, the bias falls linearly to 0 at lambda 1 and the variance rises."""
    options = [{"lam": lam, **RAW} for lam in LAMBDAS]
    error = (0.0, 0.6, -0.6)
    bias = [np.linalg.norm(mean_of("token_gae", o, error=error) - EXACT) for o in options]
    np.testing.assert_allclose(bias, [(1 - lam) * bias[0] for lam in LAMBDAS], atol=1e-6)
    assert bias[0] > 0.1
    variance = [variance_of("token_gae", o) for o in options]
    assert (np.diff(variance) > 0).all()
    for name, prefix in (("turn_gae", ""), ("bi_level_gae", "turn_")):
        same = [{f"{prefix}gamma": 1.0, f"{prefix}lam": lam, **RAW} for lam in LAMBDAS]
        np.testing.assert_allclose([variance_of(name, o) for o in same], variance, rtol=1e-5)


def test_exact_values_leave_no_variance_from_later_turns():
    """With exact values and lambda 0 the advantage is the exact one: Q(s, a) - V(s), whatever happens later."""
    for a0, a1 in EPISODES:
        group = make_group(episode(a0, a1, 0))
        [((row,),)] = get_estimator("token_gae", {"lam": 0.0, **RAW})([group], [values_of([(a0, a1)])])
        assert row[1] == pytest.approx(R0[a0] + value(a0) - value(), abs=1e-6)
        assert row[3] == pytest.approx(R1[a0, a1] - value(a0), abs=1e-6)


# --- truncation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["token_gae", "turn_gae", "bi_level_gae"])
def test_a_cut_episode_goes_on_in_the_critics_eyes(name):
    played = [Played(1.0)]
    values = Values(((np.array([0, 0.25], np.float32),),), np.array([4.0], np.float32))
    gamma = "turn_gamma" if name == "bi_level_gae" else "gamma"
    estimate = get_estimator(name, {gamma: 0.5, **RAW})
    cut = make_group(make_trajectory(played, stop_reason=StopReason.MAX_TURNS))
    for reason in (
        StopReason.TERMINATED,
        StopReason.RESPONSE_LENGTH,
        StopReason.MAX_MISTAKES,
    ):  # the last two: by itself
        ended = make_group(make_trajectory(played, stop_reason=reason))
        assert estimate([ended], [values])[0][0][0][1] == pytest.approx(1.0 - 0.25)
    assert estimate([cut], [values])[0][0][0][1] == pytest.approx(1.0 + 0.5 * 4.0 - 0.25)
