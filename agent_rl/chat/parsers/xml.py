"""Bare tags such as `<search>who was first</search>`: the tag is the tool, its text the one argument.

`"xml"` knows the tags of Search-R1 (Jin et al. 2025, arXiv:2503.09516). For others, make a parser and give it a name:

    tool_parser("my_tags")(xml_parser({"search": "query", "python": "code"}))
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from agent_rl.chat.parsers.base import BadCall, ToolParser, join_outside, tool_parser
from agent_rl.errors import UserError
from agent_rl.types import ToolCall


def xml_parser(tags: Mapping[str, str]) -> ToolParser:
    """A parser of calls `<tool>text</tool>`; `tags` maps each tool to the argument that takes the text.

    The text loses the white space around it. Everything else stays text, `<answer>` for example. Raises `UserError`
    for no tags and for one that cannot be a tag.
    """
    if bad := [tag for tag in tags if not re.fullmatch(r"\w[\w.-]*", tag)] or ([] if tags else ["nothing"]):
        raise UserError(f"{bad[0]!r} cannot be a tag: name tools with letters, digits and underscores.")
    opener = re.compile(f"<({'|'.join(map(re.escape, tags))})>")
    how = f"Write {' or '.join(f'<{tag}>{argument}</{tag}>' for tag, argument in tags.items())}."

    def parse(text: str) -> tuple[str, tuple[ToolCall, ...]]:
        outside: list[str] = []
        calls: list[ToolCall] = []
        rest, start = 0, opener.search(text)
        while start is not None:
            outside.append(text[rest : start.start()])
            tag, call_id = start.group(1), f"call_{len(calls)}"
            end = text.find(f"</{tag}>", start.end())
            if end < 0:
                calls.append(BadCall(f"<{tag}> is not closed by </{tag}>", tag).as_call(call_id, how))
                return join_outside(outside), tuple(calls)
            calls.append(ToolCall(call_id, tag, {tags[tag]: text[start.end() : end].strip()}))
            rest = end + len(f"</{tag}>")
            start = opener.search(text, rest)
        return (join_outside([*outside, text[rest:]]) if calls else text), tuple(calls)

    return parse


parse_xml = tool_parser("xml")(xml_parser({"search": "query"}))
