"""Generalised advantage estimation with a critic: over tokens, over turns, and over both.

Steps are sampled tokens, or turns; what the environment writes in between takes no time. The reward of a turn comes
with its last token. An episode that a limit cut goes on in the critic's eyes: its last step is bootstrapped with
`Values.final_G`. Only episodes that ended themselves have value 0 behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from agent_rl.credit.estimator import Advantages, Float64s, Values, differ, discounted_sums, to_turns, turn_rewards
from agent_rl.types import FloatArray, Group, Trajectory


def token_gae(
    groups: Sequence[Group], values: Sequence[Values], *, gamma: float = 1.0, lam: float = 1.0, whiten: bool = True
) -> list[Advantages]:
    """A_t = sum over l of (gamma lam)^l delta_{t+l}, delta_t = r_t + gamma V(s_{t+1}) - V(s_t), over sampled tokens.

    GAE (arXiv:1506.02438), equation 16. `whiten` gives all tokens of the batch mean 0 and deviation 1.
    """

    def credit(trajectory: Trajectory, values_S: Sequence[FloatArray], final: float) -> list[Float64s]:
        turns = _sampled(trajectory)
        rewards, state_values = _by_token(trajectory, values_S)
        following = np.append(state_values[1:], final)
        flat = discounted_sums(rewards + gamma * following - state_values, gamma * lam)
        return np.split(flat, np.cumsum([end - start for _, start, end in turns])[:-1])

    return _each(groups, values, credit, whiten)


def turn_gae(
    groups: Sequence[Group], values: Sequence[Values], *, gamma: float = 1.0, lam: float = 1.0, whiten: bool = True
) -> list[Advantages]:
    """GAE with whole turns as actions: V is that of the state before the turn, and all tokens of a turn share A_k.

    Turn-PPO (arXiv:2512.17008), section 4.
    """

    def credit(trajectory: Trajectory, values_S: Sequence[FloatArray], final: float) -> list[Float64s]:
        before_K = np.array([values_S[segment][start] for segment, start, _ in _sampled(trajectory)], np.float64)
        return [np.array([a]) for a in _turn_level(trajectory, before_K, final, gamma, lam)]

    return _each(groups, values, credit, whiten)


def bi_level_gae(
    groups: Sequence[Group],
    values: Sequence[Values],
    *,
    turn_gamma: float = 0.95,
    turn_lam: float = 1.0,
    token_gamma: float = 1.0,
    token_lam: float = 1.0,
    whiten: bool = True,
) -> list[Advantages]:
    """GAE over turns, then within each turn over its tokens, from the turn's advantage backwards.

    A turn's value is V before its last token. The last token's advantage is the turn's; an earlier one's is
    delta_t + token_gamma token_lam A_{t+1} with delta_t = token_gamma V_{t+1} - V_t. VAGEN (arXiv:2510.16907), section
    3.3. With one turn, or `turn_gamma` = `token_gamma` and all lambdas 0, it is token GAE.
    """

    def credit(trajectory: Trajectory, values_S: Sequence[FloatArray], final: float) -> list[Float64s]:
        turns = _sampled(trajectory)
        last_K = np.array([values_S[segment][end - 1] for segment, _, end in turns], np.float64)
        turn_K = _turn_level(trajectory, last_K, final, turn_gamma, turn_lam)
        tokens: list[Float64s] = []
        for (segment, start, end), advantage in zip(turns, turn_K, strict=True):
            inside = values_S[segment][start:end].astype(np.float64)
            steps = np.append(token_gamma * inside[1:] - inside[:-1], advantage)
            tokens.append(discounted_sums(steps, token_gamma * token_lam))
        return tokens

    return _each(groups, values, credit, whiten)


def _turn_level(trajectory: Trajectory, values_K: Float64s, final: float, gamma: float, lam: float) -> Float64s:
    rewards_K = _rewards(trajectory)
    return discounted_sums(rewards_K + gamma * np.append(values_K[1:], final) - values_K, gamma * lam)


def _sampled(trajectory: Trajectory) -> list[tuple[int, int, int]]:
    """(segment, start, end) of the turns that have tokens."""
    return [(turn.segment, turn.start, turn.end) for turn in trajectory.turns if turn.end > turn.start]


def _rewards(trajectory: Trajectory) -> Float64s:
    """Rewards of the turns that have tokens."""
    return turn_rewards(trajectory)[[turn.end > turn.start for turn in trajectory.turns]]


def _by_token(trajectory: Trajectory, values_S: Sequence[FloatArray]) -> tuple[Float64s, Float64s]:
    """Rewards and values, one of each for every sampled token of the episode, in order."""
    turns = _sampled(trajectory)
    values = np.concatenate([values_S[segment][start:end] for segment, start, end in turns]).astype(np.float64)
    rewards = np.zeros_like(values)
    rewards[np.cumsum([end - start for _, start, end in turns]) - 1] = _rewards(trajectory)
    return rewards, values


def _each(
    groups: Sequence[Group],
    values: Sequence[Values],
    credit: Callable[[Trajectory, Sequence[FloatArray], float], list[Float64s]],
    whiten: bool,
) -> list[Advantages]:
    """`credit` of every valid episode, as advantages."""
    advantages: list[Advantages] = []
    for group, value in zip(groups, values, strict=True):
        members: list[tuple[FloatArray, ...]] = []
        for trajectory, values_S, final in zip(group.valid, value.tokens, value.final_G.tolist(), strict=True):
            sampled = _sampled(trajectory)
            turns = iter(credit(trajectory, values_S, final if trajectory.truncated else 0.0) if sampled else [])
            per_turn = [next(turns) if turn.end > turn.start else 0.0 for turn in trajectory.turns]
            members.append(to_turns(trajectory, per_turn))
        advantages.append(tuple(members))
    return _whitened(groups, advantages) if whiten else advantages


def _whitened(groups: Sequence[Group], advantages: list[Advantages]) -> list[Advantages]:
    masks = [[[s.response_mask_T for s in t.segments] for t in group.valid] for group in groups]
    tokens = [
        row[mask]
        for credit, group_masks in zip(advantages, masks, strict=True)
        for rows, row_masks in zip(credit, group_masks, strict=True)
        for row, mask in zip(rows, row_masks, strict=True)
    ]
    flat = np.concatenate([*tokens, np.zeros(0, np.float32)]).astype(np.float64)
    mean, scale = (flat.mean(), flat.std(ddof=1)) if differ(flat) else (flat.mean() if flat.size else 0.0, 1.0)
    return [
        tuple(
            tuple((((row - mean) / scale) * mask).astype(np.float32) for row, mask in zip(rows, row_masks, strict=True))
            for rows, row_masks in zip(credit, group_masks, strict=True)
        )
        for credit, group_masks in zip(advantages, masks, strict=True)
    ]


def critic_targets(
    groups: Sequence[Group], values: Sequence[Values], *, gamma: float = 1.0, lam: float = 1.0
) -> list[Advantages]:
    """lambda-returns V_t + A_t of every sampled token: what a token critic regresses on. Laid out as advantages."""
    advantages = token_gae(groups, values, gamma=gamma, lam=lam, whiten=False)
    return [
        tuple(
            tuple(a + v * s.response_mask_T for a, v, s in zip(rows, values_S, trajectory.segments, strict=True))
            for rows, values_S, trajectory in zip(credit, value.tokens, group.valid, strict=True)
        )
        for credit, value, group in zip(advantages, values, groups, strict=True)
    ]
