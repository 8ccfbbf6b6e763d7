"""Where a critic meets groups. The training loop knows a `Valuation` and not which critic is behind it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from agent_rl.learner.critic import Critic
from agent_rl.learner.critic_config import CriticConfig
from agent_rl.learner.learner import Learner
from agent_rl.types import Group, TrainingRow
from agent_rl.valuation.token import HeadValuation, TokenValuation

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from agent_rl.credit import CriticKind

__all__ = ["HeadValuation", "TokenValuation", "Valuation", "make_valuation"]


class Valuation(Protocol):
    """A critic as the training loop knows it. In the first `alone_steps` training steps the policy waits for it."""

    alone_steps: int

    def assess(self, groups: Sequence[Group], step: int) -> tuple[Sequence[Any], dict[str, float]]:
        """What the groups of training step `step` are worth, as the estimator wants it, and a report of learning.

        Blocking. A critic learns from the groups in the same call: before or after it values them, as it needs.
        """
        ...

    def prepare_rows(
        self, rows: list[TrainingRow], groups: Sequence[Group], values: Sequence[Any]
    ) -> list[TrainingRow]:
        """The policy's rows of the groups, with what a value head on the policy needs."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs. Live tensors: write them before the next step."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, bit for bit. Raises `ConfigError` when it belongs to another critic."""
        ...


def make_valuation(
    kind: CriticKind | None, model: PreTrainedModel, config: CriticConfig, learner: Learner, *, steps: int, seed: int
) -> Valuation | None:
    """The critic that an estimator asks for, for a run of `steps` training steps: starts from `model`, or is a head of
    the learner's.
    """
    if kind is None:
        return None
    if learner.value_head is not None:
        return HeadValuation(learner, config)
    options = config.for_run(steps * config.minibatches * config.epochs)
    return TokenValuation(Critic(copy.deepcopy(model), options, seed=seed))
