"""Losses over the trained tokens of a packed batch. Pure functions of 1-D tensors (K trained tokens).

Each loss is a plain sum of `weight * loss`, and so is each metric: both add up over batches to the value of the whole
minibatch, because the weights of a minibatch sum to 1. Nothing here knows models, rows or optimizers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch

from agent_rl.errors import not_found


@dataclass(frozen=True, slots=True)
class LossResult:
    """The loss to differentiate (scalar) and detached weighted sums to report."""

    loss: torch.Tensor
    metrics: Mapping[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])


class PolicyLoss(Protocol):
    """A loss of the policy's log-probs. `old_logprobs` are those of the policy that the update starts from."""

    def __call__(
        self,
        logprobs: torch.Tensor,
        old_logprobs: torch.Tensor,
        advantages: torch.Tensor,
        weights: torch.Tensor,
        *,
        clip_low: float,
        clip_high: float,
    ) -> LossResult:
        """All tensors are (K,)."""
        ...


def ppo_clip(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> LossResult:
    """-sum w min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) with r = exp(logprobs - old_logprobs).

    PPO (arXiv:1707.06347), eq. 7; a `clip_high` above `clip_low` is DAPO's clip-higher (arXiv:2503.14476), section 3.1.
    `clip_fraction` is the share of tokens whose gradient the clip removed.
    """
    ratio = (logprobs - old_logprobs).exp()
    unclipped = ratio * advantages
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high) * advantages
    loss = -(weights * torch.minimum(unclipped, clipped)).sum()
    with torch.no_grad():
        metrics = {
            "ratio": (weights * ratio).sum(),
            "clip_fraction": (weights * (clipped < unclipped)).sum(),
            "approx_kl": (weights * k3(logprobs, old_logprobs)).sum(),
        }
    return LossResult(loss, metrics)


def nll(logprobs: torch.Tensor, weights: torch.Tensor) -> LossResult:
    """-sum w log p: maximum likelihood, for supervised warm starts."""
    return LossResult(-(weights * logprobs).sum())


def k3(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Unbiased, never negative estimate of KL(reference || policy) per token sampled from `reference`.

    Schulman, "Approximating KL divergence" (2020): (r - 1) - log r with r = p / p_reference.
    """
    log_ratio = logprobs - reference
    return log_ratio.expm1() - log_ratio


LOSSES: dict[str, PolicyLoss] = {
    "ppo_clip": ppo_clip,
}
"""A new loss is one function and one line here."""


def get_loss(name: str) -> PolicyLoss:
    """The loss called `name`. Raises `NotFoundError` with the nearest name."""
    if name not in LOSSES:
        raise not_found("loss", name, LOSSES)
    return LOSSES[name]
