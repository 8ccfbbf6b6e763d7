"""What is particular to one format."""

import anyio
import pytest

from agent_rl.chat.parsers import (
    get_tool_parser,
    parse_deepseek,
    parse_glm,
    parse_gpt_oss,
    parse_kimi,
    parse_llama3_json,
    parse_mistral,
    parse_qwen3_coder,
    parse_react,
    parse_xml,
    split_reasoning,
    tool_parser,
    xml_parser,
)
from agent_rl.errors import UserError
from agent_rl.tool import run_tool_calls, tool
from agent_rl.types import ToolCall


def only(parsed: tuple[str, tuple[ToolCall, ...]]) -> ToolCall:
    (call,) = parsed[1]
    return call


# --- values without types -------------------------------------------------------------------------------------------


@tool
async def fetch(page: int, share: float, fast: bool, title: str) -> str:
    """Fetch."""
    return repr((page, share, fast, title))


def test_text_values_take_the_types_that_the_tool_declares():
    values = {"page": "3", "share": "0.5", "fast": "true", "title": "42"}
    coder = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    glm = "".join(f"<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n" for key, value in values.items())
    for call in (
        only(parse_qwen3_coder(f"<tool_call>\n<function=fetch>\n{coder}</function>\n</tool_call>")),
        only(parse_glm(f"<tool_call>fetch\n{glm}</tool_call>")),
    ):
        assert call.arguments == values
        (result,) = anyio.run(run_tool_calls, [fetch], [call])
        assert (result.error, result.content) == (None, "(3, 0.5, True, '42')")


def test_values_keep_their_lines_and_may_look_like_json():
    code = 'if x:\n    print("</b>")\n\n'
    text = f"<tool_call>\n<function=run>\n<parameter=code>\n{code}\n</parameter>\n</function>\n</tool_call>"
    assert only(parse_qwen3_coder(text)).arguments == {"code": code}
    text = '<tool_call>save<arg_key>text</arg_key><arg_value>{"a": [1]}</arg_value></tool_call>'
    assert only(parse_glm(text)).arguments == {"text": '{"a": [1]}'}


@pytest.mark.parametrize(
    ("parse", "text", "complaint"),
    [
        (parse_qwen3_coder, "<tool_call>look</tool_call>", "no <function=NAME>"),
        (parse_qwen3_coder, "<tool_call><function=></function></tool_call>", "no <function=NAME>"),
        (parse_qwen3_coder, "<tool_call><function=look></tool_call>", "not closed by </function>"),
        (parse_qwen3_coder, "<tool_call><function=look><parameter=></function></tool_call>", "no name"),
        (parse_qwen3_coder, "<tool_call><function=look>", "not closed by </tool_call>"),
        (parse_glm, "<tool_call>\n</tool_call>", "does not begin with the name"),
        (parse_glm, '<tool_call>{"name": "look",\n"arguments": {}}</tool_call>', "does not begin with"),
        (parse_glm, "<tool_call>look<arg_key>at</tool_call>", "<arg_key> is not closed"),
        (parse_glm, "<tool_call>look<arg_key>at</arg_key><arg_value>1</tool_call>", "'at' is not closed"),
        (parse_glm, "<tool_call>look<arg_key>a</arg_key>x<arg_value>1</arg_value></tool_call>", "not followed"),
        (parse_llama3_json, "<|python_tag|>look(1)", "not valid JSON"),
        (parse_llama3_json, '{"name": "look", "parameters": [1]}', '"parameters"'),
        (parse_llama3_json, '{"name": "look"}', '"parameters"'),
        (parse_mistral, "[TOOL_CALLS]", "no JSON"),
        (parse_mistral, '[TOOL_CALLS]{"name": "look"}', '"arguments"'),
        (parse_mistral, "[TOOL_CALLS][1]", "not a JSON object"),
        (parse_mistral, "[TOOL_CALLS]I will look {}", "does not begin with the name"),
        (parse_mistral, "[TOOL_CALLS]look[ARGS][1]", "no JSON"),
        (parse_deepseek, "<｜tool▁call▁begin｜>look<｜tool▁sep｜>[1]<｜tool▁call▁end｜>", "not a JSON object"),  # noqa: RUF001
        (parse_deepseek, "<｜tool▁call▁begin｜><｜tool▁sep｜>{}<｜tool▁call▁end｜>", "no name"),  # noqa: RUF001
        (parse_deepseek, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>look", "not closed"),  # noqa: RUF001
        (parse_kimi, "<|tool_call_begin|>call_0<|tool_call_argument_begin|>{}<|tool_call_end|>", "functions.NAME:NUMB"),
        (parse_kimi, "<|tool_call_begin|>functions.look:0 {}<|tool_call_end|>", "no <|tool_call_argument_begin|>"),
        (parse_kimi, "<|tool_call_begin|>functions.look:0", "not closed"),
        (parse_gpt_oss, "<|channel|>commentary to=functions.look<|message|>[1]<|call|>", "not a JSON object"),
        (parse_gpt_oss, "<|channel|>commentary to=functions.<|message|>{}<|call|>", "no name"),
        (parse_react, "Action: look", "not followed"),
        (parse_react, "Action: look\nAction Input: the door", "not valid JSON"),
        (parse_react, 'Action: look\nAction Input: ["the door"]', "not a JSON object"),
        (parse_react, "Action:\nAction Input: {}", 'no "name"'),
        (parse_xml, "<search>who", "not closed by </search>"),
    ],
)
def test_mistakes_are_explained(parse, text: str, complaint: str):
    call = only(parse(text))
    assert complaint in call.error
    assert "Write " in call.error
    assert call.arguments == {}


# --- one by one -----------------------------------------------------------------------------------------------------


def test_llama_calls_without_the_tag():
    text, calls = parse_llama3_json('I look.\n{"name": "a", "parameters": {"x": ";"}}; {"name": "b", "arguments": {}}')
    assert (text, [(c.name, c.arguments) for c in calls]) == ("I look.", [("a", {"x": ";"}), ("b", {})])
    _, calls = parse_llama3_json('{"name": "a", "parameters": {"x": "}\\"{"}}; {"name": "b", "parameters": {"x": "')
    assert [(call.name, call.error is None) for call in calls] == [("a", True), ("", False)]
    call = only(parse_llama3_json('{"type": "function", "function": "a", "parameters": {"x": 1}}'))
    assert (call.name, call.arguments) == ("a", {"x": 1})


def test_mistral_keeps_the_good_calls_of_a_list_and_text_behind_it():
    text, calls = parse_mistral('Hm.[TOOL_CALLS] [{"name": "a", "arguments": {}}, {"name": "b"}] Done.')
    assert text == "Hm.\n Done."
    assert [(c.id, c.name, c.error is None) for c in calls] == [("call00000", "a", True), ("call00001", "b", False)]
    call = only(parse_mistral('[TOOL_CALLS]a[CALL_ID]x1y2z3a4b[ARGS]{"x": "[TOOL"}'))
    assert (call.name, call.arguments) == ("a", {"x": "[TOOL"})


def test_kimi_keeps_the_ids_that_its_template_shows():
    calls = "".join(
        f"<|tool_call_begin|>functions.a:{i}<|tool_call_argument_begin|>{{}}<|tool_call_end|>" for i in (4, 5)
    )
    text, parsed = parse_kimi(f"Hm.<|tool_calls_section_begin|>{calls}<|tool_calls_section_end|>")
    assert (text, [(call.id, call.name) for call in parsed]) == (
        "Hm.",
        [("functions.a:4", "a"), ("functions.a:5", "a")],
    )


def test_gpt_oss_messages():
    sampled = (
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
        '<|start|>assistant to=functions.look<|channel|>commentary json<|message|>{"at": "1"}<|call|>'
    )
    reasoning, rest = split_reasoning(sampled)
    text, calls = parse_gpt_oss(rest)
    assert (reasoning, text) == ("hm", "I look.")
    assert [(c.name, c.arguments) for c in calls] == [("look", {"at": "1"})]
    assert parse_gpt_oss("<|channel|>final<|message|>42") == ("42", ())
    assert only(parse_gpt_oss(" to=functions.look<|channel|>commentary json<|message|>{}")).name == "look"


def test_react_keeps_thoughts_and_what_follows():
    text = 'Thought: I look.\nAction: look\nAction Input: {\n  "at": "Action: no"\n}\nObservation: made up'
    content, calls = parse_react(text)
    assert content == "Thought: I look.\nObservation: made up"
    assert [(c.name, c.arguments) for c in calls] == [("look", {"at": "Action: no"})]
    final = "Thought: I know.\nFinal Answer: 42"
    assert parse_react(final) == (final, ())


def test_tags_of_ones_own():
    tool_parser("tags of this test")(xml_parser({"search": "query", "python": "code"}))
    text = "Hm.\n<search> who? </search>\n<python>\nprint('<search>')\n</python>\n<answer>42</answer>"
    content, calls = get_tool_parser("tags of this test")(text)
    assert content == "Hm.\n<answer>42</answer>"
    assert calls == (
        ToolCall("call_0", "search", {"query": "who?"}),
        ToolCall("call_1", "python", {"code": "print('<search>')"}),
    )
    assert parse_xml("<search>who?</search>")[1] == calls[:1]
    for tags in ({}, {"": "query"}, {"a b": "query"}, {"</x>": "query"}):
        with pytest.raises(UserError, match="cannot be a tag"):
            xml_parser(tags)


@pytest.mark.parametrize(
    ("text", "reasoning", "rest"),
    [
        ("[THINK]plan[/THINK]answer", "plan", "answer"),
        ("<|channel|>analysis<|message|>plan<|end|><|start|>assistant", "plan", "<|start|>assistant"),
        ("<|channel|>analysis<|message|>cut", "cut", ""),
        ("<|channel|>final<|message|>x", None, "<|channel|>final<|message|>x"),
    ],
)
def test_reasoning_of_other_families(text: str, reasoning: str | None, rest: str):
    assert split_reasoning(text) == (reasoning, rest)
