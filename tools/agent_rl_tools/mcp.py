"""Any MCP server's tools as ordinary `Tool`s: one that is started as a process (stdio) or that has a URL (HTTP).

    async with mcp_tools(McpServer(command="mcp-server-time")) as tools: ...            # a session of one's own
    self.toolsets = (await hold(mcp_tools(server)),)                                    # in reset: one per episode
    self.toolsets = (await hold_shared("time", lambda: mcp_tools(server)),)             # one for all episodes

Schemas are passed through. What a server calls an error is for the model to read; a server that dies, does not answer
or breaks the protocol is a `ToolFailure`. Knows the protocol through its official SDK.
"""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import IO, Any, Self, cast

import anyio
from pydantic import Field, model_validator

from agent_rl.config import Config
from agent_rl.errors import AgentRLError, ConfigError, ToolError, ToolFailure, did_you_mean, not_found
from agent_rl.tool import Effects, Tool, tool_from_schema
from agent_rl.tool.arguments import Arguments, bad_arguments, quoted, read_texts
from agent_rl.types import JSON

try:
    import httpx2
    import mcp_types as types
    from jsonschema import Draft202012Validator, SchemaError, ValidationError
    from jsonschema.validators import validator_for
    from mcp import Client, MCPError, StdioServerParameters, stdio_client
    from mcp.client.streamable_http import streamable_http_client
    from pydantic_core import to_json
except ImportError as error:
    raise ConfigError(f"MCP needs another package ({error}): pip install 'agent-rl[mcp]'.") from error

_MODELS_MISTAKES = (types.INVALID_PARAMS, types.METHOD_NOT_FOUND)
_MOST_PAGES = 100
_MOST_STDERR = 500  # characters of what a server that cannot be used wrote last


class McpServer(Config):
    """One MCP server: `command` starts it, or it is at `url`."""

    command: str | None = Field(default=None, description="Program that serves over stdin and stdout.")
    args: tuple[str, ...] = Field(default=(), description="Arguments of the program.")
    env: dict[str, str] = Field(
        default_factory=dict, description="Variables of the program, beside PATH, HOME and the like."
    )
    url: str | None = Field(default=None, description="Address of a streamable HTTP server.")
    headers: dict[str, str] = Field(default_factory=dict, description="Headers of each request, such as a token's.")
    tools: tuple[str, ...] | None = Field(default=None, description="The tools that are offered; none: all.")
    prefix: str = Field(default="", description="Put before the tools' names, so that two servers can meet.")
    timeout_s: float = Field(default=30.0, gt=0, description="Deadline of one call.")
    start_timeout_s: float = Field(default=30.0, gt=0, description="Deadline of the start and the handshake.")
    trust_hints: bool = Field(
        default=False, description="Believe the server which tools only read, so that their calls run concurrently."
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("an MCP server has either a command or a url.")
        return self


@asynccontextmanager
async def mcp_tools(server: McpServer) -> AsyncGenerator[Sequence[Tool], None]:
    """The server's tools, in a session that lasts as long as the block.

    Raises `ConfigError` for a program that is not there and for an unknown tool in the allow-list, `ToolFailure` for a
    server that cannot be used.
    """
    stage = f"MCP server {server.command or server.url}"
    escaped: Exception | None = None
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr,
        anyio.CancelScope(deadline=anyio.current_time() + server.start_timeout_s) as clock,
    ):
        try:
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(await _client(server, stderr, stack))
                tools = _allowed(server, [_tool(server, client, offered) for offered in await _listed(client)])
                clock.deadline = math.inf
                try:
                    yield tools
                except Exception as error:  # noqa: BLE001  # out of the SDK's task groups as itself, not as a group
                    escaped = error
        except Exception as error:
            raise _explained(_leaf(error), server, stage, _tail(stderr)) from error
    if clock.cancelled_caught:
        raise ToolFailure(f"{stage} did not start in {server.start_timeout_s:g} s", kind="timeout", stage=stage)
    if escaped is not None:
        raise escaped


def _explained(error: BaseException, server: McpServer, stage: str, said: str) -> AgentRLError:
    if isinstance(error, AgentRLError):
        return error
    if isinstance(error, FileNotFoundError | PermissionError) and server.command is not None:
        return ConfigError(f"The MCP server {server.command!r} cannot be started: {error.strerror}.")
    return ToolFailure(f"{stage} cannot be used: {error!r}{said}", kind="start", stage=stage)


async def _client(server: McpServer, stderr: IO[str], stack: AsyncExitStack) -> Client:
    if server.command is not None:
        parameters = StdioServerParameters(command=server.command, args=list(server.args), env=server.env)
        return Client(stdio_client(parameters, errlog=cast(Any, stderr)))
    assert server.url is not None
    timeout = httpx2.Timeout(server.start_timeout_s, read=server.timeout_s + server.start_timeout_s)
    http = await stack.enter_async_context(httpx2.AsyncClient(headers=server.headers, timeout=timeout))
    return Client(streamable_http_client(server.url, http_client=http))


async def _listed(client: Client) -> list[types.Tool]:
    listed: list[types.Tool] = []
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        listed += page.tools
        cursor = page.next_cursor
        if cursor is None:
            break
    return listed


def _allowed(server: McpServer, tools: Sequence[Tool]) -> Sequence[Tool]:
    if server.tools is None:
        return tools
    by_name = {tool.name.removeprefix(server.prefix): tool for tool in tools}
    for name in server.tools:
        if name not in by_name:
            raise not_found("tool of the MCP server", name, by_name)
    return [by_name[name] for name in server.tools]


def _tail(stderr: IO[str]) -> str:
    stderr.seek(0)
    said = stderr.read().strip()[-_MOST_STDERR:]
    return f"; it wrote: {said}" if said else ""


def _leaf(error: Exception) -> BaseException:
    """What is inside the groups that the SDK's task groups raise."""
    leaf: BaseException = error
    while isinstance(leaf, BaseExceptionGroup):
        leaf = cast("BaseExceptionGroup[BaseException]", leaf).exceptions[0]
    return leaf


# --- one tool -------------------------------------------------------------------------------------------------------


def _tool(server: McpServer, client: Client, offered: types.Tool) -> Tool:
    name = server.prefix + offered.name
    schema = offered.input_schema
    kind = cast("type[Draft202012Validator]", validator_for(schema, default=Draft202012Validator))
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ToolFailure(f"The MCP tool {name!r} has a malformed schema: {error.message}", kind="start") from error

    async def call(**arguments: Any) -> str:
        return await _call(client, offered.name, arguments)

    return tool_from_schema(
        name,
        offered.description or "",
        schema,
        call,
        check=functools.partial(_check, name, schema, kind(schema)),
        origin=(server.model_dump_json(), offered.name),
        timeout_s=server.timeout_s,
        effects=_effects(offered) if server.trust_hints else "mutating",
    )


def _effects(offered: types.Tool) -> Effects:
    return "read_only" if offered.annotations is not None and offered.annotations.read_only_hint else "mutating"


async def _call(client: Client, name: str, arguments: Arguments) -> str:
    try:
        result = await client.call_tool(name, arguments)
    except MCPError as error:
        if error.code in _MODELS_MISTAKES:
            raise ToolError(error.message, kind="bad_arguments") from error
        raise
    text = _text(result)
    if result.is_error:
        raise ToolError(text)
    return text


def _text(result: types.CallToolResult) -> str:
    """What a model without eyes can read of a result; structured content only where nothing says it in words."""
    parts = [_part(block) for block in result.content]
    if not parts and result.structured_content is not None:
        return to_json(result.structured_content).decode()
    return "\n".join(parts)


def _part(block: types.ContentBlock) -> str:
    if isinstance(block, types.TextContent):
        return block.text
    if isinstance(block, types.ImageContent | types.AudioContent):
        return f"[{block.type} of type {block.mime_type}, {len(block.data) * 3 // 4} bytes, not shown]"
    if isinstance(block, types.ResourceLink):
        return f"[resource {block.name}: {block.uri}]"
    resource = block.resource
    if isinstance(resource, types.TextResourceContents):
        return resource.text
    return f"[resource {resource.uri}, {len(resource.blob) * 3 // 4} bytes, not shown]"


# --- the check of arguments -----------------------------------------------------------------------------------------


def _check(name: str, schema: JSON, validator: Draft202012Validator, given: JSON) -> Arguments:
    errors = list(_errors(validator, given))
    if not errors:
        return dict(given)
    read = read_texts(given, (error.absolute_path[0] for error in errors if error.absolute_path))
    if read is not None and not list(_errors(validator, read)):
        return read
    raise bad_arguments(name, [_explain(error, schema) for error in errors])


def _errors(validator: Draft202012Validator, given: object) -> Sequence[ValidationError]:
    return list(validator.iter_errors(cast(Any, given)))


def _explain(error: ValidationError, schema: JSON) -> str:
    path = ".".join(str(part) for part in error.absolute_path)
    instance, keyword = cast(object, error.instance), cast(str, error.validator)
    properties = cast("Mapping[str, Any]", schema.get("properties", {}))
    if keyword == "additionalProperties" and not path and isinstance(instance, dict):
        extra = [str(key) for key in cast("dict[Any, Any]", instance) if key not in properties]
        return "; ".join(f"unknown argument {key!r}.{did_you_mean(key, properties)}" for key in extra)
    if keyword == "required" and not path:
        return f"missing argument: {error.message}"
    return f"argument {path!r}: {error.message}" if path else f"{error.message[:200]}, got {quoted(instance)}"
