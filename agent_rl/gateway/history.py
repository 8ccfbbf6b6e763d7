"""The tree of what one episode's program asked and what the policy replied: message histories over rows of tokens.

A request carries a whole message history. `extend` finds the longest beginning of it that ends with a recorded reply;
only what follows is encoded, and the sampled ids before it are kept. A conversation goes on in its row. A history that
branches off (a rewritten or compacted one, another prompt, a second sample from the same point) gets a row of its own,
in which everything before is context. So each sampled token is in exactly one row, once.

Nothing is recorded before a response is there: a request that fails or is cancelled leaves no trace.
Knows the codec; refuses to know engines, HTTP and limits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from agent_rl.chat.codec import ChatCodec, TemplateMessage
from agent_rl.tokens import TokenBuffer
from agent_rl.types import JSON, FinishReason, Generation, IntArray, Message, Segment

if TYPE_CHECKING:
    from agent_rl.tool import Tool


@dataclass(frozen=True, slots=True)
class Definition:
    """A tool as the program describes it: the OpenAI function dictionary that the chat template shows."""

    definition: JSON


@dataclass(slots=True, eq=False)
class Row:
    """One row of tokens and the engine's session that continues it. `busy` while a response to it is sampled."""

    session: str
    buffer: TokenBuffer = field(default_factory=TokenBuffer)
    index: int = -1
    busy: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """A recorded response: `asked` are the messages since the reply before it, `start:end` its tokens in `row`."""

    parent: Reply | None
    asked: tuple[Message, ...]
    message: Message
    finish_reason: FinishReason
    row: Row
    start: int
    end: int
    asked_at: float
    answered_at: float
    replies: list[Reply] = field(default_factory=list["Reply"])

    @property
    def ids_R(self) -> IntArray:
        """The sampled ids."""
        return self.row.buffer.ids_T[self.start : self.end]


class Draft(NamedTuple):
    """A request on its way: it continues `parent`, in `row`, by `context_ids` (all that is not yet in the row)."""

    parent: Reply | None
    tools_key: str
    asked: tuple[Message, ...]
    row: Row
    context_ids: IntArray

    @property
    def prompt_ids_T(self) -> IntArray:
        """All that the response continues."""
        return np.concatenate((self.row.buffer.ids_T, self.context_ids))


class History:
    """All replies of one episode, and the rows that hold their tokens."""

    def __init__(self, codec: ChatCodec, name: str) -> None:
        self.replies: list[Reply] = []
        self._codec = codec
        self._name = name
        self._rows: list[Row] = []
        self._drafted = 0
        self._openings: dict[str, list[Reply]] = {}

    @property
    def tools(self) -> tuple[JSON, ...]:
        """The definitions that the first reply was offered."""
        return tuple(json.loads(next(iter(self._openings), "[]")))

    def extend(self, messages: Sequence[Message], tools: Sequence[Definition]) -> Draft:
        """Encode what is new in `messages`. Its row is busy until `commit` or `discard`. Raises `ModelError`."""
        tools_key = json.dumps([tool.definition for tool in tools], sort_keys=True)
        parent, known = self._last_known(messages, self._openings.get(tools_key, ()))
        asked = tuple(messages[known:])
        kept, new_ids = self._encode(parent, asked, tools)
        if parent is not None and kept == len(parent.row.buffer) and not parent.row.busy:
            row, context_ids = parent.row, new_ids
        else:
            before = new_ids[:0] if parent is None else parent.row.buffer.ids_T[:kept]
            row, context_ids = Row(f"{self._name}-{self._drafted}"), np.concatenate((before, new_ids))
        self._drafted += 1
        row.busy = True
        return Draft(parent, tools_key, asked, row, context_ids)

    def commit(self, draft: Draft, generation: Generation, message: Message, asked_at: float, now: float) -> Reply:
        """Record the response, verbatim; `message` is what the program gets to see of it."""
        row = draft.row
        row.buffer.append_context(draft.context_ids)
        start, end = row.buffer.append_response(generation)
        row.busy = False
        if row.index < 0:
            row.index = len(self._rows)
            self._rows.append(row)
        reply = Reply(
            draft.parent, draft.asked, message, generation.finish_reason, row, start, end, asked_at, answered_at=now
        )
        siblings = self._openings.setdefault(draft.tools_key, []) if draft.parent is None else draft.parent.replies
        siblings.append(reply)
        self.replies.append(reply)
        return reply

    def discard(self, draft: Draft) -> None:
        """Forget a request without a response."""
        draft.row.busy = False

    def segments(self) -> tuple[Segment, ...]:
        """The rows, in the order of their first replies."""
        return tuple(row.buffer.segment() for row in self._rows)

    def _last_known(self, messages: Sequence[Message], openings: Sequence[Reply]) -> tuple[Reply | None, int]:
        """The reply at the end of the longest recorded beginning of `messages`, and the length of that beginning.

        Something must follow it. Among equals, one whose row can go on is taken.
        """
        best: tuple[Reply | None, int] = (None, 0)
        todo = [(reply, 0) for reply in openings]
        while todo:
            reply, begin = todo.pop()
            end = begin + len(reply.asked)
            if end + 1 >= len(messages) or not _echoes(messages[end], reply.message):
                continue
            if tuple(messages[begin:end]) != reply.asked:
                continue
            if (end + 1, _is_free(reply)) > (best[1], best[0] is not None and _is_free(best[0])):
                best = reply, end + 1
            todo += [(later, end + 1) for later in reply.replies]
        return best

    def _encode(
        self, parent: Reply | None, asked: Sequence[Message], tools: Sequence[Definition]
    ) -> tuple[int, IntArray]:
        """How many ids of the parent's row stay, and what to append to them."""
        codec, offered = self._codec, cast("Sequence[Tool]", tools)  # templates need the definitions only
        if parent is None:
            return 0, codec.opening(asked, offered).ids_T
        closed = codec.ends_turn(parent.ids_R)
        if codec.preserves_prefix:
            return parent.end, codec.encode_observations(asked, closed=closed)
        *before, response = self._template_history(parent)
        text = codec.render([*before, response, *codec.template_messages(asked)], offered)
        so_far = codec.render(before, offered) + response["content"]
        if text.startswith(so_far):
            return parent.end, codec.encode_suffix(text[len(so_far) :], closed=closed)
        return 0, codec.encode_rendered(text)

    def _template_history(self, reply: Reply) -> list[TemplateMessage]:
        """The history up to and with a reply, as the template takes it: sampled turns verbatim."""
        turns: list[TemplateMessage] = []
        node: Reply | None = reply
        while node is not None:
            turns += [self._codec.template_response(node.ids_R), *reversed(self._codec.template_messages(node.asked))]
            node = node.parent
        return turns[::-1]


def _echoes(message: Message, reply: Message) -> bool:
    """Whether a program's message repeats our reply. Most programs leave out the reasoning, which is no rewrite."""
    return (
        message.role == "assistant"
        and message.content == reply.content
        and message.tool_calls == reply.tool_calls
        and message.reasoning_content in (None, reply.reasoning_content)
    )


def _is_free(reply: Reply) -> bool:
    return not reply.row.busy and reply.end == len(reply.row.buffer)
