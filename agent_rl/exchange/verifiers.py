"""Rows as verifiers 0.1 to 0.3 saves the results of an evaluation: `results.jsonl`, one rollout a line.

    example_id, prompt, completion, answer, info, reward, metrics, is_completed, is_truncated, stop_condition, error,
    timing, tool_defs

Source: `state_to_output` in its `utils/save_utils.py`. Tool calls are JSON texts, an empty `answer` or `info` is left
out, `error` is null or says kind and message, times are Unix seconds. The first of these versions wrote a `task`, calls
as OpenAI does and an error as a text, which is read too; so is what version 0.4 writes (`verifiers_traces`).

Keeps messages, rewards and metrics of whole episodes; what of ours has no column is in `info`. Loses tokens, and how a
reward is spread over turns.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, cast

from agent_rl.chat.wire import Wire
from agent_rl.exchange.conversation import (
    Described,
    Row,
    RowError,
    completion_of,
    failure_from_row,
    failure_to_row,
    flat_tool_to_definition,
    flattened,
    grouped,
    prompt_of,
    tools_from_row,
    trajectory_of,
    unflattened,
)
from agent_rl.store.records import task_from_json, task_to_json
from agent_rl.types import Failure, Group, Owner, StopReason, Task, Trajectory


def to_rows(group: Group) -> Iterator[Row]:
    """A row for each member; siblings share the `example_id`."""
    for episode in group.trajectories:
        yield {
            "example_id": group.index,
            "prompt": _saved(prompt_of(episode)),
            "completion": _saved(completion_of(episode)),
            "info": {
                "agent_rl_task": json.loads(task_to_json(group.task)),
                "member": episode.member,
                "seed": episode.seed,
                "failure": failure_to_row(episode.failure),
            },
            "reward": episode.reward,
            "metrics": dict(episode.metrics),
            "is_completed": True,  # a rollout that failed is over too
            "is_truncated": episode.truncated,
            "stop_condition": str(episode.stop_reason),
            "error": None if episode.failure is None else _error(episode.failure),
            "timing": _timing(episode),
            **({"tool_defs": [tool["function"] for tool in episode.tools]} if episode.tools else {}),
        }


def _saved(messages: Iterable[Wire]) -> list[Wire]:
    """With tool calls as texts of `id`, `name` and `arguments`."""
    return [_with_texts(flattened(message)) for message in messages]


def _with_texts(message: Wire) -> Wire:
    if "tool_calls" not in message:
        return message
    return {**message, "tool_calls": [json.dumps(call) for call in message["tool_calls"]]}


def _error(failure: Failure) -> Row:
    chain = f"{failure.kind}({failure.message!r})"
    return {"error": failure.kind, "message": failure.message, "error_chain_repr": chain, "error_chain_str": chain}


def _timing(episode: Trajectory) -> Row:
    began = episode.began_at
    model = [_span(began + turn.began_s, turn.generation_s) for turn in episode.turns]
    environment = [_span(began + turn.began_s + turn.generation_s, turn.step_s) for turn in episode.turns]
    used_s = sum(span["duration"] for span in (*model, *environment))
    return {
        "start_time": began,
        "setup": _span(began, episode.setup_s),
        "generation": _span(began, episode.duration_s),
        "scoring": _span(began + episode.duration_s, 0.0),
        "model": {"spans": model, "duration": sum(span["duration"] for span in model)},
        "env": {"spans": environment, "duration": sum(span["duration"] for span in environment)},
        "total": episode.duration_s,
        "overhead": episode.duration_s - episode.setup_s - used_s,
    }


def _span(start: float, duration_s: float) -> dict[str, float]:
    return {"start": start, "end": start + duration_s, "duration": duration_s}


def from_rows(rows: Iterable[Row]) -> Iterator[Group]:
    """Groups without tokens, of verifiers' own rows as well."""
    members = Counter[int]()

    def member(index: int) -> int:
        members[index] += 1
        return members[index] - 1

    yield from grouped(_episode(row, member(_example(row))) for row in rows)


def _example(row: Row) -> int:
    if "traces" in row:
        raise RowError("a line of traces.jsonl: the format is verifiers_traces")
    return int(row["example_id"])


def _episode(row: Row, member: int) -> Trajectory:
    info = _info(row.get("info"))
    index = int(row["example_id"])
    prompt, completion = (_messages(row, name) for name in ("prompt", "completion"))
    task = task_from_json(json.dumps(info["agent_rl_task"])) if "agent_rl_task" in info else _task(row, index, info)
    failure = failure_from_row(info.get("failure")) or _failure(row.get("error"))
    described = Described(
        task,
        index,
        info.get("member", member),
        [float(row.get("reward") or 0.0)] if completion else [],
        _stop_reason(row, failure),
        failure,
        info.get("seed", 0),
        {name: float(value) for name, value in (row.get("metrics") or {}).items()},
        len(prompt),
        tuple(map(flat_tool_to_definition, tools_from_row(row.get("tool_defs")))),
    )
    return trajectory_of([*prompt, *completion], described)


def _messages(row: Row, name: str) -> list[object]:
    """None of them where the rollout failed before it had one."""
    messages = row.get(name)
    if messages is not None and not isinstance(messages, list):
        raise RowError(f"{name} must be a list of messages, not {type(messages).__name__}")
    return [unflattened(message) for message in cast("list[object]", messages or [])]


def _info(info: Any) -> Row:
    """An object, or as a text of one."""
    return json.loads(info) if isinstance(info, str) and info else (info or {})


def _failure(error: Any) -> Failure | None:
    if not error:
        return None
    if not isinstance(error, dict):
        return Failure("error", Owner.ENVIRONMENT, "episode", str(error))
    said = cast("Row", error)
    kind = str(said.get("error") or "error")
    return Failure(kind, Owner.ENVIRONMENT, "episode", str(said.get("message") or said.get("error_chain_str") or kind))


def _task(row: Row, index: int, info: Row) -> Task:
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
