"""Policy losses that look at each trained token by itself, and the registry of all. Pure functions of 1-D tensors.

Each loss is a plain sum of `weight * loss` over the K trained tokens, and so is each metric: both add up over batches
to the value of the whole minibatch, because the weights of a minibatch sum to 1. r = exp(logprobs - old_logprobs), and
sg is a stopped gradient: `Tensor.detach`. Nothing here knows models, rows or optimizers; what corrects for another
sampler is in `mismatch`, penalties are in `penalties`, losses of whole rows and turns in `row_losses`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch

from agent_rl.config import Positive, bind_options
from agent_rl.errors import not_found
from agent_rl.learner.loss_result import LossResult, with_ratio_metrics
from agent_rl.learner.row_losses import gmpo, gspo, mirror, topr, turn_clip, turn_mirror

PolicyLoss: TypeAlias = Callable[..., LossResult]
"""`loss(logprobs, old_logprobs, advantages, weights, **options)`, all of shape (K,).

`old_logprobs` are those of the policy that the update starts from. A loss that looks at more than one token takes
`documents` or `turns` too: the number of the row, or of the turn, that each token belongs to. Any other may be given
the tokens of a batch in parts.
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
    return with_ratio_metrics(-objective, logprobs, old_logprobs, weights, objective != unclipped)


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
    ratio = (logprobs - old_logprobs).exp().detach()
    weight = ratio.clamp(1 - clip_low, 1 + clip_high)
    return with_ratio_metrics(-weight * advantages * logprobs, logprobs, old_logprobs, weights, weight != ratio)


def sapo(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    *,
    positive_temperature: float = 1.0,
    negative_temperature: float = 1.05,
) -> LossResult:
    """-sum w (4 / t) sigmoid(t (r - 1)) A: a soft clip, whose slope is 1 at r = 1 and fades on both sides of it.

    SAPO (arXiv:2511.20347). t is `positive_temperature` where A > 0, else `negative_temperature`: the higher it is, the
    sooner an off-policy token fades. No token is clipped, so that `clip_fraction` is 0.
    """
    ratio = (logprobs - old_logprobs).exp()
    t = torch.where(advantages > 0, positive_temperature, negative_temperature).to(ratio)
    gate = 4 / t * torch.sigmoid(t * (ratio - 1))
    return with_ratio_metrics(-gate * advantages, logprobs, old_logprobs, weights)


def reinforce(
    logprobs: torch.Tensor, old_logprobs: torch.Tensor, advantages: torch.Tensor, weights: torch.Tensor
) -> LossResult:
    """-sum w A log p, whatever the samples' age: the plain policy gradient (Williams, 1992).

    Off-policy samples bias it; with a low baseline (`asymre`) it still improves (arXiv:2506.20520).
    """
    return with_ratio_metrics(-advantages * logprobs, logprobs, old_logprobs, weights)


def nft(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    *,
    least: Positive = 1.0,
) -> LossResult:
    """-sum w A log r where A >= 0, else -sum w (1 + A) log max_v((1 + A r) / (1 + A), least).

    Negative-aware fine-tuning (arXiv:2505.18116), eq. 10: maximum likelihood of good answers, and of bad ones under the
    policy that is left of the old one without the good. With rewards 0 and 1 and `dr_grpo`, A is 1 - q or -q where q is
    the share of successes: the prompt's weight is then the paper's 1 - q. max_v(x, c) is sg(max(x, c) - x) + x; as in
    the authors' code 1 - q is at least 0.02. `clip_fraction` is the share of bad tokens that `least` holds.
    """
    log_ratio = logprobs - old_logprobs
    left = (1 + advantages).clamp(min=0.02)
    likelihood = 1 + advantages / left * log_ratio.expm1()  # (1 + A r) / (1 + A)
    held = (advantages < 0) & (likelihood < least)
    bounded = likelihood + (likelihood.clamp(min=least) - likelihood).detach()
    terms = torch.where(advantages < 0, -left * bounded.log(), -advantages * log_ratio)
    return with_ratio_metrics(terms, logprobs, old_logprobs, weights, held)


LOSSES: dict[str, PolicyLoss] = {
    "ppo_clip": ppo_clip,
    "cispo": cispo,
    "sapo": sapo,
    "reinforce": reinforce,
    "nft": nft,
    "gspo": gspo,
    "turn_clip": turn_clip,
    "gmpo": gmpo,
    "topr": topr,
    "mirror": mirror,
    "turn_mirror": turn_mirror,
}
"""A new loss is one function and one line here."""


def get_loss(name: str, options: Mapping[str, Any] | None = None) -> PolicyLoss:
    """The loss called `name` with its options bound, called with `documents` and `turns` in any case.

    Raises `NotFoundError` with the nearest name, `ConfigError` for a wrong option.
    """
    if name not in LOSSES:
        raise not_found("loss", name, LOSSES)
    loss = LOSSES[name]
    bound = partial(loss, **bind_options(f"the loss {name}", loss, options or {}))
    wanted = inspect.signature(loss).parameters.keys()

    def with_spans(*tensors: torch.Tensor, **spans: torch.Tensor) -> LossResult:
        return bound(*tensors, **{span: numbers for span, numbers in spans.items() if span in wanted})

    return with_spans


def sees_rows(name: str) -> bool:
    """Whether the loss called `name` looks at whole rows or turns, not at each token by itself."""
    return bool({"documents", "turns"} & inspect.signature(LOSSES[name]).parameters.keys())
