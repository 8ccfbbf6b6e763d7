"""ReAct (Yao et al. 2022, arXiv:2210.03629): lines `Thought:`, `Action:` with a tool, `Action Input:` with JSON.

Thoughts, final answers and whatever else stands around an action are text.
"""

from __future__ import annotations

import re

from agent_rl.chat.parsers.base import BadCall, decode_json_at, join_outside, named_call, tool_parser
from agent_rl.types import ToolCall

_HOW = 'Write Action: NAME\nAction Input: {"argument": "value"}, with the arguments as one JSON object.'
_ACTION = re.compile(r"(?m)^[ \t]*Action[ \t]*:")
_INPUT = re.compile(r"(?m)^[ \t]*Action[ \t]*Input[ \t]*:\s*")


@tool_parser("react")
def parse_react(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """An action ends with its JSON; one that cannot be read ends before the next action."""
    actions = list(_ACTION.finditer(text))
    if not actions:
        return text, ()
    outside = [text[: actions[0].start()]]
    calls: list[ToolCall] = []
    ends = [action.start() for action in actions[1:]] + [len(text)]
    for index, (action, end) in enumerate(zip(actions, ends, strict=True)):
        try:
            call, rest = _read(f"call_{index}", text[action.end() : end])
        except BadCall as bad:
            call, rest = bad.as_call(f"call_{index}", _HOW), ""
        calls.append(call)
        outside.append(rest)
    return join_outside(outside), tuple(calls)


def _read(call_id: str, block: str) -> tuple[ToolCall, str]:
    """The call, and what follows its JSON. Raises `BadCall`."""
    given = _INPUT.search(block)
    name = block[: given.start() if given else len(block)].strip().partition("\n")[0].rstrip()
    if given is None:
        raise BadCall('"Action:" is not followed by a line "Action Input:"', name)
    try:
        arguments, end = decode_json_at(block, given.end())
    except BadCall as bad:
        raise BadCall(str(bad), name) from bad
    return ToolCall(call_id, *named_call({"name": name, "arguments": arguments}, "arguments")), block[end:]
