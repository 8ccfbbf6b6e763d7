"""Qwen3-Coder and Qwen 3.5 on: `<function=NAME>` with `<parameter=KEY>` tags, between `<tool_call>` tags."""

from __future__ import annotations

from agent_rl.chat.parsers.base import Arguments, BadCall, read_blocks, read_pairs, tool_parser
from agent_rl.types import ToolCall

_HOW = (
    "Write <tool_call>\n<function=NAME>\n<parameter=KEY>\nvalue\n</parameter>\n</function>\n</tool_call>, "
    "with one <parameter=KEY> for each argument."
)
_FUNCTION, _END = "<function=", "</function>"


@tool_parser("qwen3_coder", "qwen3_xml")
def parse_qwen3_coder(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Values are text without the line breaks that set it off from its tags."""
    return read_blocks(text, "<tool_call>", "</tool_call>", _read, _HOW)


def _read(block: str) -> tuple[str, Arguments]:
    _, found, rest = block.partition(_FUNCTION)
    name, named, body = rest.partition(">")
    name = name.strip()
    if not found or not named or not name:
        raise BadCall("The tool call has no <function=NAME>")
    if _END not in body:
        raise BadCall(f"The tool call is not closed by {_END}", name)
    try:
        values = read_pairs(body[: body.rfind(_END)], ("<parameter=", ">", "", "</parameter>"))
    except BadCall as bad:
        raise BadCall(str(bad), name) from bad
    return name, {key: value.removeprefix("\n").removesuffix("\n") for key, value in values.items()}
