"""Small repositories with real tests, and the judge of them in real sandboxes."""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from agent_rl.sandbox import SandboxConfig
from agent_rl.tool.config import ToolsConfig
from agent_rl.tool.services import tool_services
from agent_rl_envs.swe.commands import commit_all, git
from agent_rl_envs.swe.judge import Judge
from agent_rl_envs.swe.patches import unified_diff
from agent_rl_envs.swe.problems import Problem, Source
from agent_rl_envs.swe.repositories import Repositories, Runtime

WHOLE = "def add(a, b):\n    return a + b\n\n\ndef double(a):\n    return 2 * a\n"
BROKEN = WHOLE.replace("a + b", "a - b")
UNITTEST = """
import unittest
import calc


class Calc(unittest.TestCase):
    def test_add(self):
        self.assertEqual(calc.add(2, 3), 5)

    def test_double(self):
        self.assertEqual(calc.double(2), 4)
"""
PYTEST = """
import calc


def test_add():
    assert calc.add(2, 3) == 5


def test_double():
    assert calc.double(2) == 4
"""
NAMES = {"unittest": "tests/test_calc.py::Calc::", "pytest": "tests/test_calc.py::"}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that sandboxes of root's can look into, as pytest's own cannot be."""
    folder = Path(tempfile.mkdtemp(prefix="agent-rl-swe-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def held():
    """A run that holds what its episodes share."""
    async with tool_services(ToolsConfig(cache="off")) as services:
        yield services


def confined() -> SandboxConfig:
    """The sandbox for what may do harm."""
    if not shutil.which("bwrap"):
        pytest.skip("it needs bubblewrap: apt install bubblewrap")
    return SandboxConfig(kind="bubblewrap", memory_mb=512, disk_mb=64, max_processes=64)


class Shop:
    """Makes repositories and grades attempts at them, without installing anything."""

    def __init__(self, root: Path, config: SandboxConfig, runtime: Runtime, timeout_s: float = 20.0) -> None:
        self.root, self.config = root, config
        self.repositories = Repositories(root / "cache", config, 60.0)
        self.repositories.runtime = lambda source: runtime  # type: ignore[method-assign]
        self.judge = Judge(config, 2, timeout_s)
        self.made = 0

    def problem(self, files: Mapping[str, str] | None = None, driver: str = "unittest", **changes: object) -> Problem:
        """A repository in which `add` subtracts; `files` are more of its files, or others."""
        self.made += 1
        folder = self.root / f"repository{self.made}"
        test = UNITTEST if driver == "unittest" else PYTEST
        content = {"calc.py": BROKEN, "tests/__init__.py": "", "tests/test_calc.py": test, **(files or {})}
        for path, text in content.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        commit_all(folder)
        problem = Problem(
            id=f"problem{self.made}",
            statement="add subtracts",
            source=Source("git", str(folder), git("rev-parse", "HEAD", cwd=folder).strip()),
            fail_to_pass=(f"{NAMES[driver]}test_add",),
            pass_to_pass=(f"{NAMES[driver]}test_double",),
            patch=unified_diff("calc.py", content["calc.py"], WHOLE),
            driver=driver,  # type: ignore[arg-type]
        )
        return replace(problem, **changes)  # type: ignore[arg-type]


@pytest.fixture
def shop(open_folder: Path) -> Shop:
    """With unittest, confined."""
    root = Path(tempfile.mkdtemp(dir=open_folder))
    root.chmod(0o755)
    return Shop(root, confined(), Runtime("/usr/bin/python3"), timeout_s=8.0)


@pytest.fixture
def own_shop(tmp_path: Path) -> Shop:
    """With the pytest that runs this, which only a process of ours can import."""
    config = SandboxConfig(kind="process", memory_mb=512, disk_mb=64)
    return Shop(tmp_path, config, Runtime(sys.executable), timeout_s=60.0)
