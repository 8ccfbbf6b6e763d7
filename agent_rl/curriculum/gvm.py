"""GVM: episodes of each prompt such that the gradient's variance is least for a budget (arXiv:2505.02391)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent_rl.config import Fraction, NonNegative
from agent_rl.curriculum.domains import Array, Outcomes, State
from agent_rl.types import Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Gvm:
    """n_i ~ G_i / sqrt(p_i + alpha / p_i^(beta - 1)), with alpha and beta of the reference code.

    Of n episodes of a prompt, about n p are accepted, and the gradient of their log-likelihood has a variance of about
    G^2 / (n p) at most: with alpha = 0 these sizes minimise its sum over prompts. `alpha` and `beta` take episodes away
    from prompts that hardly anything solves.

    The paper plays some episodes more to measure p and G; here earlier steps tell, each worth `decay` of the next one.
    p is (accepted + 1/2) / (episodes + 1), so that a prompt that failed a few times is not given up. G is the mean over
    what was accepted, or over all episodes where nothing was.
    """

    alpha: NonNegative = 1e-3
    beta: NonNegative = 2.0
    decay: Fraction = 0.8

    def start(self, domains: int) -> State:
        """Nothing seen: sums of episodes, of successes, and of the scores of both."""
        return {name: np.zeros(domains) for name in ("episodes_D", "accepted_D", "score_D", "accepted_score_D")}

    def update(self, state: State, outcomes: Outcomes) -> State:
        """Domains that this step lacks keep their sums."""
        domains = len(state["episodes_D"])
        new = {
            "episodes_D": np.ones_like(outcomes.success_E),
            "accepted_D": outcomes.success_E,
            "score_D": outcomes.score_E,
            "accepted_score_D": outcomes.success_E * outcomes.score_E,
        }
        seen_D = np.bincount(outcomes.domain_E, minlength=domains) > 0
        kept_D = np.where(seen_D, self.decay, 1.0)
        return {
            name: kept_D * state[name] + np.bincount(outcomes.domain_E, values_E, minlength=domains)
            for name, values_E in new.items()
        }

    def ratios(self, state: State) -> Array:
        """What the sizes of each domain's groups are in proportion to (D,); what was not seen yet gets the mean."""
        episodes_D, accepted_D = state["episodes_D"], state["accepted_D"]
        p_D = (accepted_D + 0.5) / (episodes_D + 1)
        accepted_score_D = state["accepted_score_D"] / np.where(accepted_D > 0, accepted_D, 1.0)
        any_score_D = state["score_D"] / np.where(episodes_D > 0, episodes_D, 1.0)
        norm_D = np.where(accepted_D > 0, accepted_score_D, any_score_D)
        ratio_D = norm_D / np.sqrt(p_D + self.alpha / p_D ** (self.beta - 1))
        seen_D = episodes_D > 0
        return np.where(seen_D, ratio_D, ratio_D[seen_D].mean() if seen_D.any() else 1.0)


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
