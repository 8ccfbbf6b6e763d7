"""DUMP: upper confidence bounds on how much each distribution of tasks can still teach (arXiv:2504.09710)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from agent_rl.config import Positive
from agent_rl.curriculum.domains import Array, Outcomes, State, softmax


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """UCB(d) = L(d) + sqrt(2 ln(n + 1) / (n_d + 1)), drawn with p(d) ~ exp(UCB(d) / temperature).

    L(d) is the mean |advantage| of the latest `window` episodes of the domain, n_d counts all of its episodes and n
    those of all domains. The defaults are those of the reference code.
    """

    window: Annotated[int, Field(ge=1)] = 300
    temperature: Positive = 0.1

    def start(self, domains: int) -> State:
        """Nothing seen. `latest_DW` is a ring of the latest |advantages|."""
        return {"latest_DW": np.full((domains, self.window), np.nan), "count_D": np.zeros(domains)}

    def weights(self, state: State) -> Array:
        """The softmax of the bounds."""
        latest_DW, count_D = state["latest_DW"], state["count_D"]
        seen_D = np.maximum(1, np.minimum(count_D, self.window))
        learnability_D = np.nansum(latest_DW, axis=1) / seen_D
        bound_D = learnability_D + np.sqrt(2 * np.log(count_D.sum() + 1) / (count_D + 1))
        return softmax(bound_D / self.temperature)

    def update(self, state: State, outcomes: Outcomes) -> State:
        """The step's episodes push out the oldest."""
        latest_DW, count_D = state["latest_DW"].copy(), state["count_D"].copy()
        for domain, advantage in zip(outcomes.domain_E, outcomes.advantage_E, strict=True):
            latest_DW[domain, int(count_D[domain]) % self.window] = advantage
            count_D[domain] += 1
        return {"latest_DW": latest_DW, "count_D": count_D}
