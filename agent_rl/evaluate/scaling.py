"""What more compute would buy: a sigmoid through a learning curve, extrapolated with a band.

    R(C) = R0 + (A - R0) / (1 + (Cmid / C)^B)

A is where the curve levels off, Cmid the compute at which half of the gain is made, B how steeply; R0 is the reward
before training ("The Art of Scaling RL Compute", ScaleRL, arXiv:2510.13786). A recipe is judged by A, its speed by B
and Cmid. Knows numbers; scipy fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent_rl.evaluate.statistics import TAILS, Estimate

Floats = NDArray[np.float64]
REFITS = 200
MIN_POINTS = 8


@dataclass(frozen=True, slots=True, eq=False)
class SigmoidFit:
    """A fitted curve: `asymptote` A, `steepness` B, `midpoint` Cmid (in units of compute), each with its interval.

    `refits_B3` are the parameters of the refits that the intervals are read from.
    """

    initial: float
    asymptote: Estimate
    steepness: Estimate
    midpoint: Estimate
    refits_B3: Floats

    def predict(self, compute_S: Floats) -> tuple[Floats, Floats, Floats]:
        """The curve at each compute and its 95% band, three of shape (S,)."""
        center = (self.asymptote.value, self.steepness.value, self.midpoint.value)
        curves_BS = np.stack([sigmoid(compute_S, self.initial, *refit) for refit in self.refits_B3])
        low_S, high_S = np.quantile(curves_BS, TAILS, axis=0)
        value_S = sigmoid(compute_S, self.initial, *center)
        return value_S, np.minimum(low_S, value_S), np.maximum(high_S, value_S)


def sigmoid(compute_S: Floats, initial: float, asymptote: float, steepness: float, midpoint: float) -> Floats:
    """R(C), see above; `compute_S` is positive."""
    return initial + (asymptote - initial) / (1 + (midpoint / compute_S) ** steepness)


def fit_sigmoid(
    compute_S: Floats, reward_S: Floats, initial: float, *, ceiling: float = 1.0, seed: int = 0
) -> SigmoidFit:
    """The least-squares curve with initial <= A <= `ceiling`, and intervals from `REFITS` refits.

    Refits see the curve plus residuals that are drawn anew; where neighbours are alike, in runs of about S^(1/3)
    points, so that noise which lasts is not taken for more evidence than it is (moving-block bootstrap, Kunsch 1989).
    Raises `ValueError` with fewer than `MIN_POINTS` points, compute that is not positive, or `initial` >= `ceiling`.
    """
    points = len(compute_S)
    if points < MIN_POINTS or len(reward_S) != points:
        raise ValueError(f"a curve needs at least {MIN_POINTS} points, has {points}")
    if not (np.isfinite(reward_S).all() and (compute_S > 0).all() and initial < ceiling):
        raise ValueError("a curve needs positive compute, finite rewards, and room above the initial reward")
    best = _fit(compute_S, reward_S, initial, ceiling, _starts(compute_S, reward_S, initial, ceiling))
    fitted_S = sigmoid(compute_S, initial, *best)
    residuals_S = reward_S - fitted_S
    residuals_S = (residuals_S - residuals_S.mean()) * np.sqrt(points / max(1, points - 3))
    alike = (residuals_S[1:] * residuals_S[:-1]).sum() > 2 / np.sqrt(points) * (residuals_S**2).sum()
    length, rng = round(points ** (1 / 3)) if alike else 1, np.random.default_rng(seed)
    refits: list[Floats] = []
    for _ in range(REFITS):
        starts = rng.integers(points - length + 1, size=-(-points // length))
        drawn_S = residuals_S[(starts[:, None] + np.arange(length)).ravel()[:points]]
        refits.append(_fit(compute_S, fitted_S + drawn_S, initial, ceiling, [best]))
    refits_B3 = np.stack(refits)
    low, high = np.quantile(refits_B3, TAILS, axis=0)
    asymptote, steepness, midpoint = (
        Estimate(value, min(value, a), max(value, b)) for value, a, b in np.stack([best, low, high], 1).tolist()
    )
    return SigmoidFit(initial, asymptote, steepness, midpoint, refits_B3)


def _starts(compute_S: Floats, reward_S: Floats, initial: float, ceiling: float) -> list[Floats]:
    """Where to look for the best curve: a grid, for the squared error has several valleys."""
    top = float(np.clip(np.quantile(reward_S, 0.9), initial + 1e-3, ceiling))
    midpoints = [*np.quantile(compute_S, [0.1, 0.3, 0.6]).tolist(), float(compute_S.max()) * 2]
    return [
        np.array([asymptote, steepness, midpoint])
        for asymptote in (top, (top + ceiling) / 2)
        for steepness in (0.7, 1.5, 4.0)
        for midpoint in midpoints
    ]


def _fit(compute_S: Floats, reward_S: Floats, initial: float, ceiling: float, starts: list[Floats]) -> Floats:
    """The best of the fits from all `starts`, in (A, log B, log Cmid) so that scales do not matter."""
    from scipy import optimize

    least_squares: Any = optimize.least_squares  # untyped in scipy

    logs = np.log(compute_S)
    low = np.array([initial, np.log(0.1), logs.min() - 3.0])
    high = np.array([ceiling, np.log(20.0), logs.max() + 5.0])

    def errors(inner: Floats) -> Floats:
        return sigmoid(compute_S, initial, inner[0], np.exp(inner[1]), np.exp(inner[2])) - reward_S

    def slopes(inner: Floats) -> Floats:
        steepness = np.exp(inner[1])
        share_S = 1 / (1 + np.exp(steepness * (inner[2] - logs)))
        bend_S = (inner[0] - initial) * share_S * (1 - share_S) * steepness
        return np.stack([share_S, bend_S * (logs - inner[2]), -bend_S], axis=1)

    found = [
        least_squares(errors, np.clip([start[0], *np.log(start[1:])], low + 1e-9, high - 1e-9), slopes, (low, high))
        for start in starts
    ]
    inner: Floats = min(found, key=lambda fit: float(fit.cost)).x
    return np.array([inner[0], *np.exp(inner[1:])])
