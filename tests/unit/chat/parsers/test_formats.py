"""What holds for every format: calls are read as they were written, no text is lost, mistakes stay their own."""

# ruff: noqa: RUF001  # DeepSeek's bars are full width

import itertools
import json
import re
import time
from dataclasses import dataclass

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_rl.chat.parsers import get_tool_parser, split_reasoning, tool_parsers
from agent_rl.errors import NotFoundError

CALLS = "{%- for call in calls %}"
END = "{%- endfor %}"


@dataclass(frozen=True)
class Format:
    """`template` writes one assistant turn; `bad` is a call that cannot be read; `pieces` are what the format is of."""

    template: str
    bad: str
    complaint: str
    pieces: tuple[str, ...]
    typed: bool = True  # whether values have types, or are text


HERMES = Format(
    "{{ content }}"
    + CALLS
    + '\n<tool_call>\n{"name": {{ call.name | json }}, "arguments": {{ call.arguments | json }}}'
    "\n</tool_call>" + END,
    "<tool_call>nonsense</tool_call>",
    "not valid JSON",
    ("<tool_call>", "</tool_call>", '{"name": "a", "arguments": {', "\n"),
)
QWEN3_CODER = Format(
    "{{ content }}"
    + CALLS
    + "\n<tool_call>\n<function={{ call.name }}>\n{% for key, value in call.arguments.items() -%}"
    "<parameter={{ key }}>\n{{ value | text }}\n</parameter>\n{% endfor %}</function>\n</tool_call>" + END,
    "<tool_call><function=look><parameter=at>1</function></tool_call>",
    "'at' is not closed",
    ("<tool_call>", "</tool_call>", "<function=a>", "</function>", "<parameter=b>", "</parameter>", "\n"),
    typed=False,
)
GLM = Format(
    "{{ content }}" + CALLS + "\n<tool_call>{{ call.name }}\n{% for key, value in call.arguments.items() -%}"
    "<arg_key>{{ key }}</arg_key>\n<arg_value>{{ value | text }}</arg_value>\n{% endfor %}</tool_call>" + END,
    "<tool_call>look\n<arg_key>at</arg_key>1</tool_call>",
    "'at' is not followed by <arg_value>",
    ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "name\n"),
    typed=False,
)
LLAMA = Format(
    "{{ content }}{% if calls %}<|python_tag|>{% endif %}{%- for call in calls %}"
    '{"name": {{ call.name | json }}, "parameters": {{ call.arguments | json }}}{% if not loop.last %}; {% endif %}'
    + END,
    '<|python_tag|>{"name": "look", "parameters": nonsense}\n',
    "not valid JSON",
    ("<|python_tag|>", '\n{"name": [', '; {"name": "', '{"type":1}', "; ", "\n", "{", '"', "\\"),
)
MISTRAL = Format(
    '{{ content }}{% if calls %}[TOOL_CALLS][{% for call in calls %}{"name": {{ call.name | json }}, "arguments": '
    '{{ call.arguments | json }}, "id": "abcdefghi"}{% if not loop.last %}, {% endif %}{% endfor %}]{% endif %}',
    '[TOOL_CALLS][{"name": nonsense',
    "not valid JSON",
    ("[TOOL_CALLS]", "[", "[{", "name[ARGS]{", "[CALL_ID]", "{", "}", "]", '"'),
)
MISTRAL_11 = Format(
    "{{ content }}" + CALLS + "[TOOL_CALLS]{{ call.name }}[ARGS]{{ call.arguments | json }}" + END,
    "[TOOL_CALLS]look[ARGS]{nonsense",
    "not valid JSON",
    MISTRAL.pieces,
)
_V3 = (
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
)
DEEPSEEK_V3 = Format(
    "{{ content }}{% if calls %}"
    + _V3[0]
    + "{%- for call in calls %}{% if not loop.first %}{{ '\\n' }}{% endif %}"
    + _V3[2]
    + "function"
    + _V3[3]
    + "{{ call.name }}\n```json\n{{ call.arguments | json }}\n```"
    + _V3[4]
    + END
    + _V3[1]
    + "{% endif %}",
    f"{_V3[2]}function{_V3[3]}look\n```json\nnonsense\n```{_V3[4]}",
    "not valid JSON",
    (*_V3, "```json", "```", "name", "{}"),
)
DEEPSEEK_V31 = Format(
    "{{ content }}{% if calls %}"
    + _V3[0]
    + CALLS
    + _V3[2]
    + "{{ call.name }}"
    + _V3[3]
    + "{{ call.arguments | json }}"
    + _V3[4]
    + END
    + _V3[1]
    + "{% endif %}",
    f"{_V3[2]}look{_V3[4]}",
    "between name and arguments",
    DEEPSEEK_V3.pieces,
)
_K2 = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")
_K2_CALL = ("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>")
KIMI = Format(
    "{{ content }}{% if calls %}"
    + _K2[0]
    + CALLS
    + _K2_CALL[0]
    + "functions.{{ call.name }}:{{ loop.index0 }}"
    + _K2_CALL[1]
    + "{{ call.arguments | json }}"
    + _K2_CALL[2]
    + END
    + _K2[1]
    + "{% endif %}",
    f"{_K2_CALL[0]}functions.look:7{_K2_CALL[1]}nonsense{_K2_CALL[2]}",
    "not valid JSON",
    (*_K2, *_K2_CALL, "functions.a:0", "{}", ":"),
)
GPT_OSS = Format(
    "{% if content %}<|channel|>commentary<|message|>{{ content }}<|end|>{% if calls %}<|start|>assistant{% endif %}"
    "{% endif %}{% for call in calls %}<|channel|>commentary to=functions.{{ call.name }} <|constrain|>json<|message|>"
    "{{ call.arguments | json }}<|call|>"
    "{% if not loop.last %}<|start|>assistant{% endif %}{% endfor %}",
    "<|start|>assistant to=functions.look<|channel|>commentary json<|message|>nonsense<|call|>",
    "not valid JSON",
    ("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|call|>", "assistant", " to=functions.a", "{}"),
)
REACT = Format(
    "{% if content %}Thought: {{ content }}{% endif %}" + CALLS + "\nAction: {{ call.name }}\nAction Input: "
    "{{ call.arguments | json }}" + END,
    "\nAction: look\nAction Input: nonsense\n",
    "not valid JSON",
    ("Thought: ", "\nAction: ", "\nAction Input: ", "Action:\n", "{", '{"a": ', "\n", "  ", "\nObservation: "),
)
FORMATS = {
    "hermes": HERMES,
    "qwen3_coder": QWEN3_CODER,
    "glm": GLM,
    "llama3_json": LLAMA,
    "mistral": MISTRAL,
    "mistral 11": MISTRAL_11,
    "deepseek": DEEPSEEK_V3,
    "deepseek 3.1": DEEPSEEK_V31,
    "kimi": KIMI,
    "gpt_oss": GPT_OSS,
    "react": REACT,
}
XML_PIECES = ("<search>", "</search>", "<answer>", "</answer>", "text")
PIECES = {name: FORMATS[name].pieces for name in FORMATS if " " not in name} | {"xml": XML_PIECES}


def parser(name: str):
    return get_tool_parser(name.partition(" ")[0])


def as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


ENVIRONMENT = jinja2.Environment()  # caches compiled templates
ENVIRONMENT.filters |= {"json": lambda value: json.dumps(value, ensure_ascii=False), "text": as_text}


def write(form: Format, content: str, calls: list[tuple[str, dict[str, object]]]) -> str:
    named = [{"name": name, "arguments": arguments} for name, arguments in calls]
    return ENVIRONMENT.from_string(form.template).render(content=content, calls=named)


NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
WORDS = st.text("abc XYZ.,é", min_size=1, max_size=12).map(str.strip).filter(bool)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="<[`"), max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab é", max_size=3), inner, max_size=3),
    max_leaves=6,
)
CALL_LISTS = st.lists(st.tuples(NAMES, st.dictionaries(NAMES, VALUES, max_size=3)), max_size=4)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=50)
@given(content=st.just("") | WORDS, calls=CALL_LISTS)
def test_what_is_written_is_read_back(name: str, content: str, calls: list[tuple[str, dict[str, object]]]):
    form = FORMATS[name]
    text, read = parser(name)(write(form, content, calls))
    assert [call.error for call in read] == [None] * len(calls)
    expected = [(n, a if form.typed else {key: as_text(value) for key, value in a.items()}) for n, a in calls]
    assert [(call.name, call.arguments) for call in read] == expected
    assert len({call.id for call in read}) == len(calls)
    assert text.removeprefix("Thought: ") == content


@pytest.mark.parametrize("name", FORMATS)
def test_a_mistake_does_not_hide_its_neighbours_or_the_text(name: str):
    form = FORMATS[name]
    good = write(form, "", [("look", {"at": "1"})])
    text, calls = parser(name)(f"Before.\n{good}{form.bad}{good}")
    assert [(call.name, call.error is None) for call in calls if call.error is None] == [("look", True)] * 2
    assert [call.error is None for call in calls] == [True, False, True]
    assert form.complaint in calls[1].error
    assert calls[1].arguments == {}
    if name != "gpt_oss":  # there text is in messages of its own
        assert text == "Before."


@pytest.mark.parametrize("name", FORMATS)
def test_the_error_says_how_to_write_the_call(name: str):
    """What the error shows as an example is a call, once its holes are filled."""
    (call,) = parser(name)(FORMATS[name].bad)[1]
    example = re.search(r"Write (.*?)(, with |; sep| and nothing|\.$)", call.error, re.DOTALL).group(1)
    for hole, filling in (("{...}", "{}"), ('"..."', '"look"'), ("NAME", "look"), ("KEY", "at")):
        example = example.replace(hole, filling)
    (again,) = parser(name)(example)[1]
    assert (again.name, again.error) == ("look", None)


@pytest.mark.parametrize("name", FORMATS)
def test_text_without_calls_is_untouched(name: str):
    for text in ("", "  plain\n", "a\n\nb <b> [c] {d}; e", '{"answer": 3}'):
        assert parser(name)(text) == (text, ())


@pytest.mark.parametrize("name", PIECES)
@settings(max_examples=100)
@given(data=st.data())
def test_any_text_is_parsed(name: str, data: st.DataObject):
    common = ('{"name": "a", "arguments": {}}', "{", "}", "[", '"', "\\ud800", "\n", " ", "1e999", "NaN")
    piece = st.sampled_from((*PIECES[name], *common)) | st.text(max_size=6)
    text = "".join(data.draw(st.lists(piece, max_size=20)))
    for part in (text, split_reasoning(text)[1]):
        content, calls = parser(name)(part)
        assert len(content) <= len(part)
        for call in calls:
            assert call.id
            assert call.name or call.error
            assert not (call.error and call.arguments)
            json.dumps(dict(call.arguments), ensure_ascii=False).encode()


@pytest.mark.slow
@pytest.mark.parametrize("name", PIECES)
def test_time_grows_with_the_text(name: str):
    """Four times the text takes about four times as long, whatever is repeated; quadratic would be sixteen."""
    nested = ('\n{"name":[', '{"a":', "[", '"\\', "\n\t ")
    pairs = itertools.product(PIECES[name], (*PIECES[name], *nested, ""))
    for unit in dict.fromkeys(first + second for first, second in pairs):
        short, long = (unit * (size // len(unit)) for size in (30_000, 120_000))
        if seconds(name, long) > 0.02:
            assert min(seconds(name, long) for _ in range(3)) < 10 * min(seconds(name, short) for _ in range(3)), unit


def seconds(name: str, text: str) -> float:
    started = time.process_time()
    parser(name)(split_reasoning(text)[1])
    return time.process_time() - started


def test_names_are_those_of_vllm_or_of_the_family():
    known = {
        *("hermes", "qwen3_coder", "qwen3_xml", "llama3_json", "llama4_json", "mistral", "deepseek", "deepseek_v3"),
        *("deepseek_v31", "glm", "glm45", "glm47", "kimi", "kimi_k2", "gpt_oss", "openai", "react", "xml"),
    }
    assert set(tool_parsers()) >= known
    for family, alias in (("deepseek", "deepseek_v3"), ("glm", "glm45"), ("kimi", "kimi_k2"), ("gpt_oss", "openai")):
        assert get_tool_parser(family) is get_tool_parser(alias)
    with pytest.raises(NotFoundError, match="Did you mean 'kimi_k2'"):
        get_tool_parser("kimi-k2")
