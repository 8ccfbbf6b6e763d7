"""Demonstrated episodes as training rows: what is imitated. Knows the chat format, not who demonstrated."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from agent_rl.chat.codec import ChatCodec
from agent_rl.chat.conversation import Conversation
from agent_rl.chat.wire import WireError, message_from_wire
from agent_rl.errors import UserError
from agent_rl.rows import Row, RowsConfig, read_rows
from agent_rl.tool import tool_from_schema
from agent_rl.types import FinishReason, Generation, Message, Segment, TrainingRow, Trajectory, opens_conversation

if TYPE_CHECKING:
    from agent_rl.tool import Tool


def demonstration_rows(codec: ChatCodec, episode: Trajectory, tools: Sequence[Tool]) -> list[TrainingRow]:
    """Rows that train every assistant turn of the episode, each token with weight 1.

    The tokens are those that a rollout with the same messages would have, so that the policy meets in its own episodes
    what it was trained on.
    """
    chats = [[*episode.prompt]]
    for turn in episode.turns:
        chats[-1].append(turn.action)
        if opens_conversation(turn.observations):
            chats.append([])
        chats[-1] += turn.observations
    begun = (chat for chat in chats if any(message.role == "assistant" for message in chat))
    return [row for chat in begun for row in chat_rows(codec, chat, tools)]


def chat_rows(codec: ChatCodec, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[TrainingRow]:
    """Rows that train every assistant message of a chat, each token with weight 1."""
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    conversation = Conversation(codec, tools)
    conversation.start(messages[: answers[0]])
    for answer, following in zip(answers, [*answers[1:], None], strict=True):
        conversation.append_response(_as_if_sampled(codec, messages[answer]))
        if following is not None:
            conversation.append_observations(messages[answer + 1 : following])
    return [_row(segment) for segment in conversation.segments()]


def read_demonstrations(codec: ChatCodec, path: Path, *, of_tasks: bool = False) -> dict[str, list[TrainingRow]]:
    """The rows of a file of chats: on each line `messages` and, if any were offered, `tools`, both as OpenAI's API has.

    They are told apart by `task`, the id of a task, which has to be on each line if they are `of_tasks`.
    Raises `UserError` that names the line for what is no chat, has no assistant message or begins with one.
    """
    rows: dict[str, list[TrainingRow]] = {}
    for row in read_rows(RowsConfig(source=str(path), test_share=0.0), "train"):
        messages = _messages(row)
        task = row.field("task", str) if of_tasks else row.field("task", str, "")
        shown = chat_rows(codec, messages, [_tool(row, wire) for wire in row.field("tools", list[Any], [])])
        rows.setdefault(task, []).extend(shown)
    if not rows:
        raise UserError(f"{path} holds no demonstrations.")
    return rows


def _messages(row: Row) -> list[Message]:
    try:
        messages = [
            message_from_wire(wire, f"messages[{i}]") for i, wire in enumerate(row.field("messages", list[Any]))
        ]
    except WireError as error:
        raise UserError(f"{row.where}: {error}") from error
    roles = [message.role for message in messages]
    if "assistant" not in roles[1:] or roles[0] == "assistant":
        raise row.bad("messages", "it takes a prompt and an assistant message after it")
    if any(first == second == "assistant" for first, second in itertools.pairwise(roles)):
        raise row.bad("messages", "two assistant messages follow each other")
    return messages


def _tool(row: Row, wire: Any) -> Tool:
    try:
        function = wire["function"]
        return tool_from_schema(
            function["name"], function.get("description", ""), function.get("parameters", {}), _only_shown
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise row.bad("tools", "a tool is {'type': 'function', 'function': {'name': ...}}") from error


def _only_shown(**arguments: object) -> NoReturn:
    raise NotImplementedError("a demonstration's tool is shown, never called")


def _as_if_sampled(codec: ChatCodec, action: Message) -> Generation:
    ids_R = codec.encode_action(action)
    zeros_R = np.zeros(len(ids_R))
    return Generation(ids_R, zeros_R.astype(np.float32), zeros_R.astype(np.int32), FinishReason.STOP)


def _row(segment: Segment) -> TrainingRow:
    zeros_T = np.zeros(len(segment.token_ids_T), np.float32)
    return TrainingRow(
        token_ids_T=segment.token_ids_T,
        response_mask_T=segment.response_mask_T,
        rollout_logprobs_T=segment.rollout_logprobs_T,
        advantages_T=zeros_T,
        weights_T=segment.response_mask_T.astype(np.float32),
        weight_versions_T=segment.weight_versions_T,
    )
