"""Credit step by step, from rewards that environments give along the way. No critic.

Notation: member i takes steps k = 0..K_i-1 with rewards r_ik, whose discounted sum from k on is G_ik. Every token of a
step gets the step's advantage. A step is a turn with the internal turns before it (see `Episodes`).
"""

from __future__ import annotations

import numpy as np

from agent_rl.config import Fraction
from agent_rl.credit.alike import Alike
from agent_rl.credit.episodes import Episodes
from agent_rl.credit.estimator import Float64s, Indices
from agent_rl.credit.scan import sums


def return_to_go(episodes: Episodes, *, gamma: Fraction = 1.0, scale: bool = False) -> Float64s:
    """A_ik = G_ik - mean of the siblings' G_jk at the same step, G_ik = sum over l >= k of gamma^(l-k) r_il.

    The policy gradient with rewards to go (Sutton and Barto, section 13.3): what came before a step is not its credit.
    A step that no sibling reached has no baseline and gets 0. `scale` divides by the deviation at that step instead.
    """
    compare = Alike.standardized if scale else Alike.leave_one_out
    return compare(episodes.same_place(np.ones_like(episodes.last_S)), episodes.returns_S(gamma))


def mt_grpo(episodes: Episodes, *, turn_weight: float = 1.0) -> Float64s:
    """A_ik = A^O_i + turn_weight * A^T_ik before the last step, A^O_i in it.

    A^O standardises the outcome, which is the last step's reward, over the siblings; A^T the reward of step k over
    those of them for whom k is not the last. MT-GRPO (arXiv:2505.11821), there for episodes of two turns.
    """
    outcome_E = episodes.siblings.standardized(episodes.outcomes_E)
    turn_S = episodes.same_place(~episodes.last_S).standardized(episodes.rewards_S)
    return outcome_E[episodes.episode_S] + turn_weight * turn_S


def gigpo(episodes: Episodes, *, step_weight: float = 1.0, gamma: Fraction = 0.95, scale: bool = True) -> Float64s:
    """A_ik = A^E_i + step_weight * A^S_ik.

    A^E compares whole episodes; A^S compares the discounted returns G_ik of all steps that began in the same state of
    this task (anchor states, by `Turn.state_key`). `scale` divides both by their deviations. GiGPO (arXiv:2505.10978),
    equations 4 to 8. Unlike the authors' code: each episode counts once in A^E and not once per step, and a step whose
    state nobody else met, or is unknown, has A^S = 0 and not its return.
    """
    compare = Alike.standardized if scale else Alike.centered
    episode_E = compare(episodes.siblings, episodes.rewards_E)
    step_S = compare(episodes.same_state(), episodes.returns_S(gamma))
    return episode_E[episodes.episode_S] + step_weight * step_S


def rlvmr(episodes: Episodes, *, outcome_weight: Fraction = 0.5) -> Float64s:
    """A_ik = outcome_weight * A^T_i + (1 - outcome_weight) * A^M_ik.

    A^T standardises the outcome (the last step's reward), A^M the process reward of a step over all steps of the group
    with the same tag (planning with planning); the last step's process reward is 0. Steps without a tag have A^M = 0.
    RLVMR (arXiv:2507.22844).
    """
    outcome_E = episodes.siblings.standardized(episodes.outcomes_E)
    process_S = np.where(episodes.last_S, 0.0, episodes.rewards_S)
    tag_S = episodes.same_tag().standardized(process_S)
    return outcome_weight * outcome_E[episodes.episode_S] + (1 - outcome_weight) * tag_S


def roles(episodes: Episodes, *, scale: bool = True) -> Float64s:
    """A_ik = R_ip - mean over the siblings of R_jp: p is the role (tag) of step k, R_ip the sum of its rewards.

    For one model in several roles with rewards of their own (proposer, solver, judge): role-conditioned advantages as
    in SPIRAL (arXiv:2506.24119), with the siblings' mean, not a running one, for the baseline of a role. `scale`
    divides by the deviation. Steps without a tag are a role too.

    A tag such as `solver/2` is the role's attempt number 2 at something of the episode's own, such as a question that
    its proposer asked: attempts are compared with the other attempts of their episode, as siblings are elsewhere.
    """
    compare = Alike.standardized if scale else Alike.centered
    played, role_S = _numbered_pairs(episodes.episode_S.tolist(), episodes.tags_S)
    total_P = sums(role_S, episodes.rewards_S, len(played))
    return compare(Alike.by_key(_comparable(episodes, *pair) for pair in played), total_P)[role_S]


def _comparable(episodes: Episodes, episode: int, tag: str) -> tuple[bool, int, str]:
    role, slash, _ = tag.partition("/")
    return bool(slash), episode if slash else int(episodes.group_E[episode]), role


def _numbered_pairs(episodes_S: list[int], tags_S: list[str]) -> tuple[list[tuple[int, str]], Indices]:
    """The roles P that were played, as (episode, tag), and the number of each step's."""
    numbers: dict[tuple[int, str], int] = {}
    role_S = [numbers.setdefault(pair, len(numbers)) for pair in zip(episodes_S, tags_S, strict=True)]
    return list(numbers), np.array(role_S, np.int64)
