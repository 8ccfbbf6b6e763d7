"""A group as the rows of the tables that are queried, and as its records. Pure functions: the database is elsewhere."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from typing import Any, TypeAlias

from sqlalchemy import Table

from agent_rl.store import records, schema
from agent_rl.types import Group, Trajectory

Row: TypeAlias = dict[str, Any]

LONGEST_TEXT = 500  # of a column that may be indexed: PostgreSQL takes 2,700 bytes, and a model may call any name
LONGEST_MESSAGE = 10_000


def rows_of(group: Group, run: int) -> list[tuple[Table, list[Row]]]:
    """What is inserted for a finished group, in an order that foreign keys allow; no table without rows.

    Raises `UserError` when a record holds something that is not JSON, `ValueError` on a malformed segment or when a
    member is not an episode of the group's task.
    """
    task = records.task_to_json(group.task)
    head: Row = {
        "run": run,
        "index": group.index,
        "task_id": _column(group.task.id),
        "environment": _column(group.task.environment),
        "task": task,
        "finished_at": time.time(),
    }
    tools = [records.tools_to_json(trajectory.tools) for trajectory in group.trajectories]
    sets = [{"run": run, "hash": _hash(text), "definitions": text} for text in dict.fromkeys(tools) if text]
    found: list[tuple[Table, list[Row]]] = [(schema.groups, [head]), (schema.tool_sets, sets)]
    members = [(t, {"run": run, "group_index": group.index, "member": t.member}) for t in group.trajectories]
    for trajectory, _ in members:
        _check(group, trajectory)
    found.append((schema.trajectories, [key | summary(t) for t, key in members]))
    bodies = [key | _record(t, task, text) for (t, key), text in zip(members, tools, strict=True)]
    found.append((schema.records, bodies))
    for table, details in DETAILS.items():
        found.append((table, [key | row for t, key in members for row in details(t)]))
    return [(table, rows) for table, rows in found if rows]


def summary(trajectory: Trajectory) -> Row:
    """The columns of `trajectories`, without its keys."""
    failure = trajectory.failure
    results = [result for turn in trajectory.turns for result in turn.tool_results]
    return {
        "task_id": _column(trajectory.task.id),
        "environment": _column(trajectory.task.environment),
        "reward": _finite(trajectory.reward),
        "stop_reason": str(trajectory.stop_reason),
        "failure_owner": str(failure.owner) if failure else None,
        "failure_kind": _column(failure.kind) if failure else None,
        "turns": len(trajectory.turns),
        "tool_calls": len(results),
        "tool_errors": sum(result.error is not None for result in results),
        "segments": len(trajectory.segments),
        "tokens": sum(len(segment.token_ids_T) for segment in trajectory.segments),
        "sampled_tokens": trajectory.sampled_tokens,
        "attempts": trajectory.attempts,
        "began_at": trajectory.began_at,
        "setup_s": trajectory.setup_s,
        "generation_s": sum(turn.generation_s for turn in trajectory.turns),
        "step_s": sum(turn.step_s for turn in trajectory.turns),
        "duration_s": trajectory.duration_s,
    }


def _check(group: Group, trajectory: Trajectory) -> None:
    if trajectory.task != group.task:
        raise ValueError(f"group {group.index} has an episode of task {trajectory.task.id!r}, not {group.task.id!r}")


def _record(trajectory: Trajectory, task: str, tools: str) -> Row:
    record = records.trajectory_to_json(trajectory)
    token_rows = records.segments_to_blob(trajectory.segments)
    return {
        "tools": _hash(tools) if tools else None,
        "record": record,
        "token_rows": token_rows,
        "checksum": records.checksum(task, record, token_rows, tools),
    }


def _hash(tools: str) -> str:
    return hashlib.sha256(tools.encode()).hexdigest()


def _turns(trajectory: Trajectory) -> Iterator[Row]:
    for position, turn in enumerate(trajectory.turns):
        yield {
            "index": position,
            "prompt_tokens": turn.start,
            "sampled_tokens": turn.end - turn.start,
            "reward": _finite(turn.reward),
            "finish_reason": str(turn.finish_reason),
            "tag": _column(turn.tag),
            "began_s": turn.began_s,
            "generation_s": turn.generation_s,
            "step_s": turn.step_s,
        }


def _tool_calls(trajectory: Trajectory) -> Iterator[Row]:
    for turn_position, turn in enumerate(trajectory.turns):
        for position, result in enumerate(turn.tool_results):
            yield {
                "turn": turn_position,
                "position": position,
                "name": _column(result.call.name),
                "error": None if result.error is None else _column(result.error),
                "duration_s": result.duration_s,
            }


def _failures(trajectory: Trajectory) -> Iterator[Row]:
    for attempt, failure in enumerate(trajectory.failures, 1):
        yield {
            "attempt": attempt,
            "owner": str(failure.owner),
            "kind": _column(failure.kind),
            "stage": _column(failure.stage),
            "message": _column(failure.message, LONGEST_MESSAGE),
        }


DETAILS = {schema.turns: _turns, schema.tool_calls: _tool_calls, schema.failures: _failures}
"""Of each trajectory: the rows of the tables below it."""


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _column(text: str, longest: int = LONGEST_TEXT) -> str:
    """As any database can hold it: no NUL, no half of a surrogate pair, not endless. The record has the original."""
    return text[:longest].replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
