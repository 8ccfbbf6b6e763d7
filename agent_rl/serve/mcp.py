"""Tools and environments as an MCP server: over stdio for the program that starts it, or over streamable HTTP.

An environment is served as the tools `reset` and `step` beside its own, each client with an episode of its own. Over
HTTP that needs sessions, which only the protocol's handshake versions have: a server of state offers no others there.
Knows MCP; what the tools do is theirs.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any

import anyio

from agent_rl.concurrency import collect, shielded
from agent_rl.environment import Environment
from agent_rl.errors import ConfigError, RolloutFailure, ToolError, UserError
from agent_rl.serve.episodes import Served
from agent_rl.tool import Tool, Toolset, run_tool_calls, tool, tool_from_schema
from agent_rl.types import Message, Step, Task, ToolCall

try:
    import mcp_types as types
    from mcp import MCPError, stdio_server
    from mcp.server import Server, ServerRequestContext
    from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
    from starlette.applications import Starlette
except ImportError as error:
    raise ConfigError(f"MCP needs another package ({error}): pip install 'agent-rl[mcp]'.") from error

_CLOSE_TIMEOUT_S = 10.0
_ONLY_CLIENT = "stdio"
_logger = logging.getLogger(__name__)


class EpisodeTools(Toolset):
    """An environment as tools: `reset`, `step`, and those that it offers itself."""

    def __init__(self, kind: type[Environment]) -> None:
        self._kind = kind
        self._environment = kind()
        self._task: Task | None = None
        self._is_over = False
        self._turn = anyio.Lock()
        self.last_step: Step | None = None

    @property
    def tools(self) -> Sequence[Tool]:
        """`reset` and `step` come first."""
        return (*super().tools, *[self._through_step(tool) for tool in self._environment.tools])

    @tool(timeout_s=60)
    async def reset(self, split: str = "train", index: int = 0, seed: int = 0) -> str:
        """Begin a new episode and return its opening messages. The one before is over then.

        Args:
            split: Which tasks, such as train or test.
            index: Which of the split's tasks.
            seed: Which draw of tasks, and of the episode's chances.
        """
        async with self._turn:
            try:
                tasks = self._kind.tasks(split, index + 1, seed)
                task = tasks[index]
            except (UserError, IndexError) as error:
                raise ToolError(f"There is no task {index} of the split {split!r}: {error}") from error
            await self._environment.close()
            self._environment, self._task, self._is_over, self.last_step = self._kind(), task, False, None
            messages = await self._environment.reset(task, seed)
            return _text(messages)

    @tool(timeout_s=60)
    async def step(self, message: str) -> str:
        """Say something to the environment, such as the final answer, and return what it says.

        Args:
            message: The text.
        """
        return _text((await self._act(Message("assistant", message))).messages)

    async def close(self) -> None:
        """Close the environment."""
        await self._environment.close()

    def _through_step(self, offered: Tool) -> Tool:
        """The environment's tool as its `step` runs it, so that it notices."""

        async def call(**arguments: Any) -> str:
            step = await self._act(Message("assistant", "", (ToolCall("call", offered.name, arguments),)))
            for result in step.info.tool_results:
                if result.error is not None:
                    raise ToolError(result.content, kind=result.error)
            return _text(step.messages)

        return tool_from_schema(
            offered.name,
            offered.description,
            offered.parameters,
            call,
            timeout_s=offered.timeout_s + 1,  # what is late is told by the tool itself
            max_output_chars=offered.max_output_chars + 100,
            effects=offered.effects,
        )

    async def _act(self, message: Message) -> Step:
        async with self._turn:
            if self._task is None or self._is_over:
                raise ToolError("The episode is over: call reset." if self._task else "Call reset first.")
            step = await self._environment.step(message)
            self.last_step, self._is_over = step, step.terminated or step.truncated
            return step


class McpServer:
    """Serves tools without state, toolsets, or one environment; each client has its own instances of the latter."""

    def __init__(self, name: str, served: Served, environment: type[Environment] | None = None) -> None:
        self._served = served
        self._environment = environment
        self._sessions: dict[str, Sequence[Toolset]] = {}
        self._server = Server(name, on_list_tools=self._list, on_call_tool=self._call)
        self._has_state = bool(served.toolsets) or environment is not None

    def http_app(self, host: str, idle_s: float) -> Starlette:
        """The application that serves many clients, each with a session if there is state; idle ones are closed."""
        if self._has_state:  # only the handshake versions have sessions
            self._server.add_request_handler("server/discover", types.RequestParams, self._discover)
        return self._server.streamable_http_app(host=host, session_idle_timeout=idle_s)

    async def serve_stdio(self) -> None:
        """Serve the program at the other end of stdin and stdout until it leaves."""
        try:
            async with stdio_server() as (requests, answers):
                await self._server.run(requests, answers, self._server.create_initialization_options())
        finally:
            await self.close()

    async def close(self) -> None:
        """Close what the clients left open."""
        with anyio.CancelScope(shield=True):
            await collect([functools.partial(self._end, key) for key in list(self._sessions)])

    async def _discover(self, ctx: ServerRequestContext[Any], params: Any) -> types.DiscoverResult:
        capabilities = self._server.get_capabilities()
        return types.DiscoverResult(supported_versions=list(HANDSHAKE_PROTOCOL_VERSIONS), capabilities=capabilities)

    async def _list(self, ctx: ServerRequestContext[Any], params: Any) -> types.ListToolsResult:
        tools = [tool for toolset in self._session(ctx) for tool in toolset.tools]
        return types.ListToolsResult(tools=[_described(tool) for tool in (*self._served.tools, *tools)])

    async def _call(self, ctx: ServerRequestContext[Any], params: types.CallToolRequestParams) -> types.CallToolResult:
        session = self._session(ctx)
        tools = (*self._served.tools, *[tool for toolset in session for tool in toolset.tools])
        try:
            (result,) = await run_tool_calls(tools, [ToolCall("", params.name, params.arguments or {})])
        except RolloutFailure as failure:
            _logger.exception("the tool %s failed", params.name)
            raise MCPError(types.INTERNAL_ERROR, str(failure)) from failure
        if result.error == "unknown_tool":
            raise MCPError(types.INVALID_PARAMS, result.content)
        content: list[types.ContentBlock] = [types.TextContent(text=result.content)]
        return types.CallToolResult(
            content=content, structured_content=_outcome(session), is_error=result.error is not None
        )

    def _session(self, ctx: ServerRequestContext[Any]) -> Sequence[Toolset]:
        """The client's instances, made when it first comes and closed with its connection."""
        if not self._has_state:
            return ()
        key = _ONLY_CLIENT if ctx.request is None else ctx.request.headers.get("mcp-session-id")
        if key is None:
            raise MCPError(types.INVALID_REQUEST, "This server keeps state: initialize a session first.")
        if key not in self._sessions:
            made: list[Toolset] = [kind() for kind in self._served.toolsets]
            if self._environment is not None:
                made.append(EpisodeTools(self._environment))
            self._sessions[key] = made
            # The place for what belongs to a connection; the SDK has no public way to it from a handler.
            connection = ctx.session._connection  # pyright: ignore[reportPrivateUsage]
            if key != _ONLY_CLIENT:
                connection.exit_stack.push_async_callback(self._end, key)
        return self._sessions[key]

    async def _end(self, key: str) -> None:
        for toolset in self._sessions.pop(key, ()):
            async with shielded(_CLOSE_TIMEOUT_S):
                try:
                    await toolset.close()
                except Exception:
                    _logger.exception("closing the toolset %s failed", type(toolset).__name__)


def _described(tool: Tool) -> types.Tool:
    hints = types.ToolAnnotations(read_only_hint=tool.effects != "mutating", idempotent_hint=tool.effects == "pure")
    return types.Tool(
        name=tool.name, description=tool.description, input_schema=dict(tool.parameters), annotations=hints
    )


def _outcome(session: Sequence[Toolset]) -> dict[str, Any] | None:
    """What the last step of an environment was worth."""
    for toolset in session:
        if isinstance(toolset, EpisodeTools) and (step := toolset.last_step) is not None:
            return {"reward": step.reward, "terminated": step.terminated, "truncated": step.truncated}
    return None


def _text(messages: Sequence[Message]) -> str:
    return "\n\n".join(message.content for message in messages)
