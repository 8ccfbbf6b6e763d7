"""Kimi K2: a section of calls between special tokens, each with an id such as `functions.look:0` and JSON arguments.

The id names the tool and is kept: Kimi's template shows it with the result.
"""

from __future__ import annotations

import re
from dataclasses import replace

from agent_rl.chat.parsers.base import Arguments, BadCall, join_outside, json_arguments, read_blocks, tool_parser
from agent_rl.types import ToolCall

_CALLS_BEGIN, _CALLS_END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
_SECTION = re.compile(f"{re.escape(_CALLS_BEGIN)}|{re.escape(_CALLS_END)}")
_BEGIN, _ARGUMENTS, _END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"
_HOW = (
    f"Write {_CALLS_BEGIN}{_BEGIN}functions.NAME:0{_ARGUMENTS}{{...}}{_END}{_CALLS_END}, with the arguments as a JSON "
    "object and the calls numbered."
)


@tool_parser("kimi", "kimi_k2")
def parse_kimi(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """`<|tool_call_begin|>functions.look:0<|tool_call_argument_begin|>{"at": "1"}<|tool_call_end|>`."""
    ids: list[str] = []

    def read(block: str) -> tuple[str, Arguments]:
        head, found, arguments = block.partition(_ARGUMENTS)
        call_id = head.strip() if found else ""
        name = call_id.rpartition(":")[0].removeprefix("functions.")
        ids.append(call_id if name else "")
        if not found:
            raise BadCall(f"The tool call has no {_ARGUMENTS}")
        if not name:
            raise BadCall("The tool call does not begin with functions.NAME:NUMBER")
        return json_arguments(name, arguments)

    content, calls = read_blocks(text, _BEGIN, _END, read, _HOW)
    if not calls:
        return text, ()
    written = [*ids, *[""] * (len(calls) - len(ids))]
    named = [replace(call, id=call_id or call.id) for call, call_id in zip(calls, written, strict=True)]
    return join_outside(_SECTION.split(content)), tuple(named)
