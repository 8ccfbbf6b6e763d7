"""Episodes as plain conversations: what every format at the level of messages has in common."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias, cast

from agent_rl.chat.wire import Wire, message_from_wire, message_to_wire
from agent_rl.errors import UserError
from agent_rl.store.records import task_from_json, task_to_json
from agent_rl.types import (
    JSON,
    Failure,
    FinishReason,
    Group,
    Message,
    Owner,
    StopReason,
    Task,
    ToolCall,
    Trajectory,
    Turn,
)

Row: TypeAlias = dict[str, Any]
MALFORMED = "malformed_call"
"""The name in a file of a tool call that could not be read, and has none."""


class RowError(ValueError):
    """A row that is not of its format; one sentence that says where."""


class Described(NamedTuple):
    """What a conversation does not say of its episode, and formats keep beside it.

    Without `prompt_messages` the prompt is what comes before the first message of the assistant.
    """

    task: Task
    group: int
    member: int
    rewards: Sequence[float]
    stop_reason: StopReason
    failure: Failure | None = None
    seed: int = 0
    metrics: Mapping[str, float] = {}
    prompt_messages: int | None = None
    tools: tuple[JSON, ...] = ()


def description_of(group: Group, episode: Trajectory) -> Row:
    """What is kept beside a conversation: all of `Described` but the tools, for which formats have a place."""
    return {
        "task": json.loads(task_to_json(group.task)),
        "group": group.index,
        "member": episode.member,
        "seed": episode.seed,
        "prompt_messages": len(episode.prompt),
        "rewards": rewards_of(episode),
        "stop_reason": str(episode.stop_reason),
        "failure": failure_to_row(episode.failure),
        "metrics": dict(episode.metrics),
    }


def task_in(description: Row) -> Task | None:
    """The task in what `description_of` gave; none in what others wrote."""
    return task_from_json(json.dumps(description["task"])) if "task" in description else None


def described_by(
    description: Row, task: Task, index: int, rewards: Sequence[float], tools: tuple[JSON, ...]
) -> Described:
    """Inverse of `description_of`. What it lacks, as those of others do, is said by the file: a group of one at `index`
    that ended by itself, with `rewards`."""
    return Described(
        task,
        description.get("group", index),
        description.get("member", 0),
        description.get("rewards", rewards),
        StopReason(description.get("stop_reason", StopReason.TERMINATED)),
        failure_from_row(description.get("failure")),
        description.get("seed", 0),
        description.get("metrics", {}),
        description.get("prompt_messages"),
        tools,
    )


def prompt_of(episode: Trajectory) -> list[Wire]:
    """The opening messages."""
    return [to_wire(message) for message in episode.prompt]


def completion_of(episode: Trajectory) -> list[Wire]:
    """Everything after: responses and what they were answered. The agent's internal turns are not part of it."""
    turns = (turn for turn in episode.turns if not turn.internal)
    return [to_wire(message) for turn in turns for message in (turn.action, *turn.observations)]


def to_wire(message: Message) -> Wire:
    """In OpenAI's format; a malformed call has its `error` beside it, and a name in any case."""
    wire = message_to_wire(message)
    for call, written in zip(message.tool_calls, wire.get("tool_calls", ()), strict=True):
        if call.error is not None:
            written["error"] = call.error
            written["function"]["name"] = call.name or MALFORMED
    return wire


def from_wire(wire: object, where: str) -> Message:
    """Inverse of `to_wire`. Raises `WireError` for what is no message."""
    message = message_from_wire(wire, where)
    if not message.tool_calls:
        return message
    errors = [call.get("error") for call in cast("Wire", wire)["tool_calls"]]
    calls = zip(message.tool_calls, errors, strict=True)
    return replace(
        message, tool_calls=tuple(call if error is None else _malformed(call, error) for call, error in calls)
    )


def _malformed(call: ToolCall, error: object) -> ToolCall:
    return replace(call, name="" if call.name == MALFORMED else call.name, error=str(error))


def rewards_of(episode: Trajectory) -> list[float]:
    """Of each turn in the conversation; an internal turn's goes to the next one's."""
    rewards, carried = list[float](), 0.0
    for turn in episode.turns:
        carried += turn.reward
        if not turn.internal:
            rewards.append(carried)
            carried = 0.0
    return rewards


def trajectory_of(messages: Sequence[object], described: Described) -> Trajectory:
    """An episode without tokens, from its conversation. Raises `RowError` or `WireError` where it is none."""
    said = [from_wire(message, f"messages[{index}]") for index, message in enumerate(messages)]
    if described.prompt_messages is None:
        prompt = tuple(itertools.takewhile(lambda message: message.role != "assistant", said))
    else:
        prompt = tuple(said[: described.prompt_messages])
    rounds = _rounds(said[len(prompt) :])
    rewards = list(described.rewards)
    if len(rewards) > len(rounds):
        raise RowError(f"{len(rewards)} rewards for {len(rounds)} messages of the assistant")
    rewards = [0.0] * (len(rounds) - len(rewards)) + rewards  # one reward is that of the last turn
    return Trajectory(
        task=described.task,
        group_index=described.group,
        member=described.member,
        seed=described.seed,
        prompt=prompt,
        segments=(),
        turns=tuple(
            Turn(
                index=index,
                segment=0,
                start=0,
                end=0,
                action=action,
                observations=tuple(observations),
                reward=reward,
                reward_terms={},
                tool_results=(),
                finish_reason=FinishReason.STOP,
            )
            for index, ((action, *observations), reward) in enumerate(zip(rounds, rewards, strict=True))
        ),
        stop_reason=described.stop_reason,
        failure=described.failure,
        metrics=dict(described.metrics),
        tools=described.tools,
    )


def _rounds(messages: Sequence[Message]) -> list[list[Message]]:
    """Each message of the assistant, with those that follow it."""
    rounds: list[list[Message]] = []
    for message in messages:
        if message.role == "assistant":
            rounds.append([message])
        elif rounds:
            rounds[-1].append(message)
        else:
            raise RowError(f"the first message after the prompt is of the {message.role}, not of the assistant")
    return rounds


def tools_from_row(tools: object) -> tuple[JSON, ...]:
    """Definitions as OpenAI has them; none for null. Raises `RowError`."""
    if not isinstance(tools, list | None) or not all(isinstance(tool, dict) for tool in tools or ()):
        raise RowError("tools must be a list of definitions")
    return tuple(cast("list[JSON]", tools or []))


def flattened(message: Wire) -> Wire:
    """A message as verifiers has it: its tool calls have no `function`."""
    if "tool_calls" not in message:
        return message
    calls = [{"id": call["id"], **call["function"], **_error_of(call)} for call in message["tool_calls"]]
    return {**message, "content": message["content"] or "", "tool_calls": calls}


def _error_of(call: Wire) -> Wire:
    return {"error": call["error"]} if "error" in call else {}


def unflattened(message: object) -> object:
    """A message of verifiers in OpenAI's format: its tool calls have no `function`, and may be texts.

    What is no message stays as it is; `trajectory_of` refuses it.
    """
    if not isinstance(message, dict) or not isinstance(message.get("tool_calls"), list):
        return cast("object", message)
    wire = cast("Wire", message)
    return {**wire, "tool_calls": [_unflattened_call(call) for call in wire["tool_calls"]]}


def _unflattened_call(call: object) -> object:
    data: object = json.loads(call) if isinstance(call, str) else call
    if not isinstance(data, dict) or "function" in data:
        return cast("object", data)
    flat = cast("Wire", data)
    return {**flat, "type": "function", "function": {name: flat.get(name) for name in ("name", "arguments")}}


def flat_tool_to_definition(tool: JSON) -> JSON:
    """A tool of verifiers in OpenAI's format; null is where it says nothing of `strict`."""
    return {"type": "function", "function": {name: value for name, value in tool.items() if value is not None}}


def failure_to_row(failure: Failure | None) -> Row | None:
    """Without the traceback."""
    if failure is None:
        return None
    return {"kind": failure.kind, "owner": str(failure.owner), "stage": failure.stage, "message": failure.message}


def failure_from_row(row: Mapping[str, Any] | None) -> Failure | None:
    """Inverse of `failure_to_row`."""
    if row is None:
        return None
    return Failure(str(row["kind"]), Owner(row["owner"]), str(row.get("stage", "")), str(row.get("message", "")))


def grouped(episodes: Iterable[Trajectory]) -> Iterator[Group]:
    """Groups of neighbouring episodes. Raises `UserError` when a group comes back after another."""
    seen = set[int]()
    for index, members in itertools.groupby(episodes, key=lambda episode: episode.group_index):
        if index in seen:
            raise UserError(f"The rows of group {index} are not together: sort the file by group.")
        seen.add(index)
        trajectories = tuple(members)
        yield Group(index, trajectories[0].task, trajectories)
