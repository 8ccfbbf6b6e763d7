"""Policy losses over the trained tokens of a packed batch. Pure functions of 1-D tensors (K trained tokens).

Each loss is a plain sum of `weight * loss`, and so is each metric: both add up over batches to the value of the whole
minibatch, because the weights of a minibatch sum to 1. r = exp(logprobs - old_logprobs). Nothing here knows models,
rows or optimizers; what corrects for another sampler is in `mismatch`, penalties are in `penalties`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import torch

from agent_rl.config import bind_options
from agent_rl.errors import not_found


@dataclass(frozen=True, slots=True)
class LossResult:
    """The loss to differentiate (scalar) and detached weighted sums to report."""

    loss: torch.Tensor
    metrics: Mapping[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])


PolicyLoss: TypeAlias = Callable[..., LossResult]
"""`loss(logprobs, old_logprobs, advantages, weights, **options)`, all of shape (K,).

`old_logprobs` are those of the policy that the update starts from. A loss that looks at whole rows takes `documents`
too: the number of the row of each token. Any other may be given the tokens of a batch in parts.
"""


def ppo_clip(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float = 0.0,
) -> LossResult:
    """-sum w min(r A, clip(r, 1 - clip_low, 1 + clip_high) A); where A < 0 at least dual_clip A, if that is not 0.

    PPO (arXiv:1707.06347), eq. 7; a `clip_high` above `clip_low` is DAPO's clip-higher (arXiv:2503.14476), section 3.1;
    dual clip (arXiv:1912.09729), eq. 5, about 3, bounds what a bad action that has become likely can do.
    `clip_fraction` is the share of tokens whose gradient a clip removed.
    """
    ratio = (logprobs - old_logprobs).exp()
    unclipped = ratio * advantages
    objective = torch.minimum(unclipped, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)
    if dual_clip:
        objective = torch.where(advantages < 0, torch.maximum(objective, dual_clip * advantages), objective)
    return LossResult(
        -(weights * objective).sum(), _ratio_metrics(logprobs, old_logprobs, weights, objective != unclipped)
    )


def cispo(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    *,
    clip_low: float = 1.0,
    clip_high: float = 4.0,
) -> LossResult:
    """-sum w sg(clip(r, 1 - clip_low, 1 + clip_high)) A log p: the weight is clipped, no token loses its gradient.

    CISPO: MiniMax-M1 (arXiv:2506.13585), eq. 4, there without a lower clip, as here; the choice of ScaleRL
    (arXiv:2510.13786).
    """
    with torch.no_grad():
        ratio = (logprobs - old_logprobs).exp()
        weight = ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = -(weights * weight * advantages * logprobs).sum()
    return LossResult(loss, _ratio_metrics(logprobs, old_logprobs, weights, weight != ratio))


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

    GSPO (arXiv:2507.18071), eq. 5 to 7, in its token form (eq. 13), whose value and gradient are those of the sequence
    form where a row's advantages are equal. Its clip is much narrower: s is a geometric mean. Use `sequence_mean`.
    """
    log_ratio = logprobs - old_logprobs
    count = torch.zeros(int(documents.max()) + 1, dtype=log_ratio.dtype, device=log_ratio.device)
    mean = torch.zeros_like(count).index_add(0, documents, log_ratio.detach())
    count = count.index_add(0, documents, torch.ones_like(log_ratio)).clamp(min=1)
    of_row = (mean / count)[documents]
    ratio = (of_row + logprobs - logprobs.detach()).exp()
    unclipped = ratio * advantages
    objective = torch.minimum(unclipped, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)
    return LossResult(
        -(weights * objective).sum(), _ratio_metrics(logprobs, old_logprobs, weights, objective != unclipped)
    )


def reinforce(
    logprobs: torch.Tensor, old_logprobs: torch.Tensor, advantages: torch.Tensor, weights: torch.Tensor
) -> LossResult:
    """-sum w A log p, whatever the samples' age: the plain policy gradient (Williams, 1992).

    Off-policy samples bias it; with a low baseline (`asymre`) it still improves (arXiv:2506.20520).
    """
    loss = -(weights * advantages * logprobs).sum()
    return LossResult(
        loss, _ratio_metrics(logprobs, old_logprobs, weights, torch.zeros_like(weights, dtype=torch.bool))
    )


def _ratio_metrics(
    logprobs: torch.Tensor, old_logprobs: torch.Tensor, weights: torch.Tensor, clipped: torch.Tensor
) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        log_ratio = logprobs - old_logprobs
        return {
            "ratio": (weights * log_ratio.exp()).sum(),
            "clip_fraction": (weights * clipped).sum(),
            "approx_kl": (weights * k3(logprobs, old_logprobs)).sum(),
        }


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
    "cispo": cispo,
    "gspo": gspo,
    "reinforce": reinforce,
}
"""A new loss is one function and one line here."""


def get_loss(name: str, options: Mapping[str, Any] | None = None) -> PolicyLoss:
    """The loss called `name` with its options bound, called with `documents` in any case.

    Raises `NotFoundError` with the nearest name, `ConfigError` for a wrong option.
    """
    if name not in LOSSES:
        raise not_found("loss", name, LOSSES)
    loss = LOSSES[name]
    bound = partial(loss, **bind_options(f"the loss {name}", loss, options or {}))
    if sees_rows(name):
        return bound

    def without_documents(*tensors: torch.Tensor, documents: torch.Tensor) -> LossResult:
        return bound(*tensors)

    return without_documents


def sees_rows(name: str) -> bool:
    """Whether the loss called `name` looks at whole rows, which it says by taking `documents`."""
    return "documents" in inspect.signature(LOSSES[name]).parameters
