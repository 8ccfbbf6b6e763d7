"""Hermes and Qwen 2.5 / 3: JSON objects between `<tool_call>` and `</tool_call>`, any number of them."""

from __future__ import annotations

from agent_rl.chat.parsers.base import Arguments, decode_json, named_call, read_blocks, tool_parser
from agent_rl.types import ToolCall

_HOW = 'Write <tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>.'


@tool_parser("hermes")
def parse_hermes(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """`<tool_call>{"name": "look", "arguments": {"at": "1"}}</tool_call>`."""
    return read_blocks(text, "<tool_call>", "</tool_call>", _read, _HOW)


def _read(block: str) -> tuple[str, Arguments]:
    return named_call(decode_json(block), "arguments")
