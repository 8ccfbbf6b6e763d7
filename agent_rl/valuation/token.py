"""The token critic meets groups: the values of their episodes, and rows with the targets that it learns from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from agent_rl.credit.estimator import Values
from agent_rl.credit.gae import critic_targets
from agent_rl.credit.rows import row_groups, to_rows
from agent_rl.learner.critic import Critic
from agent_rl.types import FloatArray, Group, Segment


class TokenValuation:
    """V of every prefix. The values are those of before learning: its targets are made of them."""

    def __init__(self, critic: Critic) -> None:
        self._critic = critic
        self.alone_steps = critic.config.alone_steps

    def assess(self, groups: Sequence[Group], step: int) -> tuple[list[Values], dict[str, float]]:
        """The values, and a report of `fit`."""
        values = group_values(self._critic, groups)
        return values, fit(self._critic, groups, values)

    def state_dict(self) -> dict[str, Any]:
        """Live tensors: write them before the next step."""
        return self._critic.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, bit for bit."""
        self._critic.load_state_dict(state)


def group_values(critic: Critic, groups: Sequence[Group]) -> list[Values]:
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
