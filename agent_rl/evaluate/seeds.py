"""Scores of several seeds: the interquartile mean and its interval. Pure numpy; knows numbers, not runs.

A recipe is run with R seeds, each of which is scored on the same N tasks (or environments). With few seeds a mean
follows its luckiest run and a median ignores most of them; the interquartile mean drops a quarter at either end and
averages the rest (Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice", arXiv:2108.13264).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from agent_rl.evaluate.statistics import RESAMPLES, TAILS, Estimate, normal_critical, t_critical

Scores = NDArray[np.float64]


def interquartile_mean(scores_RN: Scores) -> float:
    """Mean of the middle half of all scores; a quarter of them, rounded down, is left out at either end."""
    return float(_middle_means(scores_RN.reshape(1, -1))[0])


def stratified(scores_RN: Scores, seed: int = 0) -> Estimate:
    """The interquartile mean with its stratified bootstrap interval: seeds are resampled, within each task by itself.

    The tails are widened as Student's t over R - 1 degrees of freedom is over the normal, and by sqrt(R / (R - 1))
    (Hesterberg 2015): plain percentiles, as in the paper, are too narrow for a handful of seeds. Tasks are taken as
    given: this says how far another set of seeds would differ, not another set of tasks.
    Raises `ValueError` for fewer than two seeds, or scores that are not finite.
    """
    runs, tasks = scores_RN.shape
    if runs < 2 or tasks < 1 or not np.isfinite(scores_RN).all():
        raise ValueError("an interval over seeds needs at least two seeds, a task, and finite scores")
    value = interquartile_mean(scores_RN)
    means_B = _resampled(scores_RN, seed)
    wider = math.sqrt(runs / (runs - 1)) * t_critical(runs - 1) / normal_critical()
    low, high = (value + wider * (float(np.quantile(means_B, at)) - value) for at in TAILS)
    return Estimate(value, min(low, value), max(high, value))


def probability_of_improvement(ours_RN: Scores, theirs_SN: Scores) -> float:
    """P(a run of ours scores above one of theirs), ties counting half, averaged over tasks: Mann and Whitney's U.

    Shapes (R, N) and (S, N): the numbers of seeds may differ.
    """
    if ours_RN.shape[1] != theirs_SN.shape[1]:
        raise ValueError("both need the same tasks")
    difference_RSN = ours_RN[:, None] - theirs_SN[None]
    return float(((difference_RSN > 0) + 0.5 * (difference_RSN == 0)).mean())


def _resampled(scores_RN: Scores, seed: int) -> Scores:
    """Interquartile means of `RESAMPLES` resamples, (B,)."""
    runs, tasks = scores_RN.shape
    rng = np.random.default_rng(seed)
    per_block = max(1, 10_000_000 // scores_RN.size)  # at most 80 MB at a time
    means: list[Scores] = []
    for start in range(0, RESAMPLES, per_block):
        size = min(per_block, RESAMPLES - start)
        drawn_BRN = rng.integers(runs, size=(size, runs, tasks))
        means.append(_middle_means(scores_RN[drawn_BRN, np.arange(tasks)].reshape(size, -1)))
    return np.concatenate(means)


def _middle_means(scores_BM: Scores) -> Scores:
    cut = scores_BM.shape[1] // 4
    return np.sort(scores_BM, axis=1)[:, cut : scores_BM.shape[1] - cut].mean(1)
