"""The mean of scores of several sets of tasks, with its 95% interval. Pure: knows estimates, not episodes.

Sets are independent, so the squares of their distances to the ends of the interval add up (MOVER: Zou & Donner 2008,
"Construction of confidence limits about effect measures"). Each end has its own distance: a score near 0 or 1 makes the
interval as lopsided as its own, and one of zero width cannot come out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from agent_rl.evaluate.statistics import Estimate


def macro_average(estimates: Sequence[Estimate], weights: Sequence[float] | None = None) -> Estimate:
    """The weighted mean of independent scores; by default all weigh the same.

    Raises `ValueError` for no score, another number of weights, or a weight that is not above 0.
    """
    weights = [1.0] * len(estimates) if weights is None else weights
    if not estimates or len(weights) != len(estimates) or min(weights) <= 0:
        raise ValueError("a macro-average needs at least one score, and a weight above 0 for each")
    total = sum(weights)
    shares = [weight / total for weight in weights]
    value = sum(share * e.value for share, e in zip(shares, estimates, strict=True))
    below = math.hypot(*(share * (e.value - e.low) for share, e in zip(shares, estimates, strict=True)))
    above = math.hypot(*(share * (e.high - e.value) for share, e in zip(shares, estimates, strict=True)))
    return Estimate(value, value - below, value + above)
