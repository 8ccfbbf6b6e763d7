"""The token critic meets groups: the values of their episodes, and rows with the targets that it learns from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from agent_rl.credit.estimator import Advantages, Values
from agent_rl.credit.gae import critic_targets
from agent_rl.credit.rows import row_groups, to_rows, with_returns
from agent_rl.learner.base import PolicyLearner
from agent_rl.learner.critic import Critic
from agent_rl.learner.critic_config import CriticConfig
from agent_rl.types import BoolArray, FloatArray, Group, Segment, TrainingRow


class TokenValuation:
    """V of every prefix. The values are those of before learning: its targets are made of them."""

    def __init__(self, critic: Critic) -> None:
        self._critic = critic
        self.alone_steps = critic.config.alone_steps

    def assess(self, groups: Sequence[Group], step: int) -> tuple[list[Values], dict[str, float]]:
        """The values, and a report of `fit`."""
        values = group_values(self._critic, groups)
        return values, fit(self._critic, groups, values)

    def prepare_rows(
        self, rows: list[TrainingRow], groups: Sequence[Group], values: Sequence[Values]
    ) -> list[TrainingRow]:
        """As they are: the policy knows nothing of this critic."""
        return rows

    def state_dict(self) -> dict[str, Any]:
        """Live tensors: write them before the next step."""
        return self._critic.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, bit for bit."""
        self._critic.load_state_dict(state)


class HeadValuation:
    """V of every prefix by a head on the policy itself, which learns in the policy's own steps."""

    alone_steps = 0

    def __init__(self, learner: PolicyLearner, config: CriticConfig) -> None:
        self._learner = learner
        self._config = config

    def assess(self, groups: Sequence[Group], step: int) -> tuple[list[Values], dict[str, float]]:
        """The values, and how much of the returns they explain: 1 - Var(G - V) / Var(G)."""
        values = group_values(self._learner, groups)
        masks = [s.response_mask_T for group in groups for t in group.valid for s in t.segments]
        said, returns = (
            _at(masks, laid_out) for laid_out in ([v.tokens for v in values], self._returns(groups, values))
        )
        variance = float(returns.var()) if returns.size else 0.0
        return values, {"explained_variance": 1 - float((returns - said).var()) / variance if variance else 0.0}

    def prepare_rows(
        self, rows: list[TrainingRow], groups: Sequence[Group], values: Sequence[Values]
    ) -> list[TrainingRow]:
        """With the lambda-returns that the head learns."""
        return with_returns(rows, groups, self._returns(groups, values))

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the head is part of the learner's state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing."""

    def _returns(self, groups: Sequence[Group], values: Sequence[Values]) -> list[Advantages]:
        return critic_targets(groups, values, gamma=self._config.gamma, lam=self._config.lam)


def _at(masks: Sequence[BoolArray], laid_out: Sequence[Advantages]) -> FloatArray:
    """The values at sampled tokens, one after the other."""
    rows = [row for members in laid_out for segments in members for row in segments]
    return np.concatenate([np.zeros(0, np.float32), *(row[mask] for row, mask in zip(rows, masks, strict=True))])


def group_values(critic: Critic | PolicyLearner, groups: Sequence[Group]) -> list[Values]:
    """What the critic says of each group's valid episodes, in one pass over all of their rows.

    The state after the last turn is seen up to that turn's last token: what the environment said to it is in no row.
    """
    segments = [s for group in groups for episode in group.valid for s in episode.segments]
    values = iter(zip(segments, critic.values([s.token_ids_T for s in segments]), strict=True))
    return [_of_group(group, values) for group in groups]


def _of_group(group: Group, values: Iterator[tuple[Segment, FloatArray]]) -> Values:
    tokens: list[tuple[FloatArray, ...]] = []
    final_G = np.zeros(len(group.valid), np.float32)
    for member, episode in enumerate(group.valid):
        of_episode = [next(values) for _ in episode.segments]
        tokens.append(tuple(values_T1[:-1] * segment.response_mask_T for segment, values_T1 in of_episode))
        if of_episode:
            final_G[member] = of_episode[-1][1][-1]
    return Values(tuple(tokens), final_G)


def fit(critic: Critic, groups: Sequence[Group], values: Sequence[Values]) -> dict[str, float]:
    """Move the critic towards the lambda-returns of the episodes, every sampled token weighing the same."""
    targets = critic_targets(groups, values, gamma=critic.config.gamma, lam=critic.config.lam)
    rows = to_rows(groups, targets, "token_mean")
    return critic.step(rows, row_groups(groups)) if rows else {}
