"""SEC, self-evolving curriculum: a bandit whose reward is what a step teaches (arXiv:2505.14970)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent_rl.config import Fraction, Positive
from agent_rl.curriculum.domains import Array, Outcomes, State, softmax


@dataclass(frozen=True, slots=True, kw_only=True)
class Sec:
    """Q_{t+1}(c) = a r_t(c) + (1 - a) Q_t(c) (TD(0), eq. 1), drawn with p(c) ~ exp(Q_t(c) / temperature).

    r_t(c) is the mean |advantage| of the domain's episodes in step t (eq. 3): under GRPO with rewards 0 and 1 it is
    2 sqrt(p (1 - p)), most where half of the episodes succeed. Q starts at 0; domains that a step lacks keep theirs.
    """

    learning_rate: Fraction = 0.5
    temperature: Positive = 0.3

    def start(self, domains: int) -> State:
        """Q of 0."""
        return {"q_D": np.zeros(domains)}

    def weights(self, state: State) -> Array:
        """Boltzmann's."""
        return softmax(state["q_D"] / self.temperature)

    def update(self, state: State, outcomes: Outcomes) -> State:
        """TD(0)."""
        q_D = state["q_D"]
        reward_D = outcomes.means(outcomes.advantage_E, len(q_D))
        return {"q_D": np.where(np.isnan(reward_D), q_D, q_D + self.learning_rate * (np.nan_to_num(reward_D) - q_D))}
