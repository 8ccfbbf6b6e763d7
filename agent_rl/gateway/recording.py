"""One episode as its program's requests make it: samples each reply, keeps to the limits, and remembers what failed.

Knows engine, limits, seeds and blame. Leaves the tokens to `history` and the JSON to `protocol`; refuses to know HTTP.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from dataclasses import dataclass, replace

import anyio

from agent_rl.chat.codec import ChatCodec
from agent_rl.chat.parsers import split_reasoning
from agent_rl.engine.base import Engine, GenerationRequest
from agent_rl.errors import ConfigError, ModelError, ProviderFailure, boundary
from agent_rl.gateway.history import History, Reply
from agent_rl.gateway.protocol import ChatReply, ChatRequest, Refused
from agent_rl.rollout.agent import EpisodeKey
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.seeding import derive_seed
from agent_rl.types import JSON, FinishReason, Generation, IntArray, Message, SamplingParams, Segment, StopReason, Turn


@dataclass(slots=True)
class RecordingStats:
    """Requests without a reply, and those whose temperature or top_p was overridden."""

    refused: int = 0
    cancelled: int = 0
    sampling_overridden: int = 0


class Recording:
    """What one program asks the policy, at `base_url`; the API key is not looked at.

    Each reply is sampled from a stream keyed by the episode, the context and how often that context was asked before,
    so that it does not depend on the order in which parallel requests arrive. A program gets at most the tokens that
    it asks for and that `limits` leave.

    `stop_reason` is the limit that the program has run into and not got around. `failure` is a failure of the engine
    behind a request that no retry has answered: what the program made of it says nothing about the policy. `bug` is
    what escaped from our own code while a request was served, for the owner of the program to raise. `silent_s` is, at
    the end, the time since the last request.
    """

    api_key = "agent-rl"

    def __init__(
        self,
        engine: Engine,
        codec: ChatCodec,
        sampling: SamplingParams,
        key: EpisodeKey,
        limits: RolloutLimits,
        *,
        name: str,
        base_url: str,
        program_samples: bool = False,
    ) -> None:
        self.base_url = base_url
        self.stats = RecordingStats()
        self.stop_reason: StopReason | None = None
        self.bug: Exception | None = None
        self._engine = engine
        self._codec = codec
        stops = dict.fromkeys((*sampling.stop_token_ids, *codec.stop_token_ids))
        self._sampling = replace(sampling, stop_token_ids=tuple(stops))
        self._key = key
        self._limits = limits
        self._program_samples = program_samples
        self._history = History(codec, name)
        self._sessions: set[str] = set()
        self._samples: defaultdict[str, set[int]] = defaultdict(set)
        self._unanswered: dict[str, ProviderFailure] = {}
        self._running: set[anyio.CancelScope] = set()
        self._idle = anyio.Event()
        self._closed = False
        self._served_at = anyio.current_time()
        self.silent_s = 0.0

    @property
    def failure(self) -> ProviderFailure | None:
        """The latest failure of the engine that the program got instead of a reply."""
        return list(self._unanswered.values())[-1] if self._unanswered else None

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages of the program that the first reply answers."""
        return self._history.replies[0].asked if self._history.replies else ()

    @property
    def tools(self) -> tuple[JSON, ...]:
        """The definitions that the program showed with its first request."""
        return self._history.tools

    def segments(self) -> tuple[Segment, ...]:
        """One row per conversation, in the order of their first replies; each ends with a sampled token."""
        return self._history.segments()

    def turns(self) -> tuple[Turn, ...]:
        """One turn per reply, in the order in which they were given. What the program said next is the observation."""
        return tuple(_turn(index, reply) for index, reply in enumerate(self._history.replies))

    async def reply(self, request: ChatRequest) -> ChatReply:
        """Answer one request. Cancelled, it leaves no trace. Raises `Refused` for all that the program must know."""
        if self._closed:
            raise _over()
        scope = anyio.CancelScope()
        self._running.add(scope)
        try:
            with scope:
                return await self._reply(request)
        except Refused:
            self.stats.refused += 1
            raise
        except Exception as error:
            self.bug = self.bug or error
            raise Refused(f"The gateway failed: {error!r}.", status=500, kind="server_error") from error
        except BaseException:
            self.stats.cancelled += 1
            raise
        finally:
            self._running.discard(scope)
            self._served_at = anyio.current_time()
            if not self._running:
                self._idle.set()
        raise _over()

    async def close(self) -> None:
        """End the requests that run, refuse further ones, and release the engine's sessions."""
        self._closed = True
        self.silent_s = 0.0 if self._running else anyio.current_time() - self._served_at
        for scope in self._running:
            scope.cancel()
        if self._running:
            self._idle = anyio.Event()
            await self._idle.wait()
        while self._sessions:
            await self._engine.release(self._sessions.pop())

    async def _reply(self, request: ChatRequest) -> ChatReply:
        asked_at = anyio.current_time()
        stopped_before = self.stop_reason
        try:
            draft = self._history.extend(request.messages, request.tools)
        except ModelError as error:
            raise Refused(str(error)) from error
        committed = False
        prompt_T = draft.prompt_ids_T
        context = hashlib.blake2b(prompt_T.tobytes(), digest_size=16).hexdigest()
        sample = self._next_sample(context)
        try:
            sampling = self._sampling_for(request, len(prompt_T))
            seed = derive_seed(self._key.seed, self._key.task_id, self._key.member, context, sample, request.seed or 0)
            generation = await self._generate(GenerationRequest(draft.row.session, prompt_T, sampling, seed), context)
            message = visible_message(self._codec, generation.token_ids_R, request, f"call_{seed:016x}")
            self._history.commit(draft, generation, message, asked_at, anyio.current_time())
            committed = True
        finally:
            if not committed:
                self._history.discard(draft)
                self._samples[context].discard(sample)
        if self.stop_reason is stopped_before:
            self.stop_reason = None
        self._keep_to_tool_calls()
        return ChatReply(
            id=f"chatcmpl-{seed:016x}",
            created=int(time.time()),
            model=request.model,
            message=message,
            finish_reason=generation.finish_reason,
            prompt_tokens=len(prompt_T),
            completion_tokens=len(generation.token_ids_R),
        )

    def _next_sample(self, context: str) -> int:
        """The number of this sample among those of the same context; a failed one's number is free again."""
        taken = self._samples[context]
        sample = next(number for number in range(len(taken) + 1) if number not in taken)
        taken.add(sample)
        return sample

    def _sampling_for(self, request: ChatRequest, context_tokens: int) -> SamplingParams:
        """How to sample this reply. Raises `Refused` when a limit of the episode is reached."""
        self._keep_to_tool_calls()
        begun = len(self._history.replies) + len(self._running) - 1
        if stop_reason := self._limits.before_action(begun, context_tokens):
            raise self._limit(stop_reason)
        room = self._limits.response_tokens(context_tokens)
        asked = {"temperature": request.temperature, "top_p": request.top_p}
        wanted = {name: value for name, value in asked.items() if value not in (None, getattr(self._sampling, name))}
        if wanted and not self._program_samples:
            self.stats.sampling_overridden += 1
            wanted = {}
        stops = (*self._sampling.stop, *request.stop)
        return replace(self._sampling, **wanted, stop=stops, max_tokens=min(room, request.max_tokens or room))

    def _keep_to_tool_calls(self) -> None:
        """Raises `Refused` for the reply with one call too many as well: the program must not act on it."""
        if self._limits.max_tool_calls is not None:
            calls = sum(len(reply.message.tool_calls) for reply in self._history.replies)
            if calls > self._limits.max_tool_calls:
                raise self._limit(StopReason.MAX_TOOL_CALLS)

    def _limit(self, stop_reason: StopReason) -> Refused:
        self.stop_reason = stop_reason
        if stop_reason is StopReason.MAX_TOKENS:
            limit = self._limits.max_context_tokens
            return Refused(
                f"This model's maximum context length is {limit} tokens, which the messages fill.",
                code="context_length_exceeded",
            )
        return Refused(f"The episode has reached its limit: {stop_reason}.", code=str(stop_reason))

    async def _generate(self, request: GenerationRequest, context: str) -> Generation:
        """Sample. A failure of the engine stays noted until the same context is answered."""
        self._sessions.add(request.session)
        try:
            with boundary(ProviderFailure, "generation"), anyio.fail_after(self._limits.generation_timeout_s):
                generation = await self._engine.generate(request)
            if generation.finish_reason is FinishReason.ABORT:
                raise ProviderFailure("the engine aborted the response", kind="abort", stage="generation")
        except ConfigError as error:
            raise Refused(str(error)) from error
        except ProviderFailure as failure:
            self._unanswered[context] = failure
            raise Refused(str(failure), status=503, code=failure.kind, kind="server_error") from failure
        self._unanswered.pop(context, None)
        return generation


def visible_message(codec: ChatCodec, ids_R: IntArray, request: ChatRequest, call_id: str) -> Message:
    """What the program gets of a response: tool calls if it offers tools and all of them are well formed.

    Otherwise the text as it was written, since the API has no place for a call that cannot be parsed. Calls get ids
    that are unique in the episode; stop strings and what follows are cut off.
    """
    message = codec.decode_action(ids_R)
    calls = message.tool_calls
    if not (request.tools and request.may_call) or any(call.error is not None for call in calls):
        if calls:
            message = replace(message, content=_written(codec, ids_R, message.reasoning_content is not None))
        calls = ()
    content = message.content
    for stop in request.stop:
        content = content.partition(stop)[0]
    calls = tuple(replace(call, id=f"{call_id}_{index}") for index, call in enumerate(calls))
    return replace(message, content=content, tool_calls=calls)


def _written(codec: ChatCodec, ids_R: IntArray, reasoned: bool) -> str:
    """The text of a response after its reasoning, tool calls included."""
    text = codec.decode(ids_R[:-1] if codec.ends_turn(ids_R) else ids_R)
    if not reasoned:
        return text
    return split_reasoning(text if text.lstrip().startswith("<think>") else f"<think>{text}")[1]


def _turn(index: int, reply: Reply) -> Turn:
    then = reply.replies[0] if reply.replies else None
    return Turn(
        index=index,
        segment=reply.row.index,
        start=reply.start,
        end=reply.end,
        action=reply.message,
        observations=() if then is None else then.asked,
        reward=0.0,
        reward_terms={},
        tool_results=(),
        finish_reason=reply.finish_reason,
        generation_s=reply.answered_at - reply.asked_at,
        step_s=0.0 if then is None else then.asked_at - reply.answered_at,
    )


def _over() -> Refused:
    return Refused("This episode is over.", status=404, code="episode_over")
