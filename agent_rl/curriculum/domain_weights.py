"""Domain-aware dynamic sampling (Dads) of RuleReasoner: more of the domains that are far from solved (2506.08672)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent_rl.config import Fraction, Positive
from agent_rl.curriculum.domains import Array, Outcomes, State, smoothed


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainWeights:
    """w(d) ~ exp(v(d) / temperature) + floor, where v(d) = max(0, target - r(d)) is how far the domain is.

    r(d) is a moving average of its mean reward, r_s = decay r_{s-1} + (1 - decay) mean_s, from its first mean on. The
    defaults are those of the paper. Domains that were not seen yet count as reward 0.
    """

    decay: Fraction = 0.5
    temperature: Positive = 0.5
    floor: float = 0.1
    target: float = 1.0

    def start(self, domains: int) -> State:
        """Nothing seen."""
        return {"reward_D": np.full(domains, np.nan)}

    def weights(self, state: State) -> Array:
        """The farther from the target, the more."""
        missing_D = np.maximum(0.0, self.target - np.nan_to_num(state["reward_D"]))
        weights_D = np.exp(missing_D / self.temperature) + self.floor
        return weights_D / weights_D.sum()

    def update(self, state: State, outcomes: Outcomes) -> State:
        """Moving averages."""
        mean_D = outcomes.means(outcomes.reward_E, len(state["reward_D"]))
        return {"reward_D": smoothed(state["reward_D"], mean_D, 1 - self.decay)}
