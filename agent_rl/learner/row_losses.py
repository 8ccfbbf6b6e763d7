"""Policy losses whose ratio belongs to a whole row, or to a whole turn. Pure functions of 1-D tensors (K tokens).

The ratio of a span of tokens is that of its geometric mean, s = exp(mean of log r), or of their product. Spans are
numbered per token. In the token form that all of them have, each token keeps its own advantage and weight: value and
gradient are those of the published form where a span's advantages are equal and its weights are too (`sequence_mean`).
An episode in several rows has a ratio for each.
"""

from __future__ import annotations

import torch

from agent_rl.config import Positive
from agent_rl.learner.loss_result import LossResult, with_ratio_metrics


def gspo(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    *,
    documents: torch.Tensor,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
) -> LossResult:
    """PPO's clip with one ratio for a whole row: s = exp(mean of log r over its trained tokens).

    GSPO (arXiv:2507.18071), eq. 5 to 7, in its token form (eq. 13). Its clip is much narrower: s is a geometric mean.
    """
    return _clipped(logprobs, old_logprobs, advantages, weights, documents, clip_low, clip_high)


def turn_clip(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    *,
    turns: torch.Tensor,
    clip_low: float = 0.01,
    clip_high: float = 0.01,
) -> LossResult:
    """PPO's clip with one ratio for each turn: s = exp(mean of log r over the turn's tokens).

    Turn-level importance sampling (arXiv:2511.20718): finer than a ratio per row, steadier than one per token.
    """
    return _clipped(logprobs, old_logprobs, advantages, weights, turns, clip_low, clip_high)


def gmpo(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    *,
    documents: torch.Tensor,
    clip_low: float = 0.4,
    clip_high: float = 0.4,
) -> LossResult:
    """-sum w s A with s = exp(mean of the row's log r), each clipped to [-clip_low, clip_high] by its own sign of A.

    GMPO (arXiv:2507.20673): the geometric mean is not carried away by single tokens, so that the clip is wide.
    """
    log_ratio = logprobs - old_logprobs
    sign = torch.where(advantages < 0, -1.0, 1.0).to(log_ratio)
    clipped = sign * torch.minimum(sign * log_ratio, sign * log_ratio.clamp(-clip_low, clip_high))
    ratio = (span_means(clipped.detach(), documents) + clipped - clipped.detach()).exp()
    return with_ratio_metrics(-ratio * advantages, logprobs, old_logprobs, weights, clipped != log_ratio)


def topr(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    *,
    documents: torch.Tensor,
) -> LossResult:
    """-sum w c A log p; c = 1 where A >= 0, else sg(min(R, 1)), R = exp(sum of log r) of the whole row.

    Tapered off-policy REINFORCE (arXiv:2503.14286), section 3: good samples are imitated however old they are, bad ones
    fade as they become unlikely, which bounds the objective. Made for samples that are far off the policy.
    """
    row_ratio = span_sums((logprobs - old_logprobs).detach(), documents).clamp(max=0).exp()
    taper = torch.where(advantages < 0, row_ratio, torch.ones_like(row_ratio))
    return with_ratio_metrics(-taper * advantages * logprobs, logprobs, old_logprobs, weights, taper < 1)


def mirror(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    *,
    documents: torch.Tensor,
    temperature: Positive = 0.1,
) -> LossResult:
    """-A l + temperature / 2 l^2 with l = sum of log r of the whole row: least where l = A / temperature.

    Online policy mirror descent: Kimi k1.5 (arXiv:2501.12599), section 2.3.2. Nothing is clipped: the square pulls back
    what has moved, also on samples that are off the policy.
    """
    return _squared(logprobs, old_logprobs, advantages, weights, documents, temperature)


def turn_mirror(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    *,
    turns: torch.Tensor,
    temperature: Positive = 0.1,
) -> LossResult:
    """`mirror` with l = sum of log r of each turn: up to a constant temperature / 2 (A / temperature - l)^2.

    Direct Advantage Policy Optimization (arXiv:2412.18279): least squares of each step's scaled advantage.
    """
    return _squared(logprobs, old_logprobs, advantages, weights, turns, temperature)


def span_sums(values: torch.Tensor, spans: torch.Tensor) -> torch.Tensor:
    """For each token the sum of `values` over its span."""
    total = torch.zeros(int(spans.max()) + 1, dtype=values.dtype, device=values.device)
    return total.index_add(0, spans, values)[spans]


def span_means(values: torch.Tensor, spans: torch.Tensor) -> torch.Tensor:
    """For each token the mean of `values` over its span."""
    return span_sums(values, spans) / span_sums(torch.ones_like(values), spans)


def _squared(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    spans: torch.Tensor,
    temperature: float,
) -> LossResult:
    """l_t (temperature / 2 l - A) for each token t, which sum up over a span to -A l + temperature / 2 l^2."""
    log_ratio = logprobs - old_logprobs
    terms = log_ratio * (temperature / 2 * span_sums(log_ratio, spans) - advantages)
    return with_ratio_metrics(terms, logprobs, old_logprobs, weights)


def _clipped(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    spans: torch.Tensor,
    clip_low: float,
    clip_high: float,
) -> LossResult:
    """PPO's clip with the geometric mean of r over each span; gradients flow through the token's own log-prob."""
    ratio = (span_means((logprobs - old_logprobs).detach(), spans) + logprobs - logprobs.detach()).exp()
    unclipped = ratio * advantages
    objective = torch.minimum(unclipped, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)
    return with_ratio_metrics(-objective, logprobs, old_logprobs, weights, objective != unclipped)
