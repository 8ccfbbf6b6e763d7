"""Llama 3.1 to 4 with JSON calls: objects with `name` and `parameters`, often after `<|python_tag|>`, `;` between them.

Nothing sets a call off from text but how it begins: an object at the start of a line whose first key is `name` (or
`type`, which Llama 3.2 likes to write first), or whatever follows `<|python_tag|>`.
"""

from __future__ import annotations

import re
from typing import Any, cast

from agent_rl.chat.parsers.base import Arguments, decode_json, join_outside, named_call, read_call, tool_parser
from agent_rl.types import ToolCall

_HOW = 'Write {"name": "...", "parameters": {...}} and nothing else; separate several calls by "; ".'
_START = re.compile(r'(?m)<\|python_tag\|>\s*|(?:^[ \t]*|;\s*)(?=\{\s*"(?:name|type)"\s*:)')
_STRING_OR_BRACE = re.compile(r'"(?:[^"\\\n]|\\.)*+"?|[{}]')


@tool_parser("llama3_json", "llama4_json")
def parse_llama3_json(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """A call ends with the brace that closes it; one that is not closed takes the rest of the text."""
    outside: list[str] = []
    calls: list[ToolCall] = []
    rest, start = 0, _START.search(text)
    while start is not None:
        outside.append(text[rest : start.start()])
        rest = _end(text, start.end())
        calls.append(read_call(f"call_{len(calls)}", text[start.end() : rest], _read, _HOW))
        start = _START.search(text, rest)
    return (join_outside([*outside, text[rest:]]) if calls else text), tuple(calls)


def _end(text: str, start: int) -> int:
    """Where the object that begins at `start` ends, well formed or not; without one, where the next call begins."""
    if not text.startswith("{", start):
        following = _START.search(text, start)
        return following.start() if following else len(text)
    depth = 0
    for token in _STRING_OR_BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(token.group(), 0)
        if depth == 0:
            return token.end()
    return len(text)


def _read(block: str) -> tuple[str, Arguments]:
    value: Any = decode_json(block)
    fields = cast(Arguments, value) if isinstance(value, dict) else {}
    if "name" not in fields and "function" in fields:
        return named_call({**fields, "name": fields["function"]}, "parameters", "arguments")
    return named_call(value, "parameters", "arguments")
