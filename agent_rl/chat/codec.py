"""Messages to token ids and back, for any chat template, at a cost per turn that does not depend on the context.

Token-in-token-out: what was sampled is never encoded again. After a sampled turn only a suffix is encoded: the end of
that turn, the new messages and the next generation header. The template is rendered once per shape (the roles of the
new messages) after a dummy conversation and cut into constant pieces around the contents; a template that alters
contents is rendered after the dummy each time.

The codec keeps no state of any episode; `Conversation` does.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from agent_rl.chat.parsers import get_tool_parser, split_reasoning
from agent_rl.chat.quoting import QuotingEncoder
from agent_rl.errors import ModelError
from agent_rl.types import IntArray, Message, Role

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from agent_rl.tool import Tool

TemplateMessage: TypeAlias = dict[str, Any]

OPENINGS = 256  # remembered
_DUMMY_USER: TemplateMessage = {"role": "user", "content": "question"}
_DUMMY_ANSWER = "dummy-answer"
_DUMMY_ID = "dummyid00"  # nine letters and digits, as Mistral insists
_AWKWARD_CONTENTS = ("", "  spaces  ", "\n\nnewlines\n\n", '\'quotes" \\ <tag> {"json": [1]}')
_MOCK_CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "1"}}\n</tool_call>'
_MOCK_TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
    },
}


class Opening(NamedTuple):
    """How an episode begins: the messages as templates take them, their text and its ids. Shared: read-only."""

    history: tuple[TemplateMessage, ...]
    text: str
    ids_T: IntArray


class _Shape(NamedTuple):
    """How a template writes messages of given roles after an assistant turn.

    `pieces` is the constant text around the contents, from the special token before the first to the one after the
    last. The ids of what is further out are constant too: `head_ids` (including the former token) and `tail_ids`.
    """

    head_ids: IntArray
    pieces: tuple[str, ...]
    tail_ids: IntArray


class ChatCodec:
    """The chat format of one tokenizer.

    `stop_token_ids` end an assistant turn. `preserves_prefix` says that rendering a longer conversation never rewrites
    its earlier part, verified here on mock conversations. Raises `ModelError` for a tokenizer without a Rust backend
    or with a template that cannot be used, `NotFoundError` for an unknown parser.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tool_parser: str = "hermes") -> None:
        self._tokenizer: Any = tokenizer
        self._parse = get_tool_parser(tool_parser)
        self._encoder = QuotingEncoder(_backend(tokenizer))
        self._openings: dict[str, Opening] = {}
        self._shapes: dict[tuple[Role, ...], _Shape | None] = {}
        self._observation_roles = self._find_observation_roles()
        self._starts_reasoning = self._render_suffix([]).rstrip().endswith("<think>")
        self.stop_token_ids = self._find_stop_token_ids()
        self.preserves_prefix = self._verify_prefix()

    # --- turn by turn: the cost depends on the new text only ------------------------------------------------------

    def encode_observations(self, messages: Sequence[Message], *, closed: bool) -> IntArray:
        """Ids to append after a sampled turn: its end, the messages, the next generation header.

        `closed`: the last sampled token was a stop token, so the end of the turn is there already.
        """
        shape = self._shape(tuple(message.role for message in messages))
        if shape is None:
            return self.encode_suffix(self._render_suffix(self.template_messages(messages)), closed=closed)
        parts = [shape.pieces[0]]
        for message, piece in zip(messages, shape.pieces[1:], strict=True):
            parts += (self._encoder.quote(message.content), piece)
        middle_ids = self._encoder.encode("".join(parts))
        return np.concatenate((shape.head_ids[1:] if closed else shape.head_ids, middle_ids[1:], shape.tail_ids))

    def decode_action(self, ids_R: IntArray) -> Message:
        """The assistant message in sampled tokens. What cannot be parsed becomes a `ToolCall` with an `error`."""
        text = self._response_text(ids_R)
        reasoning, text = split_reasoning(f"<think>{text}" if self._starts_reasoning else text)
        content, calls = self._parse(text)
        return Message("assistant", content, calls, reasoning_content=reasoning)

    def decode(self, ids: IntArray | Sequence[int]) -> str:
        """Text of `ids`, special tokens included."""
        return self._encoder.decode(ids)

    def ends(self, text: str, head: int, tail: int) -> tuple[int, int]:
        """Where the first `head` tokens of `text` end and the last `tail` begin, in characters (`tool.TokenEnds`)."""
        return self._encoder.ends(text, head, tail)

    def ends_turn(self, ids_R: IntArray) -> bool:
        """Whether a response ends with a stop token."""
        return len(ids_R) > 0 and int(ids_R[-1]) in self.stop_token_ids

    # --- whole conversations --------------------------------------------------------------------------------------

    def encode_prompt(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> IntArray:
        """Ids of the opening messages and the first generation header."""
        return self.opening(messages, tools).ids_T

    def encode_action(self, message: Message) -> IntArray:
        """Ids of an assistant turn as the model would have to sample it, stop token included: for demonstrations."""
        header = self._render([_DUMMY_USER], [])
        turn = self._render([_DUMMY_USER, *self.template_messages([message])], [])
        if not turn.startswith(header):
            raise ModelError(
                "The chat template does not begin assistant turns with its generation header; use one that does."
            )
        ids = self.encode_rendered(turn.removeprefix(header))
        ends = np.flatnonzero(np.isin(ids, self.stop_token_ids))
        if not len(ends):  # the next message's role ends the turn, as in GLM's templates
            answer = Message(self._observation_roles[0], "", tool_call_id=_DUMMY_ID)
            messages = self.template_messages([message, answer])
            ids = self.encode_rendered(self._render([_DUMMY_USER, *messages], []).removeprefix(header))
            ends = np.flatnonzero(np.isin(ids, self.stop_token_ids))
        if not len(ends):
            raise ModelError("The chat template does not end assistant turns with a stop token; use one that does.")
        return ids[: ends[0] + 1]

    def template_messages(self, messages: Sequence[Message]) -> list[TemplateMessage]:
        """The messages as templates take them, quoted (see `QuotingEncoder`)."""
        return [self._encoder.quote(_template_message(message)) for message in messages]

    def template_response(self, ids_R: IntArray) -> TemplateMessage:
        """A sampled turn as templates take it: all of its text as content, which the template shows verbatim.

        Quoted if the text spells a special token that was not sampled as one.
        """
        text = self._response_text(ids_R)
        sampled = sum(i in self._encoder.special_ids for i in ids_R.tolist()) - self.ends_turn(ids_R)
        as_sampled = sampled == self._encoder.count_unsafe(text)
        return {"role": "assistant", "content": text if as_sampled else self._encoder.quote(text)}

    def render(self, messages: Sequence[TemplateMessage], tools: Sequence[Tool] = ()) -> str:
        """Text of a conversation up to the next generation header, still quoted. Raises `ModelError`."""
        return self._render(messages, [self._encoder.quote(dict(tool.definition)) for tool in tools])

    def encode_rendered(self, text: str) -> IntArray:
        """Ids of rendered text."""
        return self._encoder.encode(text)

    def opening(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> Opening:
        """The opening messages, rendered and encoded up to the next generation header. Raises `ModelError`.

        Siblings of a group open alike, so the latest ones are remembered.
        """
        key = repr((messages, [tool.definition for tool in tools]))
        opening = self._openings.get(key)
        if opening is None:
            history = self.template_messages(messages)
            text = self.render(history, tools)
            ids = self.encode_rendered(text)
            ids.setflags(write=False)
            opening = Opening(tuple(history), text, ids)
            if len(self._openings) == OPENINGS:
                del self._openings[next(iter(self._openings))]
            self._openings[key] = opening
        return opening

    def encode_suffix(self, text: str, *, closed: bool) -> IntArray:
        """Ids of rendered text that follows the content of an assistant turn, without the end of the turn if `closed`.

        The end is encoded in any case and then dropped: text after a special token may encode differently from text
        at the start of a string.
        """
        ids = self.encode_rendered(self._from_turn_end(text))
        return ids[1:] if closed else ids

    # --- rendering ------------------------------------------------------------------------------------------------

    def _response_text(self, ids_R: IntArray) -> str:
        return self.decode(ids_R[:-1] if self.ends_turn(ids_R) else ids_R)

    def _from_turn_end(self, text: str) -> str:
        end = self._encoder.special_pattern.search(text)
        if end is None:
            raise ModelError("The chat template ends assistant turns without a special token; use one that does.")
        return text[end.start() :]

    def _shape(self, roles: tuple[Role, ...]) -> _Shape | None:
        """How messages with these roles are written; `None` if that takes more than their contents, verbatim."""
        if roles not in self._shapes:
            pieces = self._cut(roles) if roles and "assistant" not in roles else None
            self._shapes[roles] = None if pieces is None else self._encode_ends(pieces)
        return self._shapes[roles]

    def _cut(self, roles: tuple[Role, ...]) -> tuple[str, ...] | None:
        """The constant text around the contents of messages with these roles, if that is all there is."""

        def rendered(contents: Sequence[str]) -> str:
            pairs = zip(roles, contents, strict=True)
            messages = [Message(role, content, tool_call_id=_DUMMY_ID) for role, content in pairs]
            return self._render_suffix([_template_message(message) for message in messages])

        marks = [f"dummy-content-{index}-" for index in range(len(roles))]
        text = rendered(marks)
        for role, mark in zip(roles, marks, strict=True):
            if mark not in text:
                raise ModelError(f"The chat template does not show messages of role {role!r}; use one that does.")
        pieces = tuple(re.split("|".join(marks), text))
        awkward = [[f"{content}{index}{content}" for index in range(len(roles))] for content in _AWKWARD_CONTENTS]
        awkward.append([""] * len(roles))
        verbatim = len(pieces) == len(roles) + 1 and all(
            rendered(contents) == "".join(itertools.chain.from_iterable(zip(pieces, [*contents, ""], strict=True)))
            for contents in awkward
        )
        return pieces if verbatim and _DUMMY_ID not in text else None

    def _encode_ends(self, pieces: tuple[str, ...]) -> _Shape:
        *_, last = self._encoder.special_pattern.finditer(pieces[0])
        head_ids = self._encoder.encode(pieces[0][: last.end()])
        opening = pieces[0][last.start() :]
        closing = self._encoder.special_pattern.search(pieces[-1])
        if closing is None:
            return _Shape(head_ids, (opening, *pieces[1:]), head_ids[:0])
        tail_ids = self._encoder.encode(pieces[-1][closing.start() :])[1:]
        return _Shape(head_ids, (opening, *pieces[1:-1], pieces[-1][: closing.end()]), tail_ids)

    def _render_suffix(self, messages: Sequence[TemplateMessage]) -> str:
        """What the template writes from the end of an assistant turn on."""
        conversation = [_DUMMY_USER, {"role": "assistant", "content": _DUMMY_ANSWER}, *messages]
        _, found, suffix = self._render(conversation, []).partition(_DUMMY_ANSWER)
        if not found:
            raise ModelError("The chat template does not show the content of assistant messages; use one that does.")
        return self._from_turn_end(suffix)

    def _render(self, messages: Sequence[TemplateMessage], tools: Sequence[TemplateMessage]) -> str:
        from jinja2 import TemplateError

        try:
            try:
                return self._apply(messages, tools)
            except TypeError:  # templates of the DeepSeek family want the arguments of calls as text
                return self._apply([_with_text_arguments(message) for message in messages], tools)
        except (TemplateError, TypeError) as error:
            roles = ", ".join(message["role"] for message in messages)
            raise ModelError(f"The chat template refuses a conversation of roles ({roles}): {error}") from error

    def _apply(self, messages: Sequence[TemplateMessage], tools: Sequence[TemplateMessage]) -> str:
        return self._tokenizer.apply_chat_template(
            list(messages), tools=list(tools) or None, tokenize=False, add_generation_prompt=True
        )

    # --- facts about the template, found once ---------------------------------------------------------------------

    def _find_observation_roles(self) -> tuple[Role, ...]:
        self._shape(("user",))
        try:
            self._shape(("tool",))
        except ModelError:  # a model without tools; `encode_observations` raises if they are used all the same
            return ("user",)
        return ("tool", "user")

    def _find_stop_token_ids(self) -> tuple[int, ...]:
        suffixes = (self.encode_observations([Message(role, "")], closed=False) for role in self._observation_roles)
        eos: int | None = self._tokenizer.eos_token_id
        stops = [int(ids[0]) for ids in suffixes] + ([] if eos is None else [eos])
        return tuple(dict.fromkeys(stops))

    def _verify_prefix(self) -> bool:
        if self._starts_reasoning:
            responses = [f"I look.\n</think>\n\n{rest}" for rest in (_MOCK_CALL, "answer")]
        else:
            responses = [
                start + rest for start in ("", "<think>\nI look.\n</think>\n\n") for rest in (_MOCK_CALL, "answer")
            ]
        return all(self._preserves(response) for response in responses)

    def _preserves(self, response: str) -> bool:
        """Whether each turn of a mock conversation renders as the turns before it, the response and observations."""
        history = [_DUMMY_USER]
        text = self._render(history, [_MOCK_TOOL])
        for role in 2 * self._observation_roles:
            observation = Message(role, "seen", tool_call_id="call_0" if role == "tool" else None)
            history += [{"role": "assistant", "content": response}, _template_message(observation)]
            longer = self._render(history, [_MOCK_TOOL])
            if not longer.startswith(text + response):
                return False
            suffix_ids = self.encode_suffix(longer[len(text + response) :], closed=False)
            if not np.array_equal(suffix_ids, self.encode_observations([observation], closed=False)):
                return False
            text = longer
        return True


def _backend(tokenizer: PreTrainedTokenizerBase) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError("This tokenizer has no Rust backend; use one with a tokenizer.json.")
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError("This tokenizer has no chat template; set its `chat_template`.")
    return backend


def _with_text_arguments(message: TemplateMessage) -> TemplateMessage:
    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        for call in message.get("tool_calls") or ()
    ]
    return {**message, "tool_calls": calls} if calls else message


def _template_message(message: Message) -> TemplateMessage:
    """OpenAI chat format. Calls that could not be parsed are left out."""
    plain: TemplateMessage = {"role": message.role, "content": message.content}
    if message.tool_calls:
        plain["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
            for call in message.tool_calls
            if call.error is None
        ]
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    if message.reasoning_content is not None:
        plain["reasoning_content"] = message.reasoning_content
    return plain
