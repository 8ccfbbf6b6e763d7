import itertools
from math import comb

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import beta as beta_function

from agent_rl.evaluate import statistics
from agent_rl.evaluate.statistics import bootstrap, mean, pass_at_k, pass_hat_k, proportion, t_critical

INTERVALS = [proportion, mean, bootstrap]

# --- one value per task ---


@pytest.mark.parametrize("samples", [1, 2, 3, 5])
def test_pass_at_k_and_pass_hat_k_are_shares_of_all_subsets(samples):
    for successes, k in itertools.product(range(samples + 1), range(1, samples + 1)):
        outcomes = [1] * successes + [0] * (samples - successes)
        subsets = list(itertools.combinations(outcomes, k))
        assert pass_at_k([successes], [samples], k)[0] == pytest.approx(np.mean([max(s) for s in subsets]))
        assert pass_hat_k([successes], [samples], k)[0] == pytest.approx(np.mean([min(s) for s in subsets]))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_both_are_unbiased(p, k):
    """Their expectation under the binomial distribution is the probability itself, exactly."""
    samples = 8
    counts = np.arange(samples + 1)
    weights = scipy.stats.binom.pmf(counts, samples, p)
    sizes = [samples] * (samples + 1)
    assert weights @ pass_at_k(counts.tolist(), sizes, k) == pytest.approx(1 - (1 - p) ** k)
    assert weights @ pass_hat_k(counts.tolist(), sizes, k) == pytest.approx(p**k)


def test_tasks_may_have_different_numbers_of_samples():
    assert pass_at_k([1, 1], [2, 4], 2).tolist() == [1.0, 0.5]
    assert pass_hat_k([2, 2], [2, 4], 2).tolist() == pytest.approx([1.0, 1 / 6])


def test_many_samples_do_not_overflow():
    assert pass_at_k([10], [5000], 1000)[0] == pytest.approx(1 - comb(4990, 1000) / comb(5000, 1000))


@pytest.mark.parametrize(("successes", "samples", "k"), [([1], [4], 5), ([1], [4], 0), ([5], [4], 1), ([-1], [4], 1)])
def test_impossible_counts_are_refused(successes, samples, k):
    with pytest.raises(ValueError, match="samples"):
        pass_at_k(successes, samples, k)
    with pytest.raises(ValueError, match="samples"):
        pass_hat_k(successes, samples, k)


# --- closed forms ---


@pytest.mark.parametrize("dof", [*range(1, 31), 100, 999, 20_000])
def test_t_quantiles(dof):
    assert t_critical(dof) == pytest.approx(scipy.stats.t.ppf(0.975, dof), rel=1e-9)


@pytest.mark.parametrize(("successes", "tasks"), [(0, 20), (1, 20), (10, 20), (20, 20), (137, 200), (1, 1)])
def test_one_sample_per_task_gives_wilsons_interval(successes, tasks):
    estimate = proportion(np.array([1.0] * successes + [0.0] * (tasks - successes)))
    expected = scipy.stats.binomtest(successes, tasks).proportion_ci(method="wilson")
    assert estimate.value == successes / tasks
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))


def test_the_mean_has_students_interval_over_tasks():
    values = np.array([0.2, -1.0, 3.5, 0.0, 0.25])
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    estimate = mean(values)
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((expected.low, 0.59, expected.high))


def test_the_bootstrap_is_scipys_bca_at_the_wider_tails(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 40_000)
    values = np.random.default_rng(0).exponential(size=30)
    level = 2 * scipy.stats.norm.cdf(np.sqrt(30 / 29) * scipy.stats.t.ppf(0.975, 29)) - 1
    expected = scipy.stats.bootstrap((values,), np.mean, n_resamples=40_000, confidence_level=level, random_state=1)
    low, high = expected.confidence_interval
    estimate = bootstrap(values)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.03 * (high - low))
    assert high - estimate.value > 1.1 * (estimate.value - low), "a skewed case, where percentiles would be wrong"


def test_a_bootstrap_is_reproducible_and_its_blocks_do_not_change_it(monkeypatch):
    values = np.random.default_rng(0).random(30)
    estimate = bootstrap(values, seed=3)
    assert bootstrap(values, seed=3) == estimate
    assert bootstrap(values, seed=4) != estimate
    monkeypatch.setattr(statistics, "RESAMPLES", 7)
    assert len(statistics._resampled_means(values, 0)) == 7


def test_identical_samples_of_a_task_do_not_count_as_more_evidence():
    """Eight copies of each outcome: the interval is that of the tasks. Independent samples would divide it by 3."""
    outcomes = [1] * 12 + [0] * 8
    once = proportion(pass_at_k(outcomes, [1] * 20, 1))
    copied = proportion(pass_at_k([8 * o for o in outcomes], [8] * 20, 1))
    assert copied == once


# --- degenerate cases ---


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("tasks", [1, 2, 20])
def test_values_that_do_not_vary_give_wilsons_interval_for_the_tasks(interval, value, tasks):
    estimate = interval(np.full(tasks, value))
    assert estimate.value == value
    assert 0 <= estimate.low <= value <= estimate.high <= 1
    assert estimate.high - estimate.low > 0.15
    if value != 0.5:
        expected = scipy.stats.binomtest(round(value * tasks), tasks).proportion_ci(method="wilson")
        assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("interval", [mean, bootstrap])
def test_equal_rewards_outside_of_0_to_1_still_have_an_interval(interval):
    estimate = interval(np.full(10, -2.0))
    assert estimate.low == estimate.value == -2.0
    assert -2.0 < estimate.high < 1.0


@pytest.mark.parametrize("interval", INTERVALS)
def test_rounding_is_not_variation(interval):
    estimate = interval(np.array([np.mean([0.1] * n) for n in (1, 3, 6, 7, 9)] * 4))
    assert estimate.high - estimate.low > 0.2


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("values", [[], [0.5, float("nan")], [float("inf")]])
def test_no_tasks_or_no_numbers_are_refused(interval, values):
    with pytest.raises(ValueError, match="at least one task"):
        interval(np.array(values))


def test_a_proportion_refuses_values_that_are_none():
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        proportion(np.array([0.5, 1.5]))


@given(st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=40))
def test_every_interval_contains_its_value_and_has_width(values):
    array = np.array(values)
    for interval in INTERVALS:
        estimate = interval(array)
        assert estimate.low <= estimate.value + 1e-12
        assert estimate.value <= estimate.high + 1e-12
        assert estimate.low < estimate.high
    assert 0 <= proportion(array).low <= proportion(array).high <= 1


# --- coverage ---


def coverage(interval, *, tasks, samples, k, alpha, beta, hat, repeats):
    """Share of simulated evaluations whose interval holds the truth; the tasks' success rates are Beta distributed."""
    rng = np.random.default_rng(0)
    if hat:
        truth = beta_function(alpha + k, beta) / beta_function(alpha, beta)
    else:
        truth = 1 - beta_function(alpha, beta + k) / beta_function(alpha, beta)
    counts = range(samples + 1)
    per_count = (pass_hat_k if hat else pass_at_k)(list(counts), [samples] * (samples + 1), k)
    drawn = rng.binomial(samples, rng.beta(alpha, beta, (repeats, tasks)))
    estimates = [interval(per_count[row]) for row in drawn]
    return np.mean([estimate.low <= truth <= estimate.high for estimate in estimates])


# tasks, samples, k, alpha, beta, hat: easy, hard and mixed tasks; success, pass@k and pass^k
DESIGNS = {
    "success of mixed tasks, one sample": (100, 1, 1, 1, 1, False),
    "success of easy tasks, four samples": (100, 4, 1, 9, 1, False),
    "success of tasks that are hard or easy": (50, 8, 1, 0.5, 0.5, False),
    "success of hard tasks, eight samples": (100, 8, 1, 0.3, 3, False),
    "pass@4 of 8": (50, 8, 4, 1, 1, False),
    "pass@8 of 16": (100, 16, 8, 0.3, 1, False),
    "pass^4 of 8": (50, 8, 4, 1, 1, True),
    "pass^2 of 8": (200, 8, 2, 2, 2, True),
}


@pytest.mark.parametrize("design", DESIGNS)
def test_coverage_of_the_analytic_interval_is_93_to_97_percent(design):
    tasks, samples, k, alpha, beta, hat = DESIGNS[design]
    share = coverage(proportion, tasks=tasks, samples=samples, k=k, alpha=alpha, beta=beta, hat=hat, repeats=4000)
    assert 0.93 <= share <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("interval", [mean, bootstrap])
@pytest.mark.parametrize("design", ["success of easy tasks, four samples", "pass@8 of 16", "pass^2 of 8"])
def test_coverage_of_the_other_intervals_is_93_to_97_percent(design, interval, monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)
    tasks, samples, k, alpha, beta, hat = DESIGNS[design]
    share = coverage(interval, tasks=tasks, samples=samples, k=k, alpha=alpha, beta=beta, hat=hat, repeats=1000)
    assert 0.93 <= share <= 0.97
