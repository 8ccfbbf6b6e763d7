"""From credited trajectories to training rows with an explicit loss weight per token.

Knows how a batch's loss is averaged; refuses to know the loss. The weights of a batch sum to 1, so that a plain sum
of `weight * loss` is the batch's loss however its rows are split, packed, padded or accumulated. An episode weighs the
same whether it is one row or several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

import numpy as np

from agent_rl.credit.estimator import Advantages
from agent_rl.errors import not_found
from agent_rl.types import BoolArray, FloatArray, Group, IntArray, Segment, TrainingRow, Trajectory

Aggregation: TypeAlias = Literal["token_mean", "sequence_mean"]


def to_rows(groups: Sequence[Group], advantages: Sequence[Advantages], aggregation: Aggregation) -> list[TrainingRow]:
    """One row per segment that has a trained token, in the order of groups, valid members and segments.

    `advantages` holds what the estimator returned for each group. `token_mean` (DAPO, arXiv:2503.14476, eq. 8): each
    trained token weighs 1 / (trained tokens of the batch). `sequence_mean` (GRPO, arXiv:2402.03300, eq. 3): each
    episode weighs 1 / (episodes with a trained token), shared equally by its tokens.
    """
    if aggregation not in get_args(Aggregation):
        raise not_found("aggregation", aggregation, get_args(Aggregation))
    episodes = [
        episode
        for group, credit in zip(groups, advantages, strict=True)
        for episode in zip(group.valid, credit, strict=True)
        if _trained_tokens(episode[0])
    ]
    tokens_E = np.array([_trained_tokens(trajectory) for trajectory, _ in episodes], dtype=np.float64)
    shares_E = np.full_like(tokens_E, tokens_E.sum()) if aggregation == "token_mean" else tokens_E * len(tokens_E)
    return [
        _row(segment, advantages_T, 1 / share, turns_T)
        for (trajectory, credit), share in zip(episodes, shares_E, strict=True)
        for segment, advantages_T, turns_T in zip(trajectory.segments, credit, _turns(trajectory), strict=True)
        if _trained_mask(segment).any()
    ]


def with_returns(
    rows: Sequence[TrainingRow], groups: Sequence[Group], returns: Sequence[Advantages]
) -> list[TrainingRow]:
    """The rows that `to_rows` made of the groups, with targets for a value head; laid out as advantages."""
    of_rows = [
        returns_T
        for group, members in zip(groups, returns, strict=True)
        for trajectory, segments in zip(group.valid, members, strict=True)
        for segment, returns_T in zip(trajectory.segments, segments, strict=True)
        if _trained_mask(segment).any()
    ]
    return [replace(row, returns_T=returns_T) for row, returns_T in zip(rows, of_rows, strict=True)]


def row_groups(groups: Sequence[Group]) -> list[int]:
    """For each row that `to_rows` makes, the number of its group, so that a minibatch never cuts a group.

    The advantages of a group sum to zero: apart, its members push all that they have in common up or down, which is
    noise that hides the difference between them.
    """
    return [
        number
        for number, group in enumerate(groups)
        for trajectory in group.valid
        for segment in trajectory.segments
        if _trained_mask(segment).any()
    ]


def _row(segment: Segment, advantages_T: FloatArray, weight: float, turns_T: IntArray) -> TrainingRow:
    return TrainingRow(
        token_ids_T=segment.token_ids_T,
        response_mask_T=segment.response_mask_T,
        rollout_logprobs_T=segment.rollout_logprobs_T,
        advantages_T=advantages_T,
        weights_T=_trained_mask(segment) * np.float32(weight),
        weight_versions_T=segment.weight_versions_T,
        turns_T=turns_T,
    )


def _turns(trajectory: Trajectory) -> list[IntArray]:
    """For each segment the number of every sampled token's turn, elsewhere -1."""
    turns = [np.full(len(segment.token_ids_T), -1, np.int32) for segment in trajectory.segments]
    for turn in trajectory.turns:
        if turn.end > turn.start:
            turns[turn.segment][turn.start : turn.end] = turn.index
    return turns


def _trained_mask(segment: Segment) -> BoolArray:
    """Sampled tokens that something precedes: the first token of a row has no prediction to train."""
    mask_T = segment.response_mask_T.copy()
    mask_T[:1] = False
    return mask_T


def _trained_tokens(trajectory: Trajectory) -> int:
    return sum(int(_trained_mask(segment).sum()) for segment in trajectory.segments)
