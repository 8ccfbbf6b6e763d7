"""How the calls of one message are run: in which order, under which limits, and who is to blame for what.

Knows deadlines, turns, retries and how much of an output the model reads. Knows nothing of where a tool came from.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence

import anyio
from pydantic_core import to_json

from agent_rl.concurrency import collect, in_thread
from agent_rl.errors import AgentRLError, RolloutFailure, ToolError, ToolFailure, UserError, boundary, did_you_mean
from agent_rl.tool.arguments import Arguments
from agent_rl.tool.definition import Tool
from agent_rl.tool.services import SERVICES
from agent_rl.types import ToolCall, ToolResult

FIRST_RETRY_S = 0.1  # and twice as long before each further attempt


async def run_tool_calls(tools: Sequence[Tool], calls: Sequence[ToolCall]) -> tuple[ToolResult, ...]:
    """Run the calls of one message and return their results in call order.

    Calls run concurrently; if one of them is of a mutating tool, all run one after another, so that their order is the
    model's. Mistakes of the model (unparsable call, unknown tool, bad arguments, `ToolError`) and timeouts are results
    with an `error` and a text for the model to read. Any other exception of a tool raises `ToolFailure`.
    """
    by_name = {tool.name: tool for tool in tools}
    if len(by_name) < len(tools):
        raise UserError(f"Two tools have one name: {[tool.name for tool in tools]}.")
    if len(calls) == 1:
        return (await _run(by_name, calls[0]),)
    if any(call.name in by_name and by_name[call.name].effects == "mutating" for call in calls):
        return tuple([await _run(by_name, call) for call in calls])
    try:
        return tuple(await collect([functools.partial(_run, by_name, call) for call in calls]))
    except ExceptionGroup as group:
        raise group.exceptions[0]  # noqa: B904  # `from` would hide the tool's own exception, its cause


async def _run(tools: Mapping[str, Tool], call: ToolCall) -> ToolResult:
    started = time.perf_counter()
    error, content = await _outcome(tools, call)
    return ToolResult(call, content, error, time.perf_counter() - started)


async def _outcome(tools: Mapping[str, Tool], call: ToolCall) -> tuple[str | None, str]:
    """The kind of the error, if any, and what the model reads."""
    if call.error is not None:
        return "parse_error", call.error
    tool = tools.get(call.name)
    if tool is None:
        known = ", ".join(tools) or "none"
        return "unknown_tool", f"There is no tool {call.name!r}.{did_you_mean(call.name, tools)} Tools: {known}."
    try:
        arguments = tool.check(call.arguments)
        with boundary(ToolFailure, f"tool {tool.name}"):
            cache = None if tool.effects == "mutating" else SERVICES.get().cache
            key = None if cache is None else cache.key(tool, arguments)
            if cache is not None and key is not None:
                return await cache.get(key, functools.partial(_call, tool, arguments))
            return await (_call_now if tool.is_unlimited else _call)(tool, arguments)
    except ToolError as error:
        return error.kind, shorten(str(error), tool)


async def _call(tool: Tool, arguments: Arguments) -> tuple[str | None, str]:
    """Run the function under all of its limits, and again where it may be tried again."""
    delay_s = FIRST_RETRY_S
    for _ in range(tool.retries):
        try:
            return await _call_in_turn(tool, arguments)
        except Exception as error:
            if isinstance(error, AgentRLError) and not (isinstance(error, RolloutFailure) and error.retryable):
                raise
        await anyio.sleep(delay_s)
        delay_s *= 2
    return await _call_in_turn(tool, arguments)


async def _call_in_turn(tool: Tool, arguments: Arguments) -> tuple[str | None, str]:
    if tool.max_concurrency is None:
        await _wait_for_rate(tool)
        return await _call_now(tool, arguments)
    async with _semaphore(tool, tool.max_concurrency):
        await _wait_for_rate(tool)
        return await _call_now(tool, arguments)


def _semaphore(tool: Tool, limit: int) -> anyio.Semaphore:
    """The semaphore that all bound copies of the tool share in this event loop."""
    semaphore = tool.running.get(None)
    if semaphore is None:
        semaphore = anyio.Semaphore(limit)
        tool.running.set(semaphore)
    return semaphore


async def _wait_for_rate(tool: Tool) -> None:
    """Calls of all bound copies begin evenly spaced. One that is cancelled while it waits leaves its place empty."""
    if tool.max_per_second is None:
        return
    now = anyio.current_time()
    start = max(now, tool.next_start.get(now))
    tool.next_start.set(start + 1 / tool.max_per_second)
    await anyio.sleep(start - now)


async def _call_now(tool: Tool, arguments: Arguments) -> tuple[str | None, str]:
    """Run the function under its deadline, which starts with the call and not with the wait for its turn."""
    with anyio.move_on_after(tool.timeout_s):
        if tool.is_async:
            output = await tool.function(**arguments)
        else:
            output = await in_thread(functools.partial(tool.function, **arguments))
        text = output if isinstance(output, str) else to_json(output).decode()
        return None, shorten(text, tool)
    return "timeout", f"{tool.name} was stopped: it took longer than {tool.timeout_s:g} s."


# --- how much of it the model reads ---------------------------------------------------------------------------------


def shorten(text: str, tool: Tool) -> str:
    """Keep both ends of an output: at most `max_output_chars` of the tool, and the tokens that it and the run allow."""
    services, most_tokens = SERVICES.get(), tool.max_output_tokens
    if most_tokens is None and services.max_output_tokens is None and len(text) <= tool.max_output_chars:
        return text  # nearly always
    if services.max_output_tokens is not None:
        most_tokens = min(most_tokens or services.max_output_tokens, services.max_output_tokens)
    tail_chars = tool.max_output_chars // 2
    head_chars = tool.max_output_chars - tail_chars
    if len(text) <= tool.max_output_chars:
        if most_tokens is None or len(text.encode(errors="replace")) <= most_tokens:  # no token is less than a byte
            return text
        head, tail = services.ends(text, most_tokens - most_tokens // 2, most_tokens // 2)
    elif most_tokens is None:
        head, tail = head_chars, len(text) - tail_chars
    else:  # what is cut anyway need not be measured
        head, _ = services.ends(text[:head_chars], most_tokens - most_tokens // 2, 0)
        before_tail = len(text) - tail_chars
        _, tail = services.ends(text[before_tail:], 0, most_tokens // 2)
        tail += before_tail
    return text if head >= tail else f"{text[:head]}\n[... {tail - head} characters cut ...]\n{text[tail:]}"
