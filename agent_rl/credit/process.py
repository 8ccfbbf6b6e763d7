"""Shaping of process rewards, before credit: groups in, groups out.

A process reward model scores every turn; summed up as they are, long episodes win and the policy learns to repeat
steps that score well. Both shapings bound the sum. On Designing Effective RL Reward at Training Time for LLM Reasoning
(arXiv:2410.15115), section 5. Process rewards are the term `term` of `Turn.reward_terms`; the rest of a turn's reward
(the outcome) stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from agent_rl.credit.estimator import Float64s
from agent_rl.types import Group, Trajectory


def clip_process(group: Group, *, term: str = "process", at: float = 0.0) -> Group:
    """p_k -> min(p_k, at) - at: a good step costs nothing, a bad one does, so that no number of steps pays."""
    return _shaped(group, term, lambda process_K: np.minimum(process_K, at) - at)


def delta_process(group: Group, *, term: str = "process") -> Group:
    """p_k -> p_k - p_{k+1}, the last one stays: a turn and all after it sum up to p_k, however many."""
    return _shaped(group, term, lambda process_K: process_K - np.append(process_K, 0.0)[1:])


def _shaped(group: Group, term: str, shape: Callable[[Float64s], Float64s]) -> Group:
    return replace(group, trajectories=tuple(_shape_one(t, term, shape) for t in group.trajectories))


def _shape_one(trajectory: Trajectory, term: str, shape: Callable[[Float64s], Float64s]) -> Trajectory:
    before_K = np.array([turn.reward_terms.get(term, 0.0) for turn in trajectory.turns], dtype=np.float64)
    turns = tuple(
        replace(turn, reward=turn.reward - before + after, reward_terms={**turn.reward_terms, term: after})
        for turn, before, after in zip(trajectory.turns, before_K.tolist(), shape(before_K).tolist(), strict=True)
    )
    return replace(trajectory, turns=turns)
