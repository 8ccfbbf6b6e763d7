import itertools

import numpy as np
import pytest
import scipy.stats

from agent_rl.evaluate import paired
from agent_rl.evaluate.paired import paired_difference, sign_flip_test, tasks_for
from agent_rl.evaluate.statistics import mean


def test_the_difference_has_students_paired_interval():
    a, b = np.array([0.0, 0.5, 1.0, 0.25, 0.0]), np.array([0.5, 0.5, 1.0, 1.0, 0.25])
    expected = scipy.stats.ttest_rel(b, a).confidence_interval(0.95)
    found = paired_difference(a, b)
    assert (found.difference.low, found.difference.high) == pytest.approx((expected.low, expected.high))
    assert (found.difference.value, found.tasks) == (pytest.approx(0.3), 5)
    turned = paired_difference(b, a)
    assert turned.difference.value == pytest.approx(-0.3)
    assert turned.p_value == found.p_value


def test_pairing_is_narrower_than_two_scores_where_tasks_differ_in_difficulty():
    rng = np.random.default_rng(0)
    difficulty = rng.random(60)
    a, b = difficulty + 0.01 * rng.normal(size=60), difficulty + 0.05 + 0.01 * rng.normal(size=60)
    found, alone = paired_difference(a, b).difference, mean(a)
    assert (found.high - found.low) < 0.1 * (alone.high - alone.low)


@pytest.mark.parametrize("tasks", [1, 5, 200])
def test_equal_differences_still_have_an_interval(tasks):
    estimate = paired_difference(np.full(tasks, 0.5), np.full(tasks, 0.5)).difference
    unseen = scipy.stats.binomtest(0, tasks).proportion_ci(method="wilson").high
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((-unseen, 0, unseen))
    assert paired_difference(np.zeros(tasks), np.ones(tasks)).difference.high == 1.0


def test_sign_flips_are_counted_exactly_for_few_tasks():
    d = np.array([0.5, -0.25, 1.0, 0.75, 0.0])
    signed = [abs(np.dot(signs, d)) for signs in itertools.product((-1, 1), repeat=5)]
    assert sign_flip_test(d) == pytest.approx(np.mean(np.array(signed) >= abs(d.sum()) - 1e-12))
    only_flips = np.array([1.0] * 7 + [-1.0] * 2 + [0.0] * 40)  # one sample each: McNemar's exact test
    assert sign_flip_test(only_flips) == pytest.approx(scipy.stats.binomtest(2, 9).pvalue)


def test_many_sign_flips_are_sampled(monkeypatch):
    d = np.random.default_rng(1).normal(0.4, 1, 14)
    exact = sign_flip_test(d)
    monkeypatch.setattr(paired, "EXACT_TASKS", 4)
    assert sign_flip_test(d) == pytest.approx(exact, abs=0.01)
    assert sign_flip_test(np.ones(40)) == pytest.approx(1 / 20_001)  # never 0
    assert sign_flip_test(np.zeros(40)) == 1.0


def test_chance_alone_is_called_a_difference_in_5_percent_of_cases():
    rng = np.random.default_rng(2)
    false = [sign_flip_test(rng.choice([-1.0, 0.0, 1.0], 12, p=[0.2, 0.6, 0.2])) <= 0.05 for _ in range(1500)]
    assert np.mean(false) <= 0.06


@pytest.mark.parametrize("half_width", [0.5, 0.1, 0.02])
def test_the_number_of_tasks_is_the_least_that_is_enough(half_width):
    d = np.random.default_rng(3).normal(0, 0.4, 50)

    def half(tasks: int) -> float:
        return scipy.stats.t.ppf(0.975, tasks - 1) * d.std(ddof=1) / np.sqrt(tasks)

    tasks = tasks_for(d, half_width)
    assert half(tasks) <= half_width
    assert tasks == 2 or half(tasks - 1) > half_width


def test_what_makes_no_sense_is_refused():
    for a, b in (([], []), ([1.0], [1.0, 2.0])):
        with pytest.raises(ValueError, match="same tasks"):
            paired_difference(np.array(a), np.array(b))
    for d, width in (([1.0], 0.1), ([1.0, 2.0], 0.0)):
        with pytest.raises(ValueError, match="sample size"):
            tasks_for(np.array(d), width)
