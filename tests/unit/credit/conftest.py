import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from agent_rl.types import (
    Failure,
    FinishReason,
    Group,
    Message,
    Owner,
    Segment,
    StopReason,
    Task,
    Trajectory,
    Turn,
)

TASK = Task(id="t", prompt=(Message("user", "?"),))


def segment(mask: Sequence[int]) -> Segment:
    response_mask_T = np.array(mask, dtype=np.bool_)
    return Segment(
        token_ids_T=np.arange(len(mask), dtype=np.int32),
        response_mask_T=response_mask_T,
        rollout_logprobs_T=-0.5 * response_mask_T.astype(np.float32),
        weight_versions_T=np.where(response_mask_T, 3, -1).astype(np.int32),
    )


def runs(mask: Sequence[int]) -> list[tuple[int, int]]:
    """Where the sampled tokens of a segment begin and end."""
    edges = np.flatnonzero(np.diff([0, *mask, 0]))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def trajectory(rewards: Sequence[float], masks: Sequence[Sequence[int]], failed: bool = False) -> Trajectory:
    """One segment per mask, one turn per run of sampled tokens, or per reward where there are more of those."""
    spans = [(number, *run) for number, mask in enumerate(masks) for run in runs(mask)]
    turns = tuple(
        Turn(i, *(span or (0, 0, 0)), Message("assistant", ""), (), reward or 0.0, {}, (), FinishReason.STOP)
        for i, (reward, span) in enumerate(itertools.zip_longest(rewards, spans))
    )
    failure = Failure("crash", Owner.SANDBOX, "step", "lost") if failed else None
    stop = StopReason.FAILURE if failed else StopReason.TERMINATED
    return Trajectory(TASK, 0, 0, 0, TASK.prompt, tuple(map(segment, masks)), turns, stop, failure)


@pytest.fixture
def make_group() -> Callable[..., Group]:
    """Members given as (rewards of the turns, response masks of the segments[, failed])."""

    def make(*members: tuple, index: int = 0) -> Group:
        return Group(index, TASK, tuple(trajectory(*member) for member in members))

    return make
