"""The tool server and its client: results, state, load, deadlines, dead servers and workers."""

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest
from starlette.responses import JSONResponse

from agent_rl.errors import ConfigError, ToolFailure, UserError
from agent_rl.serve.command import ServeConfig, find, run
from agent_rl.serve.episodes import Episodes, Served
from agent_rl.serve.remote import remote_tools
from agent_rl.serve.server import InProcess, ToolApp, with_token
from agent_rl.tool import run_tool_calls, tool
from agent_rl.tool.config import ToolsConfig
from agent_rl.tool.services import tool_services
from agent_rl.types import ToolCall
from agent_rl.web import listen, serving

sys.path.insert(0, str(Path(__file__).parent))
from served import Notebook, broken, double, hang, process, slow  # pyright: ignore

pytestmark = pytest.mark.anyio
SERVED = Served((double, process, hang, slow, broken), (Notebook,))


def call(tool_name: str, **arguments: object) -> ToolCall:
    return ToolCall("1", tool_name, arguments)


@asynccontextmanager
async def server(
    served: Served = SERVED, *, idle_s: float = 60, max_running: int = 8, max_waiting: int = 8, token: str = ""
) -> AsyncIterator[str]:
    listener, episodes = listen("127.0.0.1", 0), Episodes(served, idle_s)
    app = ToolApp(served, InProcess(served, episodes), max_running=max_running, max_waiting=max_waiting)
    async with episodes.kept(), serving(with_token(app.asgi(), token), listener):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_remote_tools_are_ordinary_tools():
    async with server() as url, remote_tools(url) as tools:
        by_name = {tool.name: tool for tool in tools}
        assert by_name["double"].definition == double.definition
        assert (by_name["double"].effects, by_name["write"].effects) == ("pure", "mutating")
        calls = [call("double", x=2), call("double", x="y"), call("double", x=-1), call("hang")]
        good, bad, mistake, late = await run_tool_calls(tools, calls)
    assert (good.error, good.content) == (None, "4")
    assert bad.error == "bad_arguments"
    assert bad.malformed
    assert bad.content.startswith("Bad arguments for double: argument 'x': Input should be a valid integer")
    assert (mistake.error, mistake.content) == ("tool_error", "x must not be negative")
    assert (late.error, late.content) == ("timeout", "hang was stopped: it took longer than 0.1 s.")


async def test_each_client_has_an_episode_of_its_own_that_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("served.CLOSED", tmp_path / "closed")
    async with server() as url:
        async with remote_tools(url) as one, remote_tools(url) as other:
            await run_tool_calls(one, [call("write", line="a")])
            await run_tool_calls(other, [call("write", line="b"), call("write", line="c")])
            assert [(await run_tool_calls(t, [call("read_all")]))[0].content for t in (one, other)] == [
                '["a"]',
                '["b","c"]',
            ]
        assert sorted((tmp_path / "closed").read_text().split()) == ["1", "2"]


async def test_an_idle_episode_is_closed_and_its_calls_fail():
    async with server(idle_s=0.2) as url, remote_tools(url) as tools:
        await run_tool_calls(tools, [call("write", line="a")])
        await anyio.sleep(0.6)
        with pytest.raises(ToolFailure, match=r"refused with 410: There is no such episode"):
            await run_tool_calls(tools, [call("read_all")])


async def test_a_crash_of_the_tool_keeps_its_traceback():
    async with server() as url, remote_tools(url) as tools:
        with pytest.raises(ToolFailure, match="RuntimeError: broken inside") as caught:
            await run_tool_calls(tools, [call("broken")])
    assert 'raise RuntimeError("broken inside")' in caught.value.record().traceback


async def test_refused_calls_come_again_until_their_deadline():
    async with server(max_running=1, max_waiting=0) as url, httpx.AsyncClient(base_url=url) as http:
        async with remote_tools(url) as tools:
            results = await run_tool_calls(tools, [call("slow", seconds=0.2)] * 3)
            assert [result.content for result in results] == ["done"] * 3
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: http.post("/tools/slow", json={"seconds": 1.5}))
            with anyio.fail_after(10):  # until that call is running
                while (refused := await http.post("/tools/double", json={"x": 1})).is_success:
                    pass
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        metrics = (await http.get("/metrics")).text
        assert "agent_rl_tool_refused_total" in metrics
        assert 'agent_rl_tool_calls_total{outcome="200",tool="slow"} 4.0' in metrics


async def test_a_server_that_stays_busy_is_a_failure_at_the_deadline():
    @tool(timeout_s=0.1, effects="pure")
    async def quick() -> str:
        return "done"

    async with (
        server(Served((quick, slow)), max_running=1, max_waiting=0) as url,
        remote_tools(url, wait_s=0.5) as tools,
        httpx.AsyncClient(base_url=url) as http,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(lambda: http.post("/tools/slow", json={"seconds": 20}))
        with anyio.fail_after(10):  # until that call is running
            while (await http.post("/tools/quick", json={})).is_success:
                pass
        with pytest.raises(ToolFailure, match=r"did not answer in 0\.6 s") as caught:
            await run_tool_calls(tools, [call("quick")])
        tasks.cancel_scope.cancel()
    assert caught.value.kind == "timeout"


async def test_who_hangs_up_gives_its_place_back():
    async with server(max_running=1) as url, remote_tools(url) as tools:
        with anyio.move_on_after(0.3):
            await run_tool_calls(tools, [call("slow", seconds=20)])
        began = time.monotonic()
        (result,) = await run_tool_calls(tools, [call("double", x=1)])
    assert result.content == "2"
    assert time.monotonic() - began < 5


async def test_a_dead_server_is_the_tools_failure():
    async with server(Served((double,))) as url:
        stack = remote_tools(url)
        tools = await stack.__aenter__()
    with pytest.raises(ToolFailure, match="ConnectError"):
        await run_tool_calls(tools, [call("double", x=1)])
    await stack.__aexit__(None, None, None)


@pytest.mark.parametrize(("name", "attempts"), [("write", 1), ("read_all", 2)])
async def test_only_what_makes_no_difference_is_sent_again(name: str, attempts: int):
    """A server that takes the first call and dies: did it run? Nobody knows."""
    calls: list[str] = []

    def described(name: str, effects: str) -> dict[str, object]:
        return {
            **{"name": name, "description": "", "parameters": {"type": "object", "properties": {}}, "stateful": False},
            **{"timeout_s": 5, "max_output_chars": 100, "max_output_tokens": None, "effects": effects},
        }

    async def app(scope, receive, send):
        if scope["path"] == "/tools":
            content = {"tools": [described("write", "mutating"), described("read_all", "read_only")]}
        else:
            calls.append(scope["path"])
            if len(calls) == 1:
                await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"99")]})
                raise ConnectionAbortedError
            content = {"content": "done", "error": None}
        await JSONResponse(content)(scope, receive, send)

    listener = listen("127.0.0.1", 0)
    async with serving(app, listener), remote_tools(f"http://127.0.0.1:{listener.getsockname()[1]}") as tools:
        if attempts == 1:
            with pytest.raises(ToolFailure, match="RemoteProtocolError"):
                await run_tool_calls(tools, [call(name)])
        else:
            assert (await run_tool_calls(tools, [call(name)]))[0].content == "done"
    assert len(calls) == attempts


async def test_a_token_is_needed_where_there_is_one():
    async with server(token="secret") as url:
        async with remote_tools(url, token="secret") as tools:
            assert (await run_tool_calls(tools, [call("double", x=1)]))[0].content == "2"
        with pytest.raises(ToolFailure, match="refused with 401") as caught:
            async with remote_tools(url, token="guess"):
                pass
        assert not caught.value.retryable


async def test_the_episodes_of_a_run_share_their_connections():
    async with server() as url, tool_services(ToolsConfig()), remote_tools(url) as one, remote_tools(url) as other:
        for tools in (one, other):
            assert (await run_tool_calls(tools, [call("double", x=1)]))[0].content == "2"


async def test_workers_run_the_calls_and_keep_their_episodes(tmp_path: Path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    targets = [f"served:{name}" for name in ("double", "process", "die", "slow", "Notebook")]
    command = [sys.executable, "-m", "agent_rl.cli", "serve", *targets, "--port", "0", "--workers", "2"]
    log = tmp_path / "log"
    with log.open("wb") as stderr, subprocess.Popen(command, env=environment, stderr=stderr) as parent:  # noqa: ASYNC220
        try:
            with anyio.fail_after(60):
                while "Serving" not in log.read_text():
                    assert parent.poll() is None, log.read_text()
                    await anyio.sleep(0.1)
            url = log.read_text().split(" at ")[1].split()[0]
            async with remote_tools(url) as one, remote_tools(url) as other:
                both = [call("process"), call("process"), call("slow", seconds=0.1)]
                results = await run_tool_calls(one, both)
                pids = {int(result.content) for result in results[:2]}
                assert parent.pid not in pids
                assert len(pids) == 2
                for tools in (one, other):
                    for count in (1, 2):
                        assert (await run_tool_calls(tools, [call("write", line="x")]))[0].content == str(count)
                with pytest.raises(ToolFailure, match="the worker process died"):
                    await run_tool_calls(one, [call("die")])
                with anyio.fail_after(60):  # one of the two episodes is lost, and another worker takes the place
                    while True:
                        states = [await outcome(tools) for tools in (one, other)]
                        (again,) = await run_tool_calls(one, [call("double", x=4)])
                        assert again.content == "8"
                        if sorted(states) == ['["x","x"]', "lost"]:
                            break
        finally:
            parent.terminate()
            assert parent.wait(30) == 0, log.read_text()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)  # noqa: ASYNC240, PTH110


async def outcome(tools: list) -> str:
    try:
        return (await run_tool_calls(tools, [call("read_all")]))[0].content
    except ToolFailure:
        return "lost"


def test_what_cannot_be_served_is_explained(monkeypatch: pytest.MonkeyPatch):
    def say(line: str) -> None:
        raise AssertionError(line)

    with pytest.raises(UserError, match=r"Unknown tool, toolset or environment 'sqll'. Did you mean 'sql'\?"):
        find(("sqll",))
    with pytest.raises(ConfigError, match="add --mcp"):
        run(ServeConfig(targets=("sql_lookup",)), say)
    with pytest.raises(UserError, match="have one name"):
        find(("served:double", "served:double"))
    monkeypatch.delenv("AGENT_RL_SERVE_TOKEN", raising=False)
    with pytest.raises(ConfigError, match=r"Whoever reaches 0\.0\.0\.0 could call the tools: set a token"):
        run(ServeConfig(targets=("served:double",), host="0.0.0.0", port=0), say)
