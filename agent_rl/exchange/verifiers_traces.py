"""Episodes as verifiers 0.4 writes them: `traces.jsonl`, one episode a line with a trace of each of its agents.

    id, env {id}, task {type, data, key}, ok, errors,
    traces [{version, task, agent {name}, tools, nodes, calls, rewards, metrics, ok, stop_condition, errors, timing}]

Source: `Episode`, `Trace` and `MessageNode` in its `v1/`; fields that are null are left out. A trace is a graph of
messages, each with its parent: what is read is the path to the last message. Episodes come as they finished, so those
of one task are put together in memory, an agent's apart from another's. Keeps messages, tools, rewards as terms of the
last turn, metrics, errors and times; loses other branches and tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agent_rl.exchange.conversation import (
    Described,
    Row,
    RowError,
    flat_tool_to_definition,
    tools_from_row,
    trajectory_of,
    unflattened,
)
from agent_rl.types import Failure, Group, Owner, StopReason, Task, Trajectory

VERSION = 1
_LIMITS = {
    "max_turns": StopReason.MAX_TURNS,
    "max_input_tokens": StopReason.MAX_TOKENS,
    "max_output_tokens": StopReason.MAX_TOKENS,
    "max_total_tokens": StopReason.MAX_TOKENS,
    "context_length": StopReason.MAX_TOKENS,
}
_OWNERS = {
    "OverlongPromptError": Owner.PROVIDER,
    "ProviderError": Owner.PROVIDER,
    "SandboxError": Owner.SANDBOX,
    "ToolsetError": Owner.TOOL,
}


def from_rows(rows: Iterable[Row]) -> Iterator[Group]:
    """Groups without tokens, in the order in which their first episode came."""
    groups: dict[str, tuple[int, Task, list[Trajectory]]] = {}
    for row in rows:
        for trace in _traces(row):
            said, agent = trace["task"], str((trace.get("agent") or {}).get("name", ""))
            same = said.get("key") or said.get("hash") or json.dumps(said["data"], sort_keys=True)
            key = f"{agent} {same}"
            if key not in groups:
                groups[key] = len(groups), _task(said, len(groups), agent, row), []
            index, task, members = groups[key]
            members.append(_episode(trace, task, index, len(members)))
    for index, task, members in groups.values():
        yield Group(index, task, tuple(members))


def _traces(row: Row) -> Sequence[Row]:
    """Of a line; where the episode failed before it had one, a trace of that."""
    return row["traces"] or [{"version": VERSION, "task": row["task"], "errors": row.get("errors")}]


def _task(said: Mapping[str, Any], index: int, agent: str, row: Row) -> Task:
    data: dict[str, Any] = said["data"]
    name = data.get("name") or f"{said.get('type', 'task')}-{data.get('idx', index)}"
    return Task(str(name), (), data, str((row.get("env") or {}).get("id", "")), (agent,) if agent else ())


def _episode(trace: Row, task: Task, index: int, member: int) -> Trajectory:
    if trace.get("version") != VERSION:
        raise RowError(f"a trace has version {trace.get('version')!r}, not {VERSION}")
    path = _path(trace.get("nodes") or [])
    prompt = next((place for place, node in enumerate(path) if node.get("sampled")), len(path))
    rewards = {name: reward for name, reward in (trace.get("rewards") or {}).items() if reward is not None}
    total = sum(float(reward["score"]) * float(reward.get("weight", 1.0)) for reward in rewards.values())
    *earlier, last = [*map(_failure, trace.get("errors") or []), None]
    if not trace.get("ok"):
        last = earlier.pop() if earlier else Failure("error", Owner.ENVIRONMENT, "episode", "it did not complete")
    described = Described(
        task,
        index,
        member,
        [total] if prompt < len(path) else [],
        StopReason.FAILURE if last else _stop_reason(trace),
        last,
        metrics={name: float(value) for name, value in (trace.get("metrics") or {}).items() if value is not None},
        prompt_messages=prompt,
        tools=tuple(map(flat_tool_to_definition, tools_from_row(trace.get("tools")))),
    )
    episode = trajectory_of([unflattened(node["message"]) for node in path], described)
    scores = {name: float(reward["score"]) for name, reward in rewards.items()}
    turns = (*episode.turns[:-1], *(replace(turn, reward_terms=scores) for turn in episode.turns[-1:]))
    return replace(episode, turns=turns, earlier_failures=tuple(filter(None, earlier)), **_times(trace))


def _path(nodes: Sequence[Row]) -> list[Row]:
    """From the root to the last message. Raises `RowError` where a parent does not come before its child."""
    path: list[Row] = []
    at: int | None = len(nodes) - 1 if nodes else None
    while at is not None:
        path.append(nodes[at])
        parent: int | None = nodes[at].get("parent")
        if parent is not None and not 0 <= parent < at:
            raise RowError(f"the parent of message {at} is {parent}")
        at = parent
    return path[::-1]


def _failure(error: Row) -> Failure | None:
    kind = str(error.get("type") or "error")
    owner = _OWNERS.get(kind, Owner.ENVIRONMENT)
    return Failure(kind, owner, "episode", str(error.get("message", "")), str(error.get("traceback") or ""))


def _stop_reason(trace: Row) -> StopReason:
    said = trace.get("stop_condition")
    if said in _LIMITS:
        return _LIMITS[said]
    finishes = [call.get("finish_reason") for call in trace.get("calls") or [] if not call.get("error")]
    return StopReason.RESPONSE_LENGTH if finishes[-1:] == ["length"] else StopReason.TERMINATED


def _times(trace: Row) -> dict[str, float]:
    timing: dict[str, Any] = trace.get("timing") or {}
    spans = {name: timing.get(name) or {} for name in ("boot", "setup", "agent", "finalize", "scoring")}
    ends = [float(span.get("end") or 0.0) for span in spans.values()]
    began = float(timing.get("start") or 0.0)
    before = max(ends[:2])
    return {
        "began_at": began,
        "setup_s": max(0.0, before - began) if before else 0.0,
        "duration_s": max(0.0, max(ends) - began) if max(ends) else 0.0,
    }
