"""Where a critic meets groups. The training loop knows a `Valuation` and not which critic is behind it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from agent_rl.errors import ConfigError
from agent_rl.learner.base import PolicyLearner
from agent_rl.learner.critic import Critic
from agent_rl.learner.critic_config import CriticConfig
from agent_rl.learner.policy import load_policy
from agent_rl.learner.utterance_critic import UtteranceCritic, UtteranceCriticConfig
from agent_rl.store.journal import Journal
from agent_rl.store.replay import Replay
from agent_rl.types import Group, TrainingRow
from agent_rl.valuation.token import HeadValuation, TokenValuation
from agent_rl.valuation.utterance import UtteranceValuation

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from agent_rl.credit import CriticKind

__all__ = ["Surroundings", "Valuation", "open_valuation"]


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


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a critic can ask for: the policy it starts from, the one that learns, and what was played before."""

    model: PreTrainedModel
    learner: PolicyLearner
    open_journal: Callable[[], Journal]
    transform_group: Callable[[Group], Group]
    steps: int
    seed: int


@contextmanager
def open_valuation(
    kind: CriticKind | None, token: CriticConfig, utterance: UtteranceCriticConfig, around: Surroundings
) -> Generator[Valuation | None]:
    """The critic that an estimator asks for. Raises `ConfigError` when its checkpoint reads other tokens."""
    if kind is None:
        yield None
    elif kind == "token":
        learner = around.learner
        yield HeadValuation(learner, token) if learner.has_values else TokenValuation(_token_critic(token, around))
    else:
        options = utterance.for_run(around.steps * utterance.updates)
        critic = UtteranceCritic(_first_model(utterance, around.model), options, seed=around.seed)
        baseline = _token_critic(token, around) if utterance.token_baseline else None
        with around.open_journal() as journal:
            replay = Replay(journal, utterance.capacity, around.seed, around.transform_group)
            yield UtteranceValuation(critic, replay, around.learner.logprobs, baseline)


def _token_critic(config: CriticConfig, around: Surroundings) -> Critic:
    options = config.for_run(around.steps * config.minibatches * config.epochs)
    return Critic(copy.deepcopy(around.model), options, seed=around.seed)


def _first_model(config: UtteranceCriticConfig, policy: PreTrainedModel) -> PreTrainedModel:
    """A copy of the policy, or a checkpoint that understands the policy's tokens."""
    if config.checkpoint is None:
        return copy.deepcopy(policy)
    model, _ = load_policy(config.checkpoint, dtype=str(policy.dtype).removeprefix("torch."), device=str(policy.device))
    sizes = [m.config.get_text_config().vocab_size for m in (model, policy)]
    if sizes[0] != sizes[1]:
        raise ConfigError(
            f"The critic's checkpoint {config.checkpoint} has {sizes[0]} tokens, the policy {sizes[1]}: a critic reads "
            "the policy's token ids, so take a checkpoint with the same tokenizer."
        )
    return model
