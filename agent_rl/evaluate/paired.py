"""Two policies on the same tasks: the difference, its interval, and how many tasks a smaller interval would take.

Pure numpy; knows one value per task and policy, not episodes. What makes a task hard is the same for both policies and
drops out of the difference, so it takes far fewer tasks than two separate scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from agent_rl.evaluate.statistics import Estimate, Values, mean, t_critical, wilson

EXACT_TASKS = 16
"""Up to here all sign flips are tried, not a sample of them."""
FLIPS = 20_000


@dataclass(frozen=True, slots=True)
class Difference:
    """B - A over the tasks of both. `p_value` is two-sided: how often chance alone would make as large a difference."""

    difference: Estimate
    p_value: float
    tasks: int


def paired_difference(a_N: Values, b_N: Values, seed: int = 0) -> Difference:
    """The mean of b - a with Student's t interval over tasks, and a sign-flip test of no difference.

    Where all differences are equal, their spread says nothing: the interval then allows for a task of the opposite kind
    as Wilson's does for none seen in N. Values in [-1, 1] are assumed there. Raises `ValueError` without tasks.
    """
    if len(a_N) != len(b_N) or len(a_N) == 0:
        raise ValueError("a paired difference needs the same tasks of both, and at least one")
    d_N = b_N - a_N
    if np.ptp(d_N) <= 1e-9:
        value, unseen = float(d_N.mean()), wilson(0.0, len(d_N)).high
        estimate = Estimate(value, max(-1.0, value - unseen), min(1.0, value + unseen))
    else:
        estimate = mean(d_N)
    return Difference(estimate, sign_flip_test(d_N, seed), len(d_N))


def sign_flip_test(d_N: Values, seed: int = 0) -> float:
    """Two-sided p-value of E d = 0, where each difference is as likely as its negative.

    Exact up to `EXACT_TASKS` differences that are not 0; beyond that from `FLIPS` draws, the observed one included, so
    that the test stays valid (Phipson & Smyth 2010).
    """
    d_N = np.abs(d_N[d_N != 0]) * np.sign(d_N[d_N != 0])
    observed = abs(d_N.sum())
    margin = 1e-9 * max(1.0, np.abs(d_N).sum())
    if len(d_N) <= EXACT_TASKS:
        signs = 1 - 2 * ((np.arange(2 ** len(d_N))[:, None] >> np.arange(len(d_N))) & 1)
        return float((np.abs(signs @ d_N) >= observed - margin).mean())
    rng = np.random.default_rng(seed)
    signs = rng.choice(np.array([-1.0, 1.0]), size=(FLIPS, len(d_N)))
    as_large = int((np.abs(signs @ d_N) >= observed - margin).sum())
    return (as_large + 1) / (FLIPS + 1)


def tasks_for(d_N: Values, half_width: float) -> int:
    """The least number of tasks with these differences' spread whose 95% interval is at most +- `half_width`.

    Raises `ValueError` for fewer than two tasks or a width that is not positive.
    """
    if len(d_N) < 2 or not half_width > 0:
        raise ValueError("a sample size needs at least two tasks and a positive width")
    deviation = float(d_N.std(ddof=1))
    low, high = 1, 2
    while t_critical(high - 1) * deviation / math.sqrt(high) > half_width:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        narrow = t_critical(middle - 1) * deviation / math.sqrt(middle) <= half_width
        low, high = (low, middle) if narrow else (middle, high)
    return high
