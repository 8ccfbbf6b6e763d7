"""What a step minimises: the policy loss with its corrections, and what is added to it. Knows no model and no row."""

from __future__ import annotations

from typing import Protocol

import torch

from agent_rl.learner.config import LearnerConfig
from agent_rl.learner.losses import LossResult, get_loss, k3, nll, sees_rows
from agent_rl.learner.penalties import get_divergence
from agent_rl.learner.tensors import TrainedTokens


class Objective(Protocol):
    """A sum over trained tokens."""

    @property
    def whole_rows(self) -> bool:
        """Whether the term of a token depends on the log-probs of the others of its row; else any tokens will do."""
        ...

    def __call__(self, tokens: TrainedTokens, logprobs: torch.Tensor, entropy: torch.Tensor) -> LossResult:
        """Of trained tokens, their log-probs and entropies (nats), shapes (K,)."""
        ...


class PolicyObjective:
    """The objective that a `LearnerConfig` describes. Raises `UserError` for unknown names and options."""

    def __init__(self, config: LearnerConfig) -> None:
        self._config = config
        self._loss = get_loss(config.loss, config.loss_options)
        self._divergence = get_divergence(config.kl)
        self.whole_rows = sees_rows(config.loss)

    def __call__(self, tokens: TrainedTokens, logprobs: torch.Tensor, entropy: torch.Tensor) -> LossResult:
        """The weighted sum to differentiate. `mismatch_*` compares with the sampler's log-probs."""
        weights, old, rollout = tokens.weights_K, tokens.old_logprobs_K, tokens.rollout_logprobs_K
        corrected = weights * tokens.corrections_K
        result = self._loss(logprobs, old, tokens.advantages_K, corrected, documents=tokens.documents_K)
        with torch.no_grad():
            measured = {
                "mismatch_abs": (weights * (logprobs - rollout).abs()).sum(),
                "mismatch_k3": (weights * k3(logprobs, rollout)).sum(),
                "correction": corrected.sum(),
                "entropy": (weights * entropy).sum(),
            }
        loss, metrics = result.loss, {**result.metrics, **measured}
        if self._config.entropy_coefficient:
            loss = loss - self._config.entropy_coefficient * (weights * entropy).sum()
        if tokens.reference_logprobs_K is not None:
            terms = self._divergence(logprobs, tokens.reference_logprobs_K)
            loss = loss + self._config.kl_coefficient * (weights * terms).sum()
            with torch.no_grad():
                metrics["reference_kl"] = (weights * k3(tokens.reference_logprobs_K, logprobs)).sum()
        return LossResult(loss, metrics)


class Likelihood:
    """The objective of supervised learning."""

    whole_rows = False

    def __call__(self, tokens: TrainedTokens, logprobs: torch.Tensor, entropy: torch.Tensor) -> LossResult:
        """The weighted sum of -log p."""
        result = nll(logprobs, tokens.weights_K)
        return LossResult(result.loss, {"entropy": (tokens.weights_K * entropy.detach()).sum()})
