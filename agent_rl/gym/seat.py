"""One of our environments as gymnasium tells it: texts and dictionaries. Asynchronous: who waits is not its affair.

A seat plays one episode after another. What its episodes have in common, which may be shared by many seats, is `Play`.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import anyio
import gymnasium
import numpy as np

from agent_rl.chat.parsers import get_tool_parser, split_reasoning
from agent_rl.environment import Environment
from agent_rl.errors import EnvironmentFailure, UserError, boundary, not_found
from agent_rl.registry import environment_spec
from agent_rl.types import Message, Step, Task

T = TypeVar("T")

_CLOSE_S = 10.0


class StepResult(NamedTuple):
    """Gymnasium's five, of one environment."""

    observation: str
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


class Play:
    """Which environment, which of its tasks, and how actions are read."""

    def __init__(
        self,
        environment: str,
        *,
        options: Mapping[str, Any] | None = None,
        split: str = "train",
        tasks: int = 100,
        tasks_seed: int = 0,
        tool_parser: str = "hermes",
        timeout_s: float = 120.0,
    ) -> None:
        self.spec = environment_spec(environment, options)
        self.timeout_s = timeout_s
        self._split, self._count, self._tasks_seed = split, tasks, tasks_seed
        self._parse = get_tool_parser(tool_parser)
        self._tasks: dict[str, Sequence[Task]] = {}

    def choose(self, options: dict[str, Any], rng: np.random.Generator) -> Task:
        """The task that the options of a reset name, or one drawn. Raises `UserError` where there is none."""
        split, wanted = options.pop("split", self._split), options.pop("task", None)
        if options:
            raise not_found("option of reset", next(iter(options)), ("split", "task"))
        if split not in self._tasks:
            self._tasks[split] = self.spec.tasks(split, self._count, self._tasks_seed)
        tasks = self._tasks[split]
        if not tasks:
            raise UserError(f"There are no tasks in the split {split!r}.")
        if wanted is None:
            return tasks[int(rng.integers(len(tasks)))]
        if isinstance(wanted, str):
            by_id = {task.id: task for task in tasks}
            if wanted not in by_id:
                raise UserError(f"None of the {len(tasks)} {split} tasks is {wanted!r}; raise tasks=, or look at ids.")
            return by_id[wanted]
        if not 0 <= wanted < len(tasks):
            raise UserError(f"There is no task {wanted}: the split {split!r} has {len(tasks)} here, counted from 0.")
        return tasks[wanted]

    def message(self, text: str) -> Message:
        """An action, with the tool calls in it."""
        reasoning, rest = split_reasoning(text)
        content, calls = self._parse(rest)
        return Message("assistant", content, calls, reasoning_content=reasoning)


class Seat:
    """Plays episodes, one at a time. Raises `EnvironmentFailure` where the environment fails or takes too long."""

    def __init__(self, play: Play) -> None:
        self._play = play
        self._environment: Environment | None = None
        self._messages: list[Message] = []

    async def reset(self, options: dict[str, Any] | None, rng: np.random.Generator) -> tuple[str, dict[str, Any]]:
        """End the episode and begin another: the opening messages as a text."""
        task = self._play.choose(dict(options or {}), rng)
        await self.close()
        self._environment = environment = self._play.spec(task)
        seed = int(rng.integers(2**31))
        prompt = await _within(self._play.timeout_s, "setup", lambda: environment.reset(task, seed))
        self._messages = list(prompt)
        info = {
            "task": task.id,
            "tags": list(task.tags),
            "messages": list(map(_as_dict, prompt)),
            "tools": copy.deepcopy([tool.definition for tool in environment.tools]),
        }
        return _as_text(prompt), info

    async def step(self, action: str) -> StepResult:
        """What the environment answers to the text, tool calls in it included."""
        environment = self._environment
        if environment is None:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        if not isinstance(action, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # users' code
            raise UserError(f"An action is a text, not {type(action).__name__}.")
        message = self._play.message(action)
        step: Step = await _within(self._play.timeout_s, "step", lambda: environment.step(message))
        self._messages += [message, *step.messages]
        info = {
            "messages": list(map(_as_dict, step.messages)),
            "reward_terms": dict(step.info.reward_terms),
            "metrics": dict(step.info.metrics),
            "tool_errors": [result.error for result in step.info.tool_results if result.error is not None],
        }
        return StepResult(_as_text(step.messages), float(step.reward), step.terminated, step.truncated, info)

    def render(self) -> str:
        """The episode so far, one message after another."""
        return "\n\n".join(f"[{message.role}]\n{_said(message)}".rstrip() for message in self._messages)

    async def close(self) -> None:
        """End the episode. Idempotent."""
        environment, self._environment = self._environment, None
        if environment is not None:
            await _within(_CLOSE_S, "close", environment.close)


async def _within(timeout_s: float, stage: str, call: Callable[[], Awaitable[T]]) -> T:
    with boundary(EnvironmentFailure, stage), anyio.fail_after(timeout_s):
        return await call()


def _as_text(messages: Sequence[Message]) -> str:
    return "\n\n".join(message.content for message in messages)


def _said(message: Message) -> str:
    calls = [f"-> {call.name}({dict(call.arguments)})" for call in message.tool_calls]
    return "\n".join([message.content, *calls] if message.content else calls)


def _as_dict(message: Message) -> dict[str, Any]:
    answered = {"tool_call_id": message.tool_call_id} if message.tool_call_id is not None else {}
    return {"role": message.role, "content": message.content, **answered}
