"""Shell tasks in containers: built from their folders, graded in a fork that the daemon makes."""

from pathlib import Path

import pytest

from agent_rl.sandbox import SandboxConfig
from agent_rl.tool.config import ToolsConfig
from agent_rl.tool.services import tool_services
from agent_rl.types import Message, Step, ToolCall
from agent_rl_envs.terminal import TerminalConfig, TerminalEnvironment
from agent_rl_envs.terminal.cheating import cheating_commands
from tests.sandboxes.docker_daemon import IMAGE

pytestmark = pytest.mark.anyio
SOLVE = "cat given > answer.txt"
FILES = {
    "instruction.md": "Copy given to answer.txt.",
    "task.toml": "[verifier]\ntimeout_sec = 20\n[environment]\nmemory_mb = 256\n",
    "environment/Dockerfile": f"FROM {IMAGE}\nWORKDIR /work\nENV COLOR=red\nCOPY given .\nRUN echo made > /etc/made\n",
    "environment/given": "42\n",
    "tests/test.sh": 'mkdir -p /logs/verifier; if [ "$(cat answer.txt)" = 42 ]; then echo 1; else echo 0; fi '
    "> /logs/verifier/reward.txt\n",
    "solution/solve.sh": SOLVE,
}
CHEATS = cheating_commands()


@pytest.fixture
async def config(docker_host: str, tmp_path: Path):
    for path, text in FILES.items():
        (tmp_path / "task" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "task" / path).write_text(text)
    sandbox = SandboxConfig(kind="docker", max_processes=256)
    async with tool_services(ToolsConfig(cache="off")):
        yield TerminalConfig(source=tmp_path / "task", cache=tmp_path / "cache", sandbox=sandbox)


async def play(config: TerminalConfig, *commands: str) -> tuple[list[str], Step]:
    [task] = TerminalEnvironment.tasks("train", 1, 0, config)
    environment, said = TerminalEnvironment(config), list[str]()
    try:
        await environment.reset(task, 0)
        for command in commands:
            call = ToolCall("c", "bash", {"command": command})
            said.append((await environment.step(Message("assistant", "", (call,)))).messages[0].content)
        return said, await environment.step(Message("assistant", "", (ToolCall("c", "submit", {}),)))
    finally:
        await environment.close()


async def test_what_was_built_is_there_and_what_is_done_is_graded(config):
    said, step = await play(
        config, "pwd; ls; cat /etc/made; echo $COLOR; ls /tests", f"{SOLVE}; echo x > /usr/x; cat /usr/x"
    )
    assert said[0].splitlines()[:4] == ["/work", "given", "made", "red"]
    assert (said[1], step.reward, step.info.reward_terms["solved"]) == ("x", 1.0, 1.0)
    assert (await play(config))[1].reward == 0.0


@pytest.mark.parametrize(
    "name", ["writes the reward again and again", "is loaded by every program", "replaces programs"]
)
async def test_cheats_earn_nothing(config, name):
    assert (await play(config, CHEATS[name]))[1].reward == 0.0
