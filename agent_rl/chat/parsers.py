"""Tool-call parsers by name: from the text that a model wrote to tool calls. Linear in the text, and never raising.

Whatever the model got wrong becomes a `ToolCall` whose `error` tells it what to write instead. Names are vLLM's. A
parser knows the text format only: not which tools exist, and nothing of tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias, cast

from agent_rl.errors import not_found
from agent_rl.types import ToolCall

ToolParser: TypeAlias = Callable[[str], tuple[str, tuple[ToolCall, ...]]]
"""`parse(text) -> (text outside of calls, calls in order)`."""

_PARSERS: dict[str, ToolParser] = {}


def tool_parser(name: str) -> Callable[[ToolParser], ToolParser]:
    """Register a parser under `name`."""

    def register(parse: ToolParser) -> ToolParser:
        _PARSERS[name] = parse
        return parse

    return register


def get_tool_parser(name: str) -> ToolParser:
    """The parser called `name`. Raises `NotFoundError`."""
    if name not in _PARSERS:
        raise not_found("tool parser", name, _PARSERS)
    return _PARSERS[name]


def split_reasoning(text: str) -> tuple[str | None, str]:
    """Split a leading `<think>...</think>` from the rest. Reasoning that was cut off takes all of the text."""
    if not text.lstrip().startswith("<think>"):
        return None, text
    reasoning, _, rest = text.lstrip().removeprefix("<think>").partition("</think>")
    return reasoning.strip("\n"), rest.lstrip("\n")


# --- hermes ---------------------------------------------------------------------------------------------------------

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_HERMES_FORMAT = 'Write <tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>.'


@tool_parser("hermes")
def parse_hermes(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Hermes and Qwen: JSON objects between `<tool_call>` and `</tool_call>`, any number of them.

    `str.find` rather than a lazy regex: the regex is quadratic on unterminated blocks.
    """
    start = text.find(_OPEN)
    if start < 0:
        return text, ()
    outside: list[str] = [text[:start]]
    calls: list[ToolCall] = []
    while start >= 0:
        call_id = f"call_{len(calls)}"
        end = text.find(_CLOSE, start + len(_OPEN))
        if end < 0:
            calls.append(_mistake(call_id, f"The tool call is not closed by {_CLOSE}"))
            break
        calls.append(_hermes_call(call_id, text[start + len(_OPEN) : end]))
        rest = end + len(_CLOSE)
        start = text.find(_OPEN, rest)
        outside.append(text[rest : start if start >= 0 else len(text)])
    kept = (piece.strip("\n") for piece in outside if not piece.isspace())
    return "\n".join(piece for piece in kept if piece), tuple(calls)


def _hermes_call(call_id: str, block: str) -> ToolCall:
    try:
        call: Any = _DECODER.decode(block.strip())
        if "\\u" in block:
            json.dumps(call, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return _mistake(call_id, "The tool call contains half of a surrogate pair")
    except ValueError as error:
        return _mistake(call_id, f"The tool call is not valid JSON: {error}")
    except RecursionError:
        return _mistake(call_id, "The tool call is nested too deeply")
    if not isinstance(call, dict):
        return _mistake(call_id, "The tool call is not a JSON object")
    fields = cast(dict[str, Any], call)
    name, arguments = fields.get("name"), fields.get("arguments")
    if not isinstance(name, str) or not name:
        return _mistake(call_id, 'The tool call has no "name"')
    if not isinstance(arguments, dict):
        return _mistake(call_id, '"arguments" of The tool call is not a JSON object', name)
    return ToolCall(call_id, name, cast(dict[str, Any], arguments))


def _mistake(call_id: str, what: str, name: str = "") -> ToolCall:
    return ToolCall(call_id, name, {}, error=f"{what}. {_HERMES_FORMAT}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
