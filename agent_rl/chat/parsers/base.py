"""What all formats share: the registry, strict JSON, calls between two tags, and how a mistake is explained."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Annotated, Any, NoReturn, TypeAlias, cast

from pydantic import AfterValidator

from agent_rl.errors import NotFoundError, not_found
from agent_rl.types import ToolCall

ToolParser: TypeAlias = Callable[[str], tuple[str, tuple[ToolCall, ...]]]
"""`parse(text) -> (text outside of calls, calls in order)`."""

Arguments: TypeAlias = dict[str, Any]

_PARSERS: dict[str, ToolParser] = {}


def tool_parser(*names: str) -> Callable[[ToolParser], ToolParser]:
    """Register a parser under each of `names`."""

    def register(parse: ToolParser) -> ToolParser:
        _PARSERS.update(dict.fromkeys(names, parse))
        return parse

    return register


def get_tool_parser(name: str) -> ToolParser:
    """The parser called `name`. Raises `NotFoundError`."""
    if name not in _PARSERS:
        raise not_found("tool parser", name, _PARSERS)
    return _PARSERS[name]


def _known(name: str) -> str:
    try:
        get_tool_parser(name)
    except NotFoundError as error:  # pydantic explains a `ValueError`
        raise ValueError(str(error)) from error
    return name


ToolParserName: TypeAlias = Annotated[str, AfterValidator(_known)]
"""The type of a config field that names a parser."""


def tool_parsers() -> tuple[str, ...]:
    """All known names, sorted."""
    return tuple(sorted(_PARSERS))


_REASONING = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<|channel|>analysis<|message|>", "<|end|>"))


def split_reasoning(text: str) -> tuple[str | None, str]:
    """Split leading reasoning (`<think>...</think>` and its like) from the rest.

    Reasoning that was cut off takes all of the text.
    """
    start = text.lstrip()
    for opener, closer in _REASONING:
        if start.startswith(opener):
            reasoning, _, rest = start.removeprefix(opener).partition(closer)
            return reasoning.strip("\n"), rest.lstrip("\n")
    return None, text


# --- mistakes -------------------------------------------------------------------------------------------------------


class BadCall(Exception):
    """A call that cannot be read: what is wrong, and the tool's name if that much is clear."""

    def __init__(self, what: str, name: str = "") -> None:
        super().__init__(what)
        self.name = name

    def as_call(self, call_id: str, how: str) -> ToolCall:
        """The call with an error that says what is wrong, and `how` to write it."""
        return ToolCall(call_id, self.name, {}, error=f"{self}. {how}")


def read_call(call_id: str, block: str, read: Callable[[str], tuple[str, Arguments]], how: str) -> ToolCall:
    """The call in `block`, by a `read` that raises `BadCall`."""
    try:
        name, arguments = read(block)
    except BadCall as bad:
        return bad.as_call(call_id, how)
    return ToolCall(call_id, name, arguments)


# --- calls between two tags -----------------------------------------------------------------------------------------


def read_blocks(
    text: str, opener: str, closer: str, read: Callable[[str], tuple[str, Arguments]], how: str
) -> tuple[str, tuple[ToolCall, ...]]:
    """Every block between `opener` and `closer` is one call; one that is not closed takes the rest of the text.

    `str.find` rather than a lazy regex: the regex is quadratic on unterminated blocks.
    """
    outside: list[str] = []
    calls: list[ToolCall] = []
    rest, start = 0, text.find(opener)
    while start >= 0:
        outside.append(text[rest:start])
        call_id = f"call_{len(calls)}"
        end = text.find(closer, start + len(opener))
        if end < 0:
            calls.append(BadCall(f"The tool call is not closed by {closer}").as_call(call_id, how))
            return join_outside(outside), tuple(calls)
        calls.append(read_call(call_id, text[start + len(opener) : end], read, how))
        rest = end + len(closer)
        start = text.find(opener, rest)
    return (join_outside([*outside, text[rest:]]) if calls else text), tuple(calls)


def join_outside(pieces: Iterable[str]) -> str:
    """The text around calls as one: pieces on lines of their own, without the empty lines between them."""
    kept = (piece.strip("\n") for piece in pieces if not piece.isspace())
    return "\n".join(piece for piece in kept if piece)


def read_pairs(text: str, tags: tuple[str, str, str, str]) -> Arguments:
    """Arguments written as key and value between the `tags` key opener, key closer, value opener, value closer.

    What stands between pairs is skipped. Raises `BadCall`.
    """
    key_opener, key_closer, value_opener, value_closer = tags
    arguments: Arguments = {}
    start = text.find(key_opener)
    while start >= 0:
        key_end = text.find(key_closer, start + len(key_opener))
        if key_end < 0:
            raise BadCall(f"{key_opener} is not closed by {key_closer}")
        key = text[start + len(key_opener) : key_end].strip()
        if not key:
            raise BadCall("An argument has no name")
        value_start = text.find(value_opener, key_end + len(key_closer))
        if value_start < 0 or text[key_end + len(key_closer) : value_start].strip():
            raise BadCall(f"The argument {key!r} is not followed by {value_opener}")
        value_end = text.find(value_closer, value_start)
        if value_end < 0:
            raise BadCall(f"The argument {key!r} is not closed by {value_closer}")
        arguments[key] = text[value_start + len(value_opener) : value_end]
        start = text.find(key_opener, value_end)
    return arguments


# --- JSON -----------------------------------------------------------------------------------------------------------


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def decode_json(text: str) -> Any:
    """The JSON value that `text` is. Raises `BadCall`."""
    text = text.strip()
    value, end = decode_json_at(text, 0)
    if end < len(text):
        raise BadCall(f"The tool call is not valid JSON: extra data at character {end}")
    return value


def decode_json_at(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins at `start`, and where it ends. Raises `BadCall`.

    A failure costs as much as all of `text` (json counts its lines): give it the block of one call.
    """
    try:
        value, end = _DECODER.raw_decode(text, start)
        if "\\u" in text[start:end]:
            json.dumps(value, ensure_ascii=False).encode()
        return value, end
    except UnicodeEncodeError as error:
        raise BadCall("The tool call contains half of a surrogate pair") from error
    except ValueError as error:
        raise BadCall(f"The tool call is not valid JSON: {error}") from error
    except RecursionError as error:
        raise BadCall("The tool call is nested too deeply") from error


def named_call(value: Any, *argument_keys: str) -> tuple[str, Arguments]:
    """Name and arguments of `{"name": ..., "arguments": {...}}`. Raises `BadCall`.

    `argument_keys` are what the arguments may be called; the first is the one that the format prescribes.
    """
    if not isinstance(value, dict):
        raise BadCall("The tool call is not a JSON object")
    fields = cast(Arguments, value)
    name = fields.get("name")
    if not isinstance(name, str) or not name:
        raise BadCall('The tool call has no "name"')
    arguments = next((fields[key] for key in argument_keys if key in fields), None)
    if not isinstance(arguments, dict):
        raise BadCall(f'"{argument_keys[0]}" of the tool call is not a JSON object', name)
    return name, cast(Arguments, arguments)


def json_arguments(name: str, text: str) -> tuple[str, Arguments]:
    """`name` and the arguments that `text` is as a JSON object. Raises `BadCall`."""
    if not name:
        raise BadCall("The tool call has no name")
    try:
        value = decode_json(text)
    except BadCall as bad:
        raise BadCall(str(bad), name) from bad
    if not isinstance(value, dict):
        raise BadCall("The arguments of the tool call are not a JSON object", name)
    return name, cast(Arguments, value)
