"""GLM 4.5 on: `<tool_call>NAME` followed by pairs of `<arg_key>` and `<arg_value>`."""

from __future__ import annotations

from agent_rl.chat.parsers.base import Arguments, BadCall, read_blocks, read_pairs, tool_parser
from agent_rl.types import ToolCall

_HOW = (
    "Write <tool_call>NAME\n<arg_key>KEY</arg_key>\n<arg_value>value</arg_value>\n</tool_call>, "
    "with one pair for each argument."
)
_TAGS = ("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")


@tool_parser("glm", "glm45", "glm47")
def parse_glm(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Values are text, verbatim."""
    return read_blocks(text, "<tool_call>", "</tool_call>", _read, _HOW)


def _read(block: str) -> tuple[str, Arguments]:
    head, found, pairs = block.partition("<arg_key>")
    name = head.strip()
    if name.split() != [name] or "<" in name:
        raise BadCall("The tool call does not begin with the name of a tool")
    try:
        return name, read_pairs(found + pairs, _TAGS)
    except BadCall as bad:
        raise BadCall(str(bad), name) from bad
