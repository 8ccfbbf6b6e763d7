"""Credit by an utterance-level critic: one advantage per turn, which a baseline may spread over its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from agent_rl.credit.estimator import Advantages, to_turns
from agent_rl.types import FloatArray, Group


class TurnValues(NamedTuple):
    """What an utterance-level critic says of one group.

    `advantages[i]` is A_K = Q(o_k, a_k) - V(o_k) of the turns k of `group.valid[i]`, 0 for turns without tokens.
    `baseline` is what a token critic expects of A before each sampled token, laid out as `Advantages`.
    """

    advantages: tuple[FloatArray, ...]
    baseline: Advantages | None = None


def archer(
    groups: Sequence[Group], values: Sequence[TurnValues], *, bc_weight: float = 0.0, bc_at: float = 1.0
) -> list[Advantages]:
    """A_t = Q(o_k, a_k) - V(o_k) for the tokens t of turn k, minus the baseline's b(o_k, a_k up to t) if there is one.

    ArCHer (arXiv:2402.19446), sections 3.3 and 3.4. `bc_weight` is added to all tokens of episodes whose reward
    reaches `bc_at`: with the loss `reinforce` that is a term of supervised learning on successes.
    """
    return [
        tuple(
            _of_episode(group, value, member, bc_weight if trajectory.reward >= bc_at else 0.0)
            for member, trajectory in enumerate(group.valid)
        )
        for group, value in zip(groups, values, strict=True)
    ]


def _of_episode(group: Group, value: TurnValues, member: int, bonus: float) -> tuple[FloatArray, ...]:
    trajectory = group.valid[member]
    credit = to_turns(trajectory, value.advantages[member].tolist())
    if value.baseline is not None:
        credit = tuple(row - baseline for row, baseline in zip(credit, value.baseline[member], strict=True))
    return tuple(
        row + np.float32(bonus) * segment.response_mask_T
        for row, segment in zip(credit, trajectory.segments, strict=True)
    )
