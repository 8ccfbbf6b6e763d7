"""Agent programs that we did not write, as the ones who act in an episode.

A program talks to the policy through a gateway, with its own loop, tools and sandbox, and ends with an answer, which
the environment judges. Everything else is `run_episode`: the same set-up, deadlines, blame and release.
Knows programs; refuses to know HTTP and tokens.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from agent_rl.chat.codec import ChatCodec
from agent_rl.engine.base import Engine
from agent_rl.environment import Environment
from agent_rl.errors import ConfigError, EnvironmentFailure, RolloutFailure, boundary
from agent_rl.gateway.recording import Recording
from agent_rl.gateway.server import Gateway
from agent_rl.rollout.agent import Action, EpisodeKey
from agent_rl.rollout.episode import EnvironmentFactory, run_episode
from agent_rl.rollout.group import PlayWithin
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.tool import Tool
from agent_rl.types import FinishReason, Message, SamplingParams, Segment, StopReason, Task, Trajectory, Turn

_STAGE = "program"


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a program is told: the opening messages, where the policy is, and the tools that the environment offers.

    Tools run in this process, on this episode's environment; a program may use them or its own.
    """

    prompt: tuple[Message, ...]
    tools: tuple[Tool, ...]
    base_url: str
    api_key: str
    model: str = "policy"


Program: TypeAlias = Callable[[Assignment], Awaitable[str]]
"""Acts in one episode and returns its final answer, such as a `Command`. What it raises is a failure."""

MakeProgram: TypeAlias = Callable[[Environment], Program]
"""The program for one episode; a program that works in the environment's own folder or sandbox finds it there."""


async def run_program(
    gateway: Gateway,
    environment_factory: EnvironmentFactory,
    make_program: MakeProgram,
    task: Task,
    *,
    group_index: int,
    member: int,
    seed: int,
    limits: RolloutLimits,
) -> Trajectory:
    """Play one episode in which a program acts; with the first three and `limits` bound, a `PlayEpisode`.

    The answer goes to `environment.step`, whose reward is that of the last turn. `limits` hold for the policy's turns
    and tokens, and `episode_timeout_s` for the program. A program that breaks off at a limit, or at its deadline, is a
    truncated episode that is not judged; one that breaks off by itself, never asks the policy, or is silent for the
    last `step_timeout_s` before its deadline, is a failure of the environment. When the engine has left one of its
    requests without a reply, the provider is to blame, whatever the program made of that.

    Raises `UserError`, also for limits that cannot be kept here, and bugs of the framework.
    """
    _check(limits)
    # One action is the whole program, so that its deadline is the episode's.
    outer = limits.model_copy(update={"max_turns": 1, "generation_timeout_s": limits.episode_timeout_s})
    async with gateway.episode(EpisodeKey(seed, task.id, member), limits) as recording:
        played = await run_episode(
            environment_factory,
            lambda environment, _: _ProgramAgent(make_program(environment), recording),
            task,
            group_index=group_index,
            member=member,
            seed=seed,
            limits=outer,
        )
    if recording.bug is not None:
        raise recording.bug
    return _blamed(_as_recorded(played, recording), recording, limits)


def programs(
    environment_factory: EnvironmentFactory,
    make_program: MakeProgram,
    limits: RolloutLimits,
    *,
    program_samples: bool = False,
) -> Callable[[Engine, ChatCodec, SamplingParams], AbstractAsyncContextManager[PlayWithin]]:
    """How a run opens its own gateway: given its engine, the result holds one open and yields who plays."""

    @asynccontextmanager
    async def players(engine: Engine, codec: ChatCodec, sampling: SamplingParams) -> AsyncGenerator[PlayWithin, None]:
        async with Gateway(engine, codec, sampling, program_samples=program_samples) as gateway:
            yield partial(run_program, gateway, environment_factory, make_program, limits=limits)

    return players


def _check(limits: RolloutLimits) -> None:
    """Raises `ConfigError` for what only an environment that runs the tools itself can keep."""
    if limits.max_corrective_turns is not None or not limits.clock_runs_while_generating:
        raise ConfigError(
            "max_corrective_turns and clock_runs_while_generating=False do not apply to programs, which run their "
            "own tools and requests: leave them at their defaults."
        )


def _as_recorded(played: Trajectory, recording: Recording) -> Trajectory:
    """The episode with the policy's turns and tokens; what the environment said to the answer is in the last turn."""
    turns = recording.turns()
    if turns and played.turns:
        judged = played.turns[-1]
        last = replace(
            turns[-1],
            observations=(*turns[-1].observations, *judged.observations),
            reward=judged.reward,
            reward_terms=judged.reward_terms,
            step_s=turns[-1].step_s + judged.step_s,
        )
        turns = (*turns[:-1], last)
    stats = recording.stats
    metrics = {
        **played.metrics,
        "requests_refused": float(stats.refused),
        "requests_cancelled": float(stats.cancelled),
        "sampling_overridden": float(stats.sampling_overridden),
    }
    stop_reason = recording.stop_reason if _was_cut_off(played.turns) else None
    return replace(
        played,
        prompt=recording.prompt or played.prompt,
        segments=recording.segments(),
        turns=turns,
        stop_reason=stop_reason or played.stop_reason,
        metrics=metrics,
        tools=recording.tools,
    )


def _blamed(episode: Trajectory, recording: Recording, limits: RolloutLimits) -> Trajectory:
    """An episode that ran out of time because the engine or the program hung is a failure, not a truncation."""
    if episode.failure is not None or episode.stop_reason is not StopReason.TIME_LIMIT:
        return episode
    failure: RolloutFailure | None = recording.failure
    if failure is None and recording.silent_s > limits.step_timeout_s:
        text = f"the program asked nothing in its last {recording.silent_s:.0f} s"
        failure = EnvironmentFailure(text, kind="timeout", stage=_STAGE)
    if failure is None:
        return episode
    return replace(episode, stop_reason=StopReason.FAILURE, failure=failure.record())


def _was_cut_off(turns: Sequence[Turn]) -> bool:
    return bool(turns) and turns[-1].finish_reason is FinishReason.LENGTH


class _ProgramAgent:
    """The program as an `Agent` with one action, its answer."""

    context_tokens = 0

    def __init__(self, program: Program, recording: Recording) -> None:
        self._program = program
        self._recording = recording
        self._assignment: Assignment

    def start(self, prompt: Sequence[Message], tools: Sequence[Tool]) -> None:
        recording = self._recording
        self._assignment = Assignment(tuple(prompt), tuple(tools), recording.base_url, recording.api_key)

    async def act(self, turn: int, max_tokens: int) -> Action:
        """The program's answer; an action cut by `LENGTH`, which no environment sees, when a limit stopped it."""
        recording = self._recording
        failure: EnvironmentFailure | None = None
        answer = ""
        try:
            with boundary(EnvironmentFailure, _STAGE):
                answer = await self._program(self._assignment)
        except EnvironmentFailure as failed:
            failure = failed
        if recording.bug is not None:
            raise recording.bug
        if recording.failure is not None:
            raise recording.failure
        if failure is not None and recording.stop_reason is not None:
            return Action(Message("assistant", ""), FinishReason.LENGTH)
        if failure is not None:
            raise failure
        if not recording.turns():
            raise EnvironmentFailure(
                f"the program never asked the policy: point it at the base URL {recording.base_url}",
                kind="no_requests",
                stage=_STAGE,
                retryable=False,
            )
        return Action(Message("assistant", answer))

    def observe(self, messages: Sequence[Message]) -> None:
        """The program is over."""

    def segments(self) -> tuple[Segment, ...]:
        return ()  # the recording has them

    async def close(self) -> None:
        """The program has ended or was cancelled."""
