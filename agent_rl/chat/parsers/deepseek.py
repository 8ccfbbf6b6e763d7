"""DeepSeek V3, R1 and V3.1: calls between special tokens, their arguments as JSON.

V3 writes `function`, the separator, the name and a fenced block of JSON; V3.1 the name, the separator and bare JSON.
"""

# ruff: noqa: RUF001  # the bars in the tokens are full width

from __future__ import annotations

import re

from agent_rl.chat.parsers.base import Arguments, BadCall, join_outside, json_arguments, read_blocks, tool_parser
from agent_rl.types import ToolCall

_CALLS_BEGIN, _CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_SECTION = re.compile(f"{_CALLS_BEGIN}|{_CALLS_END}")
_BEGIN, _SEPARATOR, _END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
_HOW = f"Write {_CALLS_BEGIN}{_BEGIN}NAME{_SEPARATOR}{{...}}{_END}{_CALLS_END}, with the arguments as a JSON object."
_FENCE = "```"


@tool_parser("deepseek", "deepseek_v3", "deepseek_v31")
def parse_deepseek(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Both ways to write a call, told apart by what follows the separator."""
    content, calls = read_blocks(text, _BEGIN, _END, _read, _HOW)
    return (join_outside(_SECTION.split(content)) if calls else text), calls


def _read(block: str) -> tuple[str, Arguments]:
    head, found, rest = block.partition(_SEPARATOR)
    if not found:
        raise BadCall(f"The tool call has no {_SEPARATOR} between name and arguments")
    name, fenced, arguments = rest.partition(f"{_FENCE}json")
    if not fenced or rest.lstrip().startswith("{"):
        return json_arguments(head.strip(), rest)
    return json_arguments(name.strip(), arguments.rstrip().removesuffix(_FENCE))
