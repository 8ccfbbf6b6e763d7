"""Shaping of rewards, before credit: groups in, groups out.

A new shaping is one function and one line in `SHAPINGS`. Its keyword arguments are its options. The journal keeps what
really happened.

A process reward model scores every turn; summed up as they are, long episodes win and the policy learns to repeat
steps that score well. Clipping and differences bound the sum. On Designing Effective RL Reward at Training Time for
LLM Reasoning (arXiv:2410.15115). Scores are the term `term` of `Turn.reward_terms`, and `weight` is the term's weight
in the reward; the rest of a turn's reward (the outcome) stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from agent_rl.config import bind_options
from agent_rl.credit.estimator import Float64s
from agent_rl.errors import ConfigError, not_found
from agent_rl.types import Group, Trajectory

Shaping: TypeAlias = Callable[..., Group]
"""`shape(group, **options)`: the group with other rewards."""


def clip_process(group: Group, *, term: str = "process", weight: float = 1.0, at: float = 0.5) -> Group:
    """p_k -> min(p_k, at) - at: a good step costs nothing, a bad one does, so that no number of steps pays.

    Choose `at` so that most scores are above it.
    """
    return _shaped(group, term, weight, lambda scores_K: np.minimum(scores_K, at) - at)


def delta_process(group: Group, *, term: str = "process", weight: float = 1.0, at: float | None = None) -> Group:
    """p_k -> p_k - p_{k+1}, the last one stays: a turn and all after it sum up to p_k, however many.

    With `at`, scores are clipped there first, as `clip_process` does: the authors' best setting.
    """

    def shape(scores_K: Float64s) -> Float64s:
        clipped_K = scores_K if at is None else np.minimum(scores_K, at) - at
        return clipped_K - np.append(clipped_K, 0.0)[1:]

    return _shaped(group, term, weight, shape)


def concise(group: Group, *, at: float = 1.0, weight: float = 0.5) -> Group:
    """Where every member has earned at least `at`, r_i grows by weight (1 - tokens_i / tokens of the longest).

    Length counts only once nothing else does: the second stage of ConciseR (arXiv:2505.21178). Tokens are sampled
    ones. Estimators that divide by the deviation give the same advantages whatever the weight.
    """
    valid = group.valid
    if not valid or min(trajectory.reward for trajectory in valid) < at:
        return group
    longest = max(1, *(trajectory.sampled_tokens for trajectory in valid))
    return replace(group, trajectories=tuple(_longer_is_less(t, weight, longest) for t in group.trajectories))


def role_rewards(group: Group) -> Group:
    """A reward term that has the name of a tag is that role's: its last turn gets it, whenever it was found out.

    What a proposer's question is worth is known when solvers have tried it (Search Self-play, arXiv:2510.18821).
    """
    return replace(group, trajectories=tuple(map(_to_its_role, group.trajectories)))


SHAPINGS: dict[str, Shaping] = {
    "clip_process": clip_process,
    "delta_process": delta_process,
    "concise": concise,
    "role_rewards": role_rewards,
}


def get_shaping(name: str | None, options: Mapping[str, Any] | None = None) -> Callable[[Group], Group]:
    """The shaping called `name`; without a name groups stay as they are.

    Raises `NotFoundError` with the nearest name, `ConfigError` for a wrong option.
    """
    if name is None:
        if options:
            raise ConfigError(
                f"Options of a shaping ({', '.join(options)}) without one: set shaping to {' or '.join(SHAPINGS)}."
            )
        return lambda group: group
    if name not in SHAPINGS:
        raise not_found("shaping", name, SHAPINGS)
    return partial(SHAPINGS[name], **bind_options(f"the shaping {name}", SHAPINGS[name], options or {}))


def _longer_is_less(trajectory: Trajectory, weight: float, longest: int) -> Trajectory:
    if not trajectory.turns:
        return trajectory
    *turns, last = trajectory.turns
    brevity = weight * (1 - trajectory.sampled_tokens / longest)
    return replace(trajectory, turns=(*turns, replace(last, reward=last.reward + brevity)))


def _to_its_role(trajectory: Trajectory) -> Trajectory:
    last = {turn.tag: k for k, turn in enumerate(trajectory.turns)}
    turns = list(trajectory.turns)
    for turn in trajectory.turns:
        for name, value in turn.reward_terms.items():
            if name in last:
                turns[last[name]] = replace(turns[last[name]], reward=turns[last[name]].reward + value)
    return replace(trajectory, turns=tuple(turns))


def _shaped(group: Group, term: str, weight: float, shape: Callable[[Float64s], Float64s]) -> Group:
    known = {name for trajectory in group.valid for turn in trajectory.turns for name in turn.reward_terms}
    if known and term not in known:
        raise not_found("reward term", term, known, hint="Set the shaping's option term.")
    return replace(group, trajectories=tuple(_shape_one(t, term, weight, shape) for t in group.trajectories))


def _shape_one(trajectory: Trajectory, term: str, weight: float, shape: Callable[[Float64s], Float64s]) -> Trajectory:
    """Turns without a score, such as an agent's internal ones, stay as they are."""
    before = [turn.reward_terms[term] for turn in trajectory.turns if term in turn.reward_terms]
    after = iter(zip(before, shape(np.array(before, np.float64)).tolist(), strict=True))
    turns = list(trajectory.turns)
    for k, turn in enumerate(turns):
        if term in turn.reward_terms:
            score, shaped = next(after)
            reward = turn.reward + weight * (shaped - score)
            turns[k] = replace(turn, reward=reward, reward_terms={**turn.reward_terms, term: shaped})
    return replace(trajectory, turns=tuple(turns))
