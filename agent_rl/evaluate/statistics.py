"""Scores with 95% intervals, clustered by task. Pure numpy; knows numbers, not episodes.

Every score here is a mean over tasks of one value per task: the share of its samples that succeed, its pass@k, its
pass^k, its mean reward. Tasks are drawn independently, samples of one task are not: so the task is the unit, and the
spread between tasks is all that the intervals need. Tasks weigh the same, however many of their samples count.

    proportion  values in [0, 1]  Wilson's interval with the effective number of tasks (analytic, the default)
    mean        any values        Student's t over tasks: the cluster-robust interval of a mean, one cluster per task
    bootstrap   any values        BCa over resampled tasks, seeded

No interval has zero width. Where the values do not vary (all tasks solved, none solved, a single task) the spread says
nothing, and the interval is Wilson's for that many independent yes-or-no tasks: 20 of 20 solved gives [0.84, 1].
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
RESAMPLES = 4000

Values: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score and its 95% interval."""

    value: float
    low: float
    high: float


# --- one value per task ---------------------------------------------------------------------------------------------


def pass_at_k(successes_N: Sequence[int], samples_N: Sequence[int], k: int) -> Values:
    """Probability that at least one of k samples succeeds, per task, unbiased: 1 - C(n - c, k) / C(n, k).

    Chen et al. 2021 (arXiv 2107.03374), eq. 1. Raises `ValueError` when a task has fewer than k samples.
    """
    return 1 - _share_of_subsets([n - c for c, n in zip(successes_N, samples_N, strict=True)], samples_N, k)


def pass_hat_k(successes_N: Sequence[int], samples_N: Sequence[int], k: int) -> Values:
    """Probability that all of k samples succeed (pass^k), per task, unbiased: C(c, k) / C(n, k).

    Yao et al. 2024 (tau-bench, arXiv 2406.12045). Raises `ValueError` when a task has fewer than k samples.
    """
    return _share_of_subsets(successes_N, samples_N, k)


def _share_of_subsets(members_N: Sequence[int], samples_N: Sequence[int], k: int) -> Values:
    """Share of the k-subsets of a task's samples that lie within its `members`."""
    if any(not 0 <= m <= n for m, n in zip(members_N, samples_N, strict=True)):
        raise ValueError("a task has more successes than samples, or fewer than none")
    if k < 1 or min(samples_N, default=k) < k:
        raise ValueError(f"k={k} needs at least k samples of every task, and k >= 1")
    return np.array([math.comb(m, k) / math.comb(n, k) for m, n in zip(members_N, samples_N, strict=True)])


# --- intervals of the mean over tasks -------------------------------------------------------------------------------


def proportion(values_N: Values) -> Estimate:
    """Mean of values in [0, 1] with Wilson's interval for p (1 - p) / Var(mean) effective tasks (Korn & Graubard 1998).

    With one sample per task the values are 0 or 1, the effective number is the number of tasks, and this is Wilson's
    interval. Otherwise the variance is estimated between tasks, and t replaces the normal quantile. Stays in [0, 1].
    """
    _require(values_N)
    if values_N.min() < 0 or values_N.max() > 1:
        raise ValueError("a proportion needs values in [0, 1]")
    tasks = len(values_N)
    value = float(values_N.mean())
    if not _vary(values_N) or np.isin(values_N, (0, 1)).all():
        return wilson(value, tasks)
    effective = value * (1 - value) * tasks / float(values_N.var(ddof=1))
    return wilson(value, effective, t_critical(tasks - 1))


def mean(values_N: Values) -> Estimate:
    """Mean of any values with Student's t interval.

    Values that do not vary are taken to come from [0, 1], widened to reach them, for the interval described above.
    """
    _require(values_N)
    value = float(values_N.mean())
    if not _vary(values_N):
        return _unvarying(values_N)
    half = t_critical(len(values_N) - 1) * float(values_N.std(ddof=1)) / math.sqrt(len(values_N))
    return Estimate(value, value - half, value + half)


def bootstrap(values_N: Values, seed: int = 0) -> Estimate:
    """Mean of any values with the BCa interval over resampled tasks (Efron 1987).

    The tails are widened as Student's t is over the normal (Hesterberg 2015, "expanded"), against the bootstrap's
    narrowness with few tasks. Values that do not vary are treated as in `mean`.
    """
    _require(values_N)
    if not _vary(values_N):
        return _unvarying(values_N)
    tasks, value = len(values_N), float(values_N.mean())
    means_B = _resampled_means(values_N, seed)
    normal = NormalDist()
    share_below = float((means_B < value).mean() + (means_B == value).mean() / 2)
    bias = normal.inv_cdf(min(max(share_below, 1 / RESAMPLES), 1 - 1 / RESAMPLES))
    deviations_N = values_N - value
    acceleration = float((deviations_N**3).sum() / (6 * (deviations_N**2).sum() ** 1.5))
    tail = math.sqrt(tasks / (tasks - 1)) * t_critical(tasks - 1)
    shifted = [bias + (bias + z) / max(1 - acceleration * (bias + z), 1e-9) for z in (-tail, tail)]
    low, high = np.quantile(means_B, [normal.cdf(z) for z in shifted])
    return Estimate(value, float(low), float(high))


def _resampled_means(values_N: Values, seed: int) -> Values:
    """Means of `RESAMPLES` resamples. Only how often each distinct value is drawn matters: scores have few."""
    distinct_V, counts_V = np.unique(values_N, return_counts=True)
    tasks = len(values_N)
    rng = np.random.default_rng(seed)
    per_block = max(1, 10_000_000 // len(distinct_V))  # at most 80 MB of counts at a time
    blocks = [
        rng.multinomial(tasks, counts_V / tasks, size=min(per_block, RESAMPLES - start)) @ distinct_V / tasks
        for start in range(0, RESAMPLES, per_block)
    ]
    return np.concatenate(blocks)


def _vary(values_N: Values) -> bool:
    """More than rounding does: means of equal rewards may differ in their last bits."""
    return float(np.ptp(values_N)) > 1e-9 * max(1.0, float(np.abs(values_N).max()))


def _unvarying(values_N: Values) -> Estimate:
    value = float(values_N.mean())
    low, high = min(0.0, value), max(1.0, value)
    interval = wilson((value - low) / (high - low), len(values_N))
    return Estimate(value, low + interval.low * (high - low), low + interval.high * (high - low))


def wilson(p: float, trials: float, critical: float | None = None) -> Estimate:
    """Wilson 1927: the p's that a normal test (`critical`: another quantile) of the observed share does not reject."""
    critical = critical or normal_critical()
    shrink = critical**2 / trials
    centre = (p + shrink / 2) / (1 + shrink)
    half = critical / (1 + shrink) * math.sqrt(p * (1 - p) / trials + shrink / (4 * trials))
    return Estimate(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)))


def _require(values_N: Values) -> None:
    if len(values_N) == 0 or not np.isfinite(values_N).all():
        raise ValueError("a score needs at least one task, and finite values")


# --- quantiles ------------------------------------------------------------------------------------------------------


def normal_critical() -> float:
    """The z with P(|Z| < z) = 95%."""
    return NormalDist().inv_cdf(TAILS[1])


@functools.cache
def t_critical(dof: int) -> float:
    """The t with P(|T| < t) = 95% for `dof` >= 1 degrees of freedom."""
    from scipy.special import stdtrit  # a second to import, which few commands need

    return float(stdtrit(dof, TAILS[1]))
