"""What a step minimises: the policy loss with its corrections, and what is added to it. Knows no model and no row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from agent_rl.learner.config import ImitationLossConfig, LearnerConfig
from agent_rl.learner.imitation_losses import compares_with_old, get_imitation_loss
from agent_rl.learner.loss_result import LossResult, k3
from agent_rl.learner.losses import get_loss, sees_rows
from agent_rl.learner.low_probability import lp_reg
from agent_rl.learner.mismatch import compares_rows, get_correction
from agent_rl.learner.penalties import EXACT_DIVERGENCES, Divergence, get_divergence
from agent_rl.learner.proximal import interpolated
from agent_rl.learner.tensors import FrozenTokens, TrainedTokens


class Objective(Protocol):
    """A sum over trained tokens."""

    @property
    def whole_rows(self) -> bool:
        """Whether the term of a token depends on the log-probs of the others of its row; else any tokens will do."""
        ...

    @property
    def whole_vocabulary(self) -> bool:
        """Whether `of_distributions` has terms to add."""
        ...

    def __call__(self, tokens: TrainedTokens, logprobs: torch.Tensor, entropy: torch.Tensor) -> LossResult:
        """Of trained tokens, their log-probs and entropies (nats), shapes (K,)."""
        ...

    def of_distributions(self, tokens: TrainedTokens, logprobs_KV: torch.Tensor) -> LossResult:
        """Terms of the log-probs of the whole vocabulary, for any part of the tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Pull:
    """A frozen policy (`reference` or `teacher`) and how strongly, by which divergence, the policy is drawn to it."""

    to: str
    coefficient: float
    divergence: str
    term: Divergence

    @property
    def exact(self) -> bool:
        """Whether it is a sum over the vocabulary."""
        return self.divergence in EXACT_DIVERGENCES

    @property
    def as_reward(self) -> bool:
        """Whether it joins the advantages."""
        return self.divergence == "k1"

    def frozen(self, tokens: TrainedTokens) -> FrozenTokens:
        """What the frozen policy says of the tokens."""
        frozen = tokens.teacher if self.to == "teacher" else tokens.reference
        if frozen is None:
            raise ValueError(f"the {self.to}'s log-probs of these tokens are missing")
        return frozen


def pulls(config: LearnerConfig) -> list[Pull]:
    """What a learner is drawn to. Raises `UserError` for unknown divergences and options."""
    wanted = list[Pull]()
    if config.kl_coefficient:
        term = get_divergence(config.kl, config.kl_options)
        wanted.append(Pull("reference", config.kl_coefficient, config.kl, term))
    if (taught := config.distillation) is not None:
        term = get_divergence(taught.divergence, taught.options)
        wanted.append(Pull("teacher", taught.coefficient, taught.divergence, term))
    return wanted


class PolicyObjective:
    """The objective that a `LearnerConfig` describes. Raises `UserError` for unknown names and options."""

    def __init__(self, config: LearnerConfig) -> None:
        self._config = config
        self._loss = get_loss(config.loss, config.loss_options)
        self._correct = get_correction(config.correction, config.correction_options)
        self._pulls = pulls(config)
        interpolates = config.old_logprobs == "interpolate"
        self.whole_rows = sees_rows(config.loss) or (interpolates and compares_rows(config.correction))
        self.whole_vocabulary = any(pull.exact for pull in self._pulls)

    def __call__(self, tokens: TrainedTokens, logprobs: torch.Tensor, entropy: torch.Tensor) -> LossResult:
        """The weighted sum to differentiate. `mismatch_*` compares with the sampler's log-probs."""
        weights, rollout = tokens.weights_K, tokens.rollout_logprobs_K
        old, factors = self._proximal(tokens, logprobs)
        advantages = self._config.advantage_coefficient * tokens.advantages_K + self._rewards(tokens, old)
        corrected = weights * factors
        spans = {"documents": tokens.documents_K, "turns": tokens.turns_K}
        result = self._loss(logprobs, old, advantages, corrected, **spans)
        with torch.no_grad():
            measured = {
                "mismatch_abs": (weights * (logprobs - rollout).abs()).sum(),
                "mismatch_k3": (weights * k3(logprobs, rollout)).sum(),
                "correction": corrected.sum(),
                "entropy": (weights * entropy).sum(),
            }
            for pull in self._pulls:
                if not pull.exact:
                    distance = k3(pull.frozen(tokens).logprobs_K, logprobs)
                    measured[f"{pull.to}_kl"] = (weights * distance).sum()
        loss = result.loss + (weights * self._terms(tokens, logprobs)).sum()
        if self._config.entropy_coefficient:
            loss = loss - self._config.entropy_coefficient * (weights * entropy).sum()
        return LossResult(loss, {**result.metrics, **measured})

    def of_distributions(self, tokens: TrainedTokens, logprobs_KV: torch.Tensor) -> LossResult:
        """The exact divergences, which `*_kl` reports."""
        exact = {
            pull: (tokens.weights_K * pull.term(logprobs_KV, pull.frozen(tokens).distributions())).sum()
            for pull in self._pulls
            if pull.exact
        }
        loss = torch.stack([pull.coefficient * value for pull, value in exact.items()]).sum()
        return LossResult(loss, {f"{pull.to}_kl": value.detach() for pull, value in exact.items()})

    def _proximal(self, tokens: TrainedTokens, logprobs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The log-probs that ratios are taken against, and the corrections for the sampler's being different."""
        if tokens.proximal_shares_K is None:
            return tokens.old_logprobs_K, tokens.corrections_K
        old = interpolated(logprobs, tokens.rollout_logprobs_K, tokens.proximal_shares_K)
        return old, self._correct(old, tokens.rollout_logprobs_K, tokens.documents_K)

    def _rewards(self, tokens: TrainedTokens, old: torch.Tensor) -> torch.Tensor:
        """What joins the advantages: -coefficient (log p_old - log p_frozen) per token."""
        rewards = torch.zeros_like(old)
        for pull in self._pulls:
            if pull.as_reward:
                rewards = rewards - pull.coefficient * (old - pull.frozen(tokens).logprobs_K)
        return rewards

    def _terms(self, tokens: TrainedTokens, logprobs: torch.Tensor) -> torch.Tensor:
        """Penalties per token that need its log-prob only."""
        terms = torch.zeros_like(logprobs)
        for pull in self._pulls:
            if not (pull.exact or pull.as_reward):
                terms = terms + pull.coefficient * pull.term(logprobs, pull.frozen(tokens).logprobs_K)
        if self._config.lp_reg is not None and tokens.proxy_logprobs_K is not None:
            terms = terms + self._config.lp_reg.coefficient * lp_reg(logprobs, tokens.proxy_logprobs_K)
        return terms


class _Supervised:
    """An objective of single tokens and nothing else."""

    whole_rows = False
    whole_vocabulary = False

    def of_distributions(self, tokens: TrainedTokens, logprobs_KV: torch.Tensor) -> LossResult:
        """Nothing."""
        return LossResult(logprobs_KV.new_zeros(()))


class Likelihood(_Supervised):
    """The objective of supervised learning."""

    def __call__(self, tokens: TrainedTokens, logprobs: torch.Tensor, entropy: torch.Tensor) -> LossResult:
        """The weighted sum of -log p."""
        loss = -(tokens.weights_K * logprobs).sum()
        return LossResult(loss, {"entropy": (tokens.weights_K * entropy.detach()).sum()})


class Imitation(_Supervised):
    """The objective of tokens that are imitated beside reinforcement learning. Raises `UserError` for unknown names."""

    def __init__(self, config: ImitationLossConfig) -> None:
        self._coefficient = config.coefficient
        self._loss = get_imitation_loss(config.loss, config.options)
        self.compares_with_old = compares_with_old(config.loss)

    def __call__(self, tokens: TrainedTokens, logprobs: torch.Tensor, entropy: torch.Tensor) -> LossResult:
        """The weighted sum times the coefficient; `imitation_nll` is the plain -log p."""
        weights = tokens.weights_K
        loss = self._coefficient * (weights * self._loss(logprobs, tokens.old_logprobs_K)).sum()
        return LossResult(loss, {"imitation_nll": -(weights * logprobs.detach()).sum()})
