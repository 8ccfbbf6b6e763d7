"""Episodes as verifiers 0.4 writes them: `traces.jsonl`, one episode a line with a trace of each of its agents.

    id, env {id}, task {type, data, key}, ok, errors,
    traces [{version, task, agent {name}, tools, nodes, calls, rewards, metrics, ok, stop_condition, errors, timing}]

Source: `Episode`, `Trace` and `MessageNode` in its `v1/`; fields that are null are left out. A trace is a graph of
messages, each with its parent: what is read is the path to the last message. Episodes come as they finished, so those
of one task are put together in memory, an agent's apart from another's. Keeps messages, tools, rewards, metrics, errors
and times; loses other branches. What of ours has no field is in `info`.

What is written has its tokens too where the history was never rewritten: a response's message has those that came
before it since the last response, so that the messages' tokens one after the other are the episode's.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agent_rl.exchange.conversation import (
    Described,
    Row,
    RowError,
    described_by,
    description_of,
    failure_from_row,
    failure_to_row,
    flat_tool_to_definition,
    flattened,
    task_in,
    to_wire,
    tools_from_row,
    trajectory_of,
    unflattened,
)
from agent_rl.types import Failure, FinishReason, Group, Message, Owner, StopReason, Task, Trajectory

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
_CONDITIONS = {
    StopReason.TERMINATED: "agent_completed",
    StopReason.MAX_TOKENS: "max_total_tokens",
    StopReason.FAILURE: "error",
}
_OURS = "agent_rl"


def to_rows(group: Group) -> Iterator[Row]:
    """A line for each member, with one trace."""
    for episode in group.trajectories:
        name = f"{group.index}.{episode.member}"
        ours = description_of(group, episode)
        ours["earlier_failures"] = [failure_to_row(failure) for failure in episode.earlier_failures]
        data = {"name": group.task.id, "info": ours["task"]["data"]}
        task = {"type": group.task.environment or "Task", "data": data, "key": str(group.index)}
        ok, errors = episode.failure is None, [_error(failure) for failure in episode.failures]
        nodes, calls = _graph(episode)
        trace: Row = {
            "version": VERSION,
            "id": name,
            "task": task,
            "agent": {"config": {}, "name": "agent", "trainable": True},
            "tools": [tool["function"] for tool in episode.tools],
            "nodes": nodes,
            "calls": calls,
            "rewards": {"reward": {"score": episode.reward, "weight": 1.0}},
            "metrics": dict(episode.metrics),
            "info": {_OURS: ours},
            "is_completed": True,  # what failed is over too
            "ok": ok,
            "stop_condition": _CONDITIONS.get(episode.stop_reason, str(episode.stop_reason)),
            "errors": errors,
            "timing": _timing(episode),
        }
        env = {"id": group.task.environment}
        yield {"id": name, "env": env, "task": task, "group": {"id": str(group.index)}, "ok": ok, "traces": [trace]}


def _graph(episode: Trajectory) -> tuple[list[Row], list[Row]]:
    """The messages, each a child of the one before it, and the calls of the model."""
    nodes, calls = list[Row](), list[Row]()

    def add(message: Message, at: float, **more: Any) -> None:
        node = {"message": flattened(to_wire(message)), "sampled": False, "timestamp": at, **more}
        nodes.append(node if not nodes else {"parent": len(nodes) - 1, **node})

    for message in episode.prompt:
        add(message, episode.began_at)
    for turn, tokens in zip((turn for turn in episode.turns if not turn.internal), _tokens(episode), strict=True):
        asked = episode.began_at + turn.began_s
        answered = asked + turn.generation_s
        add(turn.action, answered, sampled=True, **tokens)
        calls.append(
            {
                "node": len(nodes) - 1,
                "finish_reason": "length" if turn.finish_reason is FinishReason.LENGTH else "stop",
                "usage": {"prompt_tokens": turn.start, "completion_tokens": turn.end - turn.start},
                "time": {"start": asked, "end": answered},
            }
        )
        for message in turn.observations:
            add(message, answered + turn.step_s)
    return nodes, calls


def _tokens(episode: Trajectory) -> list[Row]:
    """For each turn that is written: all tokens since the turn before it. None where they are not one row."""
    ends = [0, *(turn.end for turn in episode.turns)]
    in_order = all(end <= turn.start for end, turn in zip(ends, episode.turns, strict=False))
    if len(episode.segments) != 1 or not in_order or any(turn.internal for turn in episode.turns):
        return [{} for turn in episode.turns if not turn.internal]
    (row,) = episode.segments
    found: list[Row] = []
    for begin, end in itertools.pairwise(ends):
        mask_T = row.response_mask_T[begin:end]
        logprobs = row.rollout_logprobs_T[begin:end][mask_T].tolist()
        found.append({"token_ids": row.token_ids_T[begin:end].tolist(), "mask": mask_T.tolist(), "logprobs": logprobs})
    return found


def _error(failure: Failure) -> Row:
    return {"type": failure.kind, "message": failure.message} | (
        {"traceback": failure.traceback} if failure.traceback else {}
    )


def _timing(episode: Trajectory) -> Row:
    began, ready, over = (episode.began_at + seconds for seconds in (0.0, episode.setup_s, episode.duration_s))
    model_s = sum(turn.generation_s for turn in episode.turns)
    used = {"model": {"duration": model_s}, "harness": {"duration": max(0.0, over - ready - model_s)}}
    setup = {"start": began, "end": ready}
    return {"start": began, "setup": setup, "agent": {"start": ready, "end": over, **used}}


# --- back -----------------------------------------------------------------------------------------------------------


def from_rows(rows: Iterable[Row]) -> Iterator[Group]:
    """Groups without tokens, in the order in which their first episode came."""
    groups: dict[str, tuple[int, Task, list[Trajectory]]] = {}
    for row in rows:
        for trace in _traces(row):
            said, agent = trace["task"], str((trace.get("agent") or {}).get("name", ""))
            ours = _ours(trace)
            same = said.get("key") or said.get("hash") or json.dumps(said["data"], sort_keys=True)
            key = f"{agent} {same}"
            if key not in groups:
                index = ours.get("group", len(groups))
                groups[key] = index, task_in(ours) or _task(said, index, agent, row), []
            index, task, members = groups[key]
            members.append(_episode(trace, task, index, len(members)))
    for index, task, members in groups.values():
        yield Group(index, task, tuple(members))


def _traces(row: Row) -> Sequence[Row]:
    """Of a line; where the episode failed before it had one, a trace of that."""
    return row["traces"] or [{"version": VERSION, "task": row["task"], "errors": row.get("errors")}]


def _ours(trace: Row) -> Row:
    return (trace.get("info") or {}).get(_OURS, {})


def _task(said: Mapping[str, Any], index: int, agent: str, row: Row) -> Task:
    data: dict[str, Any] = said["data"]
    name = data.get("name") or f"{said.get('type', 'task')}-{data.get('idx', index)}"
    return Task(str(name), (), data, str((row.get("env") or {}).get("id", "")), (agent,) if agent else ())


def _episode(trace: Row, task: Task, index: int, member: int) -> Trajectory:
    if trace.get("version") != VERSION:
        raise RowError(f"a trace has version {trace.get('version')!r}, not {VERSION}")
    path = _path(trace.get("nodes") or [])
    messages = [unflattened(node["message"]) for node in path]
    tools = tuple(map(flat_tool_to_definition, tools_from_row(trace.get("tools"))))
    if ours := _ours(trace):
        episode = trajectory_of(messages, described_by(ours, task, index, (), tools))
        earlier = tuple(filter(None, map(failure_from_row, ours["earlier_failures"])))
        return replace(episode, earlier_failures=earlier, **_times(trace))
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
        tools=tools,
    )
    episode = trajectory_of(messages, described)
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
