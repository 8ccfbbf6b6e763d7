"""gpt-oss (the harmony format): an answer is several messages, each on a channel, those to a function being calls.

The prompt ends with `<|start|>assistant`, so the text begins inside the header of the first message. A leading message
on the channel `analysis` is reasoning (see `split_reasoning`).
"""

from __future__ import annotations

import re
from functools import partial

from agent_rl.chat.parsers.base import join_outside, json_arguments, read_call, tool_parser
from agent_rl.types import ToolCall

_HOW = "Write <|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{...}<|call|>, with a JSON object."
_MESSAGE = "<|message|>"
_BETWEEN = re.compile(r"<\|(?:start|end|call|return)\|>")
_RECIPIENT = re.compile(r"\bto=([^\s<]*)")


@tool_parser("gpt_oss", "openai")
def parse_gpt_oss(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Messages without a recipient are text."""
    if _MESSAGE not in text:
        return text, ()
    outside: list[str] = []
    calls: list[ToolCall] = []
    for message in _BETWEEN.split(text):
        header, found, body = message.partition(_MESSAGE)
        recipient = _RECIPIENT.search(header) if found else None
        if recipient is None:
            outside.append(body if found else message)
        else:
            read = partial(json_arguments, recipient.group(1).removeprefix("functions."))
            calls.append(read_call(f"call_{len(calls)}", body, read, _HOW))
    return join_outside(outside), tuple(calls)
