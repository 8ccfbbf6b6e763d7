"""Estimators with a statistic of the whole batch."""

import numpy as np
import pytest

from agent_rl.credit import get_estimator
from agent_rl.credit.scan import discounted_sums
from agent_rl.testing.episodes import Played, make_group, make_trajectory


def group_of(*rewards, index=0, failed=()):
    episodes = [make_trajectory([Played(r)], member=i, failed=i in failed) for i, r in enumerate(rewards)]
    return make_group(*episodes, index=index)


def scalars(name, *groups):
    return [[float(rows[0][1]) for rows in advantages] for advantages in get_estimator(name)(groups)]


def test_reinforce_pp_standardises_over_the_batch():
    values = np.array([1.0, 0.0, 4.0, 3.0])
    expected = (values - 2) / values.std(ddof=1)
    first, second = scalars("reinforce_pp", group_of(1, 0), group_of(4, 3))
    assert first + second == pytest.approx(expected)


def test_reinforce_pp_baseline_takes_the_tasks_mean_first():
    centered = np.array([0.5, -0.5, 2.0, -2.0])
    first, second = scalars("reinforce_pp_baseline", group_of(1, 0), group_of(4, 0))
    assert first + second == pytest.approx(centered / centered.std(ddof=1))


def test_lite_ppo_divides_by_the_deviation_of_all_rewards():
    deviation = np.array([1.0, 0.0, 4.0, 0.0]).std(ddof=1)
    first, second = scalars("lite_ppo", group_of(1, 0), group_of(4, 0))
    assert first + second == pytest.approx(np.array([0.5, -0.5, 2.0, -2.0]) / deviation)


@pytest.mark.parametrize("name", ["reinforce_pp_baseline", "lite_ppo"])
def test_a_lone_survivor_never_borrows_the_batchs_baseline(name):
    lone = group_of(1, 0, failed=(1,))
    assert scalars(name, lone, group_of(5, 6, index=1))[0] == [0.0]
    thirds = group_of(0, 0, 0.5, index=1)  # less their mean, they do not sum to 0 exactly
    assert scalars(name, lone, thirds)[0] == [0.0]


def test_oreal_averages_successes_and_failures_apart():
    """Under `token_mean`, the loss of the authors' code: train_oreal.py, lines 801 to 825, its rewards 1 and -1."""
    lengths, rewards = [[3, 5], [2, 7, 4]], [[1.0, -1.0], [-1.0, 1.0, 1.0]]
    groups = [
        make_group(
            *(make_trajectory([Played(r, sampled=n)], member=i) for i, (r, n) in enumerate(zip(*of, strict=True)))
        )
        for of in zip(rewards, lengths, strict=True)
    ]
    nll = [[0.3, 0.9], [0.2, 1.1, 0.7]]  # of every token of an episode
    ours = sum(
        n / 21 * advantage * loss
        for of in zip(scalars("oreal", *groups), lengths, nll, strict=True)
        for advantage, n, loss in zip(*of, strict=True)
    )
    baselines = [[-1.0, 1.0], [1.0, 0.0, 0.0]]  # of the others
    positive = negative = 0.0
    for group in range(2):
        for r, b, n, loss in zip(rewards[group], baselines[group], lengths[group], nll[group], strict=True):
            if r > 0:
                positive += n * loss * (r - b) / (3 + 7 + 4)
            else:
                negative += 0.5 * n * loss * (r - b) / (5 + 2)
    assert ours == pytest.approx(positive + negative, rel=1e-6)


def test_an_episode_counts_once_however_long_it_is():
    long = make_group(make_trajectory([Played(1, sampled=50)]), make_trajectory([Played(0)], member=1))
    assert scalars("reinforce_pp", long, group_of(0, 0)) == scalars("reinforce_pp", group_of(1, 0), group_of(0, 0))


def test_opmd_is_between_the_mean_and_the_best():
    group = group_of(1, 0, 0, 3)
    soft = np.log(np.mean(np.exp([1, 0, 0, 3])))
    assert scalars("opmd", group)[0] == pytest.approx(np.array([1, 0, 0, 3]) - soft)
    [hot] = get_estimator("opmd", {"temperature": 1e6})([group])
    assert [float(rows[0][1]) for rows in hot] == pytest.approx([0, -1, -1, 2], abs=1e-4)


def test_w_reinforce_weighs_successes_and_failures_apart():
    assert scalars("w_reinforce", group_of(1, 0))[0] == pytest.approx([0.1, -1.0])
    [nsr] = get_estimator("w_reinforce", {"positive_weight": 0.0})([group_of(1, 0)])
    assert [float(rows[0][1]) for rows in nsr] == [0.0, -1.0]


def test_a_deviation_below_the_least_is_noise():
    assert scalars("grpo", group_of(0.5, 0.51))[0] == pytest.approx([-(2**-0.5), 2**-0.5])
    [quiet] = get_estimator("grpo", {"least_std": 0.1})([group_of(0.5, 0.51)])
    assert [float(rows[0][1]) for rows in quiet] == pytest.approx([-0.05, 0.05])


def test_pairwise_sees_order_alone():
    assert scalars("pairwise", group_of(0.1, 0.2, 0.2, 900))[0] == pytest.approx([-1, 0, 0, 1])
    assert scalars("pairwise", group_of(1, 0, 0, 1)) == scalars("rloo", group_of(1, 0, 0, 1))


@pytest.mark.parametrize("decay", [0.0, 0.9, 1.0])
def test_runs_are_summed_apart(decay):
    rng = np.random.default_rng(0)
    lengths = np.array([0, 3, 1, 0, 100, 2, 1100, 0])
    values = rng.normal(size=lengths.sum())
    apart = [discounted_sums(run, np.array([len(run)]), decay) for run in np.split(values, np.cumsum(lengths)[:-1])]
    np.testing.assert_allclose(discounted_sums(values, lengths, decay), np.concatenate(apart), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 300])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99, 1.0])
def test_sums_by_blocks_are_the_recursion(length, decay):
    values = np.random.default_rng(0).normal(size=length)
    expected, following = np.zeros(length), 0.0
    for t in range(length - 1, -1, -1):
        following = expected[t] = values[t] + decay * following
    np.testing.assert_allclose(discounted_sums(values, np.array([length]), decay), expected, rtol=1e-10, atol=1e-12)
