"""Files of chats as rows to imitate."""

import json

import numpy as np
import pytest

from agent_rl.chat.codec import ChatCodec
from agent_rl.errors import UserError
from agent_rl.learner.demonstrations import read_demonstrations
from agent_rl.testing.tiny import make_tokenizer

USER, ANSWER = {"role": "user", "content": "say 1"}, {"role": "assistant", "content": "2 2"}
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def codec() -> ChatCodec:
    return ChatCodec(make_tokenizer(["say again 0123456789"], vocab_size=300))


def written(tmp_path, *rows):
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_answer_is_trained_and_nothing_else(codec, tmp_path):
    path = written(tmp_path, {"messages": [USER, ANSWER, USER, ANSWER]}, {"messages": [USER, ANSWER], "tools": [LOOK]})
    [(two, with_tool)] = read_demonstrations(codec, path).values()
    trained = [codec.decode(row.token_ids_T[row.weights_T > 0]) for row in (two, with_tool)]
    once = codec.decode(codec.encode_action(codec.decode_action(with_tool.token_ids_T[with_tool.weights_T > 0])))
    assert trained == [2 * once, once]
    assert "2 2" in once
    assert np.array_equal(two.weights_T > 0, two.response_mask_T)
    assert "look" in codec.decode(with_tool.token_ids_T)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"messages": [USER]}, r"chats\.jsonl, line 1: field 'messages' is wrong: it takes a prompt and an assistant"),
        ({"messages": [ANSWER, USER]}, "it takes a prompt"),
        ({"messages": [USER, ANSWER, ANSWER]}, "two assistant messages follow each other"),
        ({"messages": [{"role": "robot", "content": ""}]}, r"messages\[0\]\.role is 'robot'"),
        ({"messages": [USER, ANSWER], "tools": [{"name": "look"}]}, "field 'tools' is wrong: a tool is"),
        ({"chat": []}, "there is no field 'messages'"),
    ],
)
def test_what_is_no_chat_is_refused(codec, tmp_path, row, complaint):
    with pytest.raises(UserError, match=complaint):
        read_demonstrations(codec, written(tmp_path, row))


def test_an_empty_file_is_refused(codec, tmp_path):
    with pytest.raises(UserError, match="holds no demonstrations"):
        read_demonstrations(codec, written(tmp_path))
