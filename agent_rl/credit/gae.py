"""Generalised advantage estimation with a critic: over tokens, over turns, and over both.

Time passes with sampled tokens, or with turns that have any; what the environment writes in between takes none. The
reward of a turn comes with its last token. An episode that a limit cut goes on in the critic's eyes: its last step is
bootstrapped with V of what came after it. Only episodes that ended themselves, or that the agent broke off (a response
without an end, mistake after mistake), have value 0 behind them.

Notation: V(s_t) is the value of the context before token t; `final_E` is that behind each episode.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agent_rl.config import Fraction
from agent_rl.credit.alike import whitened
from agent_rl.credit.episodes import Episodes
from agent_rl.credit.estimator import Advantages, Float64s, Indices, Values
from agent_rl.credit.scan import discounted_sums
from agent_rl.types import Group


def token_gae(
    episodes: Episodes,
    values_M: Float64s,
    final_E: Float64s,
    *,
    gamma: Fraction = 1.0,
    lam: Fraction = 1.0,
    whiten: bool = True,
) -> Float64s:
    """A_t = sum over l of (gamma lam)^l delta_{t+l}, delta_t = r_t + gamma V(s_{t+1}) - V(s_t), over sampled tokens.

    GAE (arXiv:1506.02438), equation 16. `whiten` gives all tokens of the batch mean 0 and deviation 1.
    """
    deltas_M = gamma * _following(values_M, episodes.tokens_E, final_E) - values_M
    deltas_M[np.cumsum(episodes.tokens_D) - 1] += episodes.rewards_D
    advantages_M = discounted_sums(deltas_M, episodes.tokens_E, gamma * lam)
    return whitened(advantages_M) if whiten else advantages_M


def turn_gae(
    episodes: Episodes,
    values_M: Float64s,
    final_E: Float64s,
    *,
    gamma: Fraction = 1.0,
    lam: Fraction = 1.0,
    whiten: bool = True,
) -> Float64s:
    """GAE with whole turns as actions: V is that of the context before the turn, and all tokens of a turn share A_k.

    Turn-PPO (arXiv:2512.17008). Internal turns are actions too: the critic sees what they change.
    """
    before_D = values_M[np.cumsum(episodes.tokens_D) - episodes.tokens_D]
    advantages_M = np.repeat(_turn_level(episodes, before_D, final_E, gamma * lam, gamma), episodes.tokens_D)
    return whitened(advantages_M) if whiten else advantages_M


def bi_level_gae(
    episodes: Episodes,
    values_M: Float64s,
    final_E: Float64s,
    *,
    turn_gamma: Fraction = 0.95,
    turn_lam: Fraction = 1.0,
    token_gamma: Fraction = 1.0,
    token_lam: Fraction = 1.0,
    whiten: bool = True,
) -> Float64s:
    """GAE over turns, then within each turn over its tokens, from the turn's advantage backwards.

    A turn's value is V before its last token. The last token's advantage is the turn's; an earlier one's is
    delta_t + token_gamma token_lam A_{t+1} with delta_t = token_gamma V(s_{t+1}) - V(s_t). VAGEN (arXiv:2510.16907),
    Algorithm 2 and its released code. (RAGEN's code takes V before the first token for a turn's value, and ends a turn
    at a reward that is not 0.) With one turn, or one token in each, it is token GAE.
    """
    ends_D = np.cumsum(episodes.tokens_D) - 1
    turn_D = _turn_level(episodes, values_M[ends_D], final_E, turn_gamma * turn_lam, turn_gamma)
    steps_M = token_gamma * np.append(values_M[1:], 0.0)[: len(values_M)] - values_M
    steps_M[ends_D] = turn_D
    advantages_M = discounted_sums(steps_M, episodes.tokens_D, token_gamma * token_lam)
    return whitened(advantages_M) if whiten else advantages_M


def critic_targets(
    groups: Sequence[Group], values: Sequence[Values], *, gamma: float = 1.0, lam: float = 1.0
) -> list[Advantages]:
    """lambda-returns V_t + A_t of every sampled token: what a token critic regresses on. Laid out as advantages."""
    episodes = Episodes(groups)
    values_M = episodes.values_M(values)
    advantages_M = token_gae(episodes, values_M, episodes.final_E(values), gamma=gamma, lam=lam, whiten=False)
    return episodes.from_tokens(values_M + advantages_M)


def _turn_level(episodes: Episodes, values_D: Float64s, final_E: Float64s, decay: float, gamma: float) -> Float64s:
    turns_E = np.bincount(episodes.episode_D, minlength=len(episodes))
    deltas_D = episodes.rewards_D + gamma * _following(values_D, turns_E, final_E) - values_D
    return discounted_sums(deltas_D, turns_E, decay)


def _following(values: Float64s, lengths_E: Indices, final_E: Float64s) -> Float64s:
    """The value after each: the next one's, or behind an episode's last its final one."""
    following = np.append(values[1:], 0.0)[: len(values)]
    lasting_E = lengths_E > 0
    following[np.cumsum(lengths_E)[lasting_E] - 1] = final_E[lasting_E]
    return following
