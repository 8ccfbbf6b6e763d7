"""Conversations in OpenAI's chat format: one JSON object a line, as trainers of chat models read them.

    {"messages": [...], "tools": [...], "reward": 1.0,
     "metadata": {"task": {...}, "group": 0, "member": 1, "rewards": [...], ...}}

Keeps messages, tool calls, definitions of tools, rewards per turn, the task, failures. Loses tokens, times, reward
terms and state keys. Lines of others need `messages` only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from agent_rl.exchange.conversation import (
    Row,
    RowError,
    completion_of,
    described_by,
    description_of,
    grouped,
    prompt_of,
    task_in,
    tools_from_row,
    trajectory_of,
)
from agent_rl.types import Group, Task, Trajectory


def to_rows(group: Group) -> Iterator[Row]:
    """A row for each member."""
    for episode in group.trajectories:
        yield {
            "messages": [*prompt_of(episode), *completion_of(episode)],
            **({"tools": list(episode.tools)} if episode.tools else {}),
            "reward": episode.reward,
            "metadata": description_of(group, episode),
        }


def from_rows(rows: Iterable[Row]) -> Iterator[Group]:
    """Groups without tokens. Rows without our metadata become groups of one."""
    yield from grouped(_episode(row, index) for index, row in enumerate(rows))


def _episode(row: Row, index: int) -> Trajectory:
    messages = row.get("messages")
    if not isinstance(messages, list):
        raise RowError("a row needs messages")
    metadata: dict[str, Any] = row.get("metadata") or {}
    task = task_in(metadata) or Task(f"chat-{index}", ())
    rewards = [float(row["reward"])] if row.get("reward") is not None else []
    return trajectory_of(messages, described_by(metadata, task, index, rewards, tools_from_row(row.get("tools"))))
