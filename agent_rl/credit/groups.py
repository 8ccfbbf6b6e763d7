"""Credit from the siblings of one task: each valid member's reward against a baseline made of the others.

Knows rewards of whole episodes. Notation: `rewards_G` are those of the G valid members, A_i the one advantage that
every sampled token of member i gets.
"""

from __future__ import annotations

import numpy as np

from agent_rl.credit.estimator import Advantages, centered, leave_one_out, rewards_of, standardized, to_episodes
from agent_rl.types import Group


def grpo(group: Group) -> Advantages:
    """A_i = (r_i - mean(r)) / std(r), with the sample standard deviation (as TRL and verl).

    DeepSeekMath (arXiv:2402.03300), section 4.1.2.
    """
    return to_episodes(group, standardized(rewards_of(group)))


def dr_grpo(group: Group) -> Advantages:
    """A_i = r_i - mean(r): GRPO without the division, which favours tasks that are almost always or never solved.

    Understanding R1-Zero-like training (arXiv:2503.20783), section 3.2.
    """
    return to_episodes(group, centered(rewards_of(group)))


def rloo(group: Group) -> Advantages:
    """A_i = r_i - mean of the other members' rewards = G/(G-1) (r_i - mean(r)): an unbiased baseline.

    Back to Basics (arXiv:2402.14740), section 2.2. With a loss that clips per token this is LOOP (arXiv:2502.01600).
    """
    return to_episodes(group, leave_one_out(rewards_of(group)))


def opmd(group: Group, *, temperature: float = 1.0) -> Advantages:
    """A_i = r_i - b with b = temperature * log mean exp(r / temperature), the soft value of the task.

    Online policy mirror descent: Kimi k1.5 (arXiv:2501.12599), section 2.3.2, which divides by temperature in the loss
    and may take the mean for b, its limit for a high temperature (`dr_grpo`). Off-policy samples keep it sound.
    """
    rewards_G = rewards_of(group)
    if not centered(rewards_G).any():
        return to_episodes(group, np.zeros_like(rewards_G))
    scaled = rewards_G / temperature
    log_mean = scaled.max() + np.log(np.mean(np.exp(scaled - scaled.max())))
    return to_episodes(group, rewards_G - temperature * log_mean)


def asymre(group: Group, *, shift: float = -0.1) -> Advantages:
    """A_i = r_i - (mean(r) + shift). A negative shift pushes successes up more than failures down.

    Asymmetric REINFORCE for off-policy reinforcement learning (arXiv:2506.20520), section 4: with samples of another
    policy a baseline above the mean collapses the policy, one below is safe. Equal rewards give -shift, not 0.
    """
    rewards_G = rewards_of(group)
    return to_episodes(group, rewards_G - (rewards_G.mean() + shift if rewards_G.size else 0.0))


def w_reinforce(
    group: Group, *, positive_weight: float = 0.1, negative_weight: float = 1.0, at: float = 0.5
) -> Advantages:
    """A_i = positive_weight where r_i > at, else -negative_weight; no baseline.

    The Surprising Effectiveness of Negative Reinforcement (arXiv:2506.01347), section 3: NSR is `positive_weight` 0,
    PSR is `negative_weight` 0, W-REINFORCE the default here. Equal rewards are not 0: solved tasks are still learnt.
    """
    rewards_G = rewards_of(group)
    return to_episodes(group, np.where(rewards_G > at, positive_weight, -negative_weight))
