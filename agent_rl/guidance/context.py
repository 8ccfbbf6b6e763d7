"""Guidance left out of the context: tokens that were sampled with help, as if the policy had had none.

The sampled ids stay, and so do their log-probs, which are those under guidance: ratios and corrections of the learner
compare with them (Guide, arXiv:2506.13923). Nothing is encoded here: how an episode opens without guidance is known
from a sibling that had none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent_rl.guidance.task import with_text
from agent_rl.types import Group, IntArray, Segment, Trajectory


def without_guidance(group: Group) -> Group:
    """The group with texts left out of the context of guided members, where that is exact (see `left_out`)."""
    plain = [episode for episode in group.valid if episode.guidance is None]
    return replace(group, trajectories=tuple(left_out(episode, plain) or episode for episode in group.trajectories))


def left_out(episode: Trajectory, siblings: Sequence[Trajectory]) -> Trajectory | None:
    """The guided episode with the opening ids of a sibling in place of its own; `None` where that cannot be exact.

    It is when a sibling opened with the same messages but for the guidance, and every row of the episode begins with
    its opening ids: then only what the guidance is part of changes, and the mask, log-probs and turns move with it.
    """
    guidance, own = episode.guidance, _opening(episode)
    if guidance is None or guidance.actions or own is None:
        return None
    for sibling in siblings:
        opening = _opening(sibling)
        if opening is not None and with_text(sibling.prompt, guidance.text) == episode.prompt:
            return _reopened(episode, own, opening)
    return None


def _opening(episode: Trajectory) -> IntArray | None:
    """The ids before the first sampled token."""
    if not episode.segments or not episode.segments[0].response_mask_T.any():
        return None
    first = episode.segments[0]
    return first.token_ids_T[: int(np.argmax(first.response_mask_T))]


def _reopened(episode: Trajectory, own: IntArray, opening: IntArray) -> Trajectory | None:
    cut = len(own)
    for segment in episode.segments:
        if segment.response_mask_T[:cut].any() or not np.array_equal(segment.token_ids_T[:cut], own):
            return None
    moved = len(opening) - cut
    turns = [
        turn if turn.end == turn.start else replace(turn, start=turn.start + moved, end=turn.end + moved)
        for turn in episode.turns
    ]
    segments = tuple(_with_opening(segment, cut, opening) for segment in episode.segments)
    return replace(episode, segments=segments, turns=tuple(turns))


def _with_opening(segment: Segment, cut: int, opening: IntArray) -> Segment:
    count = len(opening)

    def reopened(row_T: NDArray[Any], filled: object) -> NDArray[Any]:
        return np.concatenate((np.full(count, filled, row_T.dtype), row_T[cut:]))

    return Segment(
        np.concatenate((opening, segment.token_ids_T[cut:])),
        reopened(segment.response_mask_T, False),
        reopened(segment.rollout_logprobs_T, 0.0),
        reopened(segment.weight_versions_T, -1),
    )
