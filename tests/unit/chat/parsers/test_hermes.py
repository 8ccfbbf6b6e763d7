import json
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent_rl.chat.parsers import get_tool_parser, parse_hermes, split_reasoning
from agent_rl.errors import NotFoundError
from agent_rl.types import ToolCall


def block(payload: object) -> str:
    return f"<tool_call>\n{json.dumps(payload, ensure_ascii=False)}\n</tool_call>"


def only_call(text: str) -> ToolCall:
    _, (call,) = parse_hermes(text)
    return call


def test_text_without_calls_is_untouched():
    assert parse_hermes("  plain\n") == ("  plain\n", ())


def test_several_calls_in_order_with_text_around():
    one, two = {"name": "a", "arguments": {"x": 1}}, {"name": "b", "arguments": {}}
    content, calls = parse_hermes(f"First.\n{block(one)}\n{block(two)}\nLast.")
    assert content == "First.\nLast."
    assert calls == (ToolCall("call_0", "a", {"x": 1}), ToolCall("call_1", "b", {}))


def test_arguments_are_kept_as_parsed():
    arguments = {"n": 1, "f": 1.5, "s": "é\n", "l": [1, None, True], "o": {"k": {}}}
    assert only_call(block({"name": "a", "arguments": arguments})).arguments == arguments


def test_the_last_of_duplicate_keys_wins():
    assert only_call('<tool_call>{"name": "a", "name": "b", "arguments": {"x": 1, "x": 2}}</tool_call>') == ToolCall(
        "call_0", "b", {"x": 2}
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<tool_call>{bad}</tool_call>", "not valid JSON"),
        ("<tool_call></tool_call>", "not valid JSON"),
        ('<tool_call>{"name": "a", "arguments": {"x": NaN}}</tool_call>', "NaN is not a JSON number"),
        ('<tool_call>{"name": "a", "arguments": {"x": ' + "9" * 5000 + "}}</tool_call>", "not valid JSON"),
        (r'<tool_call>{"name": "a", "arguments": {"x": "\ud800"}}</tool_call>', "surrogate"),
        ("<tool_call>" + "[" * 100_000 + "</tool_call>", "too deeply"),
        ("<tool_call>[1]</tool_call>", "not a JSON object"),
        ('<tool_call>{"arguments": {}}</tool_call>', 'no "name"'),
        ('<tool_call>{"name": 3, "arguments": {}}</tool_call>', 'no "name"'),
        ('<tool_call>{"name": "a"}</tool_call>', '"arguments"'),
        ('<tool_call>{"name": "a", "arguments": "{}"}</tool_call>', '"arguments"'),
        ('<tool_call>{"name": "a", "arguments": {}}', "not closed"),
        ("<tool_call>", "not closed"),
    ],
)
def test_mistakes_are_explained_to_the_model(text, complaint):
    call = only_call(text)
    assert complaint in call.error
    assert "<tool_call>" in call.error  # how to write it
    assert call.arguments == {}


def test_a_mistake_does_not_hide_its_neighbours():
    good = block({"name": "a", "arguments": {}})
    _, calls = parse_hermes(f"{good}<tool_call>nonsense</tool_call>{good}")
    assert [(call.id, call.error is None) for call in calls] == [("call_0", True), ("call_1", False), ("call_2", True)]


@pytest.mark.parametrize(
    "unit",
    [
        "<tool_call>",
        "</tool_call>",
        "<tool_call>{",
        "<tool_call></tool_call>",
        '<tool_call>{"a":"',
        "<tool_call",
        "<think>",
    ],
)
def test_a_megabyte_of_nonsense_is_parsed_at_once(unit):
    """Within a second, or a few on a busy machine; quadratic would be minutes."""
    text = unit * (1_000_000 // len(unit))
    start = time.process_time()
    split_reasoning(text)
    parse_hermes(text)
    assert time.process_time() - start < 10


PIECES = st.sampled_from(
    [
        "<tool_call>",
        "</tool_call>",
        "<think>",
        "</think>",
        '{"name": "a", "arguments": {}}',
        "{",
        "}",
        "[",
        '"',
        "\\u",
        "\\ud800",
        "\n",
        "1e999",
    ]
)


@given(st.lists(PIECES | st.text(max_size=8), max_size=20))
def test_any_text_is_parsed(pieces):
    _, text = split_reasoning("".join(pieces))
    _, calls = parse_hermes(text)
    assert [call.id for call in calls] == [f"call_{index}" for index in range(len(calls))]
    assert len(calls) <= text.count("<tool_call>")
    for call in calls:
        assert call.name or call.error
        json.dumps(dict(call.arguments), ensure_ascii=False).encode()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.tuples(st.text(min_size=1), st.dictionaries(st.text(), JSON_VALUES, max_size=3)), max_size=4),
    st.booleans(),
)
def test_written_calls_are_read_back(calls, ascii_only):
    assume("</tool_call>" not in repr(calls))  # which the format cannot hold, and hypothesis draws from our sources
    payloads = [json.dumps({"name": n, "arguments": a}, ensure_ascii=ascii_only) for n, a in calls]
    _, parsed = parse_hermes("".join(f"<tool_call>\n{payload}\n</tool_call>" for payload in payloads))
    assert [(call.name, call.arguments, call.error) for call in parsed] == [(n, a, None) for n, a in calls]


@pytest.mark.parametrize(
    ("text", "reasoning", "rest"),
    [
        ("answer", None, "answer"),
        ("<think>\nplan\n</think>\n\nanswer", "plan", "answer"),
        ("\n<think>plan</think>answer", "plan", "answer"),
        ("<think>\ncut off", "cut off", ""),
        ("text <think>late</think>", None, "text <think>late</think>"),
    ],
)
def test_reasoning_is_split_off(text, reasoning, rest):
    assert split_reasoning(text) == (reasoning, rest)


def test_parsers_are_found_by_name():
    assert get_tool_parser("hermes") is parse_hermes
    with pytest.raises(NotFoundError, match="Did you mean 'hermes'"):
        get_tool_parser("herms")
