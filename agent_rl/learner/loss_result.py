"""What a loss gives back, and what all of them report: how far the policy has moved from where the update started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True, slots=True)
class LossResult:
    """The loss to differentiate (scalar) and detached weighted sums to report."""

    loss: torch.Tensor
    metrics: Mapping[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])


def k3(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Unbiased, never negative estimate of KL(reference || policy) per token sampled from `reference`.

    Schulman, "Approximating KL divergence" (2020): (r - 1) - log r with r = p / p_reference.
    """
    log_ratio = logprobs - reference
    return log_ratio.expm1() - log_ratio


def with_ratio_metrics(
    terms: torch.Tensor,
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    weights: torch.Tensor,
    clipped: torch.Tensor | None = None,
) -> LossResult:
    """The weighted sum of a policy loss's terms per token; `clipped` are those whose gradient a clip changed."""
    with torch.no_grad():
        log_ratio = logprobs - old_logprobs
        metrics = {
            "ratio": (weights * log_ratio.exp()).sum(),
            "clip_fraction": torch.zeros_like(weights).sum() if clipped is None else (weights * clipped).sum(),
            "approx_kl": (weights * k3(logprobs, old_logprobs)).sum(),
        }
    return LossResult((weights * terms).sum(), metrics)
