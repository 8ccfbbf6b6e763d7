"""Credit with a scale that all groups of a batch share, so that no task's luck sets its own learning rate.

A baseline stays the task's: a group that lost members to failures never borrows the batch's. Statistics count each
episode once, however many rows or tokens it has.
"""

from __future__ import annotations

import numpy as np

from agent_rl.config import NonNegative
from agent_rl.credit.alike import Alike, whitened
from agent_rl.credit.episodes import Episodes
from agent_rl.credit.estimator import Float64s


def reinforce_pp(episodes: Episodes) -> Float64s:
    """A_i = (r_i - mean(r)) / std(r), both over all valid episodes of the batch, whatever their tasks.

    REINFORCE++ (arXiv:2501.03262), which (like verl) averages over tokens instead: there a long episode moves the
    baseline of all others. Its token-level KL penalty is a matter of the loss here.
    """
    return whitened(episodes.rewards_E)


def reinforce_pp_baseline(episodes: Episodes) -> Float64s:
    """B_i = r_i - mean of its group; A_i = B_i / std(B) over the batch. (The mean of B is 0.)

    REINFORCE++ with baseline (arXiv:2501.03262), and the batch-level normalisation of ScaleRL (arXiv:2510.13786).
    """
    centered_E = episodes.siblings.centered(episodes.rewards_E)
    return _over_deviation(centered_E, centered_E)


def lite_ppo(episodes: Episodes) -> Float64s:
    """A_i = (r_i - mean of its group) / std(r), the deviation of all rewards of the batch.

    Tricks or Traps? (arXiv:2508.08221): the group's mean with the batch's deviation. Use `token_mean`.
    """
    return _over_deviation(episodes.siblings.centered(episodes.rewards_E), episodes.rewards_E)


def oreal(episodes: Episodes, *, negative_weight: NonNegative = 0.5, at: float = 0.5) -> Float64s:
    """A_i = B_i T / T+ where r_i > at, else negative_weight B_i T / T-, with B_i of `rloo`.

    T, T+ and T- are the tokens of all episodes, of successes and of failures: under `token_mean` the loss is then a
    mean over the tokens of successes and, weighted apart, one over those of failures, however many there are of each.
    OREAL (arXiv:2502.06781) without its token-level reward model, as in its code (train_oreal.py), which also counts
    the tokens of groups that teach nothing, and has rewards 1 and -1.
    """
    won_E = episodes.rewards_E > at
    weight_E = np.where(won_E, 1.0, negative_weight)
    tokens_E = episodes.tokens_E.astype(np.float64)
    of_kind_E = np.where(won_E, tokens_E[won_E].sum(), tokens_E[~won_E].sum())
    return weight_E * episodes.siblings.leave_one_out(episodes.rewards_E) * tokens_E.sum() / np.maximum(1.0, of_kind_E)


def _over_deviation(values_E: Float64s, of_E: Float64s) -> Float64s:
    """A value of 0 stays exactly 0."""
    scale_E = Alike.all_of(len(of_E)).deviation(of_E)
    return values_E / np.where(scale_E > 0, scale_E, 1.0)
