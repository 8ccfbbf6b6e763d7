"""MCP servers that nobody here wrote, as tools: schemas, results, errors, dead servers, lifetimes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from agent_rl.errors import ConfigError, NotFoundError, ToolFailure
from agent_rl.tool import ToolEnvironment, hold, hold_shared, run_tool_calls
from agent_rl.tool.config import ToolsConfig
from agent_rl.tool.services import tool_services
from agent_rl.types import Message, Owner, Step, Task, ToolCall
from agent_rl_tools.mcp import McpServer, mcp_tools

pytestmark = pytest.mark.anyio

TIME = McpServer(command=sys.executable, args=("-m", "mcp_server_time", "--local-timezone", "UTC"))
DYING = """
import sys, json
for line in sys.stdin:
    request = json.loads(line)
    method, id = request["method"], request.get("id")
    if method == "initialize":
        info = {"name": "x", "version": "1"}
        result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
    elif method == "tools/list":
        schema = {"type": "object", "properties": {"size": {"type": "integer"}}, "additionalProperties": False}
        result = {"tools": [{"name": name, "inputSchema": schema} for name in ("die", "hang", "show", "internal")]}
    elif method == "tools/call" and request["params"]["name"] == "die":
        sys.exit(3)
    elif method == "tools/call" and request["params"]["name"] == "show":
        picture = {"type": "image", "mimeType": "image/png", "data": "AAAA"}
        link = {"type": "resource_link", "name": "log", "uri": "file:///log"}
        result = {"content": [{"type": "text", "text": "see"}, picture, link]}
    elif method == "tools/call" and request["params"]["name"] == "internal":
        error = {"code": -32603, "message": "broken inside"}
        print(json.dumps({"jsonrpc": "2.0", "id": id, "error": error}), flush=True)
        continue
    elif id is None or method == "tools/call":
        continue
    else:
        print(json.dumps({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}}), flush=True)
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": id, "result": result}), flush=True)
"""
RUDE = McpServer(command=sys.executable, args=("-c", DYING), timeout_s=2)


def call(tool_name: str, **arguments: object) -> ToolCall:
    return ToolCall("1", tool_name, arguments)


async def test_a_servers_tools_keep_their_schemas_and_answer():
    async with mcp_tools(TIME) as tools:
        convert = next(tool for tool in tools if tool.name == "convert_time")
        assert set(convert.parameters["required"]) == {"source_timezone", "time", "target_timezone"}
        assert convert.definition["function"]["parameters"] is convert.parameters
        (result,) = await run_tool_calls(
            tools, [call("convert_time", source_timezone="UTC", time="12:00", target_timezone="Asia/Tokyo")]
        )
    assert result.error is None
    assert "+9" in result.content


async def test_mistakes_are_for_the_model_to_read():
    async with mcp_tools(TIME) as tools:
        missing, refused = await run_tool_calls(
            tools,
            [
                call("convert_time", source_timezone="UTC", time="12:00"),
                call("get_current_time", timezone="Nowhere/Land"),
            ],
        )
    assert missing.error == "bad_arguments"
    assert "'target_timezone'" in missing.content
    assert refused.error == "tool_error"
    assert "Nowhere/Land" in refused.content


async def test_arguments_are_checked_by_the_servers_schema():
    async with mcp_tools(RUDE) as tools:
        unknown, wrong, text = await run_tool_calls(
            tools, [call("show", siz=1), call("show", size="big"), call("show", size="3")]
        )
    assert unknown.content == "Bad arguments for show: unknown argument 'siz'. Did you mean 'size'?"
    assert wrong.content == "Bad arguments for show: argument 'size': 'big' is not of type 'integer'"
    assert text.error is None


async def test_a_server_with_state_on_disk(tmp_path: Path):
    for command in (["init", "-q"], ["config", "user.email", "a@b.c"], ["config", "user.name", "a"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)  # noqa: ASYNC221
    (tmp_path / "new.txt").write_text("x")
    server = McpServer(
        command=sys.executable,
        args=("-m", "mcp_server_git", "--repository", str(tmp_path)),
        tools=("git_status", "git_add"),
        prefix="repo_",
        trust_hints=True,
    )
    async with mcp_tools(server) as tools:
        assert [(tool.name, tool.effects) for tool in tools] == [
            ("repo_git_status", "read_only"),
            ("repo_git_add", "mutating"),
        ]
        path = str(tmp_path)
        # `files` comes as text where a list is wanted, as from a format without types
        calls = [call("repo_git_add", repo_path=path, files='["new.txt"]'), call("repo_git_status", repo_path=path)]
        added, status = await run_tool_calls(tools, calls)
    assert added.error is None
    assert "new file:   new.txt" in status.content


async def test_what_cannot_be_shown_is_named():
    async with mcp_tools(RUDE) as tools:
        (result,) = await run_tool_calls(tools, [call("show")])
    assert result.content == "see\n[image of type image/png, 3 bytes, not shown]\n[resource log: file:///log]"


@pytest.mark.parametrize("name", ["die", "internal"])
async def test_a_server_that_dies_or_breaks_is_the_tools_failure(name: str):
    async with mcp_tools(RUDE) as tools:
        with pytest.raises(ToolFailure) as caught:
            await run_tool_calls(tools, [call(name)])
        assert caught.value.record().owner is Owner.TOOL
        if name == "die":
            with pytest.raises(ToolFailure):
                await run_tool_calls(tools, [call("show")])


async def test_a_call_that_hangs_is_stopped_and_the_session_goes_on():
    async with mcp_tools(RUDE) as tools:
        (hung,) = await run_tool_calls(tools, [call("hang")])
        (shown,) = await run_tool_calls(tools, [call("show")])
    assert (hung.error, shown.error) == ("timeout", None)


async def test_the_deadline_of_the_start_is_over_once_it_has_started():
    began = anyio.current_time()
    async with mcp_tools(RUDE):
        enough_s = 1.0 + 3 * (anyio.current_time() - began)
    async with mcp_tools(RUDE.model_copy(update={"start_timeout_s": enough_s})) as tools:
        await anyio.sleep(enough_s + 0.1)
        (result,) = await run_tool_calls(tools, [call("show")])
    assert result.error is None


async def test_a_server_that_never_answers_is_a_failure():
    mute = McpServer(command=sys.executable, args=("-c", "import time; time.sleep(60)"), start_timeout_s=0.5)
    with pytest.raises(ToolFailure, match=r"did not start in 0\.5 s"):
        async with mcp_tools(mute):
            pass


async def test_servers_that_cannot_be_used():
    with pytest.raises(ConfigError, match=r"'no-such-program' cannot be started"):
        async with mcp_tools(McpServer(command="no-such-program")):
            pass
    with pytest.raises(ToolFailure, match="it wrote: out of coffee"):
        async with mcp_tools(McpServer(command=sys.executable, args=("-c", "import sys; sys.exit('out of coffee')"))):
            pass
    with pytest.raises(NotFoundError, match=r"'current_time'. Did you mean 'get_current_time'\?"):
        async with mcp_tools(TIME.model_copy(update={"tools": ("current_time",)})):
            pass
    with pytest.raises(ToolFailure, match="cannot be used"):
        async with mcp_tools(McpServer(url="http://127.0.0.1:9/mcp", start_timeout_s=5)):
            pass
    with pytest.raises(ValueError, match="either a command or a url"):
        McpServer()


class Clock(ToolEnvironment):
    """Asks a session of its own, or the run's."""

    shared = False

    @classmethod
    def tasks(cls, split: str, count: int, seed: int = 0) -> list[Task]:
        return []

    async def reset(self, task: Task, seed: int) -> list[Message]:
        here = McpServer(command=sys.executable, args=("-c", DYING), timeout_s=5)
        opened = hold_shared("clock", lambda: mcp_tools(here)) if self.shared else hold(mcp_tools(here))
        self.toolsets = (await opened,)
        return []

    async def answer(self, action: Message) -> Step:
        return Step((), terminated=True)


def children() -> set[int]:
    pids = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return set(map(int, pids))


@pytest.mark.parametrize(("shared", "processes"), [(False, 2), (True, 1)])
async def test_an_environment_holds_a_session_per_episode_or_shares_one(shared: bool, processes: int):
    task, before = Task("t", ()), children()
    async with tool_services(ToolsConfig()):
        episodes = [Clock(), Clock()]
        for episode in episodes:
            episode.shared = shared
            await episode.reset(task, 0)
        assert len(children() - before) == processes
        step = await episodes[0].step(Message("assistant", "", (call("show"),)))
        assert step.messages[0].content.startswith("see")
        await episodes[0].close()
        assert len(children() - before) == 1
    assert children() <= before


async def test_cancelling_an_episode_releases_its_session():
    before = children()
    async with tool_services(ToolsConfig()):
        episode = Clock()
        with anyio.move_on_after(0.5):
            await episode.reset(Task("t", ()), 0)
            await episode.step(Message("assistant", "", (call("hang"),)))
        assert children() - before
        await episode.close()
    assert children() <= before


async def test_a_killed_server_does_not_hold_the_release():
    async with tool_services(ToolsConfig()):
        before, episode = children(), Clock()
        await episode.reset(Task("t", ()), 0)
        for pid in children() - before:
            os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(ToolFailure):
            await episode.step(Message("assistant", "", (call("show"),)))
        await episode.close()
    assert time.monotonic() - began < 10
