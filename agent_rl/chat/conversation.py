"""The tokens and messages of one episode: grows by sampled responses and observations, forks when history is rewritten.

Most templates only ever append; then nothing is rendered twice. A template that rewrites history (Qwen3 drops earlier
reasoning after a new user message) is rendered in full each turn: as long as the text extends what the episode holds,
the sampled ids stay; once it does not, the segment ends and the next begins with the re-rendered history as context.
So each sampled token is in exactly one segment, under the very context that it was sampled in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_rl.chat.codec import ChatCodec, TemplateMessage
from agent_rl.tokens import TokenBuffer
from agent_rl.types import Generation, IntArray, Message, Segment

if TYPE_CHECKING:
    from agent_rl.tool import Tool


@dataclass(frozen=True, slots=True)
class Response:
    """A sampled turn: the parsed message, and the span `start:end` of its tokens in segment number `segment`."""

    message: Message
    segment: int
    start: int
    end: int


class Conversation:
    """One episode: `start`, then `append_response` and `append_observations` in turn."""

    def __init__(self, codec: ChatCodec, tools: Sequence[Tool] = ()) -> None:
        self._codec = codec
        self._tools = tuple(tools)
        self._ended: list[Segment] = []
        self._buffer = TokenBuffer()
        self._closed = True
        self._history: list[TemplateMessage] = []
        self._rendered = ""  # the text that the buffer stands for, up to and without the end of the last response

    @property
    def prompt_ids_T(self) -> IntArray:
        """All ids of the current segment: the context of the next response."""
        return self._buffer.ids_T

    @property
    def forks(self) -> int:
        """How often the template rewrote history."""
        return len(self._ended)

    def start(self, messages: Sequence[Message]) -> None:
        """Render and encode the opening messages."""
        opening = self._codec.opening(messages, self._tools)
        self._history = list(opening.history)
        self._rendered = opening.text
        self._buffer = TokenBuffer(opening.ids_T)

    def append_response(self, generation: Generation) -> Response:
        """Append what was sampled, verbatim, and parse it."""
        ids_R = generation.token_ids_R
        start, end = self._buffer.append_response(generation)
        self._closed = self._codec.ends_turn(ids_R)
        if not self._codec.preserves_prefix:
            turn = self._codec.template_response(ids_R)
            self._history.append(turn)
            self._rendered += turn["content"]
        return Response(self._codec.decode_action(ids_R), self.forks, start, end)

    def append_observations(self, messages: Sequence[Message]) -> None:
        """Append the messages that answer the last response, and the next generation header."""
        if self._codec.preserves_prefix:
            self._buffer.append_context(self._codec.encode_observations(messages, closed=self._closed))
        else:
            self._history += self._codec.template_messages(messages)
            self._continue_with(self._codec.render(self._history, self._tools))

    def segments(self) -> tuple[Segment, ...]:
        """The segments so far, the current one last."""
        return (*self._ended, self._buffer.segment())

    def _continue_with(self, rendered: str) -> None:
        if rendered.startswith(self._rendered):
            suffix = rendered[len(self._rendered) :]
            self._buffer.append_context(self._codec.encode_suffix(suffix, closed=self._closed))
        else:
            self._ended.append(self._buffer.segment())
            self._buffer = TokenBuffer(self._codec.encode_rendered(rendered))
        self._rendered = rendered
