"""Tools, toolsets and environments as an MCP server, used with the official SDK's client."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from mcp import Client, MCPError, StdioServerParameters

from agent_rl.environment import Environment
from agent_rl.serve.episodes import Served
from agent_rl.serve.mcp import McpServer
from agent_rl.serve.server import with_token
from agent_rl.testing.environments import CountUp, GuessNumber
from agent_rl.web import listen, serving

sys.path.insert(0, str(Path(__file__).parent))
from served import Notebook, broken, double  # pyright: ignore

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def over_http(
    served: Served, environment: type[Environment] | None = None, token: str = ""
) -> AsyncIterator[str]:
    server, listener = McpServer("test", served, environment), listen("127.0.0.1", 0)
    app = with_token(server.http_app("127.0.0.1", 60), token)
    try:
        async with serving(app, listener, lifespan=True):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    finally:
        await server.close()


async def test_tools_keep_their_schemas_and_say_what_they_do():
    async with over_http(Served((double, broken))) as url, Client(url) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools["double"].input_schema == double.parameters
        assert tools["double"].annotations.read_only_hint
        assert (await client.call_tool("double", {"x": 2})).content[0].text == "4"
        wrong = await client.call_tool("double", {"x": "y"})
        assert (wrong.is_error, wrong.content[0].text[:25]) == (True, "Bad arguments for double:")
        with pytest.raises(MCPError, match=r"There is no tool 'doubl'. Did you mean 'double'\?"):
            await client.call_tool("doubl", {})
        with pytest.raises(MCPError, match="broken inside"):
            await client.call_tool("broken", {})


async def test_each_client_has_its_own_state_that_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("served.CLOSED", tmp_path / "closed")
    async with over_http(Served(toolsets=(Notebook,))) as url:
        async with Client(url) as other:
            async with Client(url) as one:
                await one.call_tool("write", {"line": "a"})
                await one.call_tool("write", {"line": "b"})
                assert (await other.call_tool("write", {"line": "c"})).content[0].text == "1"
                assert (await one.call_tool("read_all", {})).content[0].text == '["a","b"]'
            assert (tmp_path / "closed").read_text().split() == ["2"]
        async with Client(url, mode="2026-07-28") as sessionless:
            with pytest.raises(MCPError, match="initialize a session first"):
                await sessionless.call_tool("read_all", {})
    assert (tmp_path / "closed").read_text().split() == ["2", "1"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_an_environment_is_played_over_http(mode: str):
    async with over_http(Served(), CountUp) as url, Client(url, mode=mode) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["reset", "step", "add"]
        early = await client.call_tool("add", {"amount": 1})
        assert (early.is_error, early.content[0].text) == (True, "Call reset first.")
        for _ in range(2):
            assert (await client.call_tool("reset", {"split": "test"})).content[0].text == "Count to 4."
            for total in (2, 4):
                answer = await client.call_tool("add", {"amount": 2})
                assert answer.content[0].text == f"The total is {total}."
                assert answer.structured_content == {"reward": 0.0, "terminated": False, "truncated": False}
            end = await client.call_tool("step", {"message": "done"})
            assert end.structured_content == {"reward": 1.0, "terminated": True, "truncated": False}
            over = await client.call_tool("step", {"message": "done"})
            assert over.content[0].text == "The episode is over: call reset."
        assert (await client.call_tool("add", {"amount": "x"})).is_error
        unknown = await client.call_tool("reset", {"split": "tset"})
        assert "Did you mean 'test'?" in unknown.content[0].text


async def test_a_token_is_needed_where_there_is_one():
    async with over_http(Served((double,)), token="secret") as url, httpx.AsyncClient() as http:
        assert (await http.post(url, json={})).status_code == 401


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_command_serves_an_environment_over_stdio(mode: str):
    name = f"{GuessNumber.__module__}:{GuessNumber.__qualname__}"
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "agent_rl.cli", "serve", name, "--mcp"],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    async with Client(server, mode=mode) as client:
        opening = await client.call_tool("reset", {})
        assert opening.content[0].text.startswith("Guess my number")
        low, high = -1, 100
        for _ in range(8):
            guess = (low + high) // 2
            answer = await client.call_tool("step", {"message": str(guess)})
            low, high = (guess, high) if answer.content[0].text == "higher" else (low, guess)
            if answer.structured_content["terminated"]:
                break
        assert answer.structured_content["reward"] == 1.0
