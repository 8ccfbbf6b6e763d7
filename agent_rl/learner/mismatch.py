"""Corrections for samples that another policy drew: an older one, or the same one in another engine's arithmetic.

Each gives a factor per token, without gradient, from the log-probs of the policy that the update starts from (`old`)
and those of the sampler (`rollout`): rho = exp(old - rollout). The loss's weights are multiplied by it, so that PPO's
ratio stays that of the update (decoupled PPO, see `proximal`). With the sampler's own log-probs as `old`, rho is 1.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch

from agent_rl.config import bind_options
from agent_rl.errors import not_found
from agent_rl.learner.row_losses import span_means

Correction: TypeAlias = Callable[..., torch.Tensor]
"""`factor(old, rollout, **options)`, all of shape (K,). One that looks at whole rows takes `documents` too."""


def none(old: torch.Tensor, rollout: torch.Tensor) -> torch.Tensor:
    """1: the mismatch is measured, not corrected."""
    return torch.ones_like(old)


def importance(old: torch.Tensor, rollout: torch.Tensor) -> torch.Tensor:
    """rho: exact and unbounded (decoupled PPO)."""
    return (old - rollout).exp()


def truncate(old: torch.Tensor, rollout: torch.Tensor, *, at: float = 2.0) -> torch.Tensor:
    """min(rho, at): truncated importance sampling, for the engine's mismatch (Yao et al., 2025; verl's TIS)."""
    return (old - rollout).exp().clamp(max=at)


def mask(old: torch.Tensor, rollout: torch.Tensor, *, low: float = 0.5, high: float = 5.0) -> torch.Tensor:
    """rho within [low, high], 0 outside: tokens on which the two disagree teach nothing. IcePop (arXiv:2510.18855)."""
    rho = (old - rollout).exp()
    return torch.where((rho >= low) & (rho <= high), rho, torch.zeros_like(rho))


def mask_rows(
    old: torch.Tensor, rollout: torch.Tensor, *, documents: torch.Tensor, low: float = 0.5, high: float = 2.0
) -> torch.Tensor:
    """rho, but 0 for all of a row whose geometric mean of rho is outside [low, high]: masked sequences (MIS)."""
    log_rho = old - rollout
    mean = span_means(log_rho, documents).exp()
    return torch.where((mean >= low) & (mean <= high), log_rho.exp(), torch.zeros_like(log_rho))


CORRECTIONS: dict[str, Correction] = {
    "none": none,
    "importance": importance,
    "truncate": truncate,
    "mask": mask,
    "mask_rows": mask_rows,
}


def get_correction(name: str, options: Mapping[str, Any] | None = None) -> Correction:
    """The correction called `name` with its options bound, called as `factor(old, rollout, documents)` in any case.

    Raises `NotFoundError` with the nearest name, `ConfigError` for a wrong option.
    """
    if name not in CORRECTIONS:
        raise not_found("correction", name, CORRECTIONS)
    factor = partial(CORRECTIONS[name], **bind_options(f"the correction {name}", CORRECTIONS[name], options or {}))

    def with_documents(old: torch.Tensor, rollout: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
        return factor(old, rollout, documents=documents) if compares_rows(name) else factor(old, rollout)

    return with_documents


def compares_rows(name: str) -> bool:
    """Whether the correction called `name` looks at whole rows, not at each token by itself."""
    return "documents" in inspect.signature(CORRECTIONS[name]).parameters
