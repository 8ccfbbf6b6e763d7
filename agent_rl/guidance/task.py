"""Guidance on its way into an episode: data of the task, so that any process that plays tasks can play guided ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent_rl.chat.wire import WireError, message_from_wire
from agent_rl.errors import UserError
from agent_rl.types import Guidance, Message, Task

_GUIDANCE, _QUESTION = "agent_rl.guidance", "agent_rl.question"  # no environment's own names


def guided_task(task: Task, guidance: Guidance | None) -> Task:
    """The task with guidance for one episode, which `GuidedEnvironment` gives; as it is without any."""
    if guidance is None:
        return task
    return replace(task, data={**task.data, _GUIDANCE: guidance})


def guidance_of(task: Task) -> tuple[Task, Guidance | None]:
    """The task as its environment knows it, and the guidance that it carries."""
    if _GUIDANCE not in task.data:
        return task, None
    return replace(task, data={k: v for k, v in task.data.items() if k != _GUIDANCE}), task.data[_GUIDANCE]


def question_task(task: Task, question: str) -> Task:
    """A task whose episode is one answer of the policy to `question`, in place of the task's environment."""
    prompt = (Message("user", question),)
    return Task(f"{task.id}/critique", prompt, {**task.data, _QUESTION: question}, task.environment, task.tags)


def is_question(task: Task) -> bool:
    """Whether `question_task` made it."""
    return _QUESTION in task.data


def demonstrated(task: Task) -> tuple[Message, ...] | None:
    """The actions in the task's `demonstration`, messages as OpenAI's API has them; `None` without one.

    Raises `UserError` for what is no chat.
    """
    chat = task.data.get("demonstration")
    if chat is None:
        return None
    if not isinstance(chat, list | tuple):
        raise UserError(f"Task {task.id!r} has a demonstration in its data that is no list of messages.")
    try:
        messages = [message_from_wire(wire, f"demonstration[{i}]") for i, wire in enumerate(chat)]
    except WireError as error:
        raise UserError(f"Task {task.id!r}: {error}") from error
    return tuple(message for message in messages if message.role == "assistant")


def with_text(prompt: Sequence[Message], text: str) -> tuple[Message, ...]:
    """The opening messages with `text` at the end of the last one, if that is the user's, else after it."""
    if not text:
        return tuple(prompt)
    *before, last = prompt or (Message("user", ""),)
    if last.role != "user":
        return (*prompt, Message("user", text))
    return (*before, replace(last, content=f"{last.content}\n\n{text}" if last.content else text))
