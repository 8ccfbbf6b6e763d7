"""Conversations in OpenAI's chat format: one JSON object a line, as trainers of chat models read them.

    {"messages": [...], "tools": [...], "reward": 1.0,
     "metadata": {"task": {...}, "group": 0, "member": 1, "rewards": [...], ...}}

Keeps messages, tool calls, definitions of tools, rewards per turn, the task, failures. Loses tokens, times, reward
terms and state keys. Lines of others need `messages` only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from agent_rl.exchange.conversation import (
    Described,
    Row,
    RowError,
    completion_of,
    failure_from_row,
    failure_to_row,
    grouped,
    prompt_of,
    rewards_of,
    tools_from_row,
    trajectory_of,
)
from agent_rl.store.records import task_from_json, task_to_json
from agent_rl.types import Group, StopReason, Task, Trajectory


def to_rows(group: Group) -> Iterator[Row]:
    """A row for each member."""
    for episode in group.trajectories:
        yield {
            "messages": [*prompt_of(episode), *completion_of(episode)],
            **({"tools": list(episode.tools)} if episode.tools else {}),
            "reward": episode.reward,
            "metadata": {
                "task": json.loads(task_to_json(group.task)),
                "group": group.index,
                "member": episode.member,
                "seed": episode.seed,
                "prompt_messages": len(episode.prompt),
                "rewards": rewards_of(episode),
                "stop_reason": str(episode.stop_reason),
                "failure": failure_to_row(episode.failure),
                "metrics": dict(episode.metrics),
            },
        }


def from_rows(rows: Iterable[Row]) -> Iterator[Group]:
    """Groups without tokens. Rows without our metadata become groups of one."""
    yield from grouped(_episode(row, index) for index, row in enumerate(rows))


def _episode(row: Row, index: int) -> Trajectory:
    messages = row.get("messages")
    if not isinstance(messages, list):
        raise RowError("a row needs messages")
    metadata: dict[str, Any] = row.get("metadata") or {}
    task = task_from_json(json.dumps(metadata["task"])) if "task" in metadata else Task(f"chat-{index}", ())
    rewards = metadata.get("rewards", [float(row["reward"])] if row.get("reward") is not None else [])
    return trajectory_of(
        messages,
        Described(
            task,
            metadata.get("group", index),
            metadata.get("member", 0),
            rewards,
            StopReason(metadata.get("stop_reason", StopReason.TERMINATED)),
            failure_from_row(metadata.get("failure")),
            metadata.get("seed", 0),
            metadata.get("metrics", {}),
            metadata.get("prompt_messages"),
            tools_from_row(row.get("tools")),
        ),
    )
