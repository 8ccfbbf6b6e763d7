"""The proximal policy of decoupled PPO, whose log-probs ratios are taken against. Pure functions of 1-D tensors.

Decoupled PPO (arXiv:2110.00641; AReaL, arXiv:2505.24298) trusts a region around the policy that an update
starts from, however old the samples are. Its log-probs cost a forward pass (`recompute`), are put on a level with the
sampler's (`rollout`), or are interpolated (`interpolate`) as here.
"""

from __future__ import annotations

import torch


def shares(ages: torch.Tensor, progress: float) -> torch.Tensor:
    """How far the way from the sampler's to the current policy had come when the update started: a number per token.

    `ages` are in weight versions, from the one that sampled a token to the one that the update starts from; `progress`
    is the share of the update that is done, in versions too: age / (age + progress). That is A-3PO (arXiv:2512.06547):
    (d - 1) / d with a staleness of d versions after a whole one. Before the first optimizer step the policy is the
    proximal one: 1, whatever the age.
    """
    return ages / (ages + progress) if progress else torch.ones_like(ages)


def interpolated(logprobs: torch.Tensor, rollout_logprobs: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """log p_rollout + share (log p - log p_rollout), without gradient.

    Exact where log-probs move in a straight line from version to version.
    """
    return rollout_logprobs + shares * (logprobs.detach() - rollout_logprobs)
