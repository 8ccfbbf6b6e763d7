"""Episodes written by hand, to test credit with: no engine, no environment, no template."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

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


@dataclass(frozen=True, slots=True)
class Played:
    """One turn: `context` tokens that nobody sampled, then `sampled` ones. `fork` begins a new segment with it.

    `process` is the turn's reward term of that name.
    """

    reward: float = 0.0
    sampled: int = 1
    context: int = 1
    state: Hashable | None = None
    tag: str = ""
    process: float | None = None
    fork: bool = False
    internal: bool = False


def make_trajectory(
    turns: Sequence[Played],
    *,
    member: int = 0,
    stop_reason: StopReason = StopReason.TERMINATED,
    failed: bool = False,
    task: str = "task",
) -> Trajectory:
    """The episode of these turns. Token ids count up, log-probs are -0.5, the weight version is 0."""
    masks: list[list[bool]] = [[]]
    played: list[Turn] = []
    for index, turn in enumerate(turns):
        if turn.fork and masks[-1]:
            masks.append([])
        start = len(masks[-1]) + turn.context
        masks[-1] += [False] * turn.context + [True] * turn.sampled
        terms = {} if turn.process is None else {"process": turn.process}
        span = len(masks) - 1, start, start + turn.sampled
        played.append(
            Turn(
                index,
                *span,
                action=Message("assistant", f"turn {index}"),
                observations=(),
                reward=turn.reward,
                reward_terms=terms,
                tool_results=(),
                finish_reason=FinishReason.STOP,
                state_key=turn.state,
                internal=turn.internal,
                tag=turn.tag,
            )
        )
    failure = Failure("crash", Owner.SANDBOX, "step", "lost") if failed else None
    problem = Task(task, (Message("user", "?"),))
    return Trajectory(
        task=problem,
        group_index=0,
        member=member,
        seed=0,
        prompt=problem.prompt,
        segments=tuple(map(_segment, masks)),
        turns=tuple(played),
        stop_reason=StopReason.FAILURE if failed else stop_reason,
        failure=failure,
    )


def make_group(*trajectories: Trajectory, index: int = 0) -> Group:
    """The group of these siblings."""
    task = trajectories[0].task if trajectories else Task("task", (Message("user", "?"),))
    return Group(index, task, trajectories)


def _segment(mask: Sequence[bool]) -> Segment:
    mask_T = np.array(mask, dtype=np.bool_)
    return Segment(
        token_ids_T=np.arange(len(mask), dtype=np.int32),
        response_mask_T=mask_T,
        rollout_logprobs_T=np.where(mask_T, np.float32(-0.5), np.float32(0)),
        weight_versions_T=np.where(mask_T, 0, -1).astype(np.int32),
    )
