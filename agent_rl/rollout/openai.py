"""An agent that acts through an OpenAI-compatible endpoint: any served model, in the same episodes as the policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent_rl.chat.wire import Wire, message_to_wire
from agent_rl.engine.openai import OpenAIClient
from agent_rl.rollout.agent import Action, EpisodeKey
from agent_rl.tool import Tool
from agent_rl.types import Message, SamplingParams, Segment, opens_conversation


class OpenAIAgent:
    """Plays an episode at the level of text, for evaluation. It cannot train: an endpoint that gives neither token ids
    nor log-probs leaves nothing to train on, so its episodes have no segments.

    `lambda _, key: OpenAIAgent(client, sampling, key)` is a `MakeAgent`. The endpoint sees its own messages again as it
    wrote them.
    """

    def __init__(self, client: OpenAIClient, sampling: SamplingParams, key: EpisodeKey) -> None:
        self._client = client
        self._sampling = sampling
        self._seed_of_turn = key.turn_seeds()
        self._messages: list[Wire] = []
        self._tools: list[Wire] = []
        self._context_tokens = 0

    @property
    def context_tokens(self) -> int:
        """Tokens of the conversation up to the last answer, as the endpoint counts them; 0 when it does not."""
        return self._context_tokens

    def start(self, prompt: Sequence[Message], tools: Sequence[Tool]) -> None:
        """Keep the opening messages and the tools, in the wire's form."""
        self._messages = [message_to_wire(message) for message in prompt]
        self._tools = [dict(tool.definition) for tool in tools]

    async def act(self, turn: int, max_tokens: int) -> Action:
        """The endpoint's answer. Raises what `OpenAIClient.complete` raises."""
        sampling = replace(self._sampling, max_tokens=max_tokens)
        completion = await self._client.complete(self._messages, self._tools, sampling, self._seed_of_turn(turn))
        self._messages.append(completion.echo)
        if (usage := completion.usage) is not None:
            self._context_tokens = usage.prompt_tokens + usage.sampled_tokens
        return Action(completion.message, completion.finish_reason, usage=completion.usage)

    def observe(self, messages: Sequence[Message]) -> None:
        """Append what the environment answered, or begin anew with it."""
        said = [message_to_wire(message) for message in messages]
        self._messages = said if opens_conversation(messages) else self._messages + said

    def segments(self) -> tuple[Segment, ...]:
        """None: there are no tokens."""
        return ()

    async def close(self) -> None:
        """Nothing is held: the client is shared."""
