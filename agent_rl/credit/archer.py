"""Credit by an utterance-level critic: one advantage per turn, which a baseline may spread over its tokens."""

from __future__ import annotations

import numpy as np

from agent_rl.credit.alike import whitened
from agent_rl.credit.episodes import Episodes
from agent_rl.credit.estimator import Float64s


def archer(
    episodes: Episodes,
    advantages_D: Float64s,
    baseline_M: Float64s,
    *,
    whiten: bool = False,
    positive: bool = False,
    bc_weight: float = 0.0,
    bc_at: float = 1.0,
) -> Float64s:
    """A_t = the critic's A(o_k, a_k) for tokens t of turn k, minus the baseline's b(o_k, a_k up to t), if there is one.

    ArCHer (arXiv:2402.19446), sections 3.3 and 3.4. `whiten` gives all tokens of the batch mean 0 and deviation 1.
    `positive` makes negative ones 0, so that the actor imitates its own better turns, as DigiRL's does
    (arXiv:2406.11896), and unlearns none. `bc_weight` is then added to all tokens of episodes whose reward reaches
    `bc_at`: with the loss `reinforce` that is a term of supervised learning on successes.
    """
    advantages_M = np.repeat(advantages_D, episodes.tokens_D) - baseline_M
    if whiten:
        advantages_M = whitened(advantages_M)
    if positive:
        advantages_M = np.maximum(advantages_M, 0.0)
    bonus_E = np.where(episodes.rewards_E >= bc_at, bc_weight, 0.0)
    return advantages_M + np.repeat(bonus_E[episodes.episode_D], episodes.tokens_D)
