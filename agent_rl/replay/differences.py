"""The first difference between an episode as it is stored and as it came out again. Pure; times are no difference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agent_rl.types import Segment, Trajectory, Turn


@dataclass(frozen=True, slots=True)
class Difference:
    """Where, and both values; of a row of tokens, the first position that differs."""

    where: str
    stored: Any
    again: Any

    def __str__(self) -> str:
        return f"{self.where}: stored {self.stored!r}, now {self.again!r}"


def first_difference(stored: Trajectory, again: Trajectory, *, ends: bool = True) -> Difference | None:
    """In what the environment said: prompt, observations, rewards, tool results, state keys, and how it ended.

    Without `ends` the end is not compared: a clock or a failure ended the stored episode, not the environment.
    """
    for where, before, after in _pairs(stored, again):
        if before != after:
            return Difference(where, before, after)
    if not ends:
        return None
    if len(stored.turns) != len(again.turns):
        return Difference("turns", len(stored.turns), len(again.turns))
    if stored.stop_reason is not again.stop_reason:
        return Difference("stop reason", str(stored.stop_reason), str(again.stop_reason))
    return None


def _pairs(stored: Trajectory, again: Trajectory) -> Iterator[tuple[str, Any, Any]]:
    yield "prompt", stored.prompt, again.prompt
    for before, after in zip(stored.turns, again.turns, strict=False):
        yield f"turn {before.index}, state key", before.state_key, after.state_key
        yield f"turn {before.index}, action", before.action, after.action
        yield f"turn {before.index}, tool results", _untimed(before), _untimed(after)
        yield f"turn {before.index}, observations", before.observations, after.observations
        yield f"turn {before.index}, reward terms", dict(before.reward_terms), dict(after.reward_terms)
        yield f"turn {before.index}, reward", before.reward, after.reward


def _untimed(turn: Turn) -> list[Any]:
    return [replace(result, duration_s=0.0) for result in turn.tool_results]


def first_token_difference(stored: Trajectory, again: Trajectory) -> Difference | None:
    """In the rows of tokens, bit for bit: ids, which were sampled, their log-probs and weight versions."""
    for number, (before, after) in enumerate(zip(stored.segments, again.segments, strict=False)):
        for name, attribute in _ROWS.items():
            if found := _in_row(before, after, attribute):
                position, old, new = found
                return Difference(f"segment {number}, {name} {position}", old, new)
    if len(stored.segments) != len(again.segments):
        return Difference("segments", len(stored.segments), len(again.segments))
    return None


_ROWS = {
    "token id": "token_ids_T",
    "response mask": "response_mask_T",
    "weight version": "weight_versions_T",
    "log-prob": "rollout_logprobs_T",
}


def _in_row(before: Segment, after: Segment, attribute: str) -> tuple[int, Any, Any] | None:
    old_T, new_T = getattr(before, attribute), getattr(after, attribute)
    common = min(len(old_T), len(new_T))
    old_bits, new_bits = (row_T[:common].view(np.uint8).reshape(common, -1) for row_T in (old_T, new_T))
    at = np.flatnonzero((old_bits != new_bits).any(1))
    if len(at):
        return int(at[0]), old_T[at[0]].item(), new_T[at[0]].item()
    if len(old_T) != len(new_T):
        old, new = (row_T[common].item() if len(row_T) > common else None for row_T in (old_T, new_T))
        return common, old, new
    return None
