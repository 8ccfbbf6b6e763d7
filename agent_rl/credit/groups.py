"""Credit from the siblings of one task: each valid member's reward against a baseline made of the others.

Knows rewards and response masks. Refuses to know turns, tokens' ids, batches and losses. Notation: `rewards_G` are
the rewards of the G valid members, A_i the one advantage that every sampled token of member i gets.

Only `group.valid` counts: a member lost to an infrastructure failure changes neither mean nor spread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from agent_rl.types import FloatArray, Group

Advantages: TypeAlias = tuple[tuple[FloatArray, ...], ...]
"""`advantages[i][s]` is `advantages_T` of segment `s` of `group.valid[i]`; 0 outside sampled tokens."""

Estimator: TypeAlias = Callable[[Group], Advantages]

ROUNDING = 1e-9
"""Rewards are sums of floats: relative differences below this are rounding. Dividing by them would invent a signal."""


def has_signal(group: Group) -> bool:
    """Whether the valid members' rewards differ. A group without signal has only zero advantages (DAPO's filter)."""
    rewards_G = _rewards(group)
    return rewards_G.size > 1 and bool(np.ptp(rewards_G) > ROUNDING * np.abs(rewards_G).max())


def grpo(group: Group) -> Advantages:
    """A_i = (r_i - mean(r)) / std(r), with the sample standard deviation (as TRL and verl).

    DeepSeekMath (arXiv:2402.03300), section 4.1.2.
    """
    rewards_G = _rewards(group)
    if not has_signal(group):
        return _spread(group, np.zeros_like(rewards_G))
    return _spread(group, (rewards_G - rewards_G.mean()) / rewards_G.std(ddof=1))


def dr_grpo(group: Group) -> Advantages:
    """A_i = r_i - mean(r): GRPO without the division, which favours tasks that are almost always or never solved.

    Understanding R1-Zero-like training (arXiv:2503.20783), section 3.2.
    """
    rewards_G = _rewards(group)
    if not has_signal(group):
        return _spread(group, np.zeros_like(rewards_G))
    return _spread(group, rewards_G - rewards_G.mean())


def rloo(group: Group) -> Advantages:
    """A_i = r_i - mean of the other members' rewards = G/(G-1) (r_i - mean(r)): an unbiased baseline.

    Back to Basics (arXiv:2402.14740), section 2.2 (REINFORCE leave-one-out).
    """
    rewards_G = _rewards(group)
    if not has_signal(group):
        return _spread(group, np.zeros_like(rewards_G))
    return _spread(group, (rewards_G - rewards_G.mean()) * rewards_G.size / (rewards_G.size - 1))


def _rewards(group: Group) -> NDArray[np.float64]:
    return np.array([trajectory.reward for trajectory in group.valid], dtype=np.float64)


def _spread(group: Group, advantages_G: NDArray[np.float64]) -> Advantages:
    """Give every sampled token of member i the advantage A_i."""
    return tuple(
        tuple(segment.response_mask_T.astype(np.float32) * np.float32(advantage) for segment in trajectory.segments)
        for trajectory, advantage in zip(group.valid, advantages_G, strict=True)
    )
