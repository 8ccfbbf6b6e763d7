"""ATIF, Harbor's Agent Trajectory Interchange Format, version 1.7: one document for each episode.

Specification: rfcs/0001-trajectory-format.md in harbor-framework/harbor. A turn is a step of the agent with its tool
calls, what the tools said as its observation, and its tokens as metrics; other messages are steps of their own.
Rewards, failures and the task have no field there and are in `extra`. Loses the ids
of prompts, reward terms and state keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any

from agent_rl.exchange.conversation import (
    MALFORMED,
    Row,
    RowError,
    described_by,
    description_of,
    grouped,
    task_in,
    tools_from_row,
    trajectory_of,
)
from agent_rl.types import Group, Message, Task, Trajectory, Turn

SCHEMA_VERSION = "ATIF-v1.7"
_SOURCES = {"system": "system", "user": "user", "tool": "user", "assistant": "agent"}
_OURS = "agent_rl"


def to_rows(group: Group) -> Iterator[Row]:
    """A document for each member."""
    for episode in group.trajectories:
        steps = [_context_step(message) for message in episode.prompt]
        for turn in episode.turns:
            steps += _turn_steps(episode, turn)
        used = [step["metrics"] for step in steps if "metrics" in step]
        yield {
            "schema_version": SCHEMA_VERSION,
            "session_id": f"group-{group.index}",
            "trajectory_id": f"{group.index}.{episode.member}",
            "agent": {"name": "agent-rl", "version": _version(), **_tools(episode)},
            "steps": [{"step_id": number, **step} for number, step in enumerate(steps, 1)],
            "final_metrics": {
                "total_prompt_tokens": sum(metrics["prompt_tokens"] for metrics in used),
                "total_completion_tokens": sum(metrics["completion_tokens"] for metrics in used),
                "total_steps": len(steps),
                "extra": {"reward": episode.reward},
            },
            "extra": {_OURS: description_of(group, episode)},
        }


def _tools(episode: Trajectory) -> Row:
    return {"tool_definitions": list(episode.tools)} if episode.tools else {}


@cache
def _version() -> str:
    return version("agent-rl")


def _context_step(message: Message) -> Row:
    """A message that the agent did not write; one of the assistant in a prompt was copied there."""
    step: Row = {"source": _SOURCES[message.role], "message": message.content}
    if message.role == "assistant":
        step |= {"is_copied_context": True, **_calls(message)}
    return step


def _turn_steps(episode: Trajectory, turn: Turn) -> list[Row]:
    action = turn.action
    step: Row = {"source": "agent", "message": action.content, **_calls(action)}
    if episode.began_at:
        step["timestamp"] = datetime.fromtimestamp(episode.began_at + turn.began_s, UTC).isoformat()
    if action.reasoning_content is not None:
        step["reasoning_content"] = action.reasoning_content
    if turn.end > turn.start:
        step["metrics"] = _metrics(episode, turn)
    answers = [message for message in turn.observations if message.role == "tool"]
    if answers:
        ids = {call.id for call in action.tool_calls}
        step["observation"] = {"results": [_result(message, ids) for message in answers]}
    step["extra"] = {"reward": turn.reward, "internal": turn.internal}
    return [step, *(_context_step(message) for message in turn.observations if message.role != "tool")]


def _calls(message: Message) -> Row:
    if not message.tool_calls:
        return {}
    calls: list[Row] = []
    for call in message.tool_calls:
        row: Row = {"tool_call_id": call.id, "function_name": call.name, "arguments": dict(call.arguments)}
        calls.append(row if call.error is None else {**row, "extra": {"error": call.error}})
    return {"tool_calls": calls}


def _result(message: Message, ids: set[str]) -> Row:
    """The format wants calls of the same step: what answers another one names it beside."""
    if message.tool_call_id in ids:
        return {"source_call_id": message.tool_call_id, "content": message.content}
    return {"content": message.content, "extra": {"tool_call_id": message.tool_call_id}}


def _metrics(episode: Trajectory, turn: Turn) -> Row:
    segment = episode.segments[turn.segment]
    span = slice(turn.start, turn.end)
    return {
        "prompt_tokens": turn.start,
        "completion_tokens": turn.end - turn.start,
        "completion_token_ids": segment.token_ids_T[span].tolist(),
        "logprobs": segment.rollout_logprobs_T[span].tolist(),
        "extra": {"weight_versions": segment.weight_versions_T[span].tolist()},
    }


# --- back -----------------------------------------------------------------------------------------------------------


def from_rows(rows: Iterable[Row]) -> Iterator[Group]:
    """Groups without tokens, from documents of others as well; those become groups of one."""
    yield from grouped(_episode(row, index) for index, row in enumerate(rows))


def _episode(row: Row, index: int) -> Trajectory:
    if not str(row.get("schema_version", "")).startswith("ATIF-v1."):
        raise RowError(f"schema_version is {row.get('schema_version')!r}, not ATIF-v1.x")
    extra: dict[str, Any] = row.get("extra") or {}
    ours: dict[str, Any] = extra.get(_OURS, {})
    task = task_in(ours) or Task(str(row.get("trajectory_id") or f"atif-{index}"), ())
    steps = [step for step in row["steps"] if not (step.get("extra") or {}).get("internal")]
    tools = tools_from_row((row.get("agent") or {}).get("tool_definitions"))
    described = described_by(ours, task, index, _rewards(row["steps"]), tools)
    return trajectory_of([message for step in steps for message in _messages(step)], described)


def _rewards(steps: list[Mapping[str, Any]]) -> list[float]:
    rewards, carried = list[float](), 0.0
    for step in steps:
        if step["source"] == "agent" and not step.get("is_copied_context"):
            extra = step.get("extra") or {}
            carried += float(extra.get("reward", 0.0))
            if not extra.get("internal"):
                rewards.append(carried)
                carried = 0.0
    return rewards


def _messages(step: Mapping[str, Any]) -> Iterator[Row]:
    """A step as messages of the chat format; parts of a message that are no text are refused there."""
    source = step["source"]
    message: Row = {"role": "assistant" if source == "agent" else source, "content": step["message"]}
    if step.get("reasoning_content") is not None:
        message["reasoning_content"] = step["reasoning_content"]
    calls: list[Mapping[str, Any]] = step.get("tool_calls") or []
    if calls:
        message["tool_calls"] = [_call(call) for call in calls]
    yield message
    for result in (step.get("observation") or {}).get("results", ()):
        id = result.get("source_call_id") or (result.get("extra") or {}).get("tool_call_id")
        content = result.get("content") or ""
        yield {"role": "tool", "tool_call_id": id, "content": content} if id else {"role": "user", "content": content}


def _call(call: Mapping[str, Any]) -> Row:
    function = {"name": call["function_name"] or MALFORMED, "arguments": json.dumps(call["arguments"])}
    error = (call.get("extra") or {}).get("error")
    row: Row = {"id": call["tool_call_id"], "type": "function", "function": function}
    return row if error is None else {**row, "error": error}
