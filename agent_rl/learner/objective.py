"""What a step minimises: the policy loss with its corrections, and what is added to it. Knows no model and no row."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch

from agent_rl.learner.config import LearnerConfig
from agent_rl.learner.losses import LossResult, get_loss, k3, nll
from agent_rl.learner.mismatch import get_correction
from agent_rl.learner.penalties import get_divergence
from agent_rl.learner.tensors import TrainedTokens

Objective: TypeAlias = Callable[[TrainedTokens, torch.Tensor, torch.Tensor], LossResult]
"""Of trained tokens, their log-probs and entropies, shapes (K,)."""


class PolicyObjective:
    """The objective that a `LearnerConfig` describes. Raises `UserError` for unknown names and options."""

    def __init__(self, config: LearnerConfig) -> None:
        self._config = config
        self._loss = get_loss(config.loss, config.loss_options)
        self._correct = get_correction(config.correction, config.correction_options)
        self._divergence = get_divergence(config.kl)

    def __call__(self, tokens: TrainedTokens, logprobs: torch.Tensor, entropy: torch.Tensor) -> LossResult:
        """The weighted sum to differentiate. `mismatch_*` compares with the sampler's log-probs."""
        weights, old, rollout = tokens.weights_K, tokens.old_logprobs_K, tokens.rollout_logprobs_K
        with torch.no_grad():
            factor = self._correct(old, rollout, tokens.documents_K)
        result = self._loss(logprobs, old, tokens.advantages_K, weights * factor, documents=tokens.documents_K)
        with torch.no_grad():
            mismatch = {
                "mismatch_abs": (weights * (logprobs - rollout).abs()).sum(),
                "mismatch_k3": (weights * k3(logprobs, rollout)).sum(),
                "correction": (weights * factor).sum(),
            }
        loss = result.loss - self._config.entropy_coefficient * (weights * entropy).sum()
        metrics = {**result.metrics, **mismatch}
        if tokens.reference_logprobs_K is not None:
            terms = self._divergence(logprobs, tokens.reference_logprobs_K)
            loss = loss + self._config.kl_coefficient * (weights * terms).sum()
            with torch.no_grad():
                metrics["reference_kl"] = (weights * k3(tokens.reference_logprobs_K, logprobs)).sum()
        return LossResult(loss, metrics)


def likelihood(tokens: TrainedTokens, logprobs: torch.Tensor, entropy: torch.Tensor) -> LossResult:
    """The objective of supervised learning."""
    return nll(logprobs, tokens.weights_K)
