"""What a step finds out about its minibatches before the first update: all that must not move with the policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from agent_rl.learner.config import LearnerConfig
from agent_rl.learner.frozen_policy import FrozenPolicy
from agent_rl.learner.logprobs import Precision, trained_logprobs, trained_proxies
from agent_rl.learner.low_probability import unlikely
from agent_rl.learner.mismatch import get_correction
from agent_rl.learner.proximal import shares
from agent_rl.learner.tensors import PackedTensors
from agent_rl.learner.value_head import ValueHead, packed_values


class Preparation:
    """Old log-probs, corrections, Lp-Reg's proxies, old values, what frozen policies say: before the first update."""

    def __init__(
        self,
        model: PreTrainedModel,
        config: LearnerConfig,
        frozen: Mapping[str, FrozenPolicy],
        temperature: float,
        value_head: ValueHead | None,
    ) -> None:
        self._model = model
        self._config = config
        self._frozen = frozen
        self._temperature = temperature
        self._precision = Precision.of(config)
        self._value_head = value_head
        self._correct = get_correction(config.correction, config.correction_options)

    def __call__(self, batches: Sequence[PackedTensors]) -> list[PackedTensors]:
        """The batches of one minibatch."""
        if self._config.old_logprobs == "recompute":
            batches = [self._corrected(batch) for batch in self._with_old(batches)]
        if self._value_head is not None and self._value_head.config.loss == "clipped":
            batches = [self._with_old_values(batch, self._value_head) for batch in batches]
        return [self._with_frozen(batch, exact=False) for batch in batches]

    def with_old(self, batch: PackedTensors) -> PackedTensors:
        """With the policy's own log-probs."""
        old_K, _ = trained_logprobs(self._model, batch, self._temperature, self._precision)
        return replace(batch, trained=replace(batch.trained, old_logprobs_K=old_K))

    def with_distributions(self, batch: PackedTensors) -> PackedTensors:
        """With what exact divergences need, for as long as a batch is differentiated: it is large."""
        return self._with_frozen(batch, exact=True)

    def _with_old(self, batches: Sequence[PackedTensors]) -> list[PackedTensors]:
        """With Lp-Reg's proxies, from the same forward pass, if they are wanted."""
        options = self._config.lp_reg
        if options is None:
            return [self.with_old(batch) for batch in batches]
        found = [trained_proxies(self._model, b, self._temperature, options.min_p, self._precision) for b in batches]
        logprobs = torch.cat([old_K for old_K, _ in found])
        advantages = torch.cat([batch.trained.advantages_K for batch in batches])
        chosen = unlikely(logprobs, advantages, options.share).split([len(old_K) for old_K, _ in found])
        return [
            replace(
                batch,
                trained=replace(
                    batch.trained,
                    old_logprobs_K=old_K,
                    proxy_logprobs_K=torch.where(chosen_K, proxies_K, -torch.inf),
                ),
            )
            for batch, (old_K, proxies_K), chosen_K in zip(batches, found, chosen, strict=True)
        ]

    def _corrected(self, batch: PackedTensors) -> PackedTensors:
        """With corrections for the sampler's log-probs being different."""
        tokens = batch.trained
        factors_K = self._correct(tokens.old_logprobs_K, tokens.rollout_logprobs_K, tokens.documents_K)
        return replace(batch, trained=replace(tokens, corrections_K=factors_K))

    def _with_old_values(self, batch: PackedTensors, head: ValueHead) -> PackedTensors:
        values_K = packed_values(self._model, head, batch)
        return replace(batch, trained=replace(batch.trained, old_values_K=values_K))

    def _with_frozen(self, batch: PackedTensors, *, exact: bool) -> PackedTensors:
        said = {name: policy(batch) for name, policy in self._frozen.items() if policy.exact is exact}
        return replace(batch, trained=replace(batch.trained, **said)) if said else batch


def with_shares(batch: PackedTensors, version: int, progress: float) -> PackedTensors:
    """For interpolated log-probs: the update starts from weight `version`, and `progress` of it is done."""
    tokens = batch.trained
    shares_K = shares(version - tokens.weight_versions_K, progress)
    return replace(batch, trained=replace(tokens, proximal_shares_K=shares_K))
