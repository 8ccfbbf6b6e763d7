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
from agent_rl.types import FloatArray, Group, IntArray, Segment, TrainingRow, Trajectory

Aggregation: TypeAlias = Literal["token_mean", "sequence_mean", "prompt_mean"]


def to_rows(groups: Sequence[Group], advantages: Sequence[Advantages], aggregation: Aggregation) -> list[TrainingRow]:
    """One row per segment that has a trained token, in the order of groups, valid members and segments.

    `advantages` holds what the estimator returned for each group. `token_mean` (DAPO, arXiv:2503.14476, eq. 8): each
    trained token weighs 1 / (trained tokens of the batch). `sequence_mean` (GRPO, arXiv:2402.03300, eq. 3): each
    episode weighs 1 / (episodes with a trained token), shared equally by its tokens. `prompt_mean` (ScaleRL,
    arXiv:2510.13786): each group weighs 1 / (groups with a trained token), shared equally by the tokens of its members.
    """
    if aggregation not in get_args(Aggregation):
        raise not_found("aggregation", aggregation, get_args(Aggregation))
    unit = get_args(Aggregation).index(aggregation)  # what shares one weight: the batch, an episode or a group
    members = [
        (number, trajectory, credit)
        for number, (group, of_group) in enumerate(zip(groups, advantages, strict=True))
        for trajectory, credit in zip(group.valid, of_group, strict=True)
    ]
    rows = [
        (segment, advantages_T, turns_T, tokens, (0, episode, number)[unit])
        for episode, (number, trajectory, credit) in enumerate(members)
        for segment, advantages_T, turns_T in zip(trajectory.segments, credit, _turns(trajectory), strict=True)
        if (tokens := _trained_tokens(segment))
    ]
    units = np.array([unit for *_, unit in rows], np.int64)
    tokens_U = np.bincount(units, [tokens for *_, tokens, _ in rows])
    weights = (1 / (tokens_U[units] * np.count_nonzero(tokens_U))).astype(np.float32)
    return [_row(*row[:3], weight) for row, weight in zip(rows, weights, strict=True)]


def with_returns(
    rows: Sequence[TrainingRow], groups: Sequence[Group], returns: Sequence[Advantages]
) -> list[TrainingRow]:
    """The rows that `to_rows` made of the groups, with targets for a value head; laid out as advantages."""
    of_rows = [
        returns_T
        for group, members in zip(groups, returns, strict=True)
        for trajectory, segments in zip(group.valid, members, strict=True)
        for segment, returns_T in zip(trajectory.segments, segments, strict=True)
        if _trained_tokens(segment)
    ]
    return [replace(row, returns_T=returns_T) for row, returns_T in zip(rows, of_rows, strict=True)]


def row_groups(groups: Sequence[Group]) -> list[int]:
    """For each row that `to_rows` makes, the number of its group, so that a minibatch never cuts a group.

    The advantages of a group sum to zero: apart, its members push all that they have in common up or down, which is
    noise that hides the difference between them.
    """
    return [number for number, _, _ in row_places(groups)]


def row_places(groups: Sequence[Group]) -> list[tuple[int, Trajectory, int]]:
    """For each row that `to_rows` makes: the number of its group, its episode, and which segment it is."""
    return [
        (number, trajectory, place)
        for number, group in enumerate(groups)
        for trajectory in group.valid
        for place, segment in enumerate(trajectory.segments)
        if _trained_tokens(segment)
    ]


def _row(segment: Segment, advantages_T: FloatArray, turns_T: IntArray, weight: np.float32) -> TrainingRow:
    weights_T = segment.response_mask_T * weight
    weights_T[0] = 0.0
    return TrainingRow(
        token_ids_T=segment.token_ids_T,
        response_mask_T=segment.response_mask_T,
        rollout_logprobs_T=segment.rollout_logprobs_T,
        advantages_T=advantages_T,
        weights_T=weights_T,
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


def _trained_tokens(segment: Segment) -> int:
    """Sampled tokens that something precedes: the first token of a row has no prediction to train."""
    return int(np.count_nonzero(segment.response_mask_T[1:]))
