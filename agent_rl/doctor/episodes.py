"""Episodes with a record of what was really sampled, to hold against what the trainer would see.

They are played by the rollout's own code. The record is taken at the engine, below everything that is examined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from agent_rl.chat.codec import ChatCodec
from agent_rl.engine.base import Engine, GenerationRequest
from agent_rl.environment import Environment
from agent_rl.errors import ModelError, UserError
from agent_rl.rollout.agent import EpisodeKey, PolicyAgent
from agent_rl.rollout.episode import run_episode
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.tool import Tool
from agent_rl.types import FinishReason, Generation, IntArray, Message, SamplingParams, Task, Trajectory

if TYPE_CHECKING:
    import torch


class Case(NamedTuple):
    """A task, and what makes the environment to play it in."""

    task: Task
    environment: Callable[[], Environment]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """What the engine got and gave in one turn; `action` is the message behind a demonstrated response."""

    prompt_ids_T: IntArray
    generation: Generation
    action: Message | None = None


@dataclass(slots=True, eq=False)
class Played:
    """An episode with its record, one sample per turn."""

    trajectory: Trajectory
    tools: tuple[Tool, ...]
    samples: list[Sample]


@dataclass(slots=True)
class _Record:
    samples: list[Sample] = field(default_factory=list[Sample])
    tools: Callable[[], Sequence[Tool]] = tuple


async def play(
    case: Case,
    make_engine: Callable[[Environment], Engine],
    codec: ChatCodec,
    limits: RolloutLimits,
    seed: int,
) -> Played:
    """One episode of the policy on the engine that `make_engine` gives for it. Raises `UserError`."""
    record = _Record()

    def agent(environment: Environment, key: EpisodeKey) -> PolicyAgent:
        engine = make_engine(environment)
        record.tools = lambda: environment.tools
        return PolicyAgent(_Recording(engine, record.samples), codec, SamplingParams(), key)

    trajectory = await run_episode(
        lambda _: case.environment(), agent, case.task, group_index=0, member=0, seed=seed, limits=limits
    )
    if trajectory.failure is not None:
        raise UserError(
            f"The episode of task {case.task.id!r} failed, which is the {trajectory.failure.owner}'s fault: "
            f"{trajectory.failure.message}."
        )
    return Played(trajectory, tuple(record.tools()), record.samples)


class EngineBase:
    """What the engines of this package need not do."""

    weight_version = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        return None

    async def abort(self, session: str) -> None:
        """Nothing runs beside what is awaited."""

    async def release(self, session: str) -> None:
        """Nothing is held."""

    async def update_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """The weights stay."""


class Demonstrator(EngineBase):
    """An engine that "samples" the messages of an environment's reference agent, as the template writes them."""

    def __init__(self, codec: ChatCodec, choose: Callable[[], Message]) -> None:
        self._codec = codec
        self._choose = choose
        self.last: Message | None = None

    async def generate(self, request: GenerationRequest) -> Generation:
        """The next message. Its log-probs are made up, all different."""
        self.last = action = self._choose()
        ids_R = written(self._codec, action)
        count = len(ids_R)
        logprobs_R = -np.arange(1, count + 1) / 1024
        return Generation(ids_R, logprobs_R.astype(np.float32), np.zeros(count, np.int32), FinishReason.STOP)


def written(codec: ChatCodec, action: Message) -> IntArray:
    """`action` as the template writes it. Raises `ModelError`."""
    try:
        return codec.encode_action(action)
    except TypeError as error:  # of the template's own code
        raise ModelError(f"The chat template cannot write a message with tool calls: {error}.") from error
    except IndexError as error:
        raise ModelError(
            "The chat template does not end an assistant turn with a token that stops the model."
        ) from error


class _Recording(EngineBase):
    """Passes requests on and keeps a copy of what went in and out."""

    def __init__(self, engine: Engine, samples: list[Sample]) -> None:
        self._engine = engine
        self._samples = samples

    async def generate(self, request: GenerationRequest) -> Generation:
        prompt_ids_T = request.prompt_ids_T.copy()
        generation = await self._engine.generate(request)
        kept = replace(
            generation,
            token_ids_R=generation.token_ids_R.copy(),
            logprobs_R=generation.logprobs_R.copy(),
            weight_versions_R=generation.weight_versions_R.copy(),
        )
        action = self._engine.last if isinstance(self._engine, Demonstrator) else None
        self._samples.append(Sample(prompt_ids_T, kept, action))
        return generation

    async def release(self, session: str) -> None:
        await self._engine.release(session)
