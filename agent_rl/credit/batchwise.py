"""Credit with a scale that all groups of a batch share, so that no task's luck sets its own learning rate.

The baseline stays the task's: a group that lost members to failures never borrows the batch's. Statistics count each
episode once, however many rows or tokens it has.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agent_rl.credit.estimator import Advantages, Float64s, centered, differ, rewards_of, standardized, to_episodes
from agent_rl.types import Group


def reinforce_pp(groups: Sequence[Group]) -> list[Advantages]:
    """A_i = (r_i - mean(r)) / std(r), both over all valid episodes of the batch, whatever their tasks.

    REINFORCE++ (arXiv:2501.03262), section 3.2, which averages over tokens instead: there a long episode moves the
    baseline of all others.
    """
    return _split(groups, standardized(_all(groups, [rewards_of(group) for group in groups])))


def reinforce_pp_baseline(groups: Sequence[Group]) -> list[Advantages]:
    """B_i = r_i - mean of its group; A_i = (B_i - mean(B)) / std(B) over the batch.

    REINFORCE++ with baseline (arXiv:2501.03262), section 3.3.
    """
    return _split(groups, standardized(_all(groups, [centered(rewards_of(group)) for group in groups])))


def lite_ppo(groups: Sequence[Group]) -> list[Advantages]:
    """A_i = (r_i - mean of its group) / std(r), the deviation of all rewards of the batch.

    Tricks or Traps? (arXiv:2508.08221), section 4.1: the group's mean with the batch's deviation. Use `token_mean`.
    """
    rewards_B = _all(groups, [rewards_of(group) for group in groups])
    scale = rewards_B.std(ddof=1) if differ(rewards_B) else 1.0
    return [to_episodes(group, centered(rewards_of(group)) / scale) for group in groups]


def _all(groups: Sequence[Group], per_group: Sequence[Float64s]) -> Float64s:
    return np.concatenate([*per_group, np.zeros(0)])


def _split(groups: Sequence[Group], advantages_B: Float64s) -> list[Advantages]:
    ends = np.cumsum([len(group.valid) for group in groups])[:-1] if groups else []
    parts = np.split(advantages_B, ends) if groups else []
    return [to_episodes(group, part) for group, part in zip(groups, parts, strict=True)]
