"""Weakness-driven replay: what the policy keeps failing at, or gets worse at, comes again (SwS, arXiv:2506.08989)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from agent_rl.config import Fraction
from agent_rl.curriculum.domains import Array, Outcomes, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Weakness:
    """`replay` of the draws goes to weak domains, the rest to all, alike.

    Weak is what SwS calls a failed case: over the visits, success never reaches `ceiling`, and its trend
    is negative. SwS then has problems written that resemble them: `Curriculum.weak_tasks` are what to show a proposer.
    """

    replay: Fraction = 0.5
    ceiling: Fraction = 0.5
    visits: Annotated[int, Field(ge=2)] = 4

    def start(self, domains: int) -> State:
        """No visit. `success_DV` has the latest last."""
        return {"success_DV": np.full((domains, self.visits), np.nan)}

    def weights(self, state: State) -> Array:
        """Uniform, and weak domains more often."""
        weak_D = weak(state["success_DV"], self.ceiling)
        if not weak_D.any():
            return np.full(len(weak_D), 1 / len(weak_D))
        return (1 - self.replay) / len(weak_D) + self.replay * weak_D / weak_D.sum()

    def update(self, state: State, outcomes: Outcomes) -> State:
        """A group is a visit."""
        success_DV = state["success_DV"].copy()
        for group in dict.fromkeys(outcomes.group_E.tolist()):
            of_group_E = outcomes.group_E == group
            domain = outcomes.domain_E[of_group_E][0]
            success_DV[domain, :-1] = success_DV[domain, 1:]
            success_DV[domain, -1] = outcomes.success_E[of_group_E].mean()
        return {"success_DV": success_DV}


def weak(success_DV: Array, ceiling: float = 0.5) -> NDArray[np.bool_]:
    """F(x) = 1[max_t a_t < ceiling and slope of a_t < 0] for each domain, by least squares over its visits.

    Visits that did not happen are NaN, and none is weak before its second. What always fails has slope 0: it is not
    weak, and would teach nothing.
    """
    seen_DV = ~np.isnan(success_DV)
    visits_D = np.maximum(1, seen_DV.sum(axis=1, keepdims=True))
    times_DV = np.where(seen_DV, np.arange(success_DV.shape[1]), 0.0)
    centred_DV = np.where(seen_DV, times_DV - times_DV.sum(axis=1, keepdims=True) / visits_D, 0.0)
    known_DV = np.where(seen_DV, success_DV, 0.0)
    falling_D = (centred_DV * known_DV).sum(axis=1) < -1e-12
    return falling_D & (known_DV.max(axis=1) < ceiling)
