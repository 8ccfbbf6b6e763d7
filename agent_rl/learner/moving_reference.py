"""References other than the policy that training began with: a soup of checkpoints, or weights that follow the policy.

Knows weights, of which each rank may hold a part; refuses to know what a reference is for.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from agent_rl.errors import ConfigError
from agent_rl.learner.config import ReferenceConfig
from agent_rl.learner.parts import copy_into
from agent_rl.learner.policy import load_policy


class MovingReference:
    """The weights of `reference`, which follow those of `policy` (`ReferenceConfig`). Both are cut alike, if at all."""

    def __init__(self, reference: PreTrainedModel, policy: PreTrainedModel, config: ReferenceConfig) -> None:
        self._models = (reference, policy)
        self._config = config
        self._weights = dict(reference.named_parameters())
        self._policy = list(policy.parameters())

    @torch.no_grad()
    def after(self, steps_before: int, steps: int) -> None:
        """A training step took the optimizer from `steps_before` to `steps`: mix weights, if it is time."""
        if steps // self._config.every == steps_before // self._config.every:
            return
        self._drop_whole()
        for own, theirs in zip(self._weights.values(), self._policy, strict=True):
            own.lerp_(theirs, self._config.follow)

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        """The weights. Live tensors."""
        return {name: weight.detach() for name, weight in self._weights.items()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Continue from `state`."""
        self._drop_whole()
        for name, weight in self._weights.items():
            copy_into(weight, state[name])

    def _drop_whole(self) -> None:
        """Shards that were gathered for a forward pass stay so until they are told: what changes would not be seen."""
        for model in self._models:
            for module in model.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()


@torch.no_grad()
def average_into(model: PreTrainedModel, checkpoints: tuple[str, ...]) -> None:
    """Average the weights of `model` with those of `checkpoints`, all equally: a soup (arXiv:2203.05482).

    Raises `ModelError`, and `ConfigError` when one of them has other weights.
    """
    weights = dict(model.named_parameters())
    for number, checkpoint in enumerate(checkpoints, 2):
        other = dict(load_policy(checkpoint, device=str(model.device))[0].named_parameters())
        if {name: w.shape for name, w in weights.items()} != {name: w.shape for name, w in other.items()}:
            raise ConfigError(f"{checkpoint!r} has not the policy's weights: their average means nothing.")
        for name, weight in weights.items():
            weight.lerp_(other[name].to(weight.dtype), 1 / number)
