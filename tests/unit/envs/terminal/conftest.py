"""Folders of shell tasks, and episodes of them in real sandboxes."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from agent_rl.tool.config import ToolsConfig
from agent_rl.tool.services import tool_services
from agent_rl.types import Message, Task, ToolCall
from agent_rl_envs.terminal import TerminalConfig, TerminalEnvironment

HARBOR = {
    "instruction.md": "Write 42 to /app/answer.txt.\n",
    "task.toml": '[metadata]\ndifficulty = "easy"\n[verifier]\ntimeout_sec = 20\n[agent]\ntimeout_sec = 60\n'
    "[environment]\nmemory_mb = 256\nstorage_mb = 64\nallow_internet = false\n",
    "environment/Dockerfile": "FROM python:3.12\nWORKDIR /app\n",
    "tests/test.sh": "mkdir -p /logs/verifier\n"
    'if [ "$(cat /app/answer.txt)" = 42 ]; then echo 1; else echo 0; fi > /logs/verifier/reward.txt\n',
    "solution/solve.sh": "echo 42 > /app/answer.txt\n",
}
TERMINAL_BENCH = {
    "task.yaml": "instruction: |\n  Write 42 to /app/answer.txt.\ndifficulty: easy\nparser_name: pytest\n"
    "max_agent_timeout_sec: 60\nmax_test_timeout_sec: 20\n",
    "Dockerfile": "FROM ghcr.io/laude-institute/t-bench/ubuntu-24-04:20250624\nWORKDIR /app\nCOPY . .\n",
    "data.txt": "1\n",
    "run-tests.sh": "python3 $TEST_DIR/test_outputs.py\n",
    "tests/test_outputs.py": "import os\npath = '/app/answer.txt'\n"
    "right = os.path.exists(path) and open(path).read().strip() == '42'\n"
    "print('==== short test summary info ====')\n"
    "print('PASSED tests/test_outputs.py::test_there')\n"
    "print(('PASSED' if right else 'FAILED'), 'tests/test_outputs.py::test_right')\n",
    "solution.sh": "echo 42 > /app/answer.txt\n",
    "docker-compose.yaml": "services:\n  client:\n    build:\n      dockerfile: Dockerfile\n"
    "    image: ${T_BENCH_TASK_DOCKER_CLIENT_IMAGE_NAME}\n    command: [sh, -c, sleep infinity]\n"
    "    environment:\n      - TEST_DIR=${T_BENCH_TEST_DIR}\n      - COLOR=green\n"
    "    volumes:\n      - ${T_BENCH_TASK_LOGS_PATH}:${T_BENCH_CONTAINER_LOGS_PATH}\n",
}


def write(folder: Path, files: Mapping[str, str], **changes: str | None) -> Path:
    """The files in a new folder; `changes` by path, `None` for a file that is not there."""
    for path, text in {**files, **changes}.items():
        if text is not None:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
    return folder


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def held():
    """A run that holds what its episodes share."""
    async with tool_services(ToolsConfig(cache="off")) as services:
        yield services


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A folder that sandboxes of root's can look into, as pytest's own cannot be."""
    if not shutil.which("bwrap"):
        pytest.skip("the sandbox needs bubblewrap: apt install bubblewrap")
    folder = Path(tempfile.mkdtemp(prefix="agent-rl-terminal-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def config(open_folder: Path, tmp_path: Path) -> TerminalConfig:
    return TerminalConfig(source=tmp_path / "tasks", cache=open_folder / "cache", test_share=0.0)


def call(tool: str, **arguments: object) -> Message:
    return Message("assistant", "", (ToolCall("c", tool, arguments),))


class Episode:
    """One of a task, closed in the end."""

    def __init__(self, config: TerminalConfig, task: Task | None = None) -> None:
        self.environment = TerminalEnvironment(config)
        self.task = task or TerminalEnvironment.tasks("train", 1, 0, config)[0]

    async def __aenter__(self) -> "Episode":
        await self.environment.reset(self.task, 0)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.environment.close()

    async def run(self, command: str) -> str:
        return (await self.environment.step(call("bash", command=command))).messages[0].content

    async def submit(self):
        return await self.environment.step(call("submit"))


async def played(config: TerminalConfig, *commands: str):
    """The last step of an episode of these commands, submitted."""
    async with Episode(config) as episode:
        for command in commands:
            await episode.run(command)
        return await episode.submit()
