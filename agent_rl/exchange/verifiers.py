"""Rows as verifiers saves the results of an evaluation: `results.jsonl`, one rollout a line.

    example_id, task, prompt, completion, answer, info, reward, metrics, is_completed, is_truncated, stop_condition,
    error, timing (milliseconds)

Keeps messages, rewards and metrics of whole episodes; what of ours has no column is in `info`. Loses tokens, and how a
reward is spread over turns.
"""

from __future__ import annotations

import json
from collections import Counter
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
    trajectory_of,
)
from agent_rl.store.records import task_from_json, task_to_json
from agent_rl.types import Failure, Group, Owner, StopReason, Task, Trajectory


def to_rows(group: Group) -> Iterator[Row]:
    """A row for each member; siblings share the `example_id`."""
    for episode in group.trajectories:
        generation_ms = 1000 * sum(turn.generation_s for turn in episode.turns)
        scoring_ms = 1000 * sum(turn.step_s for turn in episode.turns)
        yield {
            "example_id": group.index,
            "task": group.task.environment or "default",
            "prompt": prompt_of(episode),
            "completion": completion_of(episode),
            "answer": "",
            "info": {
                "agent_rl_task": json.loads(task_to_json(group.task)),
                "member": episode.member,
                "seed": episode.seed,
                "failure": failure_to_row(episode.failure),
            },
            "reward": episode.reward,
            "metrics": dict(episode.metrics),
            "is_completed": episode.failure is None,
            "is_truncated": episode.truncated,
            "stop_condition": str(episode.stop_reason),
            "error": None if episode.failure is None else episode.failure.message,
            "timing": {
                "generation_ms": generation_ms,
                "scoring_ms": scoring_ms,
                "total_ms": 1000 * episode.duration_s,
            },
        }


def from_rows(rows: Iterable[Row]) -> Iterator[Group]:
    """Groups without tokens, of verifiers' own rows as well."""
    members = Counter[int]()

    def member(index: int) -> int:
        members[index] += 1
        return members[index] - 1

    yield from grouped(_episode(row, member(int(row["example_id"]))) for row in rows)


def _episode(row: Row, member: int) -> Trajectory:
    info: dict[str, Any] = _info(row.get("info"))
    index = int(row["example_id"])
    if not isinstance(row.get("prompt"), list) or not isinstance(row.get("completion"), list):
        raise RowError("prompt and completion must be lists of messages")
    task = task_from_json(json.dumps(info["agent_rl_task"])) if "agent_rl_task" in info else _task(row, index, info)
    failure = failure_from_row(info.get("failure"))
    if failure is None and row.get("error"):
        failure = Failure("error", Owner.ENVIRONMENT, "episode", str(row["error"]))
    described = Described(
        task,
        index,
        info.get("member", member),
        [float(row.get("reward") or 0.0)] if row["completion"] else [],
        _stop_reason(row, failure),
        failure,
        info.get("seed", 0),
        {name: float(value) for name, value in (row.get("metrics") or {}).items()},
        len(row["prompt"]),
    )
    return trajectory_of([*row["prompt"], *row["completion"]], described)


def _info(info: Any) -> dict[str, Any]:
    """verifiers writes it as an object, or as a text of one."""
    return json.loads(info) if isinstance(info, str) and info else (info or {})


def _task(row: Row, index: int, info: dict[str, Any]) -> Task:
    data = {"answer": row.get("answer", ""), "info": info}
    return Task(f"{row.get('task') or 'verifiers'}-{index}", (), data, str(row.get("task") or ""))


def _stop_reason(row: Row, failure: Failure | None) -> StopReason:
    """Ours by name; verifiers' own conditions say only whether a limit ended the rollout."""
    if failure is not None:
        return StopReason.FAILURE
    said = row.get("stop_condition")
    if said in set(StopReason):
        return StopReason(said)
    return StopReason.ENVIRONMENT_TRUNCATED if row.get("is_truncated") else StopReason.TERMINATED
