"""Divergences from a frozen policy: a reference to stay near, or a teacher to come near. Pure functions.

Sampled ones (`DIVERGENCES`) are estimated at the tokens that the policy itself sampled, from 1-D tensors (K trained
tokens). Each gives a term per token whose gradient, over samples of the policy, is that of the divergence; l is log p -
log p_ref. (A term whose value is an unbiased estimate need not have it: the gradient of l is zero on average. See
arXiv:2506.09477.) Exact ones (`EXACT_DIVERGENCES`) sum over the vocabulary: (K, V) log-probs in, (K,) terms out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch
from torch.nn.functional import softplus

from agent_rl.config import bind_options
from agent_rl.errors import ConfigError, not_found
from agent_rl.learner import loss_result

Divergence: TypeAlias = Callable[..., torch.Tensor]
"""`term(logprobs, reference_logprobs, **options)`: shapes (K,), of an exact one (K, V), to (K,)."""


def k1(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """sg(l) log p, with the gradient of KL(policy || reference).

    As a learner's penalty -sg(l) joins the advantages instead (a reward for each token), so that the loss's ratio, clip
    and correction hold for it too: RLHF's KL reward (arXiv:2203.02155, eq. 2), and on-policy distillation when the
    reference is a teacher (Thinking Machines, 2025).
    """
    return (logprobs - reference).detach() * logprobs


def k2(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """l^2 / 2: its gradient l grad log p is exactly that of KL(policy || reference). Schulman (2020)."""
    return (logprobs - reference).square() / 2


def k3(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """exp(-l) - 1 + l: GRPO's penalty (arXiv:2402.03300, eq. 4). A good estimate of KL(policy || reference).

    Its gradient is that of KL(reference || policy) instead: gentle where the policy is far off.
    """
    return loss_result.k3(reference, logprobs)


def forward(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """-sg(p_ref / p - 1) log p: KL(reference || policy), which keeps all that the reference does (arXiv:2509.07430).

    The 1 changes no mean, and leaves no noise where the two agree.
    """
    return -(reference - logprobs).detach().expm1() * logprobs


def js(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """sg(log(2 p / (p + p_ref)) / 2) log p: the Jensen-Shannon divergence, bounded and between the two."""
    weight = (math.log(2) - softplus(reference - logprobs)).detach() / 2
    return weight * logprobs


def exact_reverse(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """KL(policy || reference): goes for what the reference does most. MiniLLM (arXiv:2306.08543), eq. 1, per token."""
    return (logprobs.exp() * (logprobs - reference)).sum(-1)


def exact_forward(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """KL(reference || policy): covers all that the reference does. Supervised distillation on the policy's tokens."""
    return (reference.exp() * (reference - logprobs)).sum(-1)


def exact_js(logprobs: torch.Tensor, reference: torch.Tensor, *, beta: float = 0.5) -> torch.Tensor:
    """beta KL(reference || m) + (1 - beta) KL(policy || m) with m = beta p_ref + (1 - beta) p, 0 < beta < 1.

    Generalised Jensen-Shannon divergence: GKD (arXiv:2306.13649), eq. 1. Divided by beta, or by 1 - beta, it goes to
    the forward KL as beta goes to 0, and to the reverse KL as it goes to 1.
    """
    if not 0 < beta < 1:
        raise ConfigError(f"exact_js needs 0 < beta < 1, not {beta}: its ends are exact_forward and exact_reverse.")
    middle = torch.logaddexp(reference + math.log(beta), logprobs + math.log1p(-beta))
    return beta * exact_forward(middle, reference) + (1 - beta) * exact_reverse(logprobs, middle)


DIVERGENCES: dict[str, Divergence] = {"k1": k1, "k2": k2, "k3": k3, "forward": forward, "js": js}
EXACT_DIVERGENCES: dict[str, Divergence] = {
    "exact_reverse": exact_reverse,
    "exact_forward": exact_forward,
    "exact_js": exact_js,
}
"""A new divergence is one function and one line in either."""


def get_divergence(name: str, options: Mapping[str, Any] | None = None) -> Divergence:
    """The divergence called `name`. Raises `NotFoundError` with the nearest name, `ConfigError` for a wrong option."""
    known = {**DIVERGENCES, **EXACT_DIVERGENCES}
    if name not in known:
        raise not_found("divergence", name, known)
    return partial(known[name], **bind_options(f"the divergence {name}", known[name], options or {}))
