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

import numpy as np

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
        self._inside_response = False
        self._history: list[TemplateMessage] = []
        self._rendered = ""  # the text that the buffer stands for, up to and without the end of the last response

    @property
    def prompt_ids_T(self) -> IntArray:
        """All ids of the current segment: the context of the next response."""
        return self._buffer.ids_T

    @property
    def forks(self) -> int:
        """How often history was rewritten."""
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
            if self._inside_response:
                self._history[-1]["content"] += turn["content"]
            else:
                self._history.append(turn)
            self._rendered += turn["content"]
        self._inside_response = False
        return Response(self._codec.decode_action(ids_R), self.forks, start, end)

    def append_observations(self, messages: Sequence[Message]) -> None:
        """Append the messages that answer the last response, and the next generation header."""
        if self._codec.preserves_prefix:
            self._buffer.append_context(self._codec.encode_observations(messages, closed=self._closed))
        else:
            self._history += self._codec.template_messages(messages)
            self._continue_with(self._codec.render(self._history, self._tools))

    def restart(self, history: Sequence[Message | IntArray]) -> None:
        """End the segment and begin the next one with `history` in place of what was, up to the next response.

        An array in `history` is a sampled response, which is shown verbatim.
        """
        self._end_segment()
        self._history = [self._template_entry(entry) for entry in history]
        self._rendered = self._codec.render(self._history, self._tools)
        self._buffer = TokenBuffer(self._codec.encode_rendered(self._rendered))

    def carry_over(self, start: int, count: int) -> None:
        """End the segment inside a response and begin the next one with what preceded `start` and the last `count` ids.

        The response goes on there, and remembers of itself only what it carried over.
        """
        ids_T = self._buffer.ids_T
        self._end_segment()
        self._buffer = TokenBuffer(np.concatenate((ids_T[:start], ids_T[len(ids_T) - count :])))
        self._inside_response = True

    def segments(self) -> tuple[Segment, ...]:
        """The segments so far, the current one last."""
        return (*self._ended, self._buffer.segment())

    def _end_segment(self) -> None:
        """Keep the segment, unless nothing was sampled in it: turns name their segments by number."""
        segment = self._buffer.segment()
        if segment.response_mask_T.any():
            self._ended.append(segment)

    def _template_entry(self, entry: Message | IntArray) -> TemplateMessage:
        if isinstance(entry, Message):
            return self._codec.template_messages([entry])[0]
        return self._codec.template_response(entry)

    def _continue_with(self, rendered: str) -> None:
        if rendered.startswith(self._rendered):
            suffix = rendered[len(self._rendered) :]
            self._buffer.append_context(self._codec.encode_suffix(suffix, closed=self._closed))
        else:
            self._end_segment()
            self._buffer = TokenBuffer(self._codec.encode_rendered(rendered))
        self._rendered = rendered
