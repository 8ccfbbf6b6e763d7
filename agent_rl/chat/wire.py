"""Messages as the OpenAI chat API writes them in JSON, and back. Knows the format only: no HTTP, no tokens.

Tool arguments are a JSON text on the wire. What a model wrote there may be wrong: that is a `ToolCall` with an `error`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias, cast, get_args

from agent_rl.types import Message, Role, ToolCall

Wire: TypeAlias = dict[str, Any]

_ROLES = {role: role for role in get_args(Role)} | {"developer": "system"}
_REASONING = ("reasoning_content", "reasoning")  # vLLM and DeepSeek; OpenRouter and newer vLLM


class WireError(ValueError):
    """JSON that is no chat message; one sentence that says where."""


def message_to_wire(message: Message) -> Wire:
    """The JSON of a message; content is null beside tool calls if there is none."""
    wire: Wire = {"role": message.role, "content": message.content}
    if message.tool_calls:
        wire["content"] = message.content or None
        wire["tool_calls"] = [_call_to_wire(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    if message.reasoning_content is not None:
        wire["reasoning_content"] = message.reasoning_content
    return wire


def message_from_wire(wire: object, where: str = "message") -> Message:
    """A message of any role; `developer` is OpenAI's later name of `system`. Raises `WireError`.

    Content may be text, null or a list of text parts. A tool call without an id gets one from its position.
    """
    data = _object(wire, where)
    role = data.get("role")
    if role not in _ROLES:
        raise WireError(f"{where}.role is {role!r}; it must be one of {', '.join(_ROLES)}.")
    calls = _array(data.get("tool_calls") or [], f"{where}.tool_calls")
    if calls and role != "assistant":
        raise WireError(f"{where} has tool_calls, which only an assistant has.")
    if data.get("function_call"):
        raise WireError(f"{where}.function_call is the old form of tool calls; use tool_calls.")
    if role == "tool" and not isinstance(data.get("tool_call_id"), str):
        raise WireError(f"{where}.tool_call_id is missing: say which call this result answers.")
    return Message(
        role=cast("Role", _ROLES[role]),
        content=_text(data.get("content"), f"{where}.content"),
        tool_calls=tuple(
            _call_from_wire(call, index, f"{where}.tool_calls[{index}]") for index, call in enumerate(calls)
        ),
        tool_call_id=data["tool_call_id"] if role == "tool" else None,
        reasoning_content=_reasoning(data),
    )


def _call_to_wire(call: ToolCall) -> Wire:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}


def _call_from_wire(wire: object, index: int, where: str) -> ToolCall:
    data = _object(wire, where)
    function = _object(data.get("function"), f"{where}.function")
    name, text = function.get("name"), function.get("arguments") or "{}"
    if not isinstance(name, str) or not name:
        raise WireError(f"{where}.function.name is missing.")
    call_id = str(data.get("id") or f"call_{index}")
    try:
        arguments: object = json.loads(text) if isinstance(text, str) else text
    except ValueError as error:
        return ToolCall(call_id, name, {}, error=f"The arguments of {name} are not valid JSON: {error}.")
    except RecursionError:
        return ToolCall(call_id, name, {}, error=f"The arguments of {name} are nested too deeply.")
    if not isinstance(arguments, dict):
        return ToolCall(call_id, name, {}, error=f"The arguments of {name} are not a JSON object.")
    return ToolCall(call_id, name, cast("dict[str, Any]", arguments))


def _text(content: object, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    parts = [_object(part, where) for part in _array(content, where)]
    for part in parts:
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise WireError(f"{where} has a part of type {part.get('type')!r}; only text is supported.")
    return "".join(part["text"] for part in parts)


def _reasoning(data: Mapping[str, Any]) -> str | None:
    return next((data[name] for name in _REASONING if isinstance(data.get(name), str)), None)


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise WireError(f"{where} must be a JSON object, not {type(value).__name__}.")
    return cast("dict[str, Any]", value)


def _array(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise WireError(f"{where} must be a JSON array, not {type(value).__name__}.")
    return cast("list[object]", value)
