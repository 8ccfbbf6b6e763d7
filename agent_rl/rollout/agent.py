"""Who acts in an episode: the policy through an engine, or a reference without tokens (oracle, random).

Knows tokens and engines. Refuses to know limits, rewards and deadlines: those are the episode's.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from agent_rl.chat.codec import ChatCodec
from agent_rl.chat.conversation import Conversation
from agent_rl.engine.base import Engine, GenerationRequest
from agent_rl.environment import Environment
from agent_rl.errors import EnvironmentFailure, ProviderFailure, UserError, boundary
from agent_rl.seeding import SeedFamily, derive_seed, stream
from agent_rl.tool import Tool
from agent_rl.types import FinishReason, Generation, Message, SamplingParams, Segment, Usage, opens_conversation


@dataclass(frozen=True, slots=True)
class EpisodeKey:
    """Which episode: the key of all its random streams, so that no stream depends on what else runs."""

    seed: int
    task_id: str
    member: int

    def turn_seeds(self) -> SeedFamily:
        """Seeds of the responses, by turn."""
        return SeedFamily(self.seed, self.task_id, self.member)


class Action(NamedTuple):
    """What an agent did in one turn; `start:end` are its sampled tokens in segment `segment`.

    An `internal` one is not for the environment: the episode records it and asks for the next action at once.
    `usage` is what an endpoint counted, where the agent has no tokens of its own.
    """

    message: Message
    finish_reason: FinishReason = FinishReason.STOP
    segment: int = 0
    start: int = 0
    end: int = 0
    internal: bool = False
    usage: Usage | None = None


class Agent(Protocol):
    """What acts in one episode: `start` once, then `act` and `observe` in turn, `close` always."""

    @property
    def context_tokens(self) -> int:
        """Length of what the next response continues; 0 for an agent without tokens."""
        ...

    def start(self, prompt: Sequence[Message], tools: Sequence[Tool]) -> None:
        """The opening messages, and the tools that the environment offers."""
        ...

    async def act(self, turn: int, max_tokens: int) -> Action:
        """The next action, of at most `max_tokens` tokens. Raises a `RolloutFailure` that names who failed."""
        ...

    def observe(self, messages: Sequence[Message]) -> None:
        """What the environment answered, when the episode goes on; or what a new conversation begins with.

        See `opens_conversation`.
        """
        ...

    def segments(self) -> tuple[Segment, ...]:
        """The token rows so far, each up to its last sampled token."""
        ...

    async def close(self) -> None:
        """Release what the agent holds outside of itself."""
        ...


MakeAgent: TypeAlias = Callable[[Environment, EpisodeKey], Agent]


class PolicyAgent:
    """The policy: a conversation in tokens, continued by an engine.

    Each request samples with its own seed and as many tokens as the episode's limits leave: `max_tokens` of `sampling`
    is replaced, and the codec's end-of-turn tokens are added to its stop tokens.
    """

    def __init__(self, engine: Engine, codec: ChatCodec, sampling: SamplingParams, key: EpisodeKey) -> None:
        self._engine = engine
        self._codec = codec
        stops = dict.fromkeys((*sampling.stop_token_ids, *codec.stop_token_ids))
        self._sampling = replace(sampling, stop_token_ids=tuple(stops))
        self._seed_of_turn = key.turn_seeds()
        self._session = uuid.uuid4().hex
        self._conversation: Conversation | None = None

    @property
    def context_tokens(self) -> int:
        """Length of the prompt of the next request."""
        return len(self.conversation.prompt_ids_T)

    @property
    def conversation(self) -> Conversation:
        """The tokens and messages so far."""
        assert self._conversation is not None, "start() comes first"
        return self._conversation

    def start(self, prompt: Sequence[Message], tools: Sequence[Tool]) -> None:
        """Encode the opening messages, once."""
        self._conversation = Conversation(self._codec, tools)
        self._conversation.start(prompt)

    async def act(self, turn: int, max_tokens: int) -> Action:
        """Sample one response. An aborted one is the provider's failure: it says nothing about the model."""
        generation = await self.generate(turn, max_tokens)
        response = self.conversation.append_response(generation)
        return Action(response.message, generation.finish_reason, response.segment, response.start, response.end)

    async def generate(self, turn: int, max_tokens: int) -> Generation:
        """One response of at most `max_tokens` tokens to the conversation as it is, which stays as it is."""
        if max_tokens != self._sampling.max_tokens:
            self._sampling = replace(self._sampling, max_tokens=max_tokens)
        request = GenerationRequest(
            self._session, self.conversation.prompt_ids_T, self._sampling, self._seed_of_turn(turn)
        )
        with boundary(ProviderFailure, "generation"):
            generation = await self._engine.generate(request)
        if generation.finish_reason is FinishReason.ABORT:
            raise ProviderFailure("the engine aborted the response", kind="abort", stage="generation")
        return generation

    def observe(self, messages: Sequence[Message]) -> None:
        """Encode what is new, and nothing else."""
        if opens_conversation(messages):
            self.conversation.restart(messages)
        else:
            self.conversation.append_observations(messages)

    def segments(self) -> tuple[Segment, ...]:
        """A copy of the rows; a last one without any response is left out."""
        if self._conversation is None:
            return ()
        return tuple(_up_to_last_sampled(s) for s in self._conversation.segments() if s.response_mask_T.any())

    async def close(self) -> None:
        """Release the engine's session."""
        await self._engine.release(self._session)


def _up_to_last_sampled(segment: Segment) -> Segment:
    """Without the context after the last response: nothing was sampled from it, and it may exceed the context limit."""
    end = int(np.flatnonzero(segment.response_mask_T)[-1]) + 1
    return Segment(
        segment.token_ids_T[:end],
        segment.response_mask_T[:end],
        segment.rollout_logprobs_T[:end],
        segment.weight_versions_T[:end],
    )


class _ReferenceAgent:
    """Base of the agents that know the environment and have no tokens."""

    context_tokens = 0

    def __init__(self, choose: Callable[[], Message]) -> None:
        self._choose = choose

    def start(self, prompt: Sequence[Message], tools: Sequence[Tool]) -> None:
        pass

    async def act(self, turn: int, max_tokens: int) -> Action:
        """Raises `UserError` when the environment has no such reference."""
        with boundary(EnvironmentFailure, "reference action"):
            try:
                return Action(self._choose())
            except NotImplementedError as error:
                raise UserError(str(error)) from error

    def observe(self, messages: Sequence[Message]) -> None:
        pass

    def segments(self) -> tuple[Segment, ...]:
        return ()

    async def close(self) -> None:
        pass


class OracleAgent(_ReferenceAgent):
    """Plays `environment.oracle_action()`: the ceiling that a policy can reach."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment.oracle_action)


class RandomAgent(_ReferenceAgent):
    """Plays `environment.random_action()`: the floor, a policy that knows the format and nothing else."""

    def __init__(self, environment: Environment, seed: int) -> None:
        super().__init__(partial(environment.random_action, stream(seed)))


def random_agent(environment: Environment, key: EpisodeKey) -> RandomAgent:
    """A `MakeAgent` for the random reference, with a stream of its own for each episode."""
    return RandomAgent(environment, derive_seed(key.seed, key.task_id, key.member))
