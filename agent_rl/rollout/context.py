"""Contexts that stay bounded while an episode goes on: old tool results dropped, a summary, or thinking in chunks.

Each is a `PolicyAgent` that rewrites what the policy sees next. A rewrite ends a segment and begins another, so that
every sampled token keeps the context that it was sampled in, and an episode still weighs one episode. What the policy
samples for this purpose (a summary, a chunk) is an internal turn: trained like any other, unseen by the environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, Self, TypeAlias

import numpy as np
from pydantic import Field, model_validator

from agent_rl.chat.codec import ChatCodec
from agent_rl.config import Config
from agent_rl.engine.base import Engine
from agent_rl.environment import Environment
from agent_rl.rollout.agent import Action, EpisodeKey, MakeAgent, PolicyAgent
from agent_rl.tool import Tool
from agent_rl.types import FinishReason, IntArray, Message, SamplingParams, opens_conversation

Entry: TypeAlias = Message | IntArray
"""A message, or the ids of a sampled response, which the policy sees again verbatim."""

DROPPED = "[dropped]"
SUMMARY_REQUEST = (
    "Your context is nearly full and will be cleared. Write down all that you need to go on: "
    "what was asked, what you found out, and what is left to do."
)


class ContextConfig(Config):
    """What happens to a context that grows long."""

    strategy: Literal["keep", "drop_tool_results", "summarize", "chunk"] = Field(
        default="keep",
        description="keep all; drop old tool results; let the policy summarise; or let it think in chunks.",
    )
    budget_tokens: int | None = Field(
        default=None, ge=1, description="Context above which tool results are dropped, or a summary is asked for."
    )
    keep_results: int = Field(default=2, ge=0, description="Latest tool results that are never dropped.")
    chunk_tokens: int | None = Field(default=None, ge=2, description="Tokens of one response in view at a time.")
    carry_tokens: int | None = Field(
        default=None, ge=1, description="Last tokens of a chunk that the next one sees; half a chunk, if not given."
    )
    max_chunks: int = Field(default=8, ge=1, description="Chunks of one response.")

    @model_validator(mode="after")
    def _fields_fit_the_strategy(self) -> Self:
        used = _FIELDS[self.strategy]
        fields = type(self).model_fields
        changed = [name for name in fields if getattr(self, name) != fields[name].default]
        if unused := sorted(set(changed) - {"strategy", *used}):
            raise ValueError(f"strategy={self.strategy} has no {unused[0]}: leave it out, or choose another strategy.")
        if used and getattr(self, used[0]) is None:
            raise ValueError(f"strategy={self.strategy} needs {used[0]}: set it below max_context_tokens.")
        if self.chunk_tokens is not None and (self.carry_tokens or 0) >= self.chunk_tokens:
            raise ValueError(f"carry_tokens={self.carry_tokens} leaves a chunk of {self.chunk_tokens} nothing to add.")
        return self


_FIELDS: dict[str, tuple[str, ...]] = {
    "keep": (),
    "drop_tool_results": ("budget_tokens", "keep_results"),
    "summarize": ("budget_tokens",),
    "chunk": ("chunk_tokens", "carry_tokens", "max_chunks"),
}


def policy_agents(
    engine: Engine, codec: ChatCodec, sampling: SamplingParams, context: ContextConfig | None = None
) -> MakeAgent:
    """Makes the policy's agents, with contexts managed as `context` says."""
    config = context or ContextConfig()

    def make_agent(environment: Environment, key: EpisodeKey) -> PolicyAgent:
        policy = engine, codec, sampling, key
        if config.chunk_tokens is not None:
            carry = config.carry_tokens or config.chunk_tokens // 2
            return ChunkingAgent(*policy, config.chunk_tokens, carry, config.max_chunks)
        if config.budget_tokens is None:
            return PolicyAgent(*policy)
        compaction = Summarize() if config.strategy == "summarize" else DropToolResults(config.keep_results)
        return CompactingAgent(*policy, config.budget_tokens, compaction)

    return make_agent


# --- compaction -----------------------------------------------------------------------------------------------------


class Compaction(Protocol):
    """How a history becomes a shorter one. Bring your own: it is handed to `CompactingAgent`."""

    @property
    def question(self) -> Message | None:
        """What the policy is asked first, as the last message of its full context; `None`: nothing."""
        ...

    def compact(self, opening: Sequence[Message], later: Sequence[Entry], answer: str) -> Sequence[Entry]:
        """The new history, from the opening messages, everything since, and the policy's answer to `question`.

        It begins with as many messages as `opening` has, as they are or with changes that the next compaction undoes.
        """
        ...


class DropToolResults:
    """Tool results but the last `keep` become a short note; the policy's own words stay."""

    question = None

    def __init__(self, keep: int = 2) -> None:
        self._keep = keep

    def compact(self, opening: Sequence[Message], later: Sequence[Entry], answer: str) -> Sequence[Entry]:
        """See `Compaction.compact`."""
        results = [i for i, entry in enumerate(later) if isinstance(entry, Message) and entry.role == "tool"]
        dropped = set(results[: max(0, len(results) - self._keep)])
        return [*opening, *(_without_content(entry) if i in dropped else entry for i, entry in enumerate(later))]


def _without_content(entry: Entry) -> Entry:
    if isinstance(entry, Message) and len(entry.content) > len(DROPPED):
        return replace(entry, content=DROPPED)
    return entry


class Summarize:
    """The policy sums up what it did; the next segment begins with the opening and that summary."""

    def __init__(self, request: str = SUMMARY_REQUEST) -> None:
        self.question: Message | None = Message("user", request)

    def compact(self, opening: Sequence[Message], later: Sequence[Entry], answer: str) -> Sequence[Entry]:
        """See `Compaction.compact`. Templates that insist on alternating roles allow no second user message."""
        *before, last = opening
        summary = f"What you did so far, in your own words:\n{answer}"
        if last.role == "user":
            return [*before, replace(last, content=f"{last.content}\n\n{summary}")]
        return [*opening, Message("user", summary)]


class CompactingAgent(PolicyAgent):
    """A policy whose history is compacted when an observation brings its context above `budget_tokens`.

    At most once per observation: what is still too long after that is the episode's limit.
    """

    def __init__(
        self,
        engine: Engine,
        codec: ChatCodec,
        sampling: SamplingParams,
        key: EpisodeKey,
        budget_tokens: int,
        compaction: Compaction,
    ) -> None:
        super().__init__(engine, codec, sampling, key)
        self._budget_tokens = budget_tokens
        self._compaction = compaction
        self._opening: tuple[Message, ...] = ()
        self._later: list[Entry] = []
        self._asking = False

    def start(self, prompt: Sequence[Message], tools: Sequence[Tool]) -> None:
        """Encode the opening messages, once."""
        self._opening = tuple(prompt)
        super().start(prompt, tools)

    async def act(self, turn: int, max_tokens: int) -> Action:
        """The next response; the answer to the compaction's question is an internal one."""
        generation = await self.generate(turn, max_tokens)
        response = self.conversation.append_response(generation)
        action = Action(response.message, generation.finish_reason, response.segment, response.start, response.end)
        if not self._asking:
            self._later.append(generation.token_ids_R)
            return action
        self._asking = False
        self._compact(response.message.content)
        return action._replace(internal=True)

    def observe(self, messages: Sequence[Message]) -> None:
        """Encode what is new; compact first when that is too much."""
        if opens_conversation(messages):
            self._opening, self._later = tuple(messages), []
            super().observe(messages)
            return
        self._later += messages
        if not self._exceeds_budget(messages):
            super().observe(messages)
        elif (question := self._compaction.question) is None:
            self._compact("")
        else:
            self._asking = True
            super().observe([*messages, question])

    def _compact(self, answer: str) -> None:
        history = self._compaction.compact(self._opening, self._later, answer)
        self._later = list(history[len(self._opening) :])
        self.conversation.restart(history)

    def _exceeds_budget(self, messages: Sequence[Message]) -> bool:
        """Encodes only when that can matter: a text never has more tokens than bytes."""
        room = self._budget_tokens - self.context_tokens
        if sum(len(message.content.encode("utf-8", "replace")) + _FRAME_BYTES for message in messages) <= room:
            return False
        return len(self._codec.encode_observations(messages, closed=True)) > room


_FRAME_BYTES = 256  # at least what a template writes around one message


# --- thinking in chunks ---------------------------------------------------------------------------------------------


class ChunkingAgent(PolicyAgent):
    """A policy that thinks in chunks: it sees the conversation and at most `chunk_tokens` of its present response.

    When these are full, the next chunk begins with the last `carry_tokens` of them, so that the cost of long thinking
    is linear in its length (Delethink, arXiv:2510.06557). The environment gets the whole response as one message.
    """

    def __init__(
        self,
        engine: Engine,
        codec: ChatCodec,
        sampling: SamplingParams,
        key: EpisodeKey,
        chunk_tokens: int,
        carry_tokens: int,
        max_chunks: int,
    ) -> None:
        super().__init__(engine, codec, sampling, key)
        self._chunk_tokens = chunk_tokens
        self._carry_tokens = carry_tokens
        self._max_chunks = max_chunks
        self._chunks: list[IntArray] = []
        self._response_start = 0

    async def act(self, turn: int, max_tokens: int) -> Action:
        """The next chunk. The last one, of any finish reason, stands for the whole response."""
        if not self._chunks:
            self._response_start = self.context_tokens
        room = self._chunk_tokens - (self._carry_tokens if self._chunks else 0)
        generation = await self.generate(turn, min(max_tokens, room))
        response = self.conversation.append_response(generation)
        self._chunks.append(generation.token_ids_R)
        full = generation.finish_reason is FinishReason.LENGTH and len(generation.token_ids_R) == room
        span: Any = (generation.finish_reason, response.segment, response.start, response.end)
        if full and room < max_tokens and len(self._chunks) < self._max_chunks:
            self.conversation.carry_over(self._response_start, self._carry_tokens)
            return Action(Message("assistant", self._codec.decode(generation.token_ids_R)), *span, internal=True)
        message = self._codec.decode_action(np.concatenate(self._chunks))
        self._chunks = []
        return Action(message, *span)
