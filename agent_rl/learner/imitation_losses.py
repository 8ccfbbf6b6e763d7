"""Losses of tokens that somebody else chose: demonstrations, or the policy's own successes. Pure functions.

Each gives one term per token from 1-D tensors (K trained tokens); the caller weighs them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch

from agent_rl.config import bind_options
from agent_rl.errors import not_found

ImitationLoss: TypeAlias = Callable[..., torch.Tensor]
"""`term(logprobs, **options)`, shapes (K,). One that takes `old_logprobs` gets the policy's before the update too."""


def nll(logprobs: torch.Tensor) -> torch.Tensor:
    """-log p: maximum likelihood."""
    return -logprobs


def rl_plus(logprobs: torch.Tensor, *, old_logprobs: torch.Tensor, gamma: float = 0.5) -> torch.Tensor:
    """-sg(1 - p)^gamma 2 p / (p_old + p_demonstrator): what the policy would hardly have done weighs most.

    RL-PLUS (arXiv:2508.00222): multiple importance sampling over the policy and the demonstrator, whose unknown
    probability is taken half way between p_old and 1, and its exploration-based advantage.
    """
    old = old_logprobs.exp()
    demonstrator = (old + 1) / 2
    surprise = (1 - logprobs.detach().exp()).clamp(min=0) ** gamma
    return -surprise * 2 * logprobs.exp() / (old + demonstrator)


def shaped(logprobs: torch.Tensor, *, gamma: float = 0.1) -> torch.Tensor:
    """-p / (p + gamma): its slope in log p, gamma p / (p + gamma)^2, is highest at p = gamma.

    LUFFY's shaping (arXiv:2504.14945), which Critique-GRPO (arXiv:2506.03106) gives to refinements: tokens that the
    policy would rarely sample are learnt, those that it samples anyway, and those that it never would, hardly.
    """
    probabilities = logprobs.exp()
    return -probabilities / (probabilities + gamma)


IMITATION_LOSSES: dict[str, ImitationLoss] = {"nll": nll, "rl_plus": rl_plus, "shaped": shaped}
"""A new loss is one function and one line here."""


def get_imitation_loss(name: str, options: Mapping[str, Any] | None = None) -> ImitationLoss:
    """The loss called `name` with its options bound, called as `term(logprobs, old_logprobs)` in any case.

    Raises `NotFoundError` with the nearest name, `ConfigError` for a wrong option.
    """
    if name not in IMITATION_LOSSES:
        raise not_found("imitation loss", name, IMITATION_LOSSES)
    loss = IMITATION_LOSSES[name]
    bound = partial(loss, **bind_options(f"the imitation loss {name}", loss, options or {}))

    def with_old(logprobs: torch.Tensor, old_logprobs: torch.Tensor) -> torch.Tensor:
        return bound(logprobs, old_logprobs=old_logprobs) if compares_with_old(name) else bound(logprobs)

    return with_old


def compares_with_old(name: str) -> bool:
    """Whether the loss called `name` takes the policy's log-probs before the update, which cost a forward pass."""
    return "old_logprobs" in inspect.signature(IMITATION_LOSSES[name]).parameters
