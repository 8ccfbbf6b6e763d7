"""Credit from the siblings of one task: each valid member's reward against a baseline made of the others'.

Knows rewards of whole episodes. Notation: r_i are the rewards of the G valid members of a group, A_i the one advantage
that every sampled token of member i gets.
"""

from __future__ import annotations

import numpy as np

from agent_rl.config import NonNegative, Positive
from agent_rl.credit.episodes import Episodes
from agent_rl.credit.estimator import Float64s


def grpo(episodes: Episodes, *, least_std: NonNegative = 0.0) -> Float64s:
    """A_i = (r_i - mean(r)) / std(r), with the sample standard deviation (as TRL and verl).

    DeepSeekMath (arXiv:2402.03300), section 4.1.2. No small number is added to the deviation: equal rewards are 0, and
    others are scaled exactly. A deviation below `least_std` counts as that, so that the noise of a judge stays noise.
    """
    return episodes.siblings.standardized(episodes.rewards_E, least_std)


def dr_grpo(episodes: Episodes) -> Float64s:
    """A_i = r_i - mean(r): GRPO without the division, which favours tasks that are almost always or never solved.

    Understanding R1-Zero-like training (arXiv:2503.20783), section 3.2. Its expected gradient is (G-1)/G of the
    policy's: a reward is part of its own baseline. (Its loss divides by a constant length: see `token_mean`.)
    """
    return episodes.siblings.centered(episodes.rewards_E)


def rloo(episodes: Episodes) -> Float64s:
    """A_i = r_i - mean of the other members' rewards = G/(G-1) (r_i - mean(r)): an unbiased baseline.

    Back to Basics (arXiv:2402.14740), section 2.2. With a loss that clips per token this is LOOP (arXiv:2502.01600).
    """
    return episodes.siblings.leave_one_out(episodes.rewards_E)


def pairwise(episodes: Episodes) -> Float64s:
    """A_i = (siblings that i beats - siblings that beat i) / (G-1): only the order of rewards counts.

    For judges whose scores rank better than they measure. It is the mean over all choices of the reference member of
    BRPO's advantage (Writing-Zero, arXiv:2506.00103), which draws one. With rewards of two values, 1 apart, it is RLOO.
    """
    return episodes.siblings.balance(episodes.rewards_E) / np.maximum(1, episodes.siblings.sizes - 1)


def opmd(episodes: Episodes, *, temperature: Positive = 1.0) -> Float64s:
    """A_i = r_i - b with b = temperature * log mean exp(r / temperature), the soft value of the task.

    Online policy mirror descent: Kimi k1.5 (arXiv:2501.12599), section 2.3.2, whose squared log-ratio is a matter of
    the loss (`mirror`), and which may take the mean for b, its limit for a high temperature (`dr_grpo`).
    """
    siblings, rewards_E = episodes.siblings, episodes.rewards_E
    best_E = siblings.max(rewards_E)
    soft_E = best_E + temperature * np.log(siblings.mean(np.exp((rewards_E - best_E) / temperature)))
    return np.where(siblings.deviation(rewards_E) > 0, rewards_E - soft_E, 0.0)


def asymre(episodes: Episodes, *, shift: float = -0.1) -> Float64s:
    """A_i = r_i - (mean(r) + shift). A negative shift pushes successes up more than failures down.

    Asymmetric REINFORCE for off-policy reinforcement learning (arXiv:2506.20520): with samples of another policy a
    baseline at or above the mean collapses the policy, one below is safe. Equal rewards give -shift, not 0.
    """
    return episodes.siblings.centered(episodes.rewards_E) - shift


def w_reinforce(
    episodes: Episodes, *, positive_weight: NonNegative = 0.1, negative_weight: NonNegative = 1.0, at: float = 0.5
) -> Float64s:
    """A_i = positive_weight where r_i > at, else -negative_weight; no baseline.

    The Surprising Effectiveness of Negative Reinforcement (arXiv:2506.01347): NSR is `positive_weight` 0, PSR is
    `negative_weight` 0, W-REINFORCE the default here. Equal rewards are not 0: solved tasks are still learnt.
    """
    return np.where(episodes.rewards_E > at, positive_weight, -negative_weight)
