"""What an evaluation may use up: tokens, seconds, dollars. Counts while episodes run, and says which may begin.

Tasks begin in their order, and whether one begins is decided before anything is known about it. One that has begun is
finished, also beyond the budget: if the episodes that run when it is used up were thrown away, these would be the long
ones, which are the hard ones. So the tasks that are scored are as hard as those that are left out (the last task to
begin is a stopping time: Wald's identity). Only at `grace` times the budget are running episodes cut and their tasks
left out, siblings included; then the score may be too high, and the report says how many they are.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import anyio
from pydantic import Field, model_validator

from agent_rl.config import Config
from agent_rl.environment import Environment
from agent_rl.errors import UserError
from agent_rl.rollout.agent import Action, Agent, EpisodeKey, MakeAgent
from agent_rl.rollout.group import PlayEpisode
from agent_rl.tool import Tool
from agent_rl.types import Failure, Group, Message, Owner, Segment, StopReason, Task, Trajectory, Usage

_LEFT_OUT = Failure("budget", Owner.FRAMEWORK, "episode", "the budget was used up", retryable=False)
_PER_PRICE = 1_000_000


class Budget(Config):
    """What an evaluation may use up. When a limit is reached, no task begins any more."""

    tokens: int | None = Field(default=None, ge=0, description="Tokens of prompts and responses together.")
    seconds: float | None = Field(default=None, ge=0, description="Seconds, those before a --resume included.")
    dollars: float | None = Field(default=None, ge=0, description="Dollars, at the two prices.")
    input_price: float | None = Field(default=None, ge=0, description="Dollars for a million tokens of prompts.")
    output_price: float | None = Field(default=None, ge=0, description="Dollars for a million sampled tokens.")
    grace: float = Field(default=2.0, ge=1, description="Tasks that have begun are cut at this many times a limit.")

    @model_validator(mode="after")
    def _prices_come_together(self) -> Self:
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("input_price and output_price go together: give both, in dollars for a million tokens.")
        if self.dollars is not None and self.input_price is None:
            raise ValueError("dollars needs the prices of the model: give input_price and output_price.")
        return self

    @property
    def needs_usage(self) -> bool:
        """Whether a limit is on something that tokens are counted for."""
        return self.tokens is not None or self.dollars is not None

    def cost(self, spent: Spent) -> float | None:
        """In dollars; None without prices."""
        if self.input_price is None or self.output_price is None:
            return None
        return (spent.prompt_tokens * self.input_price + spent.sampled_tokens * self.output_price) / _PER_PRICE

    def share(self, share: float, *, of_all: Spent, own: Spent) -> Budget:
        """The budget of one of several parts: what it spent before, and a share of what all of them left."""

        def part(limit: float, all_spent: float, own_spent: float) -> float:
            return own_spent + share * max(0.0, limit - all_spent)

        limits: dict[str, float] = {}
        if self.tokens is not None:
            limits["tokens"] = int(part(self.tokens, of_all.tokens, own.tokens))
        if self.seconds is not None:
            limits["seconds"] = part(self.seconds, of_all.seconds, own.seconds)
        if self.dollars is not None:
            limits["dollars"] = part(self.dollars, self.cost(of_all) or 0.0, self.cost(own) or 0.0)
        return self.model_copy(update=limits)

    def reached(self, spent: Spent, times: float = 1.0) -> str:
        """The name of the first limit of which `times` is used up, or an empty string."""
        used = {"tokens": spent.tokens, "seconds": spent.seconds, "dollars": self.cost(spent)}
        for name, amount in used.items():
            limit = getattr(self, name)
            if limit is not None and amount is not None and amount >= limit * times:
                return name
        return ""


@dataclass(frozen=True, slots=True)
class Spent:
    """What was used up, cut and repeated attempts included. A prompt counts whole in every turn, as endpoints bill."""

    prompt_tokens: int = 0
    sampled_tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Of both kinds."""
        return self.prompt_tokens + self.sampled_tokens

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.prompt_tokens + other.prompt_tokens,
            self.sampled_tokens + other.sampled_tokens,
            self.seconds + other.seconds,
        )

    def __sub__(self, other: Spent) -> Spent:
        return self + Spent(-other.prompt_tokens, -other.sampled_tokens, -other.seconds)


def read_spent(path: Path) -> Spent:
    """What `write_spent` wrote; nothing where there is no file. Raises `UserError` for another content."""
    try:
        return Spent(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Spent()
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} does not say what was spent: remove it to count from zero ({error}).") from error


def write_spent(path: Path, spent: Spent) -> None:
    """Atomic and durable: a killed evaluation goes on with what it really spent, but for the episodes that ran."""
    unfinished = path.with_name(f"{path.name}.part")
    with unfinished.open("w", encoding="utf-8") as file:
        json.dump(asdict(spent), file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


class Meter:
    """Counts what the episodes of one evaluation use, and starts none beyond the budget.

    `before` is what earlier parts of the evaluation spent. Wrap what makes the agents and what plays the episodes;
    a group of which a member was not played is not `complete`.
    """

    def __init__(self, budget: Budget, before: Spent | None = None) -> None:
        self._budget = budget
        self._before = before or Spent()
        self._prompt_tokens = self._sampled_tokens = 0
        self._began = time.monotonic()
        self._begun: set[int] = set()
        self._running: set[anyio.CancelScope] = set()
        self.limit = ""
        """The limit that kept a task from being played; empty while there is none."""
        self.cut_tasks: set[int] = set()
        """Tasks that had begun and could not be finished."""

    @property
    def spent(self) -> Spent:
        """Up to now."""
        elapsed_s = time.monotonic() - self._began
        return self._before + Spent(self._prompt_tokens, self._sampled_tokens, elapsed_s)

    def complete(self, group: Group) -> bool:
        """Whether all of its members were played."""
        return all(trajectory.failure != _LEFT_OUT for trajectory in group.trajectories)

    def agents(self, make_agent: MakeAgent) -> MakeAgent:
        """The same agents, with their tokens counted."""
        return lambda environment, key: _MeteredAgent(make_agent, environment, key, self._count)

    def episodes(self, play: PlayEpisode) -> PlayEpisode:
        """The same episodes, as long as the budget lasts. The others come back at once, as members of no account."""

        async def metered(task: Task, *, group_index: int, member: int, seed: int) -> Trajectory:
            if self._admits(group_index):
                with anyio.CancelScope(deadline=anyio.current_time() + self._seconds_left()) as scope:
                    self._running.add(scope)
                    try:
                        return await play(task, group_index=group_index, member=member, seed=seed)
                    finally:
                        self._running.discard(scope)
            if group_index in self._begun:
                self.cut_tasks.add(group_index)
            self.limit = self._budget.reached(self.spent) or self.limit
            return _left_out(task, group_index, member, seed)

        return metered

    def _admits(self, group_index: int) -> bool:
        if group_index in self._begun:
            return not self._budget.reached(self.spent, self._budget.grace)
        if self._budget.reached(self.spent):
            return False
        self._begun.add(group_index)
        return True

    def _seconds_left(self) -> float:
        limit = self._budget.seconds
        return float("inf") if limit is None else limit * self._budget.grace - self.spent.seconds

    def _count(self, action: Action) -> None:
        usage = action.usage or Usage(action.start, action.end - action.start)
        if action.usage is None and action.end == action.start and self._budget.needs_usage:
            raise UserError(
                "The agent does not tell how many tokens it uses, so a budget of tokens or dollars cannot be kept: "
                "use budget.seconds."
            )
        self._prompt_tokens += usage.prompt_tokens
        self._sampled_tokens += usage.sampled_tokens
        if self._budget.reached(self.spent, self._budget.grace):
            for scope in self._running:
                scope.cancel()


def _left_out(task: Task, group_index: int, member: int, seed: int) -> Trajectory:
    return Trajectory(
        task=task,
        group_index=group_index,
        member=member,
        seed=seed,
        prompt=task.prompt,
        segments=(),
        turns=(),
        stop_reason=StopReason.FAILURE,
        failure=_LEFT_OUT,
    )


class _MeteredAgent:
    """An agent that hands each of its actions to `count` as well."""

    def __init__(
        self, make: MakeAgent, environment: Environment, key: EpisodeKey, count: Callable[[Action], None]
    ) -> None:
        self._agent: Agent = make(environment, key)
        self._count = count

    @property
    def context_tokens(self) -> int:
        return self._agent.context_tokens

    def start(self, prompt: Sequence[Message], tools: Sequence[Tool]) -> None:
        self._agent.start(prompt, tools)

    async def act(self, turn: int, max_tokens: int) -> Action:
        action = await self._agent.act(turn, max_tokens)
        self._count(action)
        return action

    def observe(self, messages: Sequence[Message]) -> None:
        self._agent.observe(messages)

    def segments(self) -> tuple[Segment, ...]:
        return self._agent.segments()

    async def close(self) -> None:
        await self._agent.close()
