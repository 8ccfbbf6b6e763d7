"""GVM: episodes of each prompt such that the gradient's variance is least for a budget (arXiv:2505.02391)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent_rl.credit.estimator import NonNegative
from agent_rl.curriculum.domains import Array, Outcomes, State
from agent_rl.types import Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Gvm:
    """n_i ~ G_i / sqrt(p_i + alpha / p_i^(beta - 1)), and 0 where nothing succeeds (section 3, and the reference code).

    Of n episodes of a prompt, about n p are accepted, and the gradient of their log-likelihood has a variance of about
    G^2 / (n p) at most: with alpha = 0 these sizes minimise its sum over prompts. `alpha` and `beta` take episodes away
    from prompts that hardly anything solves. p and G are those of the domain's latest step.
    """

    alpha: NonNegative = 1e-3
    beta: NonNegative = 2.0

    def start(self, domains: int) -> State:
        """Nothing seen."""
        return {"success_D": np.full(domains, np.nan), "score_D": np.full(domains, np.nan)}

    def update(self, state: State, outcomes: Outcomes) -> State:
        """Success, and the score of what succeeded, of the domains that this step has."""
        domains = len(state["success_D"])
        success_D = outcomes.means(outcomes.success_E, domains)
        accepted_D = outcomes.means(outcomes.success_E * outcomes.score_E, domains)
        score_D = np.divide(accepted_D, success_D, out=np.zeros(domains), where=np.nan_to_num(success_D) > 0)
        seen_D = ~np.isnan(success_D)
        return {
            "success_D": np.where(seen_D, success_D, state["success_D"]),
            "score_D": np.where(seen_D, score_D, state["score_D"]),
        }

    def ratios(self, state: State) -> Array:
        """What the sizes of each domain's groups are in proportion to (D,); what was not seen yet gets the mean."""
        ratio_D = np.full(len(state["success_D"]), np.nan)
        seen_D = ~np.isnan(state["success_D"])
        p, G = state["success_D"][seen_D], state["score_D"][seen_D]
        solved = np.where(p > 0, p, 1.0)
        ratio_D[seen_D] = np.where(p > 0, G / np.sqrt(solved + self.alpha / solved ** (self.beta - 1)), 0.0)
        known = ratio_D[seen_D]
        return np.where(seen_D, ratio_D, known.mean() if known.size else 1.0)


def allocate(ratios_N: Array, budget: int, least: int) -> NDArray[np.int64]:
    """Sizes (N,) that sum to `budget`, in proportion to the ratios but none below `least`.

    Of all such sizes these minimise the sum of ratio^2 / size, up to rounding by largest remainders.
    """
    ratios = ratios_N if ratios_N.sum() > 0 else np.ones_like(ratios_N)
    free_N = np.ones(len(ratios), np.bool_)  # the largest ratio always is
    while True:
        share_N = ratios * (budget - least * np.count_nonzero(~free_N)) / ratios[free_N].sum()
        short_N = free_N & (share_N < least)
        if not short_N.any():
            break
        free_N &= ~short_N
    sizes_N = np.where(free_N, share_N, float(least))
    whole_N = np.floor(sizes_N).astype(np.int64)
    largest = np.argsort(whole_N - sizes_N, kind="stable")[: budget - int(whole_N.sum())]
    whole_N[largest] += 1
    return whole_N


def score_norm(episode: Trajectory) -> float:
    """The norm of the episode's score, grad log p of what was sampled, as seen from the logits.

    A token's score is e_a - p, whose mean square is 1 - sum p^2, the mean of 1 - p_a. Scores of different tokens are
    uncorrelated, so that the squares add up. The paper takes the gradient of parameters (its code: of one matrix);
    this one is in the rollout's own log-probs.
    """
    squares = [-np.expm1(segment.rollout_logprobs_T[segment.response_mask_T]).sum() for segment in episode.segments]
    return float(np.sqrt(max(0.0, sum(float(square) for square in squares))))
