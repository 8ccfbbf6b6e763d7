"""Mistral: after `[TOOL_CALLS]` a JSON list of calls (tokenizers to version 7), or a name and JSON (from 11 on)."""

from __future__ import annotations

from typing import Any, cast

from agent_rl.chat.parsers.base import BadCall, decode_json_at, join_outside, named_call, tool_parser
from agent_rl.types import ToolCall

_MARK, _CALL_ID, _ARGUMENTS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
_HOW = f'Write {_MARK}[{{"name": "...", "arguments": {{...}}}}].'


@tool_parser("mistral")
def parse_mistral(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Ids have nine letters and digits, as Mistral's templates demand."""
    before, *blocks = text.split(_MARK)
    if not blocks:
        return text, ()
    outside, calls = [before], list[ToolCall]()
    for block in blocks:
        try:
            found, end = _read(block)
        except BadCall as bad:
            calls.append(bad.as_call(_id(calls), _HOW))
            continue
        outside.append(block[end:])
        for value in found:
            calls.append(_call(_id(calls), value))
    return join_outside(outside), tuple(calls)


def _read(block: str) -> tuple[list[Any], int]:
    """The calls of one block as JSON values, and where they end. Raises `BadCall`."""
    start = len(block) - len(block.lstrip())
    if block.startswith(("[", "{"), start):
        value, end = decode_json_at(block, start)
        return (cast("list[Any]", value) if isinstance(value, list) else [value]), end
    brace = block.find("{")
    if brace < 0:
        raise BadCall("The tool call has no JSON")
    name = block[:brace].removesuffix(_ARGUMENTS).partition(_CALL_ID)[0].strip()
    if name.split() != [name]:
        raise BadCall("The tool call does not begin with the name of a tool")
    try:
        arguments, end = decode_json_at(block, brace)
    except BadCall as bad:
        raise BadCall(str(bad), name) from bad
    return [{"name": name, "arguments": arguments}], end


def _call(call_id: str, value: Any) -> ToolCall:
    try:
        return ToolCall(call_id, *named_call(value, "arguments"))
    except BadCall as bad:
        return bad.as_call(call_id, _HOW)


def _id(calls: list[ToolCall]) -> str:
    return f"call{len(calls):05}"
