"""One episode: reset, then act and step until something ends it; whatever happens becomes one `Trajectory`.

Knows deadlines, blame and release. Refuses to know tokens (the agent's), groups and retries.

What escapes from the environment or the engine is a failure with an owner, and the trajectory keeps the turns so far.
`UserError` and bugs of the framework propagate.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import anyio

from agent_rl.concurrency import Deadline
from agent_rl.environment import Environment
from agent_rl.errors import EnvironmentFailure, ProviderFailure, RolloutFailure, ToolError, boundary
from agent_rl.rollout.agent import Action, Agent, EpisodeKey, MakeAgent
from agent_rl.rollout.control import Gate
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.seeding import derive_seed
from agent_rl.types import JSON, Failure, Message, Segment, Step, StopReason, Task, Trajectory, Turn

EnvironmentFactory: TypeAlias = Callable[[Task], Environment]
_UNANSWERED = Step(messages=())
_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Record:
    """What an episode has produced so far, whatever ends it. `began` is on the event loop's clock."""

    began: float
    prompt: tuple[Message, ...] = ()
    tools: tuple[JSON, ...] = ()
    turns: list[Turn] = field(default_factory=list[Turn])
    segments: tuple[Segment, ...] = ()
    stop_reason: StopReason = StopReason.FAILURE
    failure: Failure | None = None
    setup_s: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict[str, float])


async def run_episode(
    environment_factory: EnvironmentFactory,
    make_agent: MakeAgent,
    task: Task,
    *,
    group_index: int,
    member: int,
    seed: int,
    limits: RolloutLimits,
    turns: Gate | None = None,
) -> Trajectory:
    """Play one episode. The same `task`, `member` and `seed` replay it on a deterministic engine.

    While the gate `turns` is closed, the episode waits before its next turn, outside of all its deadlines.
    Raises `UserError` and bugs of the framework; every other failure is in the trajectory.
    """
    began, began_at = anyio.current_time(), time.time()
    record = _Record(began)
    try:
        with boundary(EnvironmentFailure, "setup"):
            environment = environment_factory(task)
        try:
            agent = make_agent(environment, EpisodeKey(seed, task.id, member))
            try:
                await _Episode(environment, agent, limits, record, turns).play(task, seed)
            finally:
                await _close("agent", agent.close, limits.close_timeout_s, record.metrics)
        finally:
            await _close("environment", environment.close, limits.close_timeout_s, record.metrics)
    except RolloutFailure as failure:
        record.stop_reason = StopReason.FAILURE
        record.failure = failure.record()
    return Trajectory(
        task=task,
        group_index=group_index,
        member=member,
        seed=seed,
        prompt=record.prompt,
        segments=record.segments,
        turns=tuple(record.turns),
        stop_reason=record.stop_reason,
        failure=record.failure,
        began_at=began_at,
        setup_s=record.setup_s,
        duration_s=anyio.current_time() - began,
        metrics=record.metrics,
        tools=record.tools,
    )


class _Episode:
    """A running episode. Writes what happens into its record at once, so that nothing is lost when it is cut short.

    One `Deadline` serves them all: each stage moves it.
    """

    def __init__(
        self, environment: Environment, agent: Agent, limits: RolloutLimits, record: _Record, turns: Gate | None
    ) -> None:
        self._environment = environment
        self._agent = agent
        self._limits = limits
        self._record = record
        self._turns = turns
        self._clock = Deadline()
        self._now = self._clock.now
        self._stage: tuple[type[RolloutFailure], str] = (EnvironmentFailure, "setup")
        self._ends_at = math.inf
        self._steps = 0
        self._tool_calls = 0
        self._mistakes_in_a_row = 0

    async def play(self, task: Task, seed: int) -> None:
        try:
            with self._clock:
                await self._set_up(task, seed)
                await self._take_turns()
        except ToolError as error:
            raise EnvironmentFailure(f"a ToolError escaped from {self._stage[1]}: {error}") from error
        finally:
            self._record.segments = self._agent.segments()
        if self._clock.cancelled_caught:
            self._record.stop_reason = self._time_is_up()

    def _start(self, owner: type[RolloutFailure], stage: str, timeout_s: float) -> float:
        """Give `stage` its time, or what is left of the episode's. Returns now.

        When the stage before ended together with its time, the cancellation is on its way and stays that stage's.
        """
        now = self._now()
        if not self._clock.cancel_called:
            self._stage = owner, stage
            self._clock.move(min(now + timeout_s, self._ends_at))
        return now

    async def _act(self, index: int, max_tokens: int) -> tuple[Action, float]:
        """The next action, and the seconds that it took."""
        runs = self._limits.clock_runs_while_generating
        ends_at = self._ends_at
        if not runs:
            self._ends_at = math.inf
        began = self._start(ProviderFailure, "generation", self._limits.generation_timeout_s)
        action = await self._agent.act(index, max_tokens)
        elapsed_s = self._now() - began
        self._ends_at = ends_at if runs else ends_at + elapsed_s
        return action, elapsed_s

    def _time_is_up(self) -> StopReason:
        if self._clock.at == self._ends_at:
            return StopReason.TIME_LIMIT
        owner, stage = self._stage
        raise owner(f"{stage} timed out", kind="timeout", stage=stage)

    async def _set_up(self, task: Task, seed: int) -> None:
        """All members of a group reset with the same seed: siblings start in the same state."""
        began = self._start(EnvironmentFailure, "setup", self._limits.setup_timeout_s)
        with boundary(EnvironmentFailure, "setup"):
            prompt = await self._environment.reset(task, derive_seed(seed, task.id))
            self._record.prompt = _checked(prompt)
            tools = tuple(self._environment.tools)
            self._record.tools = tuple(tool.definition for tool in tools)
        now = self._now()
        self._record.setup_s = now - began
        self._ends_at = now + self._limits.episode_timeout_s
        self._agent.start(self._record.prompt, tools)

    async def _take_turns(self) -> None:
        stop_reason = None
        while stop_reason is None:
            if self._turns is not None and not self._turns.is_open:
                await self._hold(self._turns)
            context_tokens = self._agent.context_tokens
            stop_reason = self._limits.before_action(self._steps, context_tokens)
            if stop_reason is None:
                stop_reason = await self._take_turn(self._limits.response_tokens(context_tokens))
        self._record.stop_reason = stop_reason

    async def _hold(self, turns: Gate) -> None:
        held = self._now()
        if not self._clock.cancel_called:
            self._clock.move(math.inf)
        await turns.wait()
        self._ends_at += self._now() - held

    async def _take_turn(self, max_tokens: int) -> StopReason | None:
        """One action; it is recorded even when the environment never answers, since its tokens were sampled."""
        index = len(self._record.turns)
        with boundary(EnvironmentFailure, "state_key"):
            state_key = self._environment.state_key()
        began_s = self._now() - self._record.began
        action, generation_s = await self._act(index, max_tokens)
        if action.internal:
            self._record.turns.append(_turn(index, action, _UNANSWERED, state_key, began_s, generation_s, 0.0))
            return None
        self._steps += 1
        acted = self._start(EnvironmentFailure, "step", self._limits.step_timeout_s)
        self._tool_calls += len(action.message.tool_calls)
        stop_reason = self._limits.after_action(action.finish_reason, max_tokens, self._tool_calls)
        step = _UNANSWERED
        try:
            if stop_reason is None:
                step = await self._step(action.message)
        finally:
            turn = _turn(index, action, step, state_key, began_s, generation_s, self._now() - acted)
            self._record.turns.append(turn)
        stop_reason = stop_reason or self._after_step(step)
        if stop_reason is None:
            self._agent.observe(step.messages)
        return stop_reason

    def _after_step(self, step: Step) -> StopReason | None:
        for name, value in step.info.metrics.items():
            self._record.metrics[name] = self._record.metrics.get(name, 0.0) + value
        if step.terminated:
            return StopReason.TERMINATED
        if step.truncated:
            return StopReason.ENVIRONMENT_TRUNCATED
        results = step.info.tool_results
        only_mistakes = bool(results) and all(result.malformed for result in results)
        self._mistakes_in_a_row = self._mistakes_in_a_row + 1 if only_mistakes else 0
        return self._limits.after_step(self._mistakes_in_a_row)

    async def _step(self, action: Message) -> Step:
        with boundary(EnvironmentFailure, "step"):
            step = await self._environment.step(action)
            if not isinstance(step, Step):  # pyright: ignore[reportUnnecessaryIsInstance]  # users' code
                raise TypeError(f"step() must return agent_rl.types.Step, not {type(step).__name__}")
            if not math.isfinite(step.reward):
                raise ValueError(f"the reward is {step.reward}")
            return step._replace(messages=_checked(step.messages))


def _turn(
    index: int,
    action: Action,
    step: Step,
    state_key: Hashable | None,
    began_s: float,
    generation_s: float,
    step_s: float,
) -> Turn:
    return Turn(
        index=index,
        segment=action.segment,
        start=action.start,
        end=action.end,
        action=action.message,
        observations=step.messages,
        reward=step.reward,
        reward_terms=step.info.reward_terms,
        tool_results=step.info.tool_results,
        finish_reason=action.finish_reason,
        state_key=state_key,
        began_s=began_s,
        generation_s=generation_s,
        step_s=step_s,
        internal=action.internal,
        tag=step.info.tag,
    )


def _checked(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Raises `TypeError`, inside the environment's boundary, before a wrong value reaches our own code."""
    for message in messages:
        if not isinstance(message, Message):  # pyright: ignore[reportUnnecessaryIsInstance]  # users' code
            raise TypeError(f"expected agent_rl.types.Message, not {type(message).__name__}")
    return tuple(messages)


async def _close(what: str, close: Callable[[], Awaitable[None]], timeout_s: float, metrics: dict[str, float]) -> None:
    """Release at the end, under cancellation too. A release that fails or hangs is reported; the episode counts."""
    with anyio.move_on_after(timeout_s, shield=True) as clock:
        try:
            await close()
        except Exception:
            metrics[f"{what}_close_failed"] = 1.0
            _logger.exception("closing the %s failed", what)
    if clock.cancelled_caught:
        metrics[f"{what}_close_timed_out"] = 1.0
        _logger.error("closing the %s took more than %g s", what, timeout_s)
