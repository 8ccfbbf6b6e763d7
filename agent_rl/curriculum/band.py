"""Online difficulty filtering: tasks that the policy solves sometimes, neither never nor always (arXiv:2504.03380)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent_rl.config import Fraction
from agent_rl.curriculum.domains import Array, Outcomes, State, smoothed


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Domains whose estimated success is in [low, high], all alike; `explore` of the draws goes to all domains.

    The paper keeps prompts whose success rate p lies in a balanced band, low = 1 - high, since the improvement that
    a prompt is sure to bring grows with p (1 - p). It measures p with the episodes that it then trains on, as
    `reward_band` does; this one draws by what earlier visits say (a moving average), so that no episode is thrown away.
    Domains that were not seen yet are in the band. `explore` finds those that came into it.
    """

    low: Fraction = 0.2
    high: Fraction = 0.8
    decay: Fraction = 0.5
    explore: Fraction = 0.1

    def start(self, domains: int) -> State:
        """Nothing seen."""
        return {"success_D": np.full(domains, np.nan)}

    def weights(self, state: State) -> Array:
        """Uniform in the band, and a little everywhere; uniform where the band is empty."""
        success_D = state["success_D"]
        inside_D = np.isnan(success_D) | ((success_D >= self.low) & (success_D <= self.high))
        if not inside_D.any():
            inside_D = np.ones_like(inside_D)
        return (1 - self.explore) * inside_D / inside_D.sum() + self.explore / len(success_D)

    def update(self, state: State, outcomes: Outcomes) -> State:
        """Moving averages."""
        mean_D = outcomes.means(outcomes.success_E, len(state["success_D"]))
        return {"success_D": smoothed(state["success_D"], mean_D, 1 - self.decay)}
