"""Whatever a program asks, in any order: each sampled token is once in one row, behind the context it came from."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_rl.chat.codec import ChatCodec
from agent_rl.gateway.history import Definition, Draft, History
from agent_rl.testing.tiny import make_tokenizer
from agent_rl.types import FinishReason, Generation, Message

CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "1"}}\n</tool_call>'
OPENING = (Message("system", "You count."), Message("user", "Count."))
SAID = st.sampled_from(["one", "two", CALL, "<think>\nhm\n</think>\n\nthree", "<tool_call>{bad}</tool_call>"])
NEXT = st.sampled_from([(Message("user", "more"),), (Message("user", "again"),), (Message("tool", "seen"),)])
TOOLS = st.sampled_from([(), (Definition({"type": "function", "function": {"name": "look"}}),)])
REWRITES = "message.content.split('</think>')[-1].lstrip('\\n') if message.role == 'assistant' else message.content"


def make_codec(rewriting: bool) -> ChatCodec:
    tokenizer = make_tokenizer(["Count. one two three more again seen", CALL])
    if rewriting:
        template = tokenizer.chat_template.replace("(message.content or '')", f"({REWRITES})")
        assert template != tokenizer.chat_template
        tokenizer.chat_template = template
    codec = ChatCodec(tokenizer)
    assert codec.preserves_prefix != rewriting
    return codec


CODECS = {name: make_codec(name == "rewriting") for name in ("appending", "rewriting")}


@dataclass
class Asked:
    """A request that waits for its response."""

    messages: tuple[Message, ...]
    tools: tuple[Definition, ...]
    draft: Draft
    prompt: list[int]


@pytest.mark.slow
@settings(max_examples=100)
@pytest.mark.parametrize("name", sorted(CODECS))
@given(data=st.data())
def test_any_interleaving_of_requests(name: str, data: st.DataObject) -> None:
    codec = CODECS[name]
    history = History(codec, "episode")
    known: list[tuple[tuple[Message, ...], tuple[Definition, ...]]] = [(OPENING, data.draw(TOOLS))]
    waiting: list[Asked] = []
    recorded = []
    for _ in range(data.draw(st.integers(6, 20))):
        if waiting and data.draw(st.booleans()):
            asked = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
            if data.draw(st.integers(0, 4)) == 0:
                history.discard(asked.draft)
                continue
            generation = sampled(codec, data.draw(SAID), version=len(recorded))
            message = codec.decode_action(generation.token_ids_R)
            reply = history.commit(asked.draft, generation, message, 0.0, 1.0)
            recorded.append((reply, generation, asked.prompt))
            known.append(((*asked.messages, echoed(message), *data.draw(NEXT)), asked.tools))
        else:
            messages, tools = known[-1 - data.draw(st.integers(0, min(3, len(known) - 1)))]  # most often a late one
            if data.draw(st.integers(0, 3)) == 0:  # the program rewrites something that it said before
                messages = (messages[0], replace(messages[1], content="Count on."), *messages[2:])
            draft = history.extend(messages, tools)
            if codec.preserves_prefix:
                assert draft.prompt_ids_T.tolist() == encoded(codec, draft, messages, tools)
            waiting.append(Asked(messages, tools, draft, draft.prompt_ids_T.tolist()))
    check(history, recorded)


def encoded(codec: ChatCodec, draft: Draft, messages, tools) -> list[int]:
    """The context that `draft` must have, from its replies and what was asked between them."""
    replies = []
    reply = draft.parent
    while reply is not None:
        replies.insert(0, reply)
        reply = reply.parent
    asked = [reply.asked for reply in replies] + [draft.asked]
    assert sum(len(part) + 1 for part in asked) == len(messages) + 1, "the replies are those in the messages"
    ids = codec.opening(asked[0], tools).ids_T.tolist()
    for reply, later in zip(replies, asked[1:], strict=True):
        ids += [*reply.ids_R.tolist(), *codec.encode_observations(later, closed=True).tolist()]
    return ids


def sampled(codec: ChatCodec, text: str, version: int) -> Generation:
    ids = np.array([*codec.encode_rendered(text).tolist(), codec.stop_token_ids[0]], np.int32)
    logprobs = -np.arange(len(ids), dtype=np.float32) - version
    return Generation(ids, logprobs, np.full(len(ids), version, np.int32), FinishReason.STOP)


def echoed(message: Message) -> Message:
    """As it comes back over the wire: calls that could not be parsed were never handed out."""
    return replace(message, tool_calls=tuple(call for call in message.tool_calls if call.error is None))


def check(history: History, recorded) -> None:
    segments = history.segments()
    assert sum(int(segment.response_mask_T.sum()) for segment in segments) == sum(
        len(generation.token_ids_R) for _, generation, _ in recorded
    )
    for reply, generation, prompt in recorded:
        segment, span = segments[reply.row.index], slice(reply.start, reply.end)
        assert segment.token_ids_T[: reply.start].tolist() == prompt
        assert segment.token_ids_T[span].tolist() == generation.token_ids_R.tolist()
        assert segment.rollout_logprobs_T[span].tolist() == generation.logprobs_R.tolist()
        assert segment.weight_versions_T[span].tolist() == generation.weight_versions_R.tolist()
        assert segment.response_mask_T[span].all()
